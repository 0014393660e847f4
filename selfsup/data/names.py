"""A million file names in one buffer.

A list of a million Python strings takes over 100 MB and is copied page by page into every forked
process that touches it; the same names end to end in one array take their own length.
"""

from array import array
from collections.abc import Iterable, Iterator

import numpy as np


class Names:
    """Byte strings laid end to end; `names[i]` is a bytes object made when asked for."""

    def __init__(self, names: Iterable[bytes] = ()):
        self._bytes = bytearray()
        self._ends = array("q", [0])
        self.extend(names)

    def append(self, name: bytes) -> None:
        self._bytes += name
        self._ends.append(len(self._bytes))

    def extend(self, names: Iterable[bytes]) -> None:
        for name in names:
            self.append(name)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> bytes:
        if not 0 <= i < len(self):
            raise IndexError(f"name {i} of {len(self)}")
        return bytes(self._bytes[self._ends[i] : self._ends[i + 1]])

    def __iter__(self) -> Iterator[bytes]:
        for i in range(len(self)):
            yield self[i]

    def take(self, keep: np.ndarray) -> "Names":
        """The names at these indices, as a new buffer."""
        return Names(self[i] for i in keep)

    def update(self, digest) -> None:
        """Feed a hashlib object with all names and where each ends."""
        digest.update(self._bytes)
        digest.update(self._ends)

    @property
    def nbytes(self) -> int:
        return len(self._bytes) + len(self._ends) * self._ends.itemsize


def text(name: bytes) -> str:
    """A name as a string from which the same bytes come back, whatever they are."""
    return name.decode("utf-8", "surrogateescape")


def encoded(name: str) -> bytes:
    """The bytes of such a string; also of one that no file can be called, as JSON may spell it."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")
