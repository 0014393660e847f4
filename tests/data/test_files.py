"""Folders with traps in them (links, pipes, odd names), and files that change after listing."""

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import time
import tracemalloc
import unicodedata

import numpy as np
import psutil
import pytest

from selfsup.data import BadSample, Ledger, Loader, open_source, open_store
from selfsup.errors import SelfsupError
from tests.data.pictures import encoded, pixels, write


def names(source):
    return [source.name(i) for i in range(len(source))]


@pytest.fixture
def trapped(tmp_path):
    """A folder with one good picture, and everything else that a file system can hold."""
    write(tmp_path, {"in/good.png": encoded(0), "in/sub/too.png": encoded(1)})
    write(tmp_path, {"out/far.png": encoded(2), "out/deep/far.png": encoded(3)})
    root = tmp_path / "in"
    os.symlink("..", root / "sub" / "loop")
    os.symlink(root, root / "sub" / "self")
    os.symlink("good.png", root / "twice.png")
    os.symlink("nowhere.png", root / "dangling.png")
    os.symlink("circle.png", root / "circle.png")
    os.symlink(tmp_path / "out", root / "outside")
    os.symlink(tmp_path / "out" / "far.png", root / "outside.png")
    os.mkfifo(root / "pipe.png")
    sockets = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(root)  # the path of a socket may be 108 bytes long
    sockets.bind("socket.png")
    os.chdir(here)
    yield root
    sockets.close()


def test_every_file_is_visited_once_and_nothing_special_is_opened(trapped):
    source = open_source(trapped)
    assert names(source) == ["good.png", "sub/too.png"]
    assert {p["name"]: p["code"] for p in source.problems} == {
        "circle.png": "link-broken",
        "dangling.png": "link-broken",
        "outside": "link-outside",
        "outside.png": "link-outside",
        "pipe.png": "not-a-file",
        "socket.png": "not-a-file",
        "sub/loop": "link-inside",
        "sub/self": "link-inside",
        "twice.png": "link-inside",
    }
    assert source.found == 11


def test_a_device_is_never_opened(tmp_path):
    """Neither where it is in the folder nor behind a link: reading /dev/zero never ends."""
    write(tmp_path, {"good.png": encoded(0)})
    os.symlink("/dev/zero", tmp_path / "zero.png")
    expected = {"zero.png": "not-a-file"}
    try:
        os.mknod(tmp_path / "device.png", stat.S_IFCHR | 0o600, os.makedev(1, 5))
        expected["device.png"] = "not-a-file"
    except PermissionError:
        pass  # only root makes devices
    source = open_source(tmp_path, follow_links=True)
    assert names(source) == ["good.png"]
    told = list(source.problems)
    assert {p["name"]: p["code"] for p in told} == expected
    assert all("device" in p["reason"] for p in told) and source.found == 1 + len(expected)


def test_links_out_of_the_folder_are_followed_on_request(trapped):
    os.symlink(trapped.parent / "out" / "deep", trapped / "z-again")
    os.symlink(trapped.parent, trapped / "z-above")  # leads back to the folder itself
    source = open_source(trapped, follow_links=True)
    # out/ also comes by way of z-above, but has been visited by then
    assert names(source) == [
        "good.png", "outside/deep/far.png", "outside/far.png", "outside.png", "sub/too.png",
    ]  # fmt: skip
    codes = {p["name"]: p["code"] for p in source.problems}
    assert codes["z-again"] == "link-again" and codes["sub/loop"] == "link-inside"


def test_a_folder_of_nothing_but_links_says_how_to_read_it(tmp_path):
    write(tmp_path, {"out/1.png": encoded(0)})
    os.mkdir(tmp_path / "in")
    os.symlink(tmp_path / "out" / "1.png", tmp_path / "in" / "1.png")
    with pytest.raises(SelfsupError) as error:
        open_source(tmp_path / "in")
    assert error.value.exit_code == 66 and "--follow-links" in error.value.why


def test_a_very_deep_folder(tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):  # deeper than Python recurses
        os.mkdir("d", dir_fd=handle)
        deeper = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = deeper
    os.close(handle)
    write(tmp_path, {"1.png": encoded(0), "d/d/d/2.png": encoded(0)})
    listed = names(open_source(tmp_path))
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # pytest's own removal recurses
    assert listed == ["1.png", "d/d/d/2.png"]


ODD = [
    "\U0001f600 \u2764.png".encode(),
    unicodedata.normalize("NFC", "\u00e9.png").encode(),
    unicodedata.normalize("NFD", "\u00e9.png").encode(),
    b"x" * 251 + b".png",
    b"new\nline.png",
    b"tab\there.png",
    b"-rf.png",
    b"\xff\xfe broken.png",
    b"<img src=x onerror=alert(1)>.png",
    b"quote\" 'and\\ comma,.png",
    b"=cmd().png",
    b"%s %d {x}.png",
    b" .png",
]


def test_names_with_any_bytes(tmp_path, image):
    write(tmp_path / "data", {name: encoded(i) for i, name in enumerate(ODD)})
    write(tmp_path / "data", {b"bad " + name[-100:]: b"" for name in ODD})
    source = open_source(tmp_path / "data")
    ledger = Ledger(tmp_path / "skipped.jsonl")
    with open_store(source, image, 24, ledger=ledger) as store:
        batch = store.fill().batch(np.arange(len(source)))
    good = {source.names[i]: batch.pixels[row] for row, i in enumerate(batch.indices.tolist())}
    assert set(good) == set(ODD)
    for i, name in enumerate(ODD):
        np.testing.assert_array_equal(good[name].permute(1, 2, 0), pixels(i))
    lines = (tmp_path / "skipped.jsonl").read_text("ascii").splitlines()
    skipped = [json.loads(line)["name"] for line in lines]
    assert {os.fsencode(name) for name in skipped} == {b"bad " + name[-100:] for name in ODD}
    for name in skipped:  # a stored name opens the file again
        assert os.stat(tmp_path / "data" / name).st_size == 0


