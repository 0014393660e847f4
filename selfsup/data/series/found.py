"""Series on their way from files to a source: in the order of time, with what was found beside."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


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


def side_by_side(channels: Sequence[Sequence[float | None] | None]) -> np.ndarray:
    """Channels of different lengths as (t, c), missing where one is short or has no value."""
    longest = max((len(cells) for cells in channels if cells is not None), default=0)
    made = np.full((longest, len(channels)), np.nan, np.float32)
    for channel, cells in enumerate(channels):
        if cells is not None:
            made[: len(cells), channel] = [np.nan if c is None else c for c in cells]
    return made
