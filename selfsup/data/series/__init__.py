"""Series of numbers: tables, UCR/UEA files, folders of them.

A series is float32 (t, c) with NaN where a value is missing. Infinite values count as missing,
steps that the time column leaves out are put in as missing, rows are sorted by time and of rows
with the same time the first is kept; `notes` says how often that was needed.

Few series without classes, or long ones, are recordings: their samples are stretches that end at
every `stride`-th step, and only the beginning of a recording is there to pretrain on. A column that
marks steps as normal or not is no channel: it is kept aside, to judge by.

    columns.py  what the columns of a table are for, and whether it holds series at all
    cells.py    what a cell of text says
    tables.py   CSV, TSV and Parquet to series
    archive.py  the .ts files of the UCR/UEA archive to series
    found.py    series as they are read, in the order of time
    sources.py  a series a sample, or stretches of recordings
"""

import os
import re
from collections.abc import Iterable

import numpy as np

from ...errors import SelfsupError
from ..base import Source
from ..names import Names
from ..packed import suffix
from ..parquet import schema_of
from ..tables import Classes, folder_labels, folder_splits
from .archive import read_ts
from .cells import moments
from .columns import HEAD, ID_COLUMNS, Layout, of_schema
from .found import Found
from .sources import (
    CONTEXT,
    PARTS,
    WINDOW,
    Piece,
    Recordings,
    SeriesSource,
    bounds,
    timed,
)
from .tables import read_table

__all__ = [
    "CONTEXT",
    "ID_COLUMNS",
    "PARTS",
    "WINDOW",
    "Piece",
    "Recordings",
    "SeriesSource",
    "bounds",
    "in_folder",
    "is_series",
    "moments",
    "open_series",
    "timed",
]

ENDINGS = (".ts", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
ARCHIVED = re.compile(r"_(train|test)(\.\w+)+$", re.IGNORECASE)  # how the archive names its parts
LONG, FEW = 2048, 16  # a series this long, or fewer series without classes, are recordings
LARGEST = 1 << 32  # bytes of all values


def is_series(path: str) -> bool:
    """Whether a table holds numbers over time, by its first rows or its schema.

    Columns that name files, and columns of words that are no time, class, part or name of a
    series, make it another kind of table.
    """
    lower = path.lower()
    if lower.endswith(".ts"):
        with open(path, "rb") as file:
            head = file.read(HEAD)
        return any(line.lstrip().lower().startswith(b"@") for line in head.splitlines())
    if lower.endswith(".parquet"):
        schema = schema_of(path)
        return schema is not None and of_schema(schema) is not None
    return Layout.of(path) is not None


def open_series(path: str) -> Source:
    """The series of one file that `is_series`. Raises E105 where it cannot be read."""
    found = Found()
    _read(path, found)
    return _source(path, suffix(path)[1:], found)


def in_folder(path: str, names: Iterable[str]) -> Source | None:
    """The series of all such files of a folder, or None where there are none.

    NAME_TRAIN and NAME_TEST (the archive's names) are the parts of one set; otherwise a file of
    one series without class has its sub-folder for a class, and train/, test/ ... for its part.
    """
    paths = [name for name in sorted(names) if name.lower().endswith(ENDINGS)]
    paths = [name for name in paths if is_series(os.path.join(path, name))]
    if not paths:
        return None
    stems = [ARCHIVED.sub("", name) for name in paths]
    archived = [ARCHIVED.search(name) for name in paths]
    folders = Names(os.fsencode(name) for name in paths)
    parts, classes = folder_splits(folders), folder_labels(folders)
    found = Found()
    if all(archived) and len(set(stems)) > 1:
        raise SelfsupError(
            "E104",
            f"{path} holds several sets of series",
            why=f"found {', '.join(sorted(set(stems))[:8])}",
            do=f"give one of them: {os.path.join(path, os.path.dirname(stems[0]) or stems[0])}",
        )
    for number, (name, part) in enumerate(zip(paths, archived, strict=True)):
        before = len(found.values)
        _read(os.path.join(path, name), found)
        for i in range(before, len(found.values)):
            found.names[i] = f"{name}#{i - before}" if len(found.values) - before > 1 else name
            if part is not None:
                found.splits[i] = part.group(1).lower()
                continue
            found.splits[i] = found.splits[i] or _told(parts, number)
            found.labels[i] = found.labels[i] or _told(classes, number)
    if len({label for label in found.labels if label is not None}) < 2 and not all(archived):
        found.labels = [None] * len(found.labels)
    return _source(path, "folder", found)


def _told(found: Classes | None, number: int) -> str | None:
    return None if found is None or found[0][number] < 0 else found[1][found[0][number]]


def _read(path: str, found: Found) -> None:
    """Add the series of a file."""
    if path.lower().endswith(".ts"):
        read_ts(path, found)
    else:
        read_table(path, found)


def _source(place: str, kind: str, found: Found) -> Source:
    lengths = [len(values) for values in found.values]
    if sum(values.nbytes for values in found.values) > LARGEST:
        raise SelfsupError("E104", f"{place} holds more than {LARGEST >> 30} GiB of numbers",
                           do="split it into several files")  # fmt: skip
    known = any(label is not None for label in found.labels)
    long = bool(lengths) and float(np.median(lengths)) >= LONG
    if long or (not known and 0 < len(lengths) < FEW):
        return Recordings(place, kind, found)
    return SeriesSource(place, kind, found)
