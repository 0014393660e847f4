"""Bad and odd pictures through the whole way: source, image modality, store, ledger.

Counts must reconcile, the run must go on, and what is used must have the right pixels.
"""

import io
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import GifImagePlugin
from PIL import Image as Pillow

from selfsup.data import BadSample, Ledger, open_source, open_store
from selfsup.scan import scan
from tests.data.pictures import encoded, pixels, write


def through(folder, modality, size=64):
    """What became of each file: a name -> pixels, and a name -> code. found = used + skipped."""
    source = open_source(folder)
    ledger = Ledger(folder.parent / "skipped.jsonl")
    with open_store(source, modality, size, ledger=ledger, max_skipped=1.0) as store:
        batch = store.fill().batch(np.arange(len(source)))
        used = {}
        for row, i in enumerate(batch.indices.tolist()):
            h, w = batch.pixels.shape[2:] if batch.extents is None else batch.extents[row]
            used[source.name(i)] = batch.pixels[row, :, :h, :w].permute(1, 2, 0).numpy()
        counts = store.counts()
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    skipped = {line["name"]: line["code"] for line in lines}
    assert all(line["reason"] for line in lines)
    assert len(lines) == len(skipped) == counts["skipped"] and len(used) == counts["used"]
    assert counts["found"] == len(used) + len(skipped) == source.found
    return used, skipped


