"""The rows of a table: CSV, TSV, JSON lines and Parquet."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa

from ...stop import stop
from ..base import Source
from ..packed import opened, suffix
from ..parquet import each_row, open_parquet
from ..tables import LONGEST_LINE, lines
from ..texts import LOOKED_BYTES, _reader

LOOKED_AT = 200  # rows that tell what columns hold
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def tables(source: Source) -> list[str]:
    """The files of a source whose samples are rows of tables; none of any other."""
    paths = getattr(source, "paths", None) or [source.place]
    return paths if all(suffix(p) in TABLES and os.path.isfile(p) for p in paths) else []


def beginning(path: str) -> list[dict[str, Any]]:
    """None of what is no table: whoever reads it otherwise says why."""
    rows, seen = [], 0
    try:
        for row in islice(rows_of(path), LOOKED_AT):
            rows.append(row)
            seen += sum(len(cell) for cell in row.values() if isinstance(cell, str))
            if seen > LOOKED_BYTES:
                break
    except (OSError, csv.Error):
        return []
    return rows


def rows_of(path: str) -> Iterator[dict[str, Any]]:
    if path.lower().endswith(".parquet"):
        table = open_parquet(path)
        if not any(map(_binary, table.schema_arrow)):  # else the files themselves are in there
            yield from each_row(table)
        return
    if suffix(path) in (".jsonl", ".ndjson"):
        yield from _each_object(path)
        return
    with io.TextIOWrapper(
        opened(path), encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as file:
        rows = _reader(lines(file), path)
        header = next(rows, [])
        for cells in rows:
            stop.check()
            if any(cells):
                yield dict(zip(header, cells, strict=False))


def _each_object(path: str) -> Iterator[dict[str, Any]]:
    """Rows of JSON lines; empty where they are none, or too long to be held."""
    with opened(path) as file:
        while line := file.readline(LONGEST_LINE + 1):
            stop.check()
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST_LINE)
                yield {}
            elif line.strip():
                yield _object(line)


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _binary(field: Any) -> bool:
    kind = field.type
    inner = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or inner


def texts_in(row: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    """All texts of a row."""
    cells = (row.get(column) for column in columns)
    texts = (t for cell in cells for t in (cell if isinstance(cell, list) else [cell]))
    return [t.strip() for t in texts if isinstance(t, str) and t.strip()]
