"""Exact copies: the same sample under several names, which is one sample seen more often."""

from hashlib import blake2b
from typing import Any

import numpy as np

from .base import Pair, Problems, Source
from .frames import Frames
from .outcome import BadSample
from .recordings import Clip

LOOKED_AT = 512  # samples of a store: two copies each of 50,000 pictures leave a pair among them


class WithoutCopies(Source):
    """The samples of a source of which no earlier one has the same bytes.

    Copies are `problems` with the code "copy", so that found = used + skipped still holds.
    """

    def __init__(self, whole: Source, keep: np.ndarray):
        super().__init__(whole.place)
        self.kind, self.content = whole.kind, whole.content
        self.sequential, self.lasting = whole.sequential, whole.lasting
        self.ignored, self.problems = whole.ignored, Problems()
        self.notes = whole.notes
        self._whole, self._keep = whole, keep
        for problem in whole.problems:
            self.problems.add(_bytes(problem["name"]), problem["code"])
        for i in np.setdiff1d(np.arange(len(whole)), keep).tolist():
            self.problems.add(_bytes(whole.name(i)), "copy")

    def __len__(self) -> int:
        return len(self._keep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def name(self, i: int) -> str:
        return self._whole.name(int(self._keep[i]))

    def read(self, i: int) -> Any:
        return self._whole.read(int(self._keep[i]))

    def size(self, i: int) -> int | None:
        return self._whole.size(int(self._keep[i]))

    def fingerprint(self) -> str:
        digest = blake2b(self._whole.fingerprint().encode(), digest_size=16)
        digest.update(self._keep.astype("<i8"))
        return digest.hexdigest()

    def stamps(self) -> np.ndarray | None:
        stamps = self._whole.stamps()
        return None if stamps is None else stamps[self._keep]

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._part(self._whole.labels())

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self._part(self._whole.splits())

    def groups(self) -> np.ndarray | None:
        own = self._whole.groups()
        return None if own is None else own[self._keep]

    def _part(self, found: tuple[np.ndarray, list[str]] | None) -> Any:
        return None if found is None else (found[0][self._keep], found[1])


def without_copies(source: Source) -> Source:
    """`source` without samples whose bytes are those of an earlier one.

    Only files of which another has the same size are read. What cannot be read stays, and is told
    of where it is used.
    """
    from ..stop import stop

    sizes = [source.size(i) for i in range(len(source))]
    if any(size is None for size in sizes):
        asked = np.arange(len(source))
    else:
        _, place, counts = np.unique(sizes, return_inverse=True, return_counts=True)
        asked = np.flatnonzero(counts[place] > 1)
    seen: set[bytes] = set()
    copies = []
    for i in asked.tolist():
        if i % 64 == 0:
            stop.check()
        try:
            found = raw_print(source.read(i))
        except BadSample:
            continue
        if found in seen:
            copies.append(i)
        seen.add(found)
    if not copies:
        return source
    return WithoutCopies(source, np.setdiff1d(np.arange(len(source)), copies))


def count_copies(store: Any, indices: np.ndarray) -> int:
    """How many of these samples are, as they are stored, the same as one before them."""
    from ..stop import stop

    seen: set[bytes] = set()
    looked = 0
    for low in range(0, len(indices), 64):
        stop.check()
        batch = store.batch(indices[low : low + 64])
        pixels = batch.pixels.permute(0, 2, 3, 1).numpy()  # (b, h, w, c), as they are stored
        for row in range(len(batch)):
            height, width = pixels.shape[1:3]
            if batch.extents is not None:
                height, width = batch.extents[row].tolist()
            seen.add(content_print(pixels[row, :height, :width]))
        looked += len(batch)
    return looked - len(seen)


def content_print(sample: np.ndarray) -> bytes:
    """A fingerprint of a decoded sample: equal for the same pixels in whatever file."""
    digest = blake2b(str(sample.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(sample).data)
    return digest.digest()


def raw_print(raw: Any) -> bytes:
    """A fingerprint of a sample as its source gives it: bytes, text, an array or a picture."""
    if isinstance(raw, Pair):
        return b"".join(raw_print(one) for forms in raw.values() for one in forms)
    if isinstance(raw, Clip):
        return raw.print()
    if isinstance(raw, Frames):
        raw = b"".join(read() for read in raw.values())
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogatepass")
    if isinstance(raw, bytes):
        return blake2b(raw, digest_size=16).digest()
    return content_print(np.asarray(raw))


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
