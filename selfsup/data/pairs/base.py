"""Samples of several parts, one part of each, and some of the samples."""

import re
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, BinaryIO

import numpy as np

from ...errors import SelfsupError
from ..base import Source
from ..outcome import BadSample
from ..recordings import Clip, opened
from ..tables import SPLITS

HELD_OUT = 10  # every so many-th sample tests where the data name no parts
FEWEST = 50  # samples for some of them to be held out
ORPHANS = 0.2  # of all samples without one part: more are told of
TESTING = SPLITS - {"train", "training"}


class PairSource(Source):
    """`parts`: name -> what it holds, as `Source.content` calls it. `read` gives a `Pair`."""

    content = "pairs"
    parts: dict[str, str]
    chosen: tuple[str, ...] = ()  # the columns that were named, if any

    def splits(self) -> tuple[np.ndarray, list[str]]:
        """As the data say; else every tenth sample tests, chosen by a hash of its name.

        Of a group all go by the name of its first.
        """
        named = self._splits()
        if named is not None:
            return named
        if len(self) < FEWEST:
            return np.zeros(len(self), np.int64), ["train"]
        first = np.arange(len(self))
        if (own := self.groups()) is not None:
            _, first, group = np.unique(own, return_index=True, return_inverse=True)
            first = first[group]
        drawn = (_number(self.name(i)) for i in first.tolist())
        test = np.fromiter(drawn, np.int64, len(self)) % HELD_OUT == 0
        return np.where(test, 0, 1), ["test", "train"]

    def _splits(self) -> tuple[np.ndarray, list[str]] | None:
        """The parts that the data name."""
        return None

    def _tell_of_orphans(self, lost: int, how: str) -> None:
        """Say so where much was left out, which hints at a wrong folder or a wrong column."""
        whole = lost + len(self)
        if lost > ORPHANS * whole:
            self.notes.append(f"{lost} of {whole} {how}: is that meant?")

    def for_training(self) -> Source:
        """All but what tests: a text that was seen with its picture says nothing when found."""
        numbers, names = self.splits()
        testing = [i for i, name in enumerate(names) if name.lower() in TESTING]
        keep = np.flatnonzero(~np.isin(numbers, testing))
        return Some(self, keep) if 0 < len(keep) < len(self) else self


class Part(Source):
    """One part of every sample of pairs; of several texts one, another for each next sample."""

    def __init__(self, pairs: Any, of: str):
        super().__init__(pairs.place)
        self.pairs, self.of = pairs, of
        self.kind, self.content, self.lasting = pairs.kind, pairs.parts[of], pairs.lasting
        self.molecules = self.content == "graphs"  # there are no others in pairs
        self.problems, self.ignored, self.notes = pairs.problems, pairs.ignored, pairs.notes
        self.sequential = pairs.sequential

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, i: int) -> str:
        return self.pairs.name(i)

    def read(self, i: int) -> Any:
        found = self.pairs.read(i).get(self.of)
        if not found:
            raise BadSample("not_pairs", f"there is no {self.of}")
        return found[i % len(found)]

    def open(self, i: int) -> BinaryIO:
        raw = self.read(i)
        if not isinstance(raw, bytes | Clip):
            raise BadSample("not_pairs", f"{self.of} is {type(raw).__name__}")
        return opened(raw)

    def size(self, i: int) -> int | None:
        return self.pairs.size(i)

    def fingerprint(self) -> str:
        return f"{self.pairs.fingerprint()}-{self.of}"

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self.pairs.labels()

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self.pairs._splits()

    def groups(self) -> np.ndarray | None:
        return self.pairs.groups()


class Some(PairSource):
    """Some samples of pairs."""

    def __init__(self, whole: PairSource, keep: np.ndarray):
        super().__init__(whole.place)
        self.whole, self.keep, self.parts, self.kind = whole, keep, whole.parts, whole.kind
        self.sequential, self.lasting = whole.sequential, whole.lasting
        self.problems, self.ignored, self.notes = whole.problems, whole.ignored, whole.notes
        self.chosen = whole.chosen

    def __len__(self) -> int:
        return len(self.keep)

    def name(self, i: int) -> str:
        return self.whole.name(int(self.keep[i]))

    def read(self, i: int) -> Any:
        return self.whole.read(int(self.keep[i]))

    def size(self, i: int) -> int | None:
        return self.whole.size(int(self.keep[i]))

    def fingerprint(self) -> str:
        digest = blake2b(self.whole.fingerprint().encode(), digest_size=16)
        digest.update(self.keep.astype("<i8").tobytes())
        return digest.hexdigest()

    def stamps(self) -> np.ndarray | None:
        stamps = self.whole.stamps()
        return None if stamps is None else stamps[self.keep]

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        found = self.whole.labels()
        return None if found is None else (found[0][self.keep], found[1])

    def splits(self) -> tuple[np.ndarray, list[str]]:
        numbers, names = self.whole.splits()
        return numbers[self.keep], names


def _number(name: str) -> int:
    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def named(contents: Mapping[str, str]) -> dict[str, str]:
    """Column -> name of the part: what it holds, or the column where two parts hold the same.

    Raises SelfsupError E105 where two columns would have one name.
    """
    counts = Counter(contents.values())
    made = {
        column: kind if counts[kind] == 1 else re.sub(r"\W|^(?=\d)", "_", column)
        for column, kind in contents.items()
    }
    for name, times in Counter(made.values()).items():
        if times > 1:
            alike = ", ".join(repr(column) for column in made if made[column] == name)
            raise SelfsupError(
                "E105",
                f"the columns {alike} would be one part: {name}",
                why="in names of parts all but letters and digits is _",
                do="rename one of them in the table, or name others with --set "
                "'modality.columns=[...]'",
            )
    return made
