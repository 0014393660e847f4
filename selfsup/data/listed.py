"""Samples that a table names or labels."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SelfsupError
from .base import Source
from .files import ListedFiles
from .names import text
from .tables import (
    GROUP_COLUMNS,
    LABEL_COLUMNS,
    PATH_COLUMNS,
    Classes,
    Table,
    encode,
    folder_labels,
    folder_splits,
    grouped,
    matched,
)


class CsvSource(ListedFiles):
    """A table whose rows name files, relative to the table's folder, with labels if it has any."""

    kind = "csv"

    def __init__(self, path: str):
        table = Table(Path(path))
        if table.path_column is None:
            raise SelfsupError(
                "E105",
                f"{path} has no column that names files",
                why=f"its columns are {', '.join(table.header)}",
                do=f"name one of them {', '.join(PATH_COLUMNS[:3])}",
            )
        rows = {row.path: row for row in table.rows()}
        root = os.fsencode(os.path.dirname(path))
        super().__init__([os.fsdecode(name) for name in rows], root, place=path)
        self._labels = encode(rows[name].label for name in self.names)
        self._splits = encode(rows[name].split for name in self.names)
        self._folds = encode(rows[name].fold for name in self.names)
        self._groups = grouped(encode(rows[name].group for name in self.names))

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._labels or folder_labels(self.names)

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self._splits or folder_splits(self.names)

    def folds(self) -> list[np.ndarray]:
        return tested(self._folds)

    def groups(self) -> np.ndarray | None:
        return self._groups


class Labelled(Source):
    """A source whose classes come from a table beside it, or from its column in TABLE:COLUMN."""

    def __init__(self, source: Source, table: Path, column: str | None = None):
        super().__init__(source.place)
        self.source, self.table, self.column = source, table, column
        above, colon, named = table.name.rpartition(":")
        if colon and not table.exists():
            self.table, self.column = table.with_name(above), named
        self.kind, self.content, self.sequential = (
            source.kind,
            source.content,
            source.sequential,
        )
        self.problems, self.ignored = source.problems, source.ignored
        self.lasting = source.lasting
        self.notes = source.notes
        if not self.table.is_file():
            raise SelfsupError("E101", f"there is no table at {self.table}")

    def around(self, source: Source) -> "Labelled":
        """The same table, and the same column of it, beside another form of the source."""
        return self if source is self.source else Labelled(source, self.table, self.column)

    def __len__(self) -> int:
        return len(self.source)

    def __getattr__(self, name: str):
        return getattr(self.source, name)

    def name(self, i: int) -> str:
        return self.source.name(i)

    def read(self, i: int) -> Any:
        return self.source.read(i)

    def size(self, i: int) -> int | None:
        return self.source.size(i)

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def stamps(self) -> np.ndarray | None:
        return self.source.stamps()

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._column(1)

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self._column(2) or self.source.splits()

    def folds(self) -> list[np.ndarray]:
        return tested(self._column(3)) or getattr(self.source, "folds", list)()

    def groups(self) -> np.ndarray | None:
        return self._groups

    @cached_property
    def _groups(self) -> np.ndarray | None:
        if (self.column or "").strip().lower() in GROUP_COLUMNS:
            return None  # a class is no group that is in one part alone
        own = grouped(self._column(4))
        return self.source.groups() if own is None else own

    def _column(self, column: int) -> tuple[np.ndarray, list[str]] | None:
        table = Table(self.table, self.column)
        if column == 1 and table.label_column is None:
            raise SelfsupError(
                "E105",
                f"{self.table} has no column {self.column or 'of labels'}",
                why=f"its columns are {', '.join(table.header)}",
                do=f"say which: --labels {self.table}:COLUMN; or name one of them "
                f"{', '.join(LABEL_COLUMNS[:3])}",
            )
        values: dict[bytes, str | None] = {}
        rows: dict[str, str | None] = {}
        here = os.path.realpath(os.fsencode(self.table.parent))
        place = os.path.realpath(os.fsencode(self.source.place))
        for row in table.rows():
            # rows may name files from the data's folder or from the table's own
            values[os.path.normpath(row.path)] = row[column]
            rows[text(os.path.normpath(row.path))] = row[column]
            if os.path.isdir(place):
                other = os.path.relpath(os.path.join(here, row.path), place)
                values.setdefault(other, row[column])
        names = [os.path.normpath(os.fsencode(self.source.name(i))) for i in range(len(self))]
        if any(name in values for name in names):
            return encode(values.get(name) for name in names)
        called = matched([text(name) for name in names], rows)
        if not any(called) and column == 1:
            raise SelfsupError(
                "E105",
                f"no row of {self.table} names a file of the data",
                why=f"the data has {text(names[0])}, the table {text(next(iter(values), b''))}",
                do="write the paths relative to the data's folder or to the table's",
            )
        return encode(None if name is None else rows[name] for name in called)


def tested(folds: Classes | None) -> list[np.ndarray]:
    """The samples that test in each fold, if the data name more than one."""
    if folds is None or len(folds[1]) < 2:
        return []
    return [np.flatnonzero(folds[0] == k) for k in range(len(folds[1]))]