def test_files_that_are_no_pictures(tmp_path, image):
    jpeg = encoded(1, form="JPEG")
    write(
        tmp_path / "data",
        {
            "good.jpg": jpeg,
            "zero.jpg": b"",
            "header.jpg": jpeg[:20],
            "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
            "text.png": b"just some text\n" * 20,
            "random.png": np.random.default_rng(0).bytes(5000),
            "nulls.jpg": bytes(4000),
        },
    )
    used, skipped = through(tmp_path / "data", image)
    assert set(used) == {"good.jpg"} and len(skipped) == 6
    assert skipped["zero.jpg"] == "empty"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_picture_that_is_cut_is_never_used_silently(tmp_path, image, form):
    whole = encoded(1, 200, 300, form)
    cuts = {f"{cut}.{form.lower()}": whole[: len(whole) * cut // 100] for cut in (10, 50, 90)}
    write(tmp_path / "data", {f"whole.{form.lower()}": whole, **cuts})
    used, skipped = through(tmp_path / "data", image)
    assert set(used) == {f"whole.{form.lower()}"} and set(skipped) == set(cuts)


def test_cut_pictures_are_kept_on_request(tmp_path):
    from selfsup.modalities import find

    whole = encoded(1, 200, 300, "JPEG")
    write(tmp_path / "data", {"whole.jpg": whole, "half.jpg": whole[: len(whole) // 2]})
    used, skipped = through(tmp_path / "data", find("image")(keep_truncated=True), 300)
    assert set(used) == {"whole.jpg", "half.jpg"} and not skipped
    difference = np.abs(used["half.jpg"].astype(int) - used["whole.jpg"].astype(int)).mean(
        axis=(1, 2)
    )
    assert difference[:60].max() == 0 and difference[-10:].min() > 1


def bomb(width, height):
    """A PNG of a few kB that promises width x height pixels and holds them."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 + width)) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def animation(frames):
    first = Pillow.fromarray(pixels(1))
    file = io.BytesIO()
    others = [Pillow.fromarray(np.full((24, 24, 3), i % 256, np.uint8)) for i in range(frames)]
    first.save(file, "GIF", save_all=True, append_images=others)
    return file.getvalue()


def test_bombs_are_refused_by_their_header(tmp_path):
    files = {f"bomb{i}.png": bomb(20_000, 20_000) for i in range(2)}
    files |= {"strip.png": bomb(60_000, 1), "dot.png": encoded(0, 1, 1), "many.gif": animation(300)}
    pages = io.BytesIO()
    Pillow.fromarray(pixels(3)).save(
        pages, "TIFF", save_all=True, append_images=[Pillow.fromarray(pixels(4))]
    )
    write(tmp_path / "data", files | {"pages.tiff": pages.getvalue()})
    script = """
import json, sys
import numpy as np
from selfsup.data import Ledger, open_source, open_store
from selfsup.machine import peak_memory
from selfsup.modalities import find
source, ledger = open_source(sys.argv[1]), Ledger()
image = find("image")()
before = peak_memory()
with open_store(source, image, 24, ledger=ledger) as store:
    batch = store.fill().batch(np.arange(len(source)))
    pages = [source.name(i) for i in range(len(source))].index("pages.tiff")
    row = batch.indices.tolist().index(pages)
    first = batch.pixels[row, :, :24, :24].permute(1, 2, 0).flatten().tolist()
grown = (peak_memory() - before) >> 20
used = [source.name(i) for i in batch.indices.tolist()]
print(json.dumps([used, ledger.counts(), grown, first]))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used, skipped, grown, first = json.loads(done.stdout)
    assert used == ["dot.png", "many.gif", "pages.tiff", "strip.png"]
    assert skipped == {"too_large": 2}
    assert grown < 256  # MiB; one bomb would be 400
    np.testing.assert_array_equal(np.array(first).reshape(24, 24, 3), pixels(3))


def test_of_ten_thousand_frames_the_first_alone_is_read(tmp_path, image, monkeypatch):
    still = encoded(1, form="GIF")
    frame = b"\x21\xf9\x04\0\0\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    frame += b"\x02\x02\x44\x01\0"  # one pixel
    write(tmp_path / "data", {"many.gif": still[:-1] + 10_000 * frame + b";", "one.gif": still})
    with Pillow.open(tmp_path / "data" / "many.gif") as picture:
        picture.seek(3)  # the frames are there
    looked, real = [], GifImagePlugin.GifImageFile._seek

    def seek(self, number, *rest):
        looked.append(number)
        return real(self, number, *rest)

    monkeypatch.setattr(GifImagePlugin.GifImageFile, "_seek", seek)
    used, skipped = through(tmp_path / "data", image)
    assert not skipped and max(looked) <= 1  # whether there is a second one may be asked
    np.testing.assert_array_equal(used["many.gif"], used["one.gif"])


def save(picture, form="PNG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def test_every_mode_becomes_rgb(tmp_path, image):
    rgb = Pillow.fromarray(pixels(1, 40, 40))
    grey = np.asarray(rgb.convert("L"))
    deep = grey.astype(np.uint16) * 257
    red = np.zeros((40, 40, 4), np.uint8)
    red[..., 0] = 255  # transparent red
    files = {
        "1.png": save(rgb.convert("1")),
        "L.png": save(rgb.convert("L")),
        "LA.png": save(rgb.convert("LA")),
        "P.png": save(rgb.convert("P")),
        "RGB.png": save(rgb),
        "RGBA.png": save(rgb.convert("RGBA")),
        "red.png": save(Pillow.fromarray(red)),
        "CMYK.jpg": save(rgb.convert("CMYK"), "JPEG", quality=100),
        "I16.png": save(Pillow.fromarray(deep)),
        "I.tiff": save(Pillow.fromarray(deep.astype(np.int32)), "TIFF"),
        "F.tiff": save(Pillow.fromarray(grey.astype(np.float32) / 255), "TIFF"),
    }
    write(tmp_path / "data", files)
    used, skipped = through(tmp_path / "data", image)
    assert not skipped
    assert all(array.shape == (40, 40, 3) for array in used.values())
    three = np.repeat(grey[..., None], 3, 2).astype(int)
    for name in ("L.png", "LA.png", "I16.png", "I.tiff", "F.tiff"):
        assert np.abs(used[name].astype(int) - three).max() <= 1, name
    for name in ("RGB.png", "RGBA.png"):
        np.testing.assert_array_equal(used[name], pixels(1, 40, 40))
    assert np.abs(used["CMYK.jpg"].astype(int) - pixels(1, 40, 40)).mean() < 6
    assert set(np.unique(used["1.png"])) <= {0, 255}
    assert np.unique(used["red.png"]).tolist() == [128]  # the grey behind it, not solid red


def test_many_channels_are_decided_by_a_rule_and_counted(tmp_path, image):
    """TIFF files of 2 and 13 bands are skipped, as are such arrays: docs/modalities/image.md."""

    def tiff(bands):
        data = np.zeros((8, 8, bands), np.uint8).tobytes()
        tags = {256: (3, 8), 257: (3, 8), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 8)}
        tags |= {277: (3, bands), 278: (3, 8), 279: (4, len(data))}
        directory = struct.pack("<H", len(tags))
        for tag, (kind, value) in tags.items():
            directory += struct.pack("<HHII", tag, kind, 1, value)
        return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)

    write(tmp_path / "data", {"a.tiff": tiff(2), "b.tiff": tiff(13), "c.png": encoded(0)})
    used, skipped = through(tmp_path / "data", image)
    assert set(used) == {"c.png"}
    assert skipped == {"a.tiff": "not_an_image", "b.tiff": "not_an_image"}
    for channels in (2, 5, 13):
        with pytest.raises(BadSample) as bad:
            image.read(np.zeros((8, 8, channels), np.uint8))
        assert bad.value.code == "channels" and str(channels) in bad.value.reason


def test_mixed_channels_are_brought_to_three_and_told_once(tmp_path, image):
    rgb = Pillow.fromarray(pixels(1))
    for name, mode in {"a": "RGB", "b": "L", "c": "RGBA", "d": "L"}.items():
        write(tmp_path / "data", {f"{name}.png": save(rgb.convert(mode))})
    found = scan(tmp_path / "data")
    assert found.modes == {"L": 2, "RGB": 1, "RGBA": 1}
    assert sum("different modes" in note for note in found.notes) == 1
    used, skipped = through(tmp_path / "data", image)
    assert not skipped and {array.shape for array in used.values()} == {(24, 24, 3)}
    arrays = [pixels(1), pixels(1)[:, :, :1], np.zeros((24, 24, 2), np.uint8), pixels(1)]
    ledger = Ledger()
    with open_store(open_source(arrays), image, 24, ledger=ledger) as store:
        batch = store.fill().batch(np.arange(4))
    assert batch.indices.tolist() == [0, 1, 3] and ledger.counts() == {"channels": 1}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_is_applied_once(tmp_path, image, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = (255, 0, 0)
    upright[8:, 16:] = (0, 0, 255)
    undo = {2: [Pillow.Transpose.FLIP_LEFT_RIGHT], 3: [Pillow.Transpose.ROTATE_180],
            4: [Pillow.Transpose.FLIP_TOP_BOTTOM], 5: [Pillow.Transpose.TRANSPOSE],
            6: [Pillow.Transpose.ROTATE_90], 7: [Pillow.Transpose.TRANSVERSE],
            8: [Pillow.Transpose.ROTATE_270], 1: []}  # fmt: skip
    stored = Pillow.fromarray(upright)
    for operation in undo[orientation]:
        stored = stored.transpose(operation)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    write(tmp_path / "data", {"x.jpg": save(stored, "JPEG", quality=100, subsampling=0, exif=exif)})
    used, _ = through(tmp_path / "data", image)
    assert used["x.jpg"].shape == (16, 32, 3)
    assert np.abs(used["x.jpg"].astype(int) - upright).mean() < 8


def test_broken_exif_does_not_lose_the_picture(tmp_path, image):
    jpeg = encoded(1, form="JPEG", quality=100)
    junk = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + os.urandom(200)
    zero = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0" + bytes(8)
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta \xff\xfe\xc3\x28>"
    files = {"plain.jpg": jpeg}
    for name, payload in {"junk": junk, "zero": zero, "xmp": xmp}.items():
        segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
        files[f"{name}.jpg"] = jpeg[:2] + segment + jpeg[2:]
    write(tmp_path / "data", files)
    used, skipped = through(tmp_path / "data", image)
    assert not skipped
    for name in files:
        np.testing.assert_array_equal(used[name], used["plain.jpg"])


def test_a_large_photograph_is_decoded_small_and_looks_the_same(tmp_path, image):
    """JPEG's draft mode against decoding in full and shrinking."""
    y, x = np.mgrid[0:1200, 0:1600] / 100
    smooth = ((np.sin(x) + np.cos(y) + 2) * 63).astype(np.uint8)
    big = np.stack([smooth, 255 - smooth, smooth // 2], -1)
    write(tmp_path / "data", {"big.jpg": save(Pillow.fromarray(big), "JPEG", quality=95)})
    used, _ = through(tmp_path / "data", image, 96)
    full = image.shrink(image.read((tmp_path / "data" / "big.jpg").read_bytes()), 96)
    assert used["big.jpg"].shape == full.shape == (96, 128, 3)
    assert np.abs(used["big.jpg"].astype(int) - full).mean() < 2
