"""Series of numbers: tables, UCR/UEA files, folders of them.

A series is float32 (t, c) with NaN where a value is missing. Infinite values count as missing,
steps that the time column leaves out are put in as missing, rows are sorted by time and of rows
with the same time the first is kept; `notes` says how often that was needed.

Few series without classes, or long ones, are recordings: their samples are stretches that end at
every `stride`-th step, and only the beginning of a recording is there to pretrain on. A column that
marks steps as normal or not is no channel: it is kept aside, to judge by.
"""

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ..errors import SelfsupError
from .base import Source
from .names import Names
from .packed import opened, suffix
from .tables import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    Classes,
    encode,
    folder_labels,
    folder_splits,
)

TIME_COLUMNS = ("date", "time", "timestamp", "datetime", "ds", "t", "step", "timestep", "time_step",
                "frame", "frame_id", "frame_index", "frame_number")  # fmt: skip
ID_COLUMNS = ("id", "unique_id", "series", "series_id", "item_id", "case", "subject", "sample",
              "sensor", "sample_id", "record", "recording", "track", "track_id", "trajectory",
              "trajectory_id", "agent", "agent_id", "person", "person_id", "pedestrian",
              "pedestrian_id", "ped_id", "vehicle", "vehicle_id", "object_id", "animal_id",
              "device_id", "unit_id", "patient", "patient_id", "user_id")  # fmt: skip
MARK_COLUMNS = ("anomaly", "is_anomaly", "anomalous", "outlier", "is_outlier")
NORMAL = ("0", "false", "no", "normal")  # cells of such a column, in small letters
MISSING = ("", "nan", "na", "n/a", "null", "none", "?", "-", "inf", "-inf", "+inf")
HEAD = 1 << 16  # bytes of a table that tell what it is
NUMBERED = 8  # columns named 0, 1, 2 ... from which on a row is a series

LONG, FEW = 2048, 16  # a series this long, or fewer series without classes, are recordings
WINDOW, SHORTEST = 256, 16  # steps of a stretch, at most and at least
STRETCHES = 20_000  # at most, of all recordings together
CONTEXT = 1024  # steps before its end that a stretch carries along
LARGEST = 1 << 32  # bytes of all values

MONTH = 30 * 86400.0
DATES = 1e8  # seconds: times that stay below (until 1973) are numbers of steps
PARTS = ("train", "val", "test")


class Timed(np.ndarray):
    """A series (t, c) with the seconds since 1970 of each step, where its time column has dates."""

    time: np.ndarray | None = None


class Piece(Timed):
    """A recording up to some step: its last n steps are a sample for any n."""


def timed(values: np.ndarray, time: np.ndarray | None, kind: type[Timed] = Timed) -> Timed:
    made = values.view(kind)
    made.time = time
    return made


@dataclass
class Found:
    """Series as they are read from files, one entry each."""

    values: list[np.ndarray] = field(default_factory=list)  # float32 (t, c)
    names: list[str] = field(default_factory=list)
    times: list[np.ndarray | None] = field(default_factory=list)  # seconds, float64
    labels: list[str | None] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    marks: list[np.ndarray | None] = field(default_factory=list)  # (t,), true where not normal
    columns: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, values: np.ndarray, name: str, time=None, label=None, split=None, marks=None
    ) -> None:
        values = np.ascontiguousarray(values, np.float32)
        values[~np.isfinite(values)] = np.nan
        if time is not None:
            # marks are put in order as a channel is: where a step was left out, nothing is known
            beside = values if marks is None else np.column_stack([values, marks])
            beside, time, notes = in_order(beside, time)
            values, more = np.split(beside, [values.shape[1]], axis=1)
            values, marks = np.ascontiguousarray(values), None if marks is None else more[:, 0] == 1
            self.notes += [f"{name}: {note}" for note in notes]
        self.values.append(values)
        self.names.append(name)
        self.times.append(time)
        self.labels.append(label)
        self.splits.append(split)
        self.marks.append(marks)


