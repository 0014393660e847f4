"""What the columns of a table are for, and whether it holds numbers over time at all."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ..packed import opened, suffix
from ..tables import LABEL_COLUMNS, PATH_COLUMNS, SPLIT_COLUMNS
from .cells import absent, is_number, moments

TIME_COLUMNS = ("date", "time", "timestamp", "datetime", "ds", "t", "step", "timestep", "time_step",
                "frame", "frame_id", "frame_index", "frame_number")  # fmt: skip
ID_COLUMNS = ("id", "unique_id", "series", "series_id", "item_id", "case", "subject", "sample",
              "sensor", "sample_id", "record", "recording", "track", "track_id", "trajectory",
              "trajectory_id", "agent", "agent_id", "person", "person_id", "pedestrian",
              "pedestrian_id", "ped_id", "vehicle", "vehicle_id", "object_id", "animal_id",
              "device_id", "unit_id", "patient", "patient_id", "user_id")  # fmt: skip
MARK_COLUMNS = ("anomaly", "is_anomaly", "anomalous", "outlier", "is_outlier")
HEAD = 1 << 16  # bytes of a table that tell what it is
NUMBERED = 8  # columns named 0, 1, 2 ... from which on a row is a series


@dataclass
class Columns:
    """By their numbers."""

    values: list[int]
    time: int | None = None
    id: int | None = None
    label: int | None = None
    split: int | None = None
    mark: int | None = None
    by_row: bool = False  # each row is a series


@dataclass
class Layout:
    """How a text table is laid out: what separates cells, and what each column is for."""

    delimiter: str
    decimal: str
    header: list[str] | None
    columns: Columns

    @classmethod
    def of(cls, path: str) -> "Layout | None":
        with opened(path) as file:
            head = file.read(HEAD)
        lines = head.decode("utf-8-sig", "replace").splitlines()
        lines = [line for line in (lines[:-1] if len(head) == HEAD else lines) if line.strip()]
        if not lines:
            return None
        delimiter = max(",;\t|", key=lines[0].count)
        if not lines[0].count(delimiter):
            delimiter = ","
        rows = list(csv.reader(lines[:200], delimiter=delimiter))
        decimal = "."
        if delimiter != "," and not any("." in c for row in rows[1:] for c in row if is_number(c)):
            inside = [c for row in rows[1:] for c in row if re.fullmatch(r"\s*[-+]?\d+,\d+\s*", c)]
            decimal = "," if inside else "."
        numeric = is_number if decimal == "." else lambda c: is_number(c.replace(",", "."))
        header = None
        if not all(numeric(cell) or absent(cell) for cell in rows[0]):
            header, rows = [cell.strip() for cell in rows[0]], rows[1:]
        if not rows:
            return None
        kinds = {}
        for column in range(len(header or rows[0])):
            cells = [r[column] for r in rows if len(r) > column and not absent(r[column])]
            share = sum(map(numeric, cells)) / len(cells) if cells else 1.0
            kinds[column] = "number" if share > 0.5 else "word"
            if kinds[column] == "word" and cells and moments(cells[:20]) is not None:
                kinds[column] = "moment"
        columns = _columns(header or [], kinds)
        if columns is None:
            return None
        if header is None and suffix(path) == ".tsv" and len(kinds) > NUMBERED:
            columns.by_row, columns.label = True, 0
            columns.values = list(range(1, len(kinds)))
        return cls(delimiter, decimal, header, columns)


def of_schema(schema: pa.Schema) -> Columns | None:
    lists = [i for i, f in enumerate(schema) if is_list(f.type)]
    kinds = {}
    for i, item in enumerate(schema):
        number = pa.types.is_integer(item.type) or pa.types.is_floating(item.type)
        kinds[i] = "number" if number or i in lists else "word"
        if pa.types.is_temporal(item.type):
            kinds[i] = "moment"
        elif not (number or i in lists or _text(item.type) or pa.types.is_boolean(item.type)):
            return None
    columns = _columns(schema.names, kinds, lists)
    if columns is not None and lists:
        columns.values = lists
    return columns


def _columns(header: list[str], kinds: dict[int, str], lists: Sequence[int] = ()) -> Columns | None:
    """What each column is for; None where this is no table of numbers over time.

    `lists` are columns of which each cell is a series.
    """
    known = [name.strip().lower() for name in header]

    def named(names: tuple[str, ...], *of: str) -> int | None:
        places = (known.index(n) for n in names if n in known)
        return next((p for p in places if kinds[p] in of), None)

    if named(PATH_COLUMNS, "word") is not None:
        return None
    time = named(TIME_COLUMNS, "moment", "number")
    if time is None:
        time = next((c for c, kind in kinds.items() if kind == "moment"), None)
    label = named(LABEL_COLUMNS, "word", "number")
    split = named(SPLIT_COLUMNS, "word")
    id_ = named(ID_COLUMNS, "word", "number")
    mark = named(MARK_COLUMNS, "word", "number")
    if mark is None and id_ is None and label is not None and known[label] == "label":
        mark = label
    used = {time, label, split, id_, mark}
    values = [c for c, kind in kinds.items() if kind == "number" and c not in used]
    if not values or any(k != "number" and c not in used for c, k in kinds.items()):
        return None
    numbers = [re.fullmatch(r"[a-z_]*?(\d+)", known[c]) for c in values] if known else [None]
    by_row = bool(lists) or (len(values) >= NUMBERED and all(numbers) and time is None)
    if label is not None and id_ is None and not by_row:
        label = None  # of one long recording: a class at every step is none of a series
        apart = (time, split, mark)
        values = [c for c, kind in kinds.items() if kind == "number" and c not in apart]
    return Columns(values, time, id_, label, split, None if by_row else mark, by_row)


def is_list(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)


def _text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