def change(folder, how):
    victim = folder / "a" / "04.png"
    if how == "deleted":
        victim.unlink()
    elif how == "truncated":
        os.truncate(victim, 30)
    elif how == "replaced":
        victim.write_bytes(encoded(77, 40, 40))
    elif how == "pipe":  # opening it to read would wait for ever
        victim.unlink()
        os.mkfifo(victim)
    elif how == "folder":
        victim.unlink()
        victim.mkdir()
    elif how == "parent":
        (folder / "a").rename(folder / "gone")


CHANGES = ("deleted", "truncated", "replaced", "pipe", "folder", "parent")


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_after_listing_is_redrawn_the_same_way(folder, image, how, tmp_path):
    """found = used + skipped, no crash, and the same batches whoever meets the change first."""
    source = open_source(folder)
    change(folder, how)
    batches = []
    for workers in (0, 2):
        ledger = Ledger(tmp_path / f"{workers}.jsonl")
        with (
            open_store(source, image, 24, ledger=ledger, workers=workers) as store,
            Loader(store, 8, seed=3, workers=workers) as loader,
        ):
            batches.append([loader.batch(step) for step in range(6)])
            counts = store.counts()
        lost = 10 if how == "parent" else 1
        assert ledger.counts() == {"changed": lost}
        assert counts == {"found": 20, "used": 20 - lost, "skipped": lost}
    for one, other in zip(*batches, strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        assert (one.pixels == other.pixels).all()
    drawn = {i for batch in batches[0] for i in batch.indices.tolist()}
    assert names(source).index("a/04.png") not in drawn


def test_a_change_is_not_remembered_by_the_cache(folder, image):
    source = open_source(folder)
    hidden = folder.parent / "hidden.png"
    os.rename(folder / "a" / "04.png", hidden)
    with open_store(source, image, 24) as store:
        assert len(store.batch(np.arange(20))) == 19
    os.rename(hidden, folder / "a" / "04.png")
    with open_store(open_source(folder), image, 24) as store:
        assert len(store.batch(np.arange(20))) == 20 and len(store.ledger) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_no_permission(tmp_path):
    """As another user, because root may read everything."""
    script = """
import os, sys
import selfsup.stop
from selfsup.data import BadSample, open_source
os.chdir(sys.argv[1])  # the folders above it may be closed to others
os.setgroups([]); os.setgid(65534); os.setuid(65534)
source = open_source(".")
print(sorted((p["name"], p["code"]) for p in source.problems))
for i in range(len(source)):
    try:
        print(source.name(i), len(source.read(i)) > 0)
    except BadSample as bad:
        print(source.name(i), bad.code)
"""
    write(tmp_path, {"open.png": encoded(0), "shut.png": encoded(1), "dir/in.png": encoded(2)})
    os.chmod(tmp_path / "shut.png", 0)
    os.chmod(tmp_path / "dir", 0)
    os.chmod(tmp_path, 0o755)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "[('dir', 'unreadable')]", "open.png True", "shut.png unreadable",
    ], done.stderr  # fmt: skip


def test_a_file_too_large_for_memory_is_not_read(tmp_path):
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(3 << 30)  # a hole: no disk is used
    source = open_source(tmp_path)
    with pytest.raises(BadSample) as error:
        source.read(0)
    assert error.value.code == "too-large"


def test_an_error_of_the_disk_is_a_bad_sample_and_leaves_no_handle(tmp_path, monkeypatch):
    write(tmp_path, {"a.png": encoded(0)})
    source = open_source(tmp_path)

    def broken(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", broken)
        with pytest.raises(BadSample, match="Input/output") as error:
            source.read(0)
    assert error.value.code == "io" and len(os.listdir("/proc/self/fd")) == before


def test_a_long_list_of_names_is_quick_and_small(tmp_path, image):
    """At most 50 us and 300 bytes a name: 50 s and 300 MB for a million. Workers share the list."""
    count = 20_000
    write(tmp_path, {"photograph_0000000.jpg": encoded(0, form="JPEG")})
    handle = os.open(tmp_path, os.O_RDONLY)
    for i in range(1, count):
        name = f"photograph_{i:07d}.jpg"
        os.link("photograph_0000000.jpg", name, src_dir_fd=handle, dst_dir_fd=handle)
    os.close(handle)
    started = time.process_time()  # which other work on the machine disturbs little
    open_source(tmp_path)
    assert time.process_time() - started < 50e-6 * count
    tracemalloc.start()
    source = open_source(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(source) == count and source.name(count - 1) == f"photograph_{count - 1:07d}.jpg"
    assert peak < 200 * count

    peaks, before = [], set(psutil.Process().children())
    for workers in (0, 4):
        tracemalloc.start()
        with (
            open_store(source, image, 24, workers=workers) as store,
            Loader(store, 8, 0, workers=workers) as loader,
        ):
            for step in range(3):
                loader.batch(step)
                assert (
                    set(psutil.Process().children()) <= before
                )  # which would have lists of their own
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < source.names.nbytes / 2
