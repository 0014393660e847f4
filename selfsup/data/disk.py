"""The folder of a store: decoded samples on the disk, each there whole or not at all.

    meta.json      what it holds: n, and the shape (h, w, c) of a slot of the block
    index          n records of 24 bytes: state, where the sample lies, its height and width
    block          slot i holds sample i, if it has the shape that most samples have
    ragged-000 ... all other samples one after another; a file per process that writes
    bad.jsonl      samples that cannot be decoded, with the reason
    in-use         see cache.py

Several processes may fill one store. A slot of the block belongs to one sample, so two of them at
worst write the same bytes twice; each process appends to a ragged file of its own. A record is
written after its bytes have reached the disk, under a lock, and never again: so it stays after a
kill or a power cut.
"""

import errno
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..logs import FULL, end_line, write_all
from .cache import InUse
from .outcome import BadSample

if sys.platform != "win32":
    import fcntl

FORMAT = 2
UNKNOWN, READY, BAD = 0, 1, 2
IN_BLOCK = -1  # the `file` of a sample in the block
RECORD = np.dtype(
    [
        ("state", "u1"),
        ("pad", "u1"),
        ("file", "<i2"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("rest", "<i4"),
        ("offset", "<i8"),
    ]
)
COMMIT_BYTES, COMMIT_SECONDS = 32 << 20, 5.0
MAPPED = 256 << 20  # blocks up to this are mapped; larger ones are read, to keep memory small

Shape = tuple[int, int, int]


def create(folder: Path, n: int, shape: Shape | None, facts: dict[str, Any]) -> None:
    """An empty store, there at once. `shape` is that of a slot; without one there is no block."""
    new = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    lock = InUse(new)
    try:
        with open(new / "index", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, n * RECORD.itemsize)
            os.fsync(file.fileno())
        with open(new / "block", "wb") as file:
            if shape is not None:
                try:
                    file.truncate(n * int(np.prod(shape)))  # holes: no disk yet
                except OSError as error:
                    if error.errno not in FULL:
                        raise
                    shape = None
        with open(new / "meta.json", "w") as file:
            json.dump({"format": FORMAT, "n": n, "shape": shape} | facts, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.rename(new, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else another process has just made it
    finally:
        shutil.rmtree(new, ignore_errors=True)  # there only if another was faster
        lock.close()


class Disk:
    """An open store. `records` are this process's own, under its `lock`.

    They are ahead of those on disk, `shared`, by what is not committed yet.
    """

    def __init__(self, path: Path, in_use: InUse, records: np.ndarray, lock: threading.Lock):
        self.path, self.records = path, records
        self._in_use: InUse | None = in_use
        self._lock = lock
        try:
            meta = json.loads((path / "meta.json").read_text())
            self.shape: Shape | None = tuple(meta["shape"]) if meta["shape"] else None
            self.channels: int = meta["channels"]
            same = meta["n"] == len(records)
        except (ValueError, KeyError, TypeError):
            same = False
        n, slot = len(records), int(np.prod(self.shape)) if same and self.shape else 0
        for name, each in (("index", RECORD.itemsize), ("block", slot)):
            if not same or os.path.getsize(path / name) < each * n:
                raise OSError(f"{path} is damaged; remove it")
        self.shared = np.memmap(path / "index", RECORD, "r+", shape=(n,))
        records[:] = self.shared
        self._files: dict[int, int] = {}
        self._own_file, self._own_end = 0, 0
        self._claim_file()
        self._mapped: np.ndarray | None = None
        self._pending: list[int] = []
        self._pending_bytes, self._committed_at = 0, time.monotonic()

    def close(self, remove: bool) -> None:
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()
        if self._in_use is not None:
            if remove:
                shutil.rmtree(self.path, ignore_errors=True)
            self._in_use.close()
            self._in_use = None

    # ------------------------------------------------------------------------------- reading

    def refresh(self, indices: np.ndarray) -> None:
        """Take over what other processes have finished of these unknown ones."""
        news = indices[self.shared["state"][indices] == READY]
        if len(news):
            with self._lock:
                news = news[self.records["state"][news] == UNKNOWN]
                self.records[news] = self.shared[news]

    def block(self) -> np.ndarray | None:
        """All slots (n, h, w, c), where they are few enough to be mapped."""
        if self._mapped is None and len(self.records) * int(np.prod(self.shape)) <= MAPPED:
            self._mapped = np.memmap(
                self.path / "block", np.uint8, "r", shape=(len(self.records), *self.shape)
            )
        return self._mapped

    def read(self, file: int, offset: int, into: np.ndarray) -> None:
        handle, data = self._file(file), memoryview(into).cast("B")
        while len(data):
            got = os.preadv(handle, [data], offset)
            if got == 0:
                raise OSError(errno.EIO, "a file of the cache is shorter than its index says")
            data, offset = data[got:], offset + got

    def bad(self) -> Iterator[tuple[int, BadSample]]:
        """Samples that were found to be bad before."""
        try:
            lines = (self.path / "bad.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                row = json.loads(line)
                yield int(row["index"]), BadSample(row["code"], row["reason"])
            except (ValueError, KeyError, TypeError):
                continue  # the half line of a process that was killed: that file is tried again

    # ------------------------------------------------------------------------------- writing

    def write(self, i: int, sample: np.ndarray) -> None:
        """To its slot or behind the others; known to this process alone until it is committed."""
        sample = np.ascontiguousarray(sample)
        if sample.shape == self.shape:
            file, offset = IN_BLOCK, i * sample.nbytes
        else:
            with self._lock:
                file, offset = self._own_file, self._own_end
                self._own_end += sample.nbytes
        handle, data, end = self._file(file), memoryview(sample).cast("B"), offset
        while len(data):
            written = os.pwrite(handle, data, end)
            data, end = data[written:], end + written
        with self._lock:
            self.records[i] = (READY, 0, file, *sample.shape[:2], 0, offset)
            self._pending.append(i)
            self._pending_bytes += sample.nbytes

    def note_bad(self, i: int, bad: BadSample) -> None:
        line = json.dumps({"index": i, "code": bad.code, "reason": bad.reason})
        try:
            with open(self.path / "bad.jsonl", "a+b", buffering=0) as file:
                end_line(file)
                write_all(file, line.encode() + b"\n")
        except OSError as error:
            if error.errno not in FULL:
                raise

    def due(self) -> bool:
        """Whether it is time to commit."""
        overdue = time.monotonic() - self._committed_at > COMMIT_SECONDS
        return self._pending_bytes >= COMMIT_BYTES or (bool(self._pending) and overdue)

    def commit(self) -> None:
        """Bring what was decoded to the disk, and only then write down that it is there.

        After an error which of them reached the disk is not known: this process still sees their
        bytes, later ones decode them again.
        """
        with self._lock:
            pending, self._pending, self._pending_bytes = self._pending, [], 0
            self._committed_at = time.monotonic()
            files = [self._files[f] for f in (IN_BLOCK, self._own_file) if f in self._files]
        if not pending:
            return
        for handle in files:
            os.fdatasync(handle)
        rows = np.array(pending, np.int64)
        with _CommitLock(self.path):
            rows = rows[self.shared["state"][rows] == UNKNOWN]  # another process was faster
            records = self.records[rows]
            for field in ("file", "height", "width", "offset"):
                self.shared[field][rows] = records[field]
            self.shared.flush()
            self.shared["state"][rows] = READY
            self.shared.flush()

    # --------------------------------------------------------------------------------- files

    def _claim_file(self) -> None:
        """A ragged file that no other process appends to."""
        for number in range(1 << 15):
            path = self.path / f"ragged-{number:03d}"
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            self._own_file, self._own_end = number, os.fstat(handle).st_size
            self._files[number] = handle
            return

    def _file(self, number: int) -> int:
        with self._lock:
            if number not in self._files:
                name = "block" if number == IN_BLOCK else f"ragged-{number:03d}"
                self._files[number] = os.open(self.path / name, os.O_RDWR | os.O_CLOEXEC)
            return self._files[number]


class _CommitLock:
    """Held while records are written, by one thread of one process at a time."""

    def __init__(self, store: Path):
        self._path = store / "commit-lock"

    def __enter__(self) -> None:
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def __exit__(self, *error) -> None:
        os.close(self._handle)
