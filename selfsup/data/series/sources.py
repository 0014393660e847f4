"""A series a sample, or stretches of recordings, of which the first part alone is to learn from."""

import hashlib
import os
from dataclasses import fields

import numpy as np

from ...errors import SelfsupError
from ..base import Source
from ..tables import TRAIN, encode
from .found import Found

WINDOW, SHORTEST = 256, 16  # steps of a stretch, at most and at least
STRETCHES = 20_000  # at most, of all recordings together
CONTEXT = 1024  # steps before its end that a stretch carries along
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

    def for_training(self) -> "SeriesSource":
        """Of series without classes, other parts than train are there to be foretold."""
        parts = self.splits()
        if self.labels() is not None or parts is None:
            return self
        taught = [i for i, name in enumerate(parts[1]) if name.lower() in TRAIN]
        rows = np.flatnonzero(np.isin(parts[0], taught)).tolist()
        if not rows or len(rows) == len(self):
            return self
        each = {f.name: getattr(self.found_series, f.name) for f in fields(Found)}
        shared = ("columns", "notes")
        kept = {k: v if k in shared else [v[i] for i in rows] for k, v in each.items()}
        return SeriesSource(self.place, self.kind, Found(**kept))


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
