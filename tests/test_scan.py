"""What a scan finds in a folder whose contents are known."""

import io
import json

import numpy as np
import pytest
from PIL import Image as Pillow

from selfsup.errors import SelfsupError
from selfsup.scan import duplicate_groups, peek, scan
from selfsup.stop import Stopped, stop
from tests.data.pictures import encoded, pixels, write


@pytest.fixture
def mess(tmp_path):
    files = {f"train/cat/{i}.png": encoded(i, 24, 30) for i in range(6)}
    files |= {f"test/dog/{i}.jpg": encoded(50 + i, 40, 20, "JPEG") for i in range(4)}
    files |= {f"train/dog/copy{i}.png": files["train/cat/0.png"] for i in range(3)}
    files["test/cat/leak.png"] = files["train/cat/1.png"]
    bitmap = io.BytesIO()
    Pillow.fromarray(pixels(2, 24, 30)).save(bitmap, "BMP")
    files["train/cat/same.bmp"] = bitmap.getvalue()  # the pixels of 2.png, other bytes
    files["train/cat/black.png"] = _png(np.zeros((24, 24), np.uint8))
    files["test/dog/cut.jpg"] = files["test/dog/0.jpg"][:-200]
    files["test/dog/empty.jpg"] = b""
    files["readme.txt"] = b"words"
    return write(tmp_path / "data", files)


def _png(array):
    file = io.BytesIO()
    Pillow.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_counts(mess, tmp_path):
    result = scan(mess, skipped=tmp_path / "skipped.jsonl")
    assert (result.found, result.used, result.skipped) == (18, 16, 2)
    assert result.found == result.used + result.skipped
    assert sum(result.reasons.values()) == 2
    assert {bad["name"] for bad in result.bad} == {"test/dog/cut.jpg", "test/dog/empty.jpg"}
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.bad
    assert result.formats == {"PNG": 11, "JPEG": 4, "BMP": 1}
    assert result.modes == {"RGB": 15, "L": 1}
    assert result.shorter_side == {"min": 20, "median": 24, "max": 24}
    assert result.longer_side["max"] == 40 and result.common_size is None
    assert result.one_colour == 1
    assert result.ignored == {"about the data": 1}
    assert result.classes == {"cat": 9, "dog": 9} and result.parts == {"test": 7, "train": 11}


def test_duplicates_and_leaks(mess):
    result = scan(mess)
    assert result.duplicates == 4  # three copies of one file, one of another
    assert sorted(map(len, result.duplicate_groups)) == [2, 4]
    assert result.same_pixels == 1
    assert result.leaks == 1
    assert any("train and test" in note for note in result.notes)


def test_a_thousand_copies_of_one_file(tmp_path):
    write(tmp_path, {f"{i:04d}.png": encoded(1, 8, 8) for i in range(1000)})
    assert scan(tmp_path).duplicates == 999


def test_duplicate_groups_against_a_slow_search():
    digests = np.random.default_rng(0).integers(97, 103, 60, dtype=np.uint8).view("S1")
    slow = {}
    for i, digest in enumerate(digests.tolist()):
        slow.setdefault(digest, []).append(i)
    expected = sorted(group for group in slow.values() if len(group) > 1)
    assert [group.tolist() for group in duplicate_groups(digests)] == expected
    assert duplicate_groups(digests[:1]) == []


def test_the_page_and_the_json(mess):
    result = scan(mess)
    page = " ".join(str(result).split())  # long paths leave little room beside them
    for part in ("18 found = 16 used + 2 skipped", "11 PNG", "4 files are copies", "1 about"):
        assert part in page
    assert json.loads(json.dumps(result.to_json()))["duplicates"] == 4
    assert "sheet_png" not in result.to_json()


def test_odd_names_can_be_printed_and_written(tmp_path):
    write(tmp_path, {b"\xff<b>\n.png": b"", "good.png": encoded(1)})
    result = scan(tmp_path)
    str(result).encode("ascii")
    assert json.loads(json.dumps(result.to_json()))["bad"][0]["name"] == "\udcff<b>\n.png"


def test_the_sheet_shows_samples_and_is_written_only_where_told(mess, tmp_path):
    before = sorted(mess.rglob("*"))
    result = scan(mess, out=tmp_path / "sheet.png")
    assert sorted(mess.rglob("*")) == before and result.sheet == str(tmp_path / "sheet.png")
    sheet = Pillow.open(tmp_path / "sheet.png")
    assert sheet.size == (680, 512)
    tiles = np.asarray(sheet)[8:-8, 8:-8]
    assert (tiles != 236).any(-1).mean() > 0.5


def test_a_byte_that_changes_without_a_trace_is_found_by_hashes(tmp_path):
    """A JPEG with some wrong bytes still decodes: no scan of it alone can tell."""
    smooth = encoded(1, 300, 300, "JPEG")
    write(tmp_path / "data", {"a.jpg": smooth, "b.jpg": encoded(2, 300, 300, "JPEG")})
    hashes = tmp_path / "hashes.jsonl"
    first = scan(tmp_path / "data", hashes=hashes)
    assert first.damaged == [] and len(hashes.read_text().splitlines()) == 2
    assert any("cannot be found" in note for note in scan(tmp_path / "data").notes)
    wrong = bytearray(smooth)
    wrong[len(wrong) // 2] ^= 4
    write(tmp_path / "data", {"a.jpg": bytes(wrong)})
    second = scan(tmp_path / "data", hashes=hashes)
    assert second.skipped == 0 and second.damaged == ["a.jpg"]
    hashes.write_text("not json")
    with pytest.raises(SelfsupError):
        scan(tmp_path / "data", hashes=hashes)


def test_arrays_and_nothing(tmp_path):
    result = scan(np.stack([pixels(i) for i in range(5)] + [pixels(0)]))
    assert (result.used, result.duplicates, result.common_size) == (6, 1, (24, 24))
    assert result.modes == {"3 x uint8": 6}
    with pytest.raises(SelfsupError) as error:
        scan(tmp_path)
    assert error.value.exit_code == 66
    write(tmp_path, {"bad.png": b"nothing"})
    result = scan(tmp_path)
    assert (result.found, result.used) == (1, 0) and str(result)


def test_a_request_to_stop_ends_a_scan(mess):
    stop.request()
    try:
        with pytest.raises(Stopped):
            scan(mess)
    finally:
        stop.signal = None


def test_peek(mess):
    from selfsup.data import open_source

    sizes = peek(open_source(mess), 100)
    assert len(sizes) >= 16 and (40, 20) in sizes and (24, 30) in sizes
