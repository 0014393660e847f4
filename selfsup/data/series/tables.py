"""CSV, TSV and Parquet to series: one for each row, each id, or the whole table."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ...errors import SelfsupError
from ..packed import opened
from ..parquet import read_all
from .cells import MISSING, moments, numbers, word
from .columns import Columns, Layout, is_list, of_schema
from .found import Found, side_by_side

NORMAL = ("0", "false", "no", "normal")  # cells of a column of marks, in small letters


def read_table(path: str, found: Found) -> None:
    """Add the series of a file. Raises E105 where it is no table of numbers over time."""
    if path.lower().endswith(".parquet"):
        table = read_all(path)
        columns = of_schema(table.schema)
    else:
        layout = Layout.of(path)
        columns = None if layout is None else layout.columns
        table = None if layout is None else _text_table(path, layout, found)
    if columns is None:
        raise SelfsupError("E105", f"{path} is no table of numbers over time", where=path)
    _take(table, columns, Path(path).name, found)


def _text_table(path: str, layout: Layout, found: Found) -> pa.Table:
    skipped = [0]

    def ragged(row: Any) -> str:
        skipped[0] += 1
        return "skip"

    count = len(layout.header) if layout.header else None
    names = [str(i) for i in range(count)] if count else None
    absent = sorted({form for m in MISSING for form in (m, m.upper(), m.title())} | {"NaN"})

    def parse(kinds: dict[str, pa.DataType] | None) -> pa.Table:
        skipped[0] = 0
        return pa.csv.read_csv(
            opened(path),
            pa.csv.ReadOptions(
                column_names=names,
                autogenerate_column_names=names is None,
                skip_rows=1 if names else 0,
                use_threads=False,
            ),
            pa.csv.ParseOptions(delimiter=layout.delimiter, invalid_row_handler=ragged),
            pa.csv.ConvertOptions(
                column_types=kinds,
                null_values=absent,
                strings_can_be_null=True,
                decimal_point=layout.decimal,
            ),
        )

    places = layout.columns.values
    columns = names or [f"f{i}" for i in range(max(places) + 1)]
    try:
        try:
            table = parse(
                {n: pa.float64() if i in places else pa.string()
                 for i, n in enumerate(columns)}
            )  # fmt: skip
        except pa.ArrowInvalid:  # a word among the numbers
            table = parse({name: pa.string() for name in columns})
            odd = 0
            for i in places:
                values, bad = numbers(table.column(i).to_pylist(), layout.decimal)
                odd += bad
                table = table.set_column(i, columns[i], pa.array(values))
            found.notes.append(f"{Path(path).name}: {odd} cells are no numbers: taken as missing")
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    if skipped[0]:
        found.notes.append(
            f"{Path(path).name}: {skipped[0]} rows have another number of cells: left out"
        )
    return table.rename_columns(layout.header) if layout.header else table


def _take(table: pa.Table, columns: Columns, name: str, found: Found) -> None:
    """Add the series of its rows."""

    def words(column: int | None) -> list[str | None]:
        if column is None:
            return [None] * table.num_rows
        cells = table.column(column).to_pylist()
        return [None if c is None or str(c).strip() == "" else word(c) for c in cells]

    series = [table.column(i) for i in columns.values]
    found.columns = found.columns or [table.schema.names[i] for i in columns.values]
    ids, labels, splits = words(columns.id), words(columns.label), words(columns.split)
    if columns.by_row:
        if is_list(series[0].type):
            cells = zip(*(column.to_pylist() for column in series), strict=True)
            made = [side_by_side(row) for row in cells]
        else:
            found.columns = ["value"]
            made = list(_floats(series)[:, :, None])
        for i, values in enumerate(made):
            end = len(values) - int(np.isnan(values).all(1)[::-1].argmin()) if len(values) else 0
            if end and not np.isnan(values).all():  # archives fill the end of short series up
                values = values[:end]
            found.add(values, f"{name}#{ids[i] or i}", None, labels[i], splits[i])
        return
    values, time, marks = _floats(series), None, _marks(words(columns.mark))
    if columns.mark is not None and marks is None:
        mark = table.schema.names[columns.mark]
        found.notes.append(f"{name}: the column {mark} is left out: it does not mark steps 0 or 1")
    if columns.time is not None:
        time = _seconds(table.column(columns.time))
    if columns.id is None:
        found.add(values, name, time, marks=marks)
        return
    groups: dict[str | None, list[int]] = {}
    for row, key in enumerate(ids):
        groups.setdefault(key, []).append(row)
    for key, rows in groups.items():
        if key is None:
            found.notes.append(f"{name}: {len(rows)} rows without a name of a series: left out")
            continue
        own = np.array(rows)
        label = next((labels[r] for r in rows if labels[r] is not None), None)
        split = next((splits[r] for r in rows if splits[r] is not None), None)
        found.add(values[own], key, None if time is None else time[own], label, split,
                  None if marks is None else marks[own])  # fmt: skip


def _marks(cells: list[str | None]) -> np.ndarray | None:
    """Which steps are not normal; None where the column does not tell just that."""
    found = {cell.lower() for cell in cells if cell is not None}
    if not found or len(found - set(NORMAL)) > 1:
        return None
    return np.array([cell is not None and cell.lower() not in NORMAL for cell in cells])


def _floats(columns: list[pa.ChunkedArray]) -> np.ndarray:
    parts = [c.cast(pa.float64()).to_numpy() for c in columns]
    return np.stack([p.astype(np.float32) for p in parts], 1)


def _seconds(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_temporal(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6
    if not pa.types.is_string(column.type):
        return column.cast(pa.float64()).to_numpy()
    cells = column.to_pylist()
    values, odd = numbers(cells)  # first: 7 would be a date too, of the year 7
    found = moments([c or "NaT" for c in cells]) if odd else None
    return values if found is None else found


def _unreadable(path: str, error: Exception) -> SelfsupError:
    return SelfsupError(
        "E105", f"{path} cannot be read as a table", where=path, why=str(error).splitlines()[0]
    )
