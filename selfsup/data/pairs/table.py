"""Tables whose rows name files and hold texts."""

import os
from hashlib import blake2b
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from ..base import Pair, stamp_of
from ..files import open_file, read_file
from ..names import encoded
from ..packed import suffix
from ..recordings import PLAYED, Clip
from ..tables import (
    GROUP_COLUMNS,
    LABEL_COLUMNS,
    NUMBER_COLUMNS,
    SPLIT_COLUMNS,
    encode,
    grouped,
    number_column,
)
from .base import ORPHANS, PairSource, named
from .columns import kind_of, root_of
from .rows import LOOKED_AT, rows_of, texts_in


class PairTable(PairSource):
    """Rows that name files and hold texts. Rows that name the same files are one sample.

    `contents` tells what each column of a part is; those of `written` are strings, each part in
    some columns, the others name files. Empty texts count for nothing; a sample without any is told
    of when it is read. Where nothing names files each row is a sample. `scores` are the numbers in
    a column of that kind, as `Source.targets` has them.
    """

    def __init__(
        self,
        paths: list[str],
        place: str,
        contents: dict[str, str],
        written: dict[str, list[str]],
    ):
        super().__init__(place)
        rows = [row for path in paths for row in rows_of(path)]
        media = [column for column in contents if column not in written]
        self.kind = suffix(paths[0])[1:]
        self._roots = [os.fsencode(root_of(paths[0], column, rows)) for column in media]
        columns = named(contents)
        self.parts = {columns[c]: kind for c, kind in contents.items()}
        self._media = [columns[c] for c in media]
        self._written = [columns[c] for c in written]
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for number, row in enumerate(rows, 1):
            if not row:
                self.problems.add(f"row {number}".encode(), "broken-row")
            key = tuple(str(row.get(column) or "").strip() for column in media)
            if not media and row:
                groups[f"{os.path.basename(place)}#{number}",] = [row]
            elif key and all(key):
                groups.setdefault(key, []).append(row)
            elif any(key):
                self.problems.add(encoded(next(filter(None, key))), "no-partner")
        self._files: list[tuple[str, ...]] = []  # or the name of the row
        self._texts: list[tuple[list[str], ...]] = []
        self._stats: list[tuple[int, int]] = []
        first: list[dict[str, Any]] = []
        for key, same in groups.items():
            try:
                status = [os.stat(self._path(j, key[j])) for j in range(len(media))]
            except (OSError, ValueError):  # the latter: nothing can be called that
                self.problems.add(encoded(key[0]), "missing")
                continue
            self._files.append(key)
            self._texts.append(
                tuple(
                    list(dict.fromkeys(t for row in same for t in texts_in(row, own)))
                    for own in written.values()
                )
            )
            self._stats += [(s.st_size, s.st_mtime_ns) for s in status]
            first.append(same[0])
        self._labels = _column(first, LABEL_COLUMNS, rows)
        self._given = _column(first, SPLIT_COLUMNS, rows)
        self._groups = grouped(_column(first, GROUP_COLUMNS, rows))
        numbers = (*NUMBER_COLUMNS, "similarity", "similarity_score")
        usual = (*LABEL_COLUMNS, *numbers)
        names = [n for n in dict.fromkeys(chain(*rows)) if n.strip().lower() in usual]
        cells = {n: [None if (v := r.get(n)) is None else str(v) for r in first] for n in names}
        self.scores = number_column(cells, numbers)
        if media:
            self._look_around()

    def _look_around(self) -> None:
        """Captions without files, files without captions: a few are usual, many a mistake."""
        counts = self.problems.counts()
        absent = counts.get("missing", 0) + counts.get("no-partner", 0)
        self._tell_of_orphans(absent, "rows are without a file that is there")
        mute = sum(not all(texts) for texts in self._texts)
        if mute > ORPHANS * len(self):
            self.notes.append(f"{mute} of {len(self)} files have no text in the table")
        named = {self._path(j, name) for key in self._files for j, name in enumerate(key)}
        kinds, others = set(self.parts.values()), 0
        for folder in {os.path.dirname(path) for path in named}:
            with os.scandir(folder) as entries:
                for entry in entries:
                    others += kind_of(os.fsdecode(entry.name)) in kinds and entry.path not in named
        if others:
            self.ignored = {"files without a text": others}
        self._tell_of_orphans(others, "files beside the table are not in it")

    def _path(self, part: int, name: str) -> bytes:
        return os.path.join(self._roots[part], os.fsencode(name))

    def __len__(self) -> int:
        return len(self._files)

    def name(self, i: int) -> str:
        return self._files[i][0]

    def size(self, i: int) -> int:
        k = len(self._media)
        return sum(size for size, _ in self._stats[i * k : (i + 1) * k])

    def read(self, i: int) -> Pair:
        k = len(self._media)
        found = Pair()
        for j, part in enumerate(self._media):
            size, time = self._stats[i * k + j]
            if size and self.parts[part] in PLAYED:
                found[part] = [Clip(self, i * k + j)]
            else:
                found[part] = [read_file(self._path(j, self._files[i][j]), size, time)]
        for part, texts in zip(self._written, self._texts[i], strict=True):
            found[part] = texts or [""]
        return found

    def open(self, number: int) -> BinaryIO:
        """A file by its number among those of all samples. Raises BadSample."""
        i, j = divmod(number, len(self._media))
        return os.fdopen(open_file(self._path(j, self._files[i][j]), *self._stats[number]), "rb")

    def fingerprint(self) -> str:
        digest = blake2b(repr(sorted(self.parts.items())).encode(), digest_size=16)
        for files, texts in zip(self._files, self._texts, strict=True):
            digest.update(repr((files, *texts)).encode("utf-8", "surrogatepass"))
        digest.update(repr(self._stats).encode())
        return digest.hexdigest()

    def stamps(self) -> np.ndarray:
        stats = np.array(self._stats, np.int64).reshape(len(self), len(self._media), 2)
        texts = [blake2b("\n".join(chain(*t)).encode("utf-8", "surrogatepass"), digest_size=8)
                 .digest() for t in self._texts]  # fmt: skip
        written = np.frombuffer(b"".join(texts), np.uint64)
        return stamp_of(stats[:, :, 0].sum(1), stats[:, :, 1].sum(1)) ^ written

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._labels

    def _splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self._given

    def groups(self) -> np.ndarray | None:
        return self._groups


def _column(
    rows: list[dict[str, Any]], names: tuple[str, ...], whole: list[dict[str, Any]]
) -> tuple[np.ndarray, list[str]] | None:
    known = {name.strip().lower(): name for row in whole[:LOOKED_AT] for name in row}
    column = next((known[name] for name in names if name in known), None)
    if column is None:
        return None
    cells = (row.get(column) for row in rows)
    return encode(None if cell is None else str(cell).strip() or None for cell in cells)
