"""The store: decoded once, the same bytes whoever wrote them, whole or absent after a kill."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from selfsup.data import Ledger, disk, open_source, open_store
from selfsup.data import cache as cache_module
from selfsup.data import store as store_module
from selfsup.data.cache import make_room, used_bytes
from selfsup.errors import SelfsupError
from tests.data.pictures import encoded, pixels, write


class Counting:
    """The image modality, counting what it decodes."""

    def __init__(self, image):
        self.image, self.name, self.rules, self.reads = image, image.name, image.rules, 0

    def read(self, raw, size=None):
        self.reads += 1
        return self.image.read(raw, size)

    def shrink(self, array, size):
        return self.image.shrink(array, size)

    def meet(self, source):
        self.image.meet(source)


@pytest.fixture
def counting(image):
    return Counting(image)


def mixed_folder(path, n=40, bad=()):
    """Pictures of several shapes, upright and wide, larger and smaller than 32."""
    shapes = [(24, 24), (24, 24), (30, 20), (64, 48), (20, 30)]
    for i in range(n):
        content = b"" if i in bad else encoded(i, *shapes[i % len(shapes)])
        write(path, {f"{i:03d}.png": content})
    return path


def same_samples(batch, expected):
    for row, i in enumerate(batch.indices.tolist()):
        want = expected[i]
        h, w, _ = want.shape
        if batch.extents is None:
            assert tuple(batch.pixels.shape[2:]) == (h, w)
        else:
            assert batch.extents[row].tolist() == [h, w]
        got = batch.pixels[row].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(got[:h, :w], want)
        assert not got[h:].any() and not got[:, w:].any()


def test_samples_of_one_size_lie_in_one_block(folder, counting):
    source = open_source(folder)
    with open_store(source, counting, 32) as store:
        batch = store.batch([3, 0, 19])
        assert store.shape == (24, 24, 3) and store.mode == "disk" and batch.extents is None
        assert batch.pixels.shape == (3, 3, 24, 24) and batch.samples.tolist() == [3, 0, 19]
        same_samples(batch, {i: pixels(int(source.name(i)[2:4])) for i in range(20)})


def test_samples_of_many_sizes(tmp_path, image):
    source = open_source(mixed_folder(tmp_path))
    expected = [image.shrink(image.read(source.read(i), 32), 32) for i in range(40)]
    sizes = {e.shape[:2] for e in expected}
    assert sizes == {(24, 24), (30, 20), (43, 32), (20, 30)}
    for _ in range(2):  # as decoded now, then as stored
        with open_store(open_source(tmp_path), image, 32) as store:
            same_samples(store.batch(np.arange(40)), expected)
            same_samples(store.batch([2, 12, 22]), expected)  # alike: no padding is told
            same_samples(store.batch([3, 3, 1]), expected)
            assert len(store.batch([])) == 0


def test_nothing_is_decoded_twice(folder, counting):
    for _ in range(3):
        with open_store(open_source(folder), counting, 24) as store:
            store.fill()
            store.batch(np.arange(20))
    assert counting.reads == 20 + 2 * 20  # each opening looks at up to 32 samples to know sizes


def test_settings_and_sizes_have_stores_of_their_own(folder, image, cache):
    from selfsup.modalities import find

    for modality, size in ((image, 24), (image, 16), (find("image")(keep_truncated=True), 24)):
        open_store(open_source(folder), modality, size).close()
    assert len(os.listdir(cache / "stores")) == 3


def test_an_array_in_memory_is_not_copied(image, cache):
    array = np.stack([pixels(i) for i in range(50)])
    with open_store(open_source(array), image, 32) as store:
        assert store.mode == "array" and np.shares_memory(store._array, array)
        batch = store.batch([4, 4, 49])
        np.testing.assert_array_equal(batch.pixels[2].permute(1, 2, 0), array[49])
    assert not (cache / "stores").exists()


def test_an_array_that_must_change_is_stored(image):
    array = np.stack([pixels(i, 64, 64) for i in range(40)])
    with open_store(open_source(array), image, 32) as store:
        assert store.mode == "disk"
        got = store.batch([39]).pixels[0].permute(1, 2, 0)
    np.testing.assert_array_equal(got, image.shrink(array[39], 32))


def test_the_store_of_a_python_object_ends_with_the_process(image, cache):
    class Odd:
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return pixels(i)

    with open_store(open_source(Odd()), image, 24) as store:
        assert store.mode == "disk"
        np.testing.assert_array_equal(store.batch([33]).pixels[0].permute(1, 2, 0), pixels(33))
    assert os.listdir(cache / "stores") == []


def test_python_objects_never_share_a_store(image, monkeypatch):
    """The number that Python gives an object is given again once the object is gone."""

    class Odd:
        def __init__(self, first):
            self.first = first

        def __len__(self):
            return 40

        def __getitem__(self, i):
            return pixels(self.first + i)

    monkeypatch.setattr(store_module, "id", lambda _: 7, raising=False)
    with (
        open_store(open_source(Odd(0)), image, 24).fill(),
        open_store(open_source(Odd(50)), image, 24) as store,
    ):
        np.testing.assert_array_equal(store.batch([3]).pixels[0].permute(1, 2, 0), pixels(53))


def test_a_batch_that_is_held_is_never_written_over(folder, image):
    with open_store(open_source(folder), image, 24) as store:
        held = [store.batch([i % 20]) for i in range(60)]
        for i, batch in enumerate(held):
            expected = pixels(int(store.source.name(i % 20)[2:4]))
            np.testing.assert_array_equal(batch.pixels[0].permute(1, 2, 0), expected)
        addresses = {batch.pixels.data_ptr() for batch in held}
        assert len(addresses) == 60
        del held, batch
        assert store.batch([0]).pixels.data_ptr() in addresses  # and is used again once it is not


def test_bad_samples_are_left_out_and_remembered(tmp_path, counting):
    mixed_folder(tmp_path, 40, bad=(3, 7))
    for reads in (40, 32):  # the second time the bad ones are known, and 32 are looked at
        counting.reads = 0
        ledger = Ledger()
        with open_store(open_source(tmp_path), counting, 32, ledger=ledger) as store:
            batch = store.fill().batch(np.arange(40))
            assert batch.indices.tolist() == [i for i in range(40) if i not in (3, 7)]
            assert ledger.counts() == {"empty": 2}
            assert store.counts() == {"found": 40, "used": 38, "skipped": 2}
        assert counting.reads == reads


def test_a_bad_sample_after_half_a_line_is_remembered(tmp_path, counting):
    folder = mixed_folder(tmp_path, bad=(4,))  # not among those that are looked at first
    with open_store(open_source(folder), counting, 32) as store:
        place = store.path / "bad.jsonl"
        place.write_bytes(b'{"index": 7, "co')
        store.fill()
    assert [b"{" in line for line in place.read_bytes().splitlines()] == [True, True]
    assert json.loads(place.read_bytes().splitlines()[1])["index"] == 4


def test_a_store_that_cannot_be_built_is_closed(tmp_path, image, cache):
    folder = mixed_folder(tmp_path, bad=range(0, 40, 3))
    with pytest.raises(SelfsupError):
        open_store(open_source(folder), image, 32, max_skipped=0.1)
    (path,) = (cache / "stores").iterdir()
    assert cache_module.throw_out(path)  # nobody holds it


def test_too_many_bad_samples_stop_the_run(tmp_path, image):
    mixed_folder(tmp_path, 40, bad=range(21))
    with pytest.raises(SelfsupError) as error:
        open_store(open_source(tmp_path), image, 32).fill()
    assert error.value.exit_code == 65 and error.value.code == "E103"
    with open_store(open_source(tmp_path), image, 32, max_skipped=0.6) as store:
        assert store.fill().counts()["skipped"] == 21


# ------------------------------------------------------------------------------- short disk


def test_a_cache_that_cannot_be_written(folder, counting, tmp_path):
    (tmp_path / "file").write_text("x")
    with open_store(open_source(folder), counting, 24, cache=tmp_path / "file") as store:
        assert store.mode == "stream" and "decoded each time" in store.notes[0]
        for _ in range(2):
            np.testing.assert_array_equal(
                store.batch([3]).pixels[0].permute(1, 2, 0), pixels(int(store.source.name(3)[2:4]))
            )
    assert counting.reads == 20 + 2


def test_a_disk_that_is_nearly_full(folder, image, cache, monkeypatch):
    """What is to be left to others is left, and the run says so."""
    total = 100 * cache_module.GIB
    for free, mode in ((cache_module.LEAVE_FREE, "stream"), (2 * cache_module.LEAVE_FREE, "disk")):
        usage = shutil._ntuple_diskusage(total, total - free, free)
        monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path, usage=usage: usage)
        with open_store(open_source(folder), image, 24) as store:
            assert store.mode == mode, store.notes
            if mode == "stream":
                (note,) = store.notes
                assert "decoded each time" in note and "0 MiB may be used" in note
                assert os.listdir(cache / "stores") == []
            same_samples(store.batch(np.arange(20)), by_name(store.source))


def by_name(source):
    return {i: pixels(int(source.name(i)[2:4])) for i in range(len(source))}


def test_a_cache_that_may_not_grow(tmp_path, image, monkeypatch):
    """A part is stored, the rest streamed; every batch is right all the same."""
    mixed_folder(tmp_path)
    monkeypatch.setenv("SELFSUP_CACHE_GB", str(40_000 / 2**30))
    source = open_source(tmp_path)
    expected = [image.shrink(image.read(source.read(i), 32), 32) for i in range(40)]
    with open_store(source, image, 32) as store:
        assert store.notes
        for _ in range(2):
            same_samples(store.batch(np.arange(40)), expected)
        if store.path is not None:
            assert used_bytes(store.path) < 120_000


@pytest.mark.parametrize("limit", ["lots", "nan", "inf"])
def test_a_limit_that_is_no_number(folder, image, monkeypatch, limit):
    monkeypatch.setenv("SELFSUP_CACHE_GB", limit)
    with pytest.raises(SelfsupError, match="SELFSUP_CACHE_GB") as caught:
        open_store(open_source(folder), image, 32)
    assert caught.value.code == "E201"


@pytest.mark.parametrize("limit", [1_000, 20_000, 40_000])
def test_the_disk_is_full_at_any_byte(tmp_path, limit):
    """RLIMIT_FSIZE refuses to let a file grow, in the middle of a sample or of the index."""
    mixed_folder(tmp_path / "data")
    script = """
