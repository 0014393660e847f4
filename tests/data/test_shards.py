"""Tar shards are indexed and read in place: nothing is ever extracted."""

import gzip
import io
import os
import tarfile

import numpy as np
import pytest

from selfsup.data import BadSample, open_source, open_store, shards
from selfsup.errors import SelfsupError
from tests.data.pictures import encoded, pixels


def make_tar(path, members, mode="w"):
    """members: (name, bytes) or (name, tarfile type, target)."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for name, content, *target in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes) and not target:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content, (target or [""])[0]
                archive.addfile(info)
    return path


def samples(first, last):
    for i in range(first, last):
        yield f"{i:04d}.png", encoded(i)
        yield f"{i:04d}.cls", str(i % 3).encode()
        yield f"{i:04d}.json", b"{}"


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz")])
def test_one_shard(tmp_path, image, ending, mode):
    source = open_source(make_tar(tmp_path / f"x.{ending}", samples(0, 9), mode))
    for i in (8, 0, 3, 4, 1):
        np.testing.assert_array_equal(image.read(source.read(i)), pixels(i))
    assert [source.name(i) for i in range(2)] == ["0000.png", "0001.png"]
    assert source.labels()[0].tolist() == [i % 3 for i in range(9)]
    assert source.ignored == {"json": 9}


def test_many_shards_by_folder_pattern_or_numbers(tmp_path, image):
    for k in range(3):
        make_tar(tmp_path / f"s-{k:02d}.tar", samples(4 * k, 4 * k + 4))
    for data in (tmp_path, tmp_path / "s-*.tar", tmp_path / "s-{00..02}.tar"):
        source = open_source(data)
        assert len(source) == 12
        np.testing.assert_array_equal(image.read(source.read(6)), pixels(6))
        assert source.labels()[0].tolist() == [i % 3 for i in range(12)]
        assert source.name(6).endswith("s-01.tar/0006.png")
    assert len(open_source(tmp_path / "s-{01..02}.tar")) == 8


def test_folders_in_an_archive_are_labels(tmp_path):
    members = [(f"top/{split}/{c}/{i}.png", encoded(i)) for i in range(2) for c in "xy"
               for split in ("train", "test")]  # fmt: skip
    source = open_source(make_tar(tmp_path / "x.tar", members))
    assert source.labels()[1] == ["x", "y"] and source.splits()[1] == ["test", "train"]


def test_a_sample_of_two_classes_has_none(tmp_path):
    members = [*samples(0, 4), ("0001.cls", b"0"), ("0002.cls", b"2\n"), ("0001.cls", b"1")]
    source = open_source(make_tar(tmp_path / "x.tar", members))
    assert len(source) == 4 and source.labels()[0].tolist() == [0, -1, 1, 0]
    assert source.labels()[1] == ["0", "2"]
    assert source.notes == [
        "1 keys have .cls of different classes and count as without one (first: 0001)"
    ]


def test_hostile_members_are_set_aside_and_nothing_is_written(tmp_path):
    make_tar(
        tmp_path / "x.tar",
        [
            ("good.png", encoded(0)),
            ("../up.png", encoded(1)),
            ("/abs.png", encoded(2)),
            ("link.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.png", tarfile.LNKTYPE, "good.png"),
            ("pipe.png", tarfile.FIFOTYPE, ""),
            ("device.png", tarfile.CHRTYPE, ""),
        ],
    )
    before = sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path.parent))
    source = open_source(tmp_path / "x.tar")
    assert [source.name(i) for i in range(len(source))] == ["good.png"]
    assert source.problems.counts() == {"archive-link": 4, "unsafe-name": 2}
    assert source.found == 7
    assert (sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path.parent))) == before


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz")])
def test_a_cut_archive_keeps_what_came(tmp_path, image, ending, mode):
    path = make_tar(
        tmp_path / f"x.{ending}", [(f"{i}.png", encoded(i, 64, 64)) for i in range(9)], mode
    )
    os.truncate(path, int(os.path.getsize(path) * 0.4))
    source = open_source(path)
    assert 1 <= len(source) < 9
    assert source.problems.counts() == {"archive-cut": 1}
    with open_store(source, image, 64) as store:
        store.fill()
        counts = store.counts()
    assert counts["found"] == counts["used"] + counts["skipped"] == len(source) + 1
    assert counts["used"] >= len(source) - 1


@pytest.mark.parametrize("place", [0, 2])
def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch, place):  # D19
    """A member that announces far more than the archive's size: what came before is read."""
    monkeypatch.setattr(shards, "LARGEST", 1 << 18)
    members = [(f"{i}.png", encoded(i)) for i in range(4)]
    members.insert(place, ("bomb.png", b"\0" * (8 << 20)))
    path = make_tar(tmp_path / "x.tar.gz", members, "w:gz")
    assert os.path.getsize(path) < 1 << 16
    names = ["0.png", "1.png"][:place]
    if place:
        source = open_source(path)
        assert [source.name(i) for i in range(len(source))] == names
        assert source.problems.counts() == {"too-large": 1, "archive-bomb": 1}
    else:
        with pytest.raises(SelfsupError, match="E102"):
            open_source(path)
    monkeypatch.setattr(shards, "SWOLLEN", 10_000)  # an honest archive that packs well
    assert len(open_source(path)) == 4


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("place", [0, 2])
def test_facts_about_a_member_are_not_held_without_end(tmp_path, mode, place):  # D19
    path = tmp_path / ("x.tar" if mode == "w" else "x.tar.gz")
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for i in range(4):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(encoded(i))
            if i == place:
                info.pax_headers = {"comment": "x" * (4 << 20)}
            archive.addfile(info, io.BytesIO(encoded(i)))
    if place == 0:
        with pytest.raises(SelfsupError, match="E106"):
            open_source(path)
        return
    source = open_source(path)
    assert [source.name(i) for i in range(len(source))] == ["0.png", "1.png"]
    assert source.problems.counts() == {"archive-bomb": 1}


def test_something_else_with_the_name_of_an_archive(tmp_path):
    for name, content in {
        "a.tar": os.urandom(2000),
        "b.tar.gz": gzip.compress(os.urandom(2000)),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SelfsupError) as error:
            open_source(tmp_path / name)
        assert error.value.code == "E106"


def test_an_archive_replaced_after_listing_is_noticed(tmp_path, image):
    path = make_tar(tmp_path / "x.tar", samples(0, 6))
    source = open_source(path)
    make_tar(path, samples(6, 20))
    with pytest.raises(SelfsupError), open_store(source, image, 24) as store:
        store.fill()


@pytest.mark.parametrize("how", ["other", "noise", "same-stamp"])
def test_a_compressed_archive_changed_in_place_is_noticed(tmp_path, how):
    path = make_tar(tmp_path / "x.tar.gz", samples(0, 150), "w:gz")
    source, status = open_source(path), os.stat(path)
    with open(path, "r+b") as file:  # the same file, which is held open
        if how == "other":
            other = make_tar(tmp_path / "y.tar.gz", samples(150, 300), "w:gz").read_bytes()
            file.write(other)
            file.truncate()
        else:
            file.seek(100)  # behind the header
            file.write(b"\xff" * (status.st_size - 100))
    if how == "same-stamp":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for i in (0, 120, 20):
        with pytest.raises(BadSample) as raised:
            source.read(i)
        assert raised.value.code == ("damaged" if how == "same-stamp" else "changed")
