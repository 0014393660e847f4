"""Long recordings as several samples: clips one after another, each read by seeking to it."""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .base import Source
from .listed import Labelled
from .outcome import BadSample

PLAYED = {"audio", "video"}  # what `Source.content` calls recordings
OVER = 0.1  # of a clip is none of its own: many sets of ten seconds have a frame more
LEAST = 512  # bytes of a clip; a header that promises more of them is not believed
THREADS, WINDOW = 8, 1024  # that read headers, and files that they are given at once
KEPT = 4  # listings whose lengths are remembered
UNREAD = -1.0  # the length of a file that could not be opened


class Clip(NamedTuple):
    """A file of a source, or a part of it: where that begins and how long it is, in seconds."""

    files: Any
    file: int
    span: tuple[float, float] | None = None

    def open(self) -> BinaryIO:
        """The whole file. Raises BadSample where it is another one by now."""
        return self.files.open(self.file)

    def print(self) -> bytes:
        """Equal for the same clip of files that are byte for byte the same."""
        return blake2b(_print(*self[:2]) + repr(self.span).encode(), digest_size=16).digest()


@lru_cache(maxsize=64)  # it is asked for clip by clip
def _print(files: Any, i: int) -> bytes:
    digest = blake2b(digest_size=16)
    with files.open(i) as file:
        while content := file.read(1 << 20):
            digest.update(content)
    return digest.digest()


def span_of(raw: Any) -> tuple[float, float] | None:
    return raw.span if isinstance(raw, Clip) else None


def opened(raw: Any) -> BinaryIO:
    """What a reader of recordings gets: bytes, a clip, or a file that is open."""
    if isinstance(raw, Clip):
        return raw.open()
    return io.BytesIO(raw) if isinstance(raw, bytes) else raw


class Clips(Source):
    """Files of which the long ones are cut into `counts` clips of equal length.

    A file's class, number and part are those of all its clips.
    """

    def __init__(self, files: Any, longest: float, counts: np.ndarray, found: np.ndarray):
        super().__init__(files.place)
        self.files, self.longest, self.kind = files, longest, files.kind
        self.content, self.lasting, self.sequential = files.content, files.lasting, files.sequential
        self.problems, self.ignored = files.problems, files.ignored
        self._counts, (self._lengths, self._sizes) = counts, found
        self._file = np.repeat(np.arange(len(counts)), counts)
        self._number = np.arange(len(self._file)) - (np.cumsum(counts) - counts)[self._file]
        long = counts > 1
        told = f"{long.sum()} of {len(long)} files longer than {longest:g} s: "
        told += f"cut into {counts[long].sum()} clips"
        self.notes = [*files.notes, told]

    def __len__(self) -> int:
        return len(self._file)

    def _place(self, i: int) -> tuple[int, float, float]:
        """The file, and where in it the clip begins and how long it is, in seconds."""
        file = int(self._file[i])
        each = float(self._lengths[file] / self._counts[file])
        return file, round(int(self._number[i]) * each, 3), min(each, self.longest)

    def name(self, i: int) -> str:
        file, start, _ = self._place(i)
        name = self.files.name(file)
        return f"{name}@{start}s" if self._counts[file] > 1 else name

    def read(self, i: int) -> Any:
        file, start, seconds = self._place(i)
        if self._counts[file] == 1:
            return self.files.read(file)
        return Clip(self.files, file, (start, seconds))

    def size(self, i: int) -> int:
        file = self._file[i]  # the number, because clips of one file are never copies of each other
        return int(self._sizes[file] // self._counts[file] + self._number[i])

    def fingerprint(self) -> str:
        return f"{self.files.fingerprint()}-{self.longest:g}-{len(self)}"

    def stamps(self) -> np.ndarray | None:
        numbers, own = self._number.astype(np.uint64), self.files.stamps()
        return None if own is None else own[self._file] ^ numbers * np.uint64(0x9E3779B97F4A7C15)

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._of(self.files.labels())

    def targets(self) -> tuple[np.ndarray, str] | None:
        return self._of(self.files.targets())

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self._of(self.files.splits())

    def folds(self) -> list[np.ndarray]:
        folds = getattr(self.files, "folds", list)()
        return [np.flatnonzero(np.isin(self._file, fold)) for fold in folds]

    def groups(self) -> np.ndarray:
        own = self.files.groups()
        return self._file if own is None else own[self._file]

    def _of(self, found: Any) -> Any:
        return None if found is None else (found[0][self._file], found[1])


def cut(source: Source, longest: float, seconds: Callable[[BinaryIO], float]) -> Source:
    """Files longer than `longest` seconds as clips, where the source can `open` a sample; any other
    source as it is.

    `seconds` tells from its header how long a file is, 0 where it cannot.
    """
    if not hasattr(source.source if isinstance(source, Labelled) else source, "open"):
        return source

    lengths, sizes = found = measured(source, seconds)
    counts = np.maximum(np.ceil(lengths / longest - OVER), 1)
    counts[counts * LEAST > sizes] = 1
    if not len(counts) or counts.max() == 1:
        return source
    return Clips(source, longest, counts.astype(np.int64), found)


_known: dict[tuple[str, str, Any], np.ndarray] = {}


def measured(files: Any, seconds: Callable[[BinaryIO], float]) -> np.ndarray:
    """Seconds and bytes of each file, (2, n). Commands list the same files again: their headers
    are read once."""
    from ..stop import stop

    known = files.place, files.fingerprint(), seconds
    if known in _known:
        return _known[known]

    def measure(i: int) -> tuple[float, int]:
        try:
            with files.open(i) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                return seconds(file), size
        except (BadSample, OSError):
            return UNREAD, 0  # told of where it is read

    found = np.empty((2, len(files)))
    with ThreadPoolExecutor(1 if files.sequential else THREADS) as threads:
        for low in range(0, len(files), WINDOW):
            stop.check()
            some = range(low, min(low + WINDOW, len(files)))
            found[:, low : some.stop] = np.array(list(threads.map(measure, some))).T
    if UNREAD not in found[0]:  # it may be there the next time
        while len(_known) >= KEPT:
            del _known[next(iter(_known))]
        _known[known] = found
    return found
