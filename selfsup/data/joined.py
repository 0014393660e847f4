"""Two sources as one: the first teaches, the second tests."""

import hashlib
from typing import Any

import numpy as np

from ..errors import SelfsupError
from .base import Source
from .tables import encode

Classes = tuple[np.ndarray, list[str]]


class Joined(Source):
    """Samples of `teaching`, then those of `testing`; their parts say so."""

    def __init__(self, teaching: Source, testing: Source):
        super().__init__(f"{teaching.place} and {testing.place}")
        if teaching.content != testing.content:
            raise SelfsupError(
                "E201",
                f"{testing.place} holds {testing.content}, {teaching.place} {teaching.content}",
                do="give --test with data of the same kind",
            )
        self.both = teaching, testing
        self.kind, self.content = teaching.kind, teaching.content
        self.lasting = teaching.lasting and testing.lasting
        self.notes = [*teaching.notes, *testing.notes]
        for source in self.both:
            for row in source.problems:
                self.problems.add(row["name"].encode("utf-8", "surrogateescape"), row["code"])

    def __len__(self) -> int:
        return len(self.both[0]) + len(self.both[1])

    def where(self, i: int) -> tuple[Source, int]:
        first = len(self.both[0])
        return (self.both[0], i) if i < first else (self.both[1], i - first)

    def name(self, i: int) -> str:
        source, own = self.where(i)
        return f"{'train' if source is self.both[0] else 'test'}/{source.name(own)}"

    def read(self, i: int) -> Any:
        source, own = self.where(i)
        return source.read(own)

    def size(self, i: int) -> int | None:
        source, own = self.where(i)
        return source.size(own)

    def fingerprint(self) -> str:
        told = " ".join(source.fingerprint() for source in self.both)
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()

    def labels(self) -> Classes | None:
        found = [own for source in self.both if (own := source.labels()) is not None]
        if len(found) < 2:
            return None
        return encode(
            None if code < 0 else names[code] for codes, names in found for code in codes.tolist()
        )

    def groups(self) -> np.ndarray | None:
        found = [source.groups() for source in self.both]
        if all(own is None for own in found):
            return None
        teaching, testing = (
            np.arange(len(source)) if own is None else np.unique(own, return_inverse=True)[1]
            for source, own in zip(self.both, found, strict=True)
        )
        return np.concatenate([teaching, testing + len(teaching)])

    def splits(self) -> Classes:
        lengths = [len(source) for source in self.both]
        return np.repeat([0, 1], lengths), ["train", "test"]