class SeriesSource(Source):
    """Whole series, each a sample with at most one class."""

    content = "series"

    def __init__(self, place: str, kind: str, found: Found):
        super().__init__(place)
        self.kind, self.found_series = kind, found
        self.series, self.names, self.columns = found.values, found.names, found.columns
        dated = (t is not None and np.abs(t).max(initial=0.0) >= DATES for t in found.times)
        self.times = [t if d else None for t, d in zip(found.times, dated, strict=True)]
        widths = sorted({values.shape[1] for values in self.series})
        if len(widths) > 1:
            raise SelfsupError(
                "E105",
                f"the series of {place} have different numbers of channels",
                why=f"found {', '.join(map(str, widths))}",
                do="give series with the same channels",
            )
        self.notes = _flagged(found)

    def __len__(self) -> int:
        return len(self.series)

    def name(self, i: int) -> str:
        return self.names[i]

    def read(self, i: int) -> np.ndarray:
        return timed(self.series[i], self.times[i])

    def size(self, i: int) -> int:
        return self.series[i].nbytes

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(repr([v.shape for v in self.series]).encode(), digest_size=16)
        for values, name in zip(self.series, self.names, strict=True):
            digest.update(os.fsencode(name) + b"\0")
            digest.update(values.tobytes())
        for column in (self.found_series.labels, self.found_series.splits):
            digest.update(repr(column).encode("utf-8", "surrogateescape"))
        for array in (*self.times, *self.found_series.marks):
            digest.update(b"" if array is None else array.tobytes())
        return digest.hexdigest()

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return encode(self.found_series.labels)

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return encode(self.found_series.splits)


class Recordings(SeriesSource):
    """Stretches of recordings: sample i is a recording up to one of its steps.

    `window` is how many steps back it is meant to show. `bounds` are, for each recording, the
    steps at which its parts end. `for_training` has the stretches of the first part alone.
    """

    def __init__(self, place: str, kind: str, found: Found, parts: tuple[str, ...] = PARTS):
        super().__init__(place, kind, found)
        self.bounds = [bounds(len(v), t) for v, t in zip(found.values, found.times, strict=True)]
        total = sum(len(values) for values in self.series)
        longest = max((len(values) for values in self.series), default=0)
        window = 1 << max(longest // 16, 1).bit_length() - 1
        self.window = min(max(SHORTEST, min(window, WINDOW)), longest)
        self.stride = max(1, self.window // 32, total // STRETCHES)
        self.parts = parts
        ends, owner, part = [], [], []
        for number, (values, limits) in enumerate(zip(self.series, self.bounds, strict=True)):
            own = np.arange(self.window, len(values) + 1, self.stride)
            of = np.searchsorted(limits, own)  # the part whose last step is not before the end
            keep = of < len(PARTS)
            keep &= np.isin(of, [PARTS.index(p) for p in parts])
            ends.append(own[keep])
            owner.append(np.full(int(keep.sum()), number))
            part.append(of[keep])
        none = [np.empty(0, np.int64)]
        self.ends, self.owner = np.concatenate(ends or none), np.concatenate(owner or none)
        self._part = np.concatenate(part or none)

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, i: int) -> str:
        return f"{self.names[self.owner[i]]}@{self.ends[i]}"

    def read(self, i: int) -> np.ndarray:
        end, owner = int(self.ends[i]), self.owner[i]
        own, time = slice(max(0, end - CONTEXT), end), self.times[owner]
        return timed(self.series[owner][own], None if time is None else time[own], Piece)

    def size(self, i: int) -> int:
        return self.read(i)[-self.window :].nbytes

    def fingerprint(self) -> str:
        return f"{super().fingerprint()}-{self.window}-{self.stride}-{'.'.join(self.parts)}"

    def labels(self) -> None:
        return None

    def splits(self) -> tuple[np.ndarray, list[str]]:
        return self._part, list(PARTS)

    def for_training(self) -> "Recordings":
        return Recordings(self.place, self.kind, self.found_series, PARTS[:1])


def bounds(n: int, time: np.ndarray | None) -> tuple[int, int, int]:
    """Where training, validation and test end: 12, 4 and 4 months, or 70, 10 and 20 %.

    Months of 30 days, for recordings with times that last at least 20 of them and less than 30:
    the usual parts of the ETT sets (arXiv 2012.07436), whose last months are left over.
    """
    if time is not None and n > 1 and 20 * MONTH <= time[-1] - time[0] < 30 * MONTH:
        months = [float(time[0]) + m * MONTH for m in (12, 16, 20)]
        low, middle, high = np.searchsorted(time, months).tolist()
        return low, middle, high
    return int(0.7 * n), n - int(0.2 * n), n


def in_order(values: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, list]:
    """Rows sorted by time, each time once, steps that are left out put in as missing."""
    notes = []
    known = np.isfinite(time)
    if not known.all():
        if not known.any():
            return values, None, ["its times cannot be read: rows are taken in their order"]
        notes.append(f"{int((~known).sum())} rows without a time are left out")
        values, time = values[known], time[known]
    if (np.diff(time) < 0).any():
        order = np.argsort(time, kind="stable")
        values, time = values[order], time[order]
        notes.append("its rows are not in the order of time: sorted")
    first = np.append(True, np.diff(time) > 0)
    if not first.all():
        notes.append(f"{int((~first).sum())} rows repeat a time: the first is kept")
        values, time = values[first], time[first]
    if len(time) > 2:
        gaps = np.diff(time)
        step = float(np.median(gaps))
        places = np.append(0, np.cumsum(np.round(gaps / step).clip(min=1))).astype(np.int64)
        regular = np.abs(gaps / step - np.round(gaps / step)).max() < 0.01
        if regular and len(time) < places[-1] + 1 <= 4 * len(time):
            whole = np.full((int(places[-1]) + 1, values.shape[1]), np.nan, np.float32)
            whole[places] = values
            notes.append(f"{len(whole) - len(values)} steps are left out: taken as missing")
            values, time = whole, time[0] + step * np.arange(len(whole))
    return values, time, notes


# ------------------------------------------------------------------------------ what a file is


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
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError):
            return False  # the reader of shards says what is wrong with it
        return _of_schema(schema) is not None
    return _Layout.of(path) is not None


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
    paths = [name for name in sorted(names) if name.lower().endswith(_ENDINGS)]
    paths = [name for name in paths if is_series(os.path.join(path, name))]
    if not paths:
        return None
    ending = re.compile(r"_(train|test)(\.\w+)+$", re.IGNORECASE)
    stems = [ending.sub("", name) for name in paths]
    archived = [ending.search(name) for name in paths]
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


