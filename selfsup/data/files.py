"""Files in folders: listed once, each opened only if it is still what was listed."""

import errno
import hashlib
import os
import stat
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from .base import LARGEST, REASONS, Problems, Source, stamp_of
from .kinds import ABOUT, CODES, KINDS, OTHER, TEXT, extension, sniff
from .names import Names, text
from .outcome import BadSample
from .tables import folder_labels, folder_splits


class Listing:
    """Regular files under a folder, in the byte order of their relative names."""

    def __init__(self):
        self.names = Names()
        self.kinds, self.sizes, self.times = array("B"), array("q"), array("q")
        self.problems, self.ignored = Problems(), Counter()


def list_folder(root: bytes, follow_links: bool = False) -> Listing:
    """Every regular file of a known kind under `root`.

    Folders are visited once each, told apart by device and inode, so that a loop of links ends.
    A link inside the folder is never a second sample; one that leads out of it is read only with
    `follow_links`. Names that start with a dot are left alone (.git, .DS_Store, ._copy.jpg), and
    at the top, where folders part, what only tells about the data (README.md, LICENSE).
    """
    from ..stop import stop

    listing = Listing()
    home = os.path.realpath(root)
    seen = {_identity(os.stat(root))}  # folders, and files reached through links
    # A stack of sorted entries, not recursion: folders may be nested deeper than Python calls.
    # Sub-folders sort as "name/", which makes the visiting order the byte order of whole names.
    stack = [(b"", *_entries(root, b"", listing))]
    visited, top = 0, b""
    while stack:
        prefix, entries, links = stack[-1]
        if not entries:
            stack.pop()
            continue
        visited += 1
        if visited % 1024 == 0:
            stop.check()
        name = entries.pop()
        relative = prefix + name.rstrip(b"/")
        path = root + b"/" + relative
        if name in links:
            code = _link(path, home, follow_links, seen)
            if code is not None:
                listing.problems.add(relative, code)
                continue
        try:
            status = os.stat(path)
        except OSError:  # gone since the folder was read, or in a folder that cannot be searched
            listing.problems.add(relative, "unreadable")
            continue
        if stat.S_ISDIR(status.st_mode):
            if name in links or _identity(status) not in seen:
                seen.add(_identity(status))
                if not entries and visited == relative.count(b"/") + 1:  # nothing beside it so far
                    top = relative + b"/"
                stack.append((relative + b"/", *_entries(path, relative + b"/", listing)))
        elif not stat.S_ISREG(status.st_mode):
            listing.problems.add(relative, "not-a-file")
        else:
            kind = _kind(path, listing, about=prefix == top)
            if kind is not None:
                listing.names.append(relative)
                listing.kinds.append(kind)
                listing.sizes.append(status.st_size)
                listing.times.append(status.st_mtime_ns)
    return listing


def _entries(path: bytes, prefix: bytes, listing: Listing) -> tuple[list[bytes], set[bytes]]:
    """Names in a folder, last first, those of folders with a "/" behind; and which are links."""
    entries, links = [], set()
    try:
        with os.scandir(path) as found:
            for entry in found:
                if entry.name.startswith(b"."):
                    listing.ignored["hidden"] += 1
                elif entry.is_dir(follow_symlinks=False):
                    entries.append(entry.name + b"/")
                else:
                    entries.append(entry.name)
                    if entry.is_symlink():
                        links.add(entry.name)
    except OSError:
        listing.problems.add(prefix.rstrip(b"/") or b".", "unreadable")
    entries.sort(reverse=True)
    return entries, links


def _link(path: bytes, home: bytes, follow_links: bool, seen: set[tuple[int, int]]) -> str | None:
    """Why a link is not followed, or None where it is."""
    target = os.path.realpath(path)
    try:
        status = os.stat(target)
    except OSError:  # nothing there, or a link that leads to itself
        return "link-broken"
    if target == home or target.startswith(home.rstrip(b"/") + b"/"):
        return "link-inside"
    if not follow_links:
        return "link-outside"
    if _identity(status) in seen:
        return "link-again"
    if not stat.S_ISDIR(status.st_mode):
        seen.add(_identity(status))
    return None


def _kind(path: bytes, listing: Listing, about: bool) -> int | None:
    """The kind of a file by its extension, else by its first bytes; None for what is not data.

    With `about`, what only tells about the data is none either.
    """
    name = os.path.basename(path)
    last = extension(name)
    code = CODES.get(last)
    if about and code in (None, TEXT) and ABOUT.fullmatch(name):
        listing.ignored["about the data"] += 1
        return None
    if code is None and last not in OTHER:
        try:
            kind = sniff(_head(path))
        except OSError:
            kind = None
        code = KINDS.index(kind) if kind is not None else None
    if code is None:
        listing.ignored[text(last) or "no extension"] += 1
    return code