import resource, sys
import numpy as np
from selfsup.data import open_source, open_store
from selfsup.modalities import find
image, source = find("image")(), open_source(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
with open_store(source, image, 32) as store:
    for _ in range(2):
        batch = store.batch(np.arange(40))
        for row, i in enumerate(batch.indices.tolist()):
            want = image.shrink(image.read(source.read(i), 32), 32)
            h, w, _ = want.shape
            assert (batch.pixels[row].permute(1, 2, 0).numpy()[:h, :w] == want).all()
    assert len(batch) == 40
    print(store.mode, store.notes)
"""
    done = run(script, tmp_path / "data", limit)
    assert "decoded each time" in done.stdout, done.stdout + done.stderr


def run(script, *arguments, wait=True):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    if not wait:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


# -------------------------------------------------------------------- kills, several processes

FILL = """
import sys
from selfsup.data import disk, open_source, open_store
from selfsup.modalities import find
disk.COMMIT_BYTES = 20_000
with open_store(open_source(sys.argv[1]), find("image")(), 32) as kept:
    print("open", flush=True)
    kept.fill()
    print(kept.mode, kept.counts()["used"], len(kept.ledger), flush=True)
"""


def check_whole(path, image, bad=()):
    """What the index calls ready is on disk, byte for byte; then fill the rest and compare."""
    source = open_source(path)
    expected = {
        i: image.shrink(image.read(source.read(i), 32), 32)
        for i in range(len(source))
        if i not in bad
    }
    with open_store(source, image, 32) as store:
        ready = np.flatnonzero(store._disk.shared["state"] == disk.READY)
        same_samples(store.batch(ready), expected)
        same_samples(store.fill().batch(np.arange(len(source))), expected)
    return len(ready)


def test_killed_at_random_times(tmp_path, image):
    mixed_folder(tmp_path / "data", 400, bad=(11,))
    chance = random.Random(0)
    for _ in range(3):
        process = run(FILL, tmp_path / "data", wait=False)
        assert process.stdout.readline() == "open\n"
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    check_whole(tmp_path / "data", image, bad=(11,))


def test_no_record_is_written_before_its_bytes_are_on_the_disk(tmp_path, image, monkeypatch):
    """At each fsync the index on disk still says that nothing new is there."""
    seen = []
    sync = os.fdatasync

    def watched(handle):
        seen.append(np.fromfile(store.path / "index", disk.RECORD)["state"].copy())
        sync(handle)

    with open_store(open_source(mixed_folder(tmp_path)), image, 32) as store:
        store.commit()
        before = np.fromfile(store.path / "index", disk.RECORD)["state"].copy()
        monkeypatch.setattr(os, "fdatasync", watched)
        store.fill()
        after = np.fromfile(store.path / "index", disk.RECORD)["state"]
    assert seen and all((s == before).all() for s in seen)
    assert (after == disk.READY).all() and not (before == disk.READY).all()


def test_two_processes_fill_one_store(tmp_path, image, cache):
    mixed_folder(tmp_path / "data", 300, bad=(5, 6))
    both = [run(FILL, tmp_path / "data", wait=False) for _ in range(2)]
    told = [process.communicate(timeout=120)[0] for process in both]
    assert told == ["open\ndisk 298 2\n"] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert len(os.listdir(cache / "stores")) == 1
    assert check_whole(tmp_path / "data", image, bad=(5, 6)) == 298
    lines = (next((cache / "stores").iterdir()) / "bad.jsonl").read_text().splitlines()
    assert {json.loads(line)["index"] for line in lines} == {5, 6}


def test_a_second_reader_uses_what_the_first_has_decoded(tmp_path, counting, image):
    source = open_source(mixed_folder(tmp_path, 64))
    with open_store(source, image, 32) as first, open_store(source, counting, 32) as second:
        first.fill()
        counting.reads = 0
        assert len(second.batch(np.arange(64))) == 64
        assert counting.reads == 0


# -------------------------------------------------------------------------------- eviction


def stores_of(cache):
    return {path.name for path in (cache / "stores").iterdir()}


def test_the_least_recently_used_store_goes_first(tmp_path, image, cache):
    for k in range(3):
        mixed_folder(tmp_path / str(k))
        with open_store(open_source(tmp_path / str(k)), image, 32) as store:
            store.fill()
            path = store.path
        os.utime(path / "in-use", (1000 + k, 1000 + k))
        if k == 0:
            oldest = path
    with open_store(open_source(tmp_path / "0"), image, 32):
        pass  # used again: now 1 is the oldest
    total = sum(used_bytes(path) for path in (cache / "stores").iterdir())
    make_room(cache / "stores", 1, total)
    left = stores_of(cache)
    assert len(left) == 2 and oldest.name in left


def test_a_store_in_use_is_never_thrown_out(tmp_path, image, cache):
    mixed_folder(tmp_path / "held", 200)
    holder = run(FILL + "\nimport time; kept = open_store(open_source(sys.argv[1]), "
                 "find('image')(), 32); print('held', flush=True); time.sleep(60)",
                 tmp_path / "held", wait=False)  # fmt: skip
    while holder.stdout.readline() != "held\n":
        assert holder.poll() is None
    held = stores_of(cache)
    assert make_room(cache / "stores", 1 << 30, 1) == 0
    assert stores_of(cache) == held and len(held) == 1
    holder.kill()  # the system gives the lock back
    holder.wait()
    holder.stdout.close()
    make_room(cache / "stores", 1 << 30, 1)
    assert stores_of(cache) == set()


def test_what_a_killed_process_left_behind_is_removed(tmp_path, image, cache):
    (cache / "stores" / "gone-abc" / "store").mkdir(parents=True)
    for name, age in (("new-a", 3600), ("private-1-2", 3600), ("new-young", 0)):
        (cache / "stores" / name).mkdir()
        (cache / "stores" / name / "in-use").write_bytes(b"")
        os.utime(cache / "stores" / name / "in-use", (time.time() - age,) * 2)
    with open_store(open_source(mixed_folder(tmp_path)), image, 32) as store:
        assert stores_of(cache) == {store.path.name, "new-young"}  # that one may be in the making


def test_the_store_of_another_user_is_left_alone(folder, image, cache, monkeypatch):
    others = cache / "stores" / "theirs"
    others.mkdir(parents=True)
    stat = Path.stat

    def refusing(path, **more):
        if path.parent == others:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **more)

    monkeypatch.setattr(Path, "stat", refusing)  # (mode 0700 refuses nothing to root)
    with open_store(open_source(folder), image, 24) as store:
        assert store.mode == "disk"
    assert others.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("block", bytes(100)), ("meta.json", bytes(30)), ("meta.json", b"{}")],
)
def test_a_damaged_store_is_not_used(folder, image, name, content):
    with open_store(open_source(folder), image, 24) as store:
        path = store.fill().path
    (path / name).write_bytes(content)
    with open_store(open_source(folder), image, 24) as store:
        assert len(store.batch(np.arange(20))) == 20
        assert "damaged" in " ".join(store.notes)


def test_a_store_without_its_facts_is_made_anew(folder, image):
    with open_store(open_source(folder), image, 24) as store:
        path = store.fill().path
    (path / "meta.json").unlink()
    with open_store(open_source(folder), image, 24) as store:
        assert store.mode == "disk" and len(store.batch(np.arange(20))) == 20
    (path / "meta.json").unlink()
    holder = cache_module.InUse(path)
    with open_store(open_source(folder), image, 24) as store:
        assert store.mode == "stream" and "damaged and in use" in " ".join(store.notes)
        assert len(store.batch(np.arange(20))) == 20
    holder.close()


# ---------------------------------------------------------------------------------- memory


def test_memory_does_not_grow_with_the_data():
    """A block too large to be mapped is read row by row."""
    script = """
import numpy as np
from selfsup.data import disk, open_source, open_store, Loader
from selfsup.machine import peak_memory
from selfsup.modalities import find
disk.MAPPED = 0
class Rows:
    def __len__(self): return 3000
    def __getitem__(self, i): return np.full((160, 160, 3), i % 256, np.uint8)
with open_store(open_source(Rows()), find("image")(), 160) as kept:
    before = peak_memory()
    kept.fill()
    with Loader(kept, 64, 0) as loader:
        for step in range(47):
            loader.batch(step)
    grown = peak_memory() - before
print(grown >> 20)
"""
    done = run(script)
    assert int(done.stdout) < 80, done.stdout + done.stderr  # MiB; the samples are 220