_ENDINGS = (".ts", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")


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


def _flagged(found: Found) -> list[str]:
    """What a person should know of the numbers."""
    notes = found.notes[:8]
    if len(found.notes) > 8:
        notes.append(f"and {len(found.notes) - 8} more remarks of this kind")
    if not found.values or len({v.shape[1] for v in found.values}) > 1:
        return notes
    missing = sum(int(np.isnan(v).sum()) for v in found.values)
    whole = sum(v.size for v in found.values)
    if missing:
        notes.append(f"{missing} of {whole} values are missing: kept as missing, never filled in")
    with np.errstate(invalid="ignore"):
        low = np.min([np.nanmin(v, 0, initial=np.inf) for v in found.values], 0)
        high = np.max([np.nanmax(v, 0, initial=-np.inf) for v in found.values], 0)
    for channel, (least, most) in enumerate(zip(low, high, strict=True)):
        name = found.columns[channel] if channel < len(found.columns) else f"channel {channel}"
        if least == most:
            notes.append(f"{name} never changes: it is kept, and tells nothing")
        elif least > most:
            notes.append(f"{name} has no values at all")
    return notes


# ------------------------------------------------------------------------------ tables


@dataclass
class _Layout:
    """How a text table is laid out: what separates cells, and what each column is."""

    delimiter: str
    decimal: str
    header: list[str] | None
    values: list[int]
    time: int | None = None
    id: int | None = None
    label: int | None = None
    split: int | None = None
    mark: int | None = None
    by_row: bool = False  # each row is a series

    @classmethod
    def of(cls, path: str) -> "_Layout | None":
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
        if delimiter != "," and not any("." in c for row in rows[1:] for c in row if _number(c)):
            inside = [c for row in rows[1:] for c in row if re.fullmatch(r"\s*[-+]?\d+,\d+\s*", c)]
            decimal = "," if inside else "."
        numeric = _number if decimal == "." else lambda c: _number(c.replace(",", "."))
        header = None
        if not all(numeric(cell) or _absent(cell) for cell in rows[0]):
            header, rows = [cell.strip() for cell in rows[0]], rows[1:]
        if not rows:
            return None
        kinds = {}
        for column in range(len(header or rows[0])):
            cells = [r[column] for r in rows if len(r) > column and not _absent(r[column])]
            share = sum(map(numeric, cells)) / len(cells) if cells else 1.0
            kinds[column] = "number" if share > 0.5 else "word"
            if kinds[column] == "word" and cells and moments(cells[:20]) is not None:
                kinds[column] = "moment"
        layout = _columns(header or [], kinds)
        if layout is None:
            return None
        if header is None and suffix(path) == ".tsv" and len(kinds) > NUMBERED:
            layout |= {"by_row": True, "label": 0, "values": list(range(1, len(kinds)))}
        return cls(delimiter, decimal, header, **layout)


def _columns(
    header: list[str], kinds: dict[int, str], lists: Sequence[int] = ()
) -> dict[str, Any] | None:
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
    return {"values": values, "time": time, "id": id_, "label": label, "split": split,
            "mark": None if by_row else mark, "by_row": by_row}  # fmt: skip


def _of_schema(schema: pa.Schema) -> dict[str, Any] | None:
    lists = [i for i, f in enumerate(schema) if _list(f.type)]
    kinds = {}
    for i, item in enumerate(schema):
        number = pa.types.is_integer(item.type) or pa.types.is_floating(item.type)
        kinds[i] = "number" if number or i in lists else "word"
        if pa.types.is_temporal(item.type):
            kinds[i] = "moment"
        elif not (number or i in lists or _text(item.type) or pa.types.is_boolean(item.type)):
            return None
    layout = _columns(schema.names, kinds, lists)
    if layout is not None and lists:
        layout["values"] = lists
    return layout


def _list(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)


def _text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return not _absent(cell)


def _absent(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def moments(cells: list[str]) -> np.ndarray | None:
    """Seconds since 1970 of ISO dates; None where one is something else."""
    try:
        found = np.array([c.strip().replace("Z", "") for c in cells], "datetime64[us]")
    except ValueError:
        return None
    return np.where(np.isnat(found), np.nan, found.astype(np.int64) / 1e6)


def _read(path: str, found: Found) -> None:
    """Add the series of a file."""
    if path.lower().endswith(".ts"):
        _read_ts(path, found)
        return
    if path.lower().endswith(".parquet"):
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from None
        layout = _of_schema(table.schema)
    else:
        laid_out = _Layout.of(path)
        table, layout = (None, None) if laid_out is None else _text_table(path, laid_out, found)
    if layout is None or table is None:
        raise SelfsupError("E105", f"{path} is no table of numbers over time", where=path)
    _take(table, layout, Path(path).name, found)


def _text_table(path: str, layout: _Layout, found: Found) -> tuple[pa.Table, dict[str, Any]]:
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

    columns = names or [f"f{i}" for i in range(max(layout.values) + 1)]
    try:
        try:
            table = parse(
                {n: pa.float64() if i in layout.values else pa.string()
                 for i, n in enumerate(columns)}
            )  # fmt: skip
        except pa.ArrowInvalid:  # a word among the numbers
            table = parse({name: pa.string() for name in columns})
            odd = 0
            for i in layout.values:
                values, bad = _numbers(table.column(i).to_pylist(), layout.decimal)
                odd += bad
                table = table.set_column(i, columns[i], pa.array(values))
            found.notes.append(f"{Path(path).name}: {odd} cells are no numbers: taken as missing")
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    if skipped[0]:
        found.notes.append(
            f"{Path(path).name}: {skipped[0]} rows have another number of cells: left out"
        )
    if layout.header:
        table = table.rename_columns(layout.header)
    keys = ("values", "time", "id", "label", "split", "mark", "by_row")
    return table, {key: getattr(layout, key) for key in keys}


def _numbers(cells: list[str | None], decimal: str) -> tuple[np.ndarray, int]:
    out, bad = np.full(len(cells), np.nan), 0
    for i, cell in enumerate(cells):
        if cell is not None and not _absent(cell):
            text = cell.replace(",", ".") if decimal == "," else cell
            if _number(text):
                out[i] = float(text)
            else:
                bad += 1
    return out, bad


def _take(table: pa.Table, layout: dict[str, Any], name: str, found: Found) -> None:
    """Series of a table's rows: one for each row, each id, or the table."""

    def words(key: str) -> list[str | None]:
        if layout[key] is None:
            return [None] * table.num_rows
        cells = table.column(layout[key]).to_pylist()
        return [None if c is None or str(c).strip() == "" else _word(c) for c in cells]

    columns = [table.column(i) for i in layout["values"]]
    found.columns = found.columns or [table.schema.names[i] for i in layout["values"]]
    labels, splits = words("label"), words("split")
    if layout["by_row"]:
        names = [n or str(i) for i, n in enumerate(words("id"))]
        if _list(columns[0].type):
            cells = zip(*(column.to_pylist() for column in columns), strict=True)
            made = [_stacked(row) for row in cells]
        else:
            found.columns = ["value"]
            made = list(_floats(columns)[:, :, None])
        for i, values in enumerate(made):
            end = len(values) - int(np.isnan(values).all(1)[::-1].argmin()) if len(values) else 0
            if end and not np.isnan(values).all():  # archives fill the end of short series up
                values = values[:end]
            found.add(values, f"{name}#{names[i]}", None, labels[i], splits[i])
        return
    values, time, marks = _floats(columns), None, _marks(words("mark"))
    if layout["mark"] is not None and marks is None:
        mark = table.schema.names[layout["mark"]]
        found.notes.append(f"{name}: the column {mark} is left out: it does not mark steps 0 or 1")
    if layout["time"] is not None:
        time = _seconds(table.column(layout["time"]))
    if layout["id"] is None:
        found.add(values, name, time, marks=marks)
        return
    groups: dict[str | None, list[int]] = {}
    for row, key in enumerate(words("id")):
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


def _stacked(row: tuple) -> np.ndarray:
    longest = max((len(cells) for cells in row if cells is not None), default=0)
    made = np.full((longest, len(row)), np.nan, np.float32)
    for channel, cells in enumerate(row):
        if cells is not None:
            made[: len(cells), channel] = [np.nan if c is None else c for c in cells]
    return made


def _seconds(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_temporal(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6
    if not pa.types.is_string(column.type):
        return column.cast(pa.float64()).to_numpy()
    cells = column.to_pylist()
    numbers, odd = _numbers(cells, ".")  # first: 7 would be a date too, of the year 7
    found = moments([c or "NaT" for c in cells]) if odd else None
    return numbers if found is None else found


def _word(cell: Any) -> str:
    """A class that is written as a number is the same whether 1, 1.0 or "1.0000"."""
    text = str(cell).strip()
    return str(int(float(text))) if re.fullmatch(r"-?\d+\.0*", text) else text


def _unreadable(path: str, error: Exception) -> SelfsupError:
    return SelfsupError(
        "E105", f"{path} cannot be read as a table", where=path, why=str(error).splitlines()[0]
    )


# ------------------------------------------------------------------------------ UCR and UEA


def _read_ts(path: str, found: Found) -> None:
    """The text format of the UCR/UEA archive: a head of @ lines, then a case a line."""
    head: dict[str, str] = {}
    begun, labelled = False, False
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if not begun:
                if not line.startswith("@"):
                    raise _broken(path, number, "a line before @data that does not begin with @")
                key, _, value = line[1:].partition(" ")
                head[key.lower()] = value.strip().lower()
                begun = key.lower() == "data"
                labelled = any(
                    head.get(k, "").startswith("true") for k in ("classlabel", "targetlabel")
                )
                if begun and head.get("timestamps", "").startswith("true"):
                    raise SelfsupError(
                        "E104", f"{path} has time stamps in its cases", where=path,
                        do="write the series as a table with an id and a time column",
                    )  # fmt: skip
                continue
            fields = line.split(":")
            label = _word(fields.pop()) if labelled else None
            try:
                channels = [_cells(cells) for cells in fields]
            except ValueError as error:
                raise _broken(path, number, str(error)) from None
            if not channels:
                raise _broken(path, number, "no values")
            values = _stacked(tuple(channels))
            found.add(values, f"{Path(path).name}#{len(found.values)}", None, label)
    if not begun:
        raise _broken(path, 0, "there is no @data")


def _cells(text: str) -> list[float]:
    return [np.nan if _absent(cell) else float(cell) for cell in text.split(",")]


def _broken(path: str, line: int, why: str) -> SelfsupError:
    return SelfsupError(
        "E105", f"{path} is not a readable .ts file", where=f"{path}:{line}", why=why
    )