def _head(path: bytes) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(512)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class FileSource(Source):
    """Files under `root` with the size and time they had when they were listed."""

    def __init__(self, place: str, root: bytes, names: Names, sizes: Sequence, times: Sequence):
        super().__init__(place)
        self.root, self.names = root, names
        self.sizes, self.times = sizes, times

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return text(self.names[i])

    def size(self, i: int) -> int:
        return self.sizes[i]

    def path(self, i: int) -> bytes:
        """Where sample i lies; bytes, because not every file name is text."""
        return os.path.join(self.root, self.names[i])

    def read(self, i: int) -> bytes:
        return read_file(self.path(i), self.sizes[i], self.times[i])

    def open(self, i: int) -> BinaryIO:
        """The file, to be read in parts. Raises BadSample where it is another one by now."""
        return os.fdopen(open_file(self.path(i), self.sizes[i], self.times[i]), "rb")

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(b"files", digest_size=16)
        self.names.update(digest)
        digest.update(self.sizes)
        digest.update(self.times)
        return digest.hexdigest()

    def stamps(self) -> np.ndarray:
        return stamp_of(self.sizes, self.times)

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return folder_labels(self.names)

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return folder_splits(self.names)


class FolderSource(FileSource):
    """The files of one kind in a folder and its sub-folders."""

    def __init__(self, place: str, listing: Listing, keep: int | None):
        names, sizes, times = listing.names, listing.sizes, listing.times
        if keep is None or listing.kinds.count(keep) != len(names):
            chosen = [i for i, kind in enumerate(listing.kinds) if kind == keep]
            names = names.take(chosen)
            sizes = array("q", (sizes[i] for i in chosen))
            times = array("q", (times[i] for i in chosen))
        super().__init__(place, os.fsencode(place), names, sizes, times)
        self.problems = listing.problems
        self.content = KINDS[keep] if keep is not None else "nothing"


class ListedFiles(FileSource):
    """Files named one by one, by absolute or relative paths."""

    kind = "files"

    def __init__(self, paths: Sequence[str | os.PathLike], root: bytes = b"", place: str = ""):
        names, sizes, times, problems = Names(), array("q"), array("q"), Problems()
        kinds: Counter[str] = Counter()
        for path in paths:
            name = os.fsencode(path)
            try:
                status = os.stat(os.path.join(root, name))
            except OSError:
                problems.add(name, "missing")
                continue
            if not stat.S_ISREG(status.st_mode):
                problems.add(name, "not-a-file")
                continue
            names.append(name)
            sizes.append(status.st_size)
            times.append(status.st_mtime_ns)
            kinds[KINDS[CODES.get(extension(os.path.basename(name)), 0)]] += 1
        told = f"{len(names)} files" if len(names) != 1 else os.fsdecode(names[0])
        super().__init__(place or told, root, names, sizes, times)
        self.problems = problems
        self.content = kinds.most_common(1)[0][0] if kinds else "nothing"


def read_file(
    path: bytes, size: int, time: int, start: int = 0, length: int | None = None
) -> bytes:
    """The file if it is still the one that was listed with this size and time (ns).

    With `length`, that many bytes of it from `start` on, or what is left. Raises BadSample with the
    code `changed` where it is not, `unreadable` or `io` where the system refuses.
    """
    wanted = max(0, min(size - start, size if length is None else length))
    if wanted > LARGEST:
        raise BadSample("too-large", REASONS["too-large"])
    handle = open_file(path, size, time)
    try:
        content = os.pread(handle, wanted, start)
        while len(content) < wanted:  # one read gives at most 2 GiB, and less on some file systems
            more = os.pread(handle, wanted - len(content), start + len(content))
            if not more:
                raise BadSample("changed", "cut short since the data was listed")
            content += more
        return content
    except OSError as error:
        raise BadSample("io", f"cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)


def open_file(path: bytes, size: int, time: int) -> int:
    """A handle of the file if it is still the one that was listed. Raises BadSample as above."""
    try:
        # Not blocking, because what was a file may be a pipe by now, which would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadSample("changed", "deleted since the data was listed") from None
    except PermissionError:
        raise BadSample("unreadable", "no permission to read it") from None
    except OSError as error:
        code = "changed" if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENXIO) else "io"
        raise BadSample(code, f"cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadSample("changed", "no longer a regular file")
        if status.st_size != size or status.st_mtime_ns != time:
            raise BadSample("changed", "rewritten since the data was listed")
    except OSError as error:
        os.close(handle)
        raise BadSample("io", f"cannot be read: {error.strerror}") from None
    except BaseException:
        os.close(handle)
        raise
    return handle
