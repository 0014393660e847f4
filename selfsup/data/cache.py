"""The folder of decode-once stores: where it is, how large it may be, and what is thrown out.

Each store is a folder with a file `in-use`. Whoever reads or fills the store holds a shared lock
on that file, which the system releases also when the process is killed. Only a store whose lock
can be taken exclusively is ever removed, the least recently used first.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import platformdirs

from ..errors import SelfsupError

if sys.platform != "win32":
    import fcntl

GIB = 1 << 30
LEAVE_FREE = GIB  # bytes of disk that are left to others
ABANDONED = 60.0  # seconds: an unfinished store whose lock is free for so long has no maker left


def cache_folder(cache: str | Path | None = None) -> Path:
    """`cache`, else SELFSUP_CACHE, else the user's own cache directory."""
    chosen = cache or os.environ.get("SELFSUP_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("selfsup"))


def cache_limit(folder: Path) -> int:
    """Bytes that all stores may take: SELFSUP_CACHE_GB, else half of the disk, at most 200 GiB."""
    setting = os.environ.get("SELFSUP_CACHE_GB")
    if setting:
        try:
            return max(0, int(float(setting) * GIB))
        except (ValueError, OverflowError):  # words, nan, inf
            raise SelfsupError(
                "E201", f"SELFSUP_CACHE_GB is {setting!r}", do="give it a number of GiB, such as 20"
            ) from None
    return min(200 * GIB, shutil.disk_usage(folder).total // 2)


class InUse:
    """A shared lock on a store for as long as this object is open."""

    def __init__(self, store: Path):
        self.path = store / "in-use"
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if sys.platform != "win32":
            fcntl.flock(self._handle, fcntl.LOCK_SH)
        os.utime(self.path)

    def still_there(self) -> bool:
        """False if the store was thrown out between finding and locking it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        if self._handle >= 0:
            if self.still_there():
                os.utime(self.path)
            os.close(self._handle)
            self._handle = -1


def used_bytes(store: Path) -> int:
    """Bytes on disk; files have holes where nothing was decoded yet."""
    total = 0
    for entry in os.scandir(store):
        try:
            total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:  # another process is throwing it out
            continue
    return total


def make_room(stores: Path, need: int, limit: int) -> int:
    """Throw out stores that nobody uses until `need` bytes fit; returns the bytes that do fit."""
    present = []
    for path in stores.iterdir():
        try:
            present.append(((path / "in-use").stat().st_mtime, used_bytes(path), path))
        except PermissionError:
            continue  # another user's
        except (FileNotFoundError, NotADirectoryError):
            throw_out(path)  # left behind by a process that was killed while making or removing it
    present.sort()
    total = sum(size for _, size, _ in present)

    def room() -> int:
        return min(limit - total, shutil.disk_usage(stores).free - LEAVE_FREE)

    for used, size, path in present:
        abandoned = path.name.startswith(("new-", "private-")) and used < time.time() - ABANDONED
        if (abandoned or room() < need) and throw_out(path):
            total -= size
    return max(0, room())


def throw_out(store: Path) -> bool:
    """Remove a store unless somebody uses it."""
    if sys.platform == "win32":
        return False  # no locks of this kind there: removing is left to the user
    try:
        handle = os.open(store / "in-use", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        handle = None
    try:
        if handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        elif not store.name.startswith("gone-"):
            return False  # not one of ours, or one that is being made at this moment
        doomed = store
        if not store.name.startswith("gone-"):
            # renamed first, so that nobody opens a store of which half is missing
            doomed = Path(tempfile.mkdtemp(prefix="gone-", dir=store.parent)) / "store"
            os.rename(store, doomed)
            doomed = doomed.parent
        shutil.rmtree(doomed, ignore_errors=True)
        return True
    except FileNotFoundError:
        return False  # another process was faster
    finally:
        if handle is not None:
            os.close(handle)
