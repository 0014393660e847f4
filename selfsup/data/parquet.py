"""Parquet files, opened and unpacked within a budget.

A few kilobytes may announce columns by the million or unpack to petabytes, so a file's own
description is looked at before it is read, and what comes out is counted while it comes.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SelfsupError
from .base import first_line
from .kinds import sniff
from .outcome import BadSample

DESCRIBED = 32 << 20  # bytes of the description, which is read as a whole
MOST_COLUMNS = 100_000
MOST_ROWS = 1 << 31
UNPACKED = 8 << 30  # bytes that are held at once
AT_ONCE = 512  # rows that are unpacked before they are counted


def open_parquet(path: str) -> pq.ParquetFile:
    """Raises SelfsupError: E106 where it cannot be read, E104 where it announces too much."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 8))
            tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] == b"PAR1" and length > DESCRIBED:
            raise _too_much(path, f"a description of {length >> 20} MiB")
        file = pq.ParquetFile(path)  # not mapped: a file cut short would then end the process
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    told = file.metadata
    if told.num_columns > MOST_COLUMNS:
        raise _too_much(path, f"{told.num_columns} columns")
    if told.num_rows > MOST_ROWS:
        raise _too_much(path, f"{told.num_rows} rows")
    return file


def schema_of(path: str) -> pa.Schema | None:
    """None where it cannot be opened; whoever reads the file then says why."""
    try:
        return open_parquet(path).schema_arrow
    except SelfsupError:
        return None


def read_all(path: str) -> pa.Table:
    """All of a file. Raises SelfsupError: E106 where it is damaged, E104 where it is too large."""
    file = open_parquet(path)
    try:
        batches = _counted(file, range(file.num_row_groups))
        table = pa.Table.from_batches(batches, file.schema_arrow)
        table.validate(full=True)  # letters that are not UTF-8
    except _Swollen as error:
        raise _too_much(path, str(error)) from None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    return table


def row_group(file: pq.ParquetFile, index: int, columns: list[str]) -> pa.Table:
    """Some columns of a row group. Raises BadSample: table-damaged, too-large."""
    try:
        return pa.Table.from_batches(_counted(file, [index], columns))
    except _Swollen as error:
        raise BadSample("too-large", f"its row group: {error}; write smaller ones") from None
    except (pa.ArrowException, OSError) as error:
        raise BadSample("table-damaged", f"its row group: {first_line(error)}") from None


def each_row(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows as Python objects, one by one; empty where they are damaged or no UTF-8."""
    for group in range(file.num_row_groups):
        left = file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(AT_ONCE, row_groups=[group], columns=columns):
                left -= batch.num_rows
                yield from _rows(batch)
        except (pa.ArrowException, OSError):
            for _ in range(left):
                yield {}


def first_rows(
    file: pq.ParquetFile, path: str, count: int, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """Up to `count` rows of the first group that can be read. Raises SelfsupError E106."""
    failed: Exception | None = None
    for group in range(file.num_row_groups):
        try:
            batch = next(file.iter_batches(count, row_groups=[group], columns=columns), None)
        except (pa.ArrowException, OSError) as error:
            failed = error
            continue
        if batch is not None:
            return _rows(batch)
    if failed is not None:
        raise _unreadable(path, failed)
    return []


def encoded_media(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> what the files are whose bytes it holds."""
    media = {}
    for column in dict.fromkeys(name for row in rows for name in row):
        cells = [row[column] for row in rows if row.get(column) is not None]
        heads = [c.get("bytes") if isinstance(c, dict) else c for c in cells]
        kinds = Counter(sniff(head[:512]) for head in heads if head and isinstance(head, bytes))
        kind = kinds.most_common(1)[0][0] if kinds else None
        if kind in ("image", "audio", "video"):
            media[column] = kind
    return media


def one_row(table: pa.Table, i: int) -> dict[str, Any]:
    """Raises BadSample not_utf8."""
    try:
        return table.slice(i, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        raise BadSample("not_utf8", f"{error.reason} at byte {error.start}") from None


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [{}]
        return [row for i in range(batch.num_rows) for row in _rows(batch.slice(i, 1))]


class _Swollen(Exception):  # noqa: N818 (told of as an error of the file, or of a sample)
    pass


def _counted(
    file: pq.ParquetFile, groups: Any, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    size = 0
    for batch in file.iter_batches(AT_ONCE, row_groups=list(groups), columns=columns):
        size += batch.nbytes
        if size > UNPACKED:
            raise _Swollen(f"more than {UNPACKED >> 20} MiB when unpacked")
        yield batch


def _too_much(path: str, what: str) -> SelfsupError:
    return SelfsupError(
        "E104", f"{path} announces more than can be read", where=path, why=what,
        do="split it into several files, or leave out columns",
    )  # fmt: skip


def _unreadable(path: str, error: Exception) -> SelfsupError:
    return SelfsupError(
        "E106", f"{path} cannot be read as parquet", where=path, why=first_line(error),
        do="write it again, for instance with pyarrow.parquet.write_table",
    )  # fmt: skip
