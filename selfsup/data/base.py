"""What every source of samples has in common."""

import zipfile
import zlib
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from .names import Names, text

LARGEST = 1 << 30  # bytes: a single sample larger than this is not read into memory

# What NumPy and zipfile raise for .npy and .npz files that are cut, damaged or something else
UNREADABLE = (
    *(ValueError, TypeError, KeyError, AttributeError, OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)

# Why something that was found while listing is not a sample.
REASONS = {
    "link-outside": "a link out of the folder; --follow-links reads it",
    "link-inside": "a link to something in the same folder, which is read under its own name",
    "link-broken": "a link to nothing",
    "link-again": "a link to a file or folder that was already listed",
    "not-a-file": "a pipe, socket or device; only regular files are opened",
    "unreadable": "no permission to read it",
    "missing": "listed, but not there",
    "unsafe-name": "an absolute path or one with '..' in an archive",
    "archive-link": "a link, device or other special member of an archive",
    "archive-cut": "the archive ends too early",
    "archive-bomb": "the archive unpacks to far more than its size; what came before is read",
    "copy": "byte for byte the same as another sample, which is used",
    "no-partner": "one part of a pair without the other",
    "broken-row": "a row of a table that cannot be read",
    "key-again": "a part of a pair that is there already under the same key",
    "no-number": "a picture without a number, where numbered ones are the frames of clips",
    "frame-again": "another frame of the same clip has this number",
    "too-large": f"more than {LARGEST >> 20} MiB in one sample",
}


def first_line(error: Exception) -> str:
    """What an exception says, or its name where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def evenly(among: int, count: int) -> list[int]:
    """Up to `count` of the numbers below `among`, at even distances.

    >>> evenly(10, 4), evenly(3, 4), evenly(0, 4)
    ([0, 3, 6, 9], [0, 1, 2], [])
    """
    return np.unique(np.linspace(0, among - 1, min(count, among)).astype(int)).tolist()


class Pair(dict):
    """A sample of several parts: part -> its raw forms; one file, one text, or several texts."""


class Problems:
    """What was found while listing but cannot be a sample. As compact as the names."""

    def __init__(self):
        self._names, self._codes = Names(), array("B")
        self._known = list(REASONS)

    def add(self, name: bytes, code: str) -> None:
        self._names.append(name)
        self._codes.append(self._known.index(code))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[dict[str, str]]:
        for name, number in zip(self._names, self._codes, strict=True):
            code = self._known[number]
            yield {"name": text(name), "code": code, "reason": REASONS[code]}

    def counts(self) -> dict[str, int]:
        return {self._known[c]: n for c, n in Counter(self._codes).most_common()}


def stamp_of(sizes: Any, times: Any) -> np.ndarray:
    """Stamps of files from their sizes and times of change (ns)."""
    sizes, times = (np.asarray(values, np.int64).view(np.uint64) for values in (sizes, times))
    return (sizes + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ times  # wraps around


class Source(ABC):
    """Samples by number.

    `kind` is how they are stored (folder, tar, parquet, csv, array, dataset), `content` what they
    are (image, audio ...), `sequential` whether reading in order is much cheaper than at random,
    `ignored` how many other files lie beside them, by extension, `lasting` whether the same
    fingerprint means the same samples also tomorrow.
    """

    kind = "folder"
    content = "image"
    sequential = False
    lasting = True

    def __init__(self, place: str):
        self.place = place
        self.problems = Problems()
        self.ignored: dict[str, int] = {}
        self.notes: list[str] = []  # what a person should know of the data

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, i: int) -> str:
        """The name of a sample; unique, and the same whenever the source is opened."""

    @abstractmethod
    def read(self, i: int) -> Any:
        """The raw sample: bytes, an array or a PIL image. Raises BadSample."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when a sample is added, removed or rewritten."""

    def stamps(self) -> np.ndarray | None:
        """(n,) uint64: each changes when its sample is rewritten, found out without reading it.

        None where only the whole can be told, by `fingerprint`.
        """
        return None

    def size(self, i: int) -> int | None:
        """Bytes of the raw sample where that is known without reading it."""
        return None

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        """Class of each sample, (n,) int64 with -1 for none, and the names of the classes."""
        return None

    def targets(self) -> tuple[np.ndarray, str] | None:
        """A number for each sample, (n,) float64 with NaN for none, and what it is called."""
        return None

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        """Part (train, test ...) of each sample where the data says so, as `labels` does."""
        return None

    def groups(self) -> np.ndarray | None:
        """(n,) int64: equal for samples that must not teach and test both, as clips of a file.

        None where each stands for itself.
        """
        return None

    def for_training(self) -> "Source":
        """What pretraining may see: all of it, unless a later part is there to be foretold."""
        return self

    @property
    def found(self) -> int:
        return len(self) + len(self.problems)

    def __repr__(self) -> str:
        extra = f", {len(self.problems)} set aside" if len(self.problems) else ""
        return f"{type(self).__name__}({self.place!r}, {len(self)} samples{extra})"
