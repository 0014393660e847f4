"""Tar and Parquet shards with the parts of a sample beside each other."""

import json
import os
from collections import Counter
from itertools import chain
from typing import Any

import numpy as np

from ..base import Pair
from ..kinds import KINDS, extension
from ..names import text
from ..outcome import BadSample
from ..parquet import one_row
from ..recordings import PLAYED, Clip
from ..shards import ParquetSource, TarSource, _key
from ..tables import encode
from .base import PairSource, named
from .columns import CAPTION_COLUMNS
from .rows import texts_in


class PairTar(TarSource, PairSource):
    """`key.jpg` beside `key.txt`, or beside `key.json` with a caption in it; key.wav likewise."""

    def __init__(self, paths: list[str], place: str):
        super().__init__(paths, place)
        self.content = "pairs"

    def _wanted(self, archive: Any, member: Any, number: int) -> bool:
        name = member.name.encode("utf-8", "surrogateescape")
        last = os.path.basename(name)
        if member.isreg() and not last.startswith(b".") and extension(last) in (b"txt", b"json"):
            return True
        return super()._wanted(archive, member, number)

    def _keep_one_kind(self) -> None:
        """Members by key, in the order in which keys come; what has no partner is a problem."""
        groups: dict[tuple[int, bytes], dict[str, int]] = {}
        for i, member in enumerate(self.members):
            ending = extension(os.path.basename(member))
            kind = "json" if ending == b"json" else KINDS[self.kinds[i]]
            group = groups.setdefault((self.shard[i], _key(member)), {})
            if kind in group:
                self.problems.add(member, "key-again")
            else:
                group[kind] = i
        kinds = Counter(k for group in groups.values() for k in group)
        written = "text" if kinds["text"] >= kinds["json"] else "json"
        least = len(groups) / 2
        held = {k: k for k in ("image", "audio", "video") if kinds[k] >= least}
        if len(held) < 2 or kinds[written] >= least:
            held["text"] = written
        self.parts = {name: name for name in held}
        self._groups: list[dict[str, int]] = []
        for group in groups.values():
            if all(k in group for k in held.values()):
                self._groups.append({name: group[k] for name, k in held.items()})
            else:
                self.problems.add(self.members[min(group.values())], "no-partner")
        self.json = held.get("text") == "json"
        lost = self.problems.counts().get("no-partner", 0)
        self._tell_of_orphans(lost, "keys have one part without the other")

    def __len__(self) -> int:
        return len(self._groups)

    def name(self, i: int) -> str:
        return TarSource.name(self, next(iter(self._groups[i].values())))

    def size(self, i: int) -> int:
        return sum(self.length[j] for j in self._groups[i].values())

    def read(self, i: int) -> Pair:
        found = Pair()
        for name, j in self._groups[i].items():
            whole = name not in PLAYED or not self.length[j]
            found[name] = [TarSource.read(self, j) if whole else Clip(self, j)]
        if self.json:
            found["text"] = _captions(found["text"][0])
        return found

    def stamps(self) -> np.ndarray:
        first = [next(iter(group.values())) for group in self._groups]
        return TarSource.stamps(self)[first]

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        if not self._classes:
            return None
        found = []
        for group in self._groups:
            j = next(iter(group.values()))
            value = self._classes.get((self.shard[j], _key(self.members[j])))
            found.append(text(value).strip() if value is not None else None)
        return encode(found)

    def splits(self) -> tuple[np.ndarray, list[str]]:
        return PairSource.splits(self)


def _captions(raw: bytes) -> list[str]:
    """The texts in a JSON object. Raises BadSample."""
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadSample("broken-row", f"not JSON: {error}") from None
    if isinstance(told, dict):
        lower = {str(key).lower(): value for key, value in told.items()}
        for usual in CAPTION_COLUMNS:
            if usual in lower:
                return texts_in(lower, [usual]) or [""]
    raise BadSample("empty", f"no text under {', '.join(CAPTION_COLUMNS[:3])}")


class PairParquet(ParquetSource, PairSource):
    """Columns of encoded files beside columns of strings, or of lists of them; as `PairTable`."""

    def __init__(
        self,
        paths: list[str],
        place: str,
        contents: dict[str, str],
        written: dict[str, list[str]],
    ):
        columns = named(contents)
        self.parts = {columns[c]: kind for c, kind in contents.items()}
        self._media = {columns[c]: c for c in contents if c not in written}
        self._written = {columns[c]: own for c, own in written.items()}
        super().__init__(paths, place)
        self.content = "pairs"

    def _find_columns(self) -> tuple[list[str], bool]:
        return [*self._media.values(), *chain(*self._written.values())], False

    def read(self, i: int) -> Pair:
        group, at = self._locate(i)
        row = one_row(self._table(group), at)
        found = Pair()
        for part, column in self._media.items():
            value = row[column]
            value = value.get("bytes") if isinstance(value, dict) else value
            if value is None:
                raise BadSample("empty", f"the cell of {column} is empty")
            found[part] = [value]
        for part, own in self._written.items():
            found[part] = texts_in(row, own) or [""]
        return found

    def splits(self) -> tuple[np.ndarray, list[str]]:
        return PairSource.splits(self)

    def _splits(self) -> tuple[np.ndarray, list[str]] | None:
        return ParquetSource.splits(self)
