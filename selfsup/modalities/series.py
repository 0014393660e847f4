"""Time series: sensors, meters, motion, heart beats; one channel or many, regular steps.

A view is (b, 2c, t): c channels of values, scaled by the mean and the deviation of each channel in
the training data, then c channels that are 1 where a value is there and 0 where it is missing.
What is missing holds the straight line between its neighbours and is never taken for a value.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, pad

from ..data.base import Source, evenly
from ..data.batch import Batch
from ..data.fields import pack, unpack, unpack_one
from ..data.outcome import BadSample
from ..data.series import WINDOW, Piece, timed
from ..errors import SelfsupError
from ..method import Views
from ..randomness import Draws
from ..views import series as looks
from .base import Modality

LEARNED = 512  # samples from which the scale of the channels is found, at most
CHANNELS, MANY = 4096, 1 << 30  # channels and steps, at most
CALENDAR = ("minute", "hour", "day of the week", "day", "day of the year", "month", "week")
BASELINE, BANDS = 64, 32  # values and frequencies of each channel that the control sees


class Series(Modality):
    """Series of numbers from tables, .ts files and arrays (t,) or (t, c).

    `instance` scales each channel of each sample by its own mean and deviation instead of those of
    the data: for series that drift, where the level means nothing. `calendar` adds seven channels
    that tell the minute, the hour, the day ... of each step, for data with dates. `without` names
    what views leave out, such as "noise,hole".
    """

    name = "series"
    contents = ("series",)
    unit = "steps"
    raw_unit = unit
    baseline_name = "values + spectrum"
    default_method = "ts2vec"
    encoders = ("dilated_small", "dilated", "vit_tiny", "vit_small", "vit_base")
    mean = (0.0,)  # the scale of the channels is in `state`
    std = (1.0,)

    operations = looks.OPERATIONS

    def __init__(self, *, instance: bool = False, calendar: bool = False, without: str = ""):
        self.instance, self.calendar = instance, calendar
        self.without = self.left_out(without)
        self.added = len(CALENDAR) if calendar else 0  # channels behind those of the data
        self.level: Tensor = torch.zeros(0)  # (c,) of each channel in the data
        self.spread: Tensor = torch.ones(0)
        self.names: list[str] = []  # names of the channels, where the data have some

    @property
    def rules(self) -> str:
        return "series 1" + " calendar" * self.calendar

    # -------------------------------------------------------------------------- what is learned

    def learn(self, source: Source) -> None:
        """Mean and deviation of each channel; 1 for one that never changes or has no values."""
        self.names = list(getattr(source, "columns", ()))
        count, total, square = 0.0, 0.0, 0.0
        for i in evenly(len(source), LEARNED):
            try:
                x = self._sample(source.read(i)).astype(np.float64)
            except BadSample:
                continue
            if np.ndim(count) and len(np.atleast_1d(count)) != x.shape[1]:
                continue  # such a sample is refused where it is read
            count = count + np.isfinite(x).sum(0)
            total = total + np.nansum(x, 0)
            square = square + np.nansum(np.square(x), 0)
        if not np.ndim(count):
            return
        count = np.maximum(count, 1)
        mean = total / count
        spread = np.sqrt(np.maximum(square / count - np.square(mean), 0.0))
        flat = spread <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        self.level = torch.from_numpy(mean).float()
        self.spread = torch.from_numpy(np.where(flat, 1.0, spread)).float()

    @property
    def state(self) -> dict[str, Any]:
        scale = {"level": self.level.tolist(), "spread": self.spread.tolist()}
        return scale | ({"columns": self.names} if self.names else {})

    def restore(self, state: dict[str, Any]) -> None:
        level, spread = state.get("level", ()), state.get("spread", ())
        if not (_floats(level) and _floats(spread) and len(level) == len(spread)):
            raise ValueError("level and spread are not one number for each channel")
        if not all(value > 0 for value in spread):
            raise ValueError("a spread is not above zero")
        columns = state.get("columns", [])
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise ValueError("columns are not names")
        self.level = torch.tensor(level, dtype=torch.float32)
        self.spread = torch.tensor(spread, dtype=torch.float32)
        self.names = columns

    def meet(self, source: Source) -> None:
        """Raises SelfsupError E105 for channels that stand in another order by their names."""
        found = list(getattr(source, "columns", ()))
        pairs = zip(found, self.names, strict=False)
        moved = [name for name, own in pairs if name != own and name in self.names]
        if moved and len(found) == len(self.names):
            raise SelfsupError(
                "E105",
                f"the columns of {source.place} stand in another order than pretraining had them",
                where=source.place,
                why=f"{moved[0]} is number {found.index(moved[0]) + 1}, and was number "
                f"{self.names.index(moved[0]) + 1}",
                do=f"put them in this order: {', '.join(self.names[:20])}",
            )

    # -------------------------------------------------------------------------- one sample

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "n 1 1"]:
        """(t, c) float32 with NaN for missing, packed; a piece of a recording by its last `size`.

        A whole series longer than `size` comes at that many steps, each the mean of its share.
        Raises BadSample: not_a_series, channels, too_short, no_values, no_dates.
        """
        x = self._sample(raw)
        if len(self.level) and x.shape[1] != len(self.level):
            raise BadSample(
                "channels", f"{x.shape[1]} channels, where the data have {len(self.level)}"
            )
        piece = isinstance(raw, Piece)
        if size is not None and len(x) > size:
            x = x[-size:] if piece else _coarser(x, size)
        if not np.isfinite(x).any():
            raise BadSample("no_values", "no value is a finite number")
        return pack({"values": x, "piece": np.array([piece], "|b1")})

    def inputs(
        self, series: list[np.ndarray], times: list[np.ndarray | None]
    ) -> list[Float[np.ndarray, "t c"]]:
        """Whole recordings with the channels that the encoder sees. Raises BadSample."""
        return [self._sample(timed(v, t)) for v, t in zip(series, times, strict=True)]

    def _sample(self, raw: Any) -> Float[np.ndarray, "t c"]:
        x = _checked(raw)
        if not self.calendar:
            return x
        time = getattr(raw, "time", None)
        if time is None:
            raise BadSample("no_dates", "calendar channels need a column of dates")
        added = calendar(time)
        added[~np.isfinite(x).any(1)] = np.nan  # a step without any value is not seen
        return np.concatenate([x, added], 1)

    # -------------------------------------------------------------------------- batches

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Float[Tensor, "b c2 t"]]:
        """Light views are parts of a series; strong and local ones are disturbed as well."""
        x, n, pieces = self._series(batch)
        views = []
        for number in range(spec.count):
            local = number >= spec.light + spec.strong
            steps = (local_size or self.local_size(size)) if local else size
            own = draws.of_view(number)
            share = spec.local_share if local else spec.share
            spans = looks.draw_spans(own, n, steps, share, pieces)
            spans = looks.whole(n, steps, pieces) if "crop" in self.without else spans
            shown = looks.show(x, n, spans, steps)
            if number >= spec.light:
                change = partial(looks.disturb, draws=own, without=self.without)
                shown = self._changed(shown, change)
            views.append(self._view(shown))
        return views

    @staticmethod
    def local_size(size: int) -> int:
        """Half of `size`, in whole patches."""
        patch = patch_for(size)
        return max(patch, size // 2 // patch * patch)

    def plain(self, batch: Batch, size: int) -> Float[Tensor, "b c2 size"]:
        """The whole series at `size` steps; of a recording the last `size` steps."""
        x, n, pieces = self._series(batch)
        return self._view(looks.show(x, n, looks.whole(n, size, pieces), size))

    def picture(self, x: Float[Tensor, "b c t"]) -> UInt8[Tensor, "b 3 h w"]:
        """Curves, a colour for each channel, each sample between its own least and largest."""
        x = x.detach().cpu().float()
        values, here = x, torch.ones_like(x, dtype=torch.bool)
        if len(self.level) and x.shape[1] == 2 * len(self.level):
            values, here = x.chunk(2, 1)
            values, here = values[:, : self.own], here[:, : self.own] > 0.5
        return looks.drawn(values, here, 64, 128)

    def thumbnail(self, sample: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
        """The whole series as curves."""
        values = torch.from_numpy(unpack_one(sample[:, 0, 0])["values"].copy()).T[None]
        here = values.isfinite()
        shown = looks.Series(looks.bridged(values.nan_to_num(), here), here)
        if not len(self.level):  # channels of different units, of which nothing is known yet
            shown = looks.leveled(shown)
        else:
            values = (shown.values - self.level[:, None]) / self.spread[:, None]
            shown = looks.Series(values[:, : self.own], here[:, : self.own])
        return looks.drawn(*shown, 80, 160)[0].permute(1, 2, 0).numpy()

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]] | None:
        x = _checked(raw)
        window = len(x) if not isinstance(raw, Piece) else min(len(x), WINDOW)
        form = "stretch of a recording" if isinstance(raw, Piece) else "series"
        return form, f"{x.shape[1]} channels", (window, window)

    def examples(self) -> list[Any]:
        """Slow waves and noise of several lengths, one of them with gaps."""
        generator, made = np.random.Generator(np.random.Philox(20260101)), []
        for steps in (64, 100, 257):
            x = np.sin(np.arange(steps) / generator.uniform(2, 20, (max(1, self.own), 1)))
            x = x.T + 0.3 * generator.normal(size=x.T.shape)
            made.append(x.astype(np.float32))
        made[1][20:30] = np.nan
        return [timed(x, 1.7e9 + 3600.0 * np.arange(len(x))) for x in made]

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """Each channel's values at 64 steps, its amplitude spectrum in 32 bands, eight statistics.

        Values and spectrum together weigh about as much as the statistics do.
        """
        x, n, pieces = self._series(batch)
        x = x[:, : x.shape[1] - self.added]
        longest = max(int(n.max()), 2 * BANDS)
        full = looks.show(x, n, looks.whole(n, longest, pieces), longest)
        values = full.values  # (b, c, t)
        some = adaptive_avg_pool1d(values, BASELINE)
        mean, unit = looks.deviation(full)
        spectrum = torch.fft.rfft(values - mean, norm="ortho").abs()[:, :, 1:]
        edges = torch.logspace(0, math.log10(spectrum.shape[2]), BANDS + 1).round().long()
        total = pad(spectrum.square().cumsum(2), (1, 0))
        low, high = edges[:-1] - 1, edges[1:].maximum(edges[:-1] + 1) - 1
        high = high.clamp(max=spectrum.shape[2])
        bands = (total[:, :, high] - total[:, :, low.minimum(high - 1)]) / (high - low).clamp(min=1)
        steps = values.diff(dim=2)
        parts = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], device=values.device)
        quantiles = values.quantile(parts, dim=2).permute(1, 2, 0)  # (b, c, 5)
        statistics = torch.cat([mean, unit, steps.abs().mean(2, keepdim=True), quantiles], 2)
        features = [some / BASELINE**0.5, bands.sqrt() / BANDS**0.5, statistics / 8**0.5]
        return torch.cat([part.flatten(1) for part in features], 1)

    def _series(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(b, c, t) scaled, NaN where missing; lengths (b,); which are pieces of recordings."""
        values, n, pieces = _dense(batch)
        level, spread = self.level, self.spread
        if not len(level):  # nothing was learned: as it is
            level, spread = torch.zeros(values.shape[2]), torch.ones(values.shape[2])
        values = (values - level) / spread
        device = batch.pixels.device
        return values.transpose(1, 2).to(device), n.to(device), pieces.to(device)

    def _view(self, shown: looks.Series) -> Float[Tensor, "b c2 t"]:
        if self.instance:
            shown = self._changed(shown, looks.leveled)
        return torch.cat([shown.values, shown.here.to(shown.values.dtype)], 1)

    def _changed(
        self, shown: looks.Series, change: Callable[[looks.Series], looks.Series]
    ) -> looks.Series:
        """The data's own channels changed; the calendar stays, where a value is there."""
        own = shown.values.shape[1] - self.added
        new = change(looks.Series(shown.values[:, :own], shown.here[:, :own]))
        here = shown.here[:, own:] & new.here.any(1, keepdim=True)
        return looks.Series(
            torch.cat([new.values, shown.values[:, own:]], 1), torch.cat([new.here, here], 1)
        )

    @property
    def own(self) -> int:
        """Channels of the data; 0 where nothing was learned."""
        return max(0, len(self.level) - self.added)

    # -------------------------------------------------------------------------- sizes, encoders

    def extent(self, source: Source) -> int:
        window = getattr(source, "window", None)
        if window is not None:
            return int(window)
        lengths = []
        for i in evenly(len(source), 64):
            try:
                raw = source.read(i)
                lengths.append(min(len(_checked(raw)), WINDOW if isinstance(raw, Piece) else MANY))
            except BadSample:
                continue
        return int(np.median(lengths)) if lengths else 0

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        """The usual length, in patches, and at most 512 steps on a processor."""
        most = 2048 if device == "cuda" else 512
        unit = 8 if extent >= 64 else 4
        size = max(8, min(most, round(extent / unit) * unit))
        told = f"the series have about {extent} steps"
        if size == extent:
            return size, told
        return size, told + (f"; {most} are enough" if extent > most else f"; a multiple of {unit}")

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        """A dilated convolutional network, or a ViT on patches of steps."""
        from .. import dilated
        from ..encoder import TRANSFORMERS, Encoder

        channels = max(1, len(self.level))
        keywords.pop("channels", None)  # the data have theirs
        keywords.pop("tubelet", None)  # of an axis that they lack
        if name in dilated.DILATED:
            return dilated.dilated(name, size, channels, True, **keywords)
        if name not in TRANSFORMERS:
            from ..encoder import build

            return build(name, size)  # raises E202 for an unknown name
        patch = keywords.pop("patch", None) or patch_for(size)
        shape: dict[str, Any] = dict(TRANSFORMERS[name])
        shape |= {k: keywords.pop(k) for k in ("dim", "depth", "heads") if keywords.get(k)}
        keywords = {k: v for k, v in keywords.items() if k not in shape}
        stem = dilated.MarkedPatches((size,), (patch,), channels, shape["dim"])
        return Encoder(stem, **shape, **keywords)


def calendar(time: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 7"]:
    """CALENDAR of seconds since 1970, as plain numbers (as in the authors' code of TS2Vec)."""
    second = time.astype("datetime64[s]")
    hour, day, month, year = (second.astype(f"datetime64[{unit}]") for unit in "hDMY")
    weekday = (day.astype(np.int64) + 3) % 7  # Monday is 0; 1970 began on a Thursday
    thursday = day + (3 - weekday)  # its year is the week's, by ISO 8601
    found = [
        (second - hour) // np.timedelta64(60, "s"),
        (hour - day) // np.timedelta64(1, "h"),
        weekday,
        (day - month) // np.timedelta64(1, "D") + 1,
        (day - year) // np.timedelta64(1, "D") + 1,
        month.astype(np.int64) % 12 + 1,
        (thursday - thursday.astype("datetime64[Y]")) // np.timedelta64(7, "D") + 1,
    ]
    return np.stack([part.astype(np.int64) for part in found], 1).astype(np.float32)


def patch_for(size: int) -> int:
    """The divisor of `size` up to 32 that gives nearest to 24 patches, at least 4."""
    divisors = [d for d in range(1, 33) if size % d == 0 and size // d >= 4] or [1]
    return min(divisors, key=lambda d: (abs(math.log(size / d / 24)), d))


def _checked(raw: Any) -> Float[np.ndarray, "t c"]:
    """(t, c) float32, infinite values missing. Raises BadSample."""
    if isinstance(raw, Tensor):
        raw = raw.detach().cpu().numpy()
    if not isinstance(raw, np.ndarray) or raw.dtype.kind not in "buif" or raw.ndim not in (1, 2):
        told = f"{raw.dtype} {raw.shape}" if isinstance(raw, np.ndarray) else type(raw).__name__
        raise BadSample("not_a_series", f"{told} is no array (steps,) or (steps, channels)")
    x = np.asarray(raw, np.float32).reshape(len(raw), -1)
    if len(x) < 2 or not 1 <= x.shape[1] <= CHANNELS:
        raise BadSample("too_short", f"{len(x)} steps of {x.shape[1]} channels")
    return np.where(np.isfinite(x), x, np.float32(np.nan))


def _coarser(x: Float[np.ndarray, "t c"], size: int) -> Float[np.ndarray, "size c"]:
    """`size` steps, each the mean of the values in its share of the series."""
    edges = np.linspace(0, len(x), size + 1)
    there = np.isfinite(x)
    sums = np.zeros((len(x) + 1, x.shape[1]))
    counts = np.zeros_like(sums)
    np.cumsum(np.where(there, x, 0.0), 0, out=sums[1:], dtype=np.float64)
    np.cumsum(there, 0, out=counts[1:])
    place = np.arange(len(x) + 1)
    low, high = edges[:-1], edges[1:]
    total, count = (
        np.stack([np.interp(high, place, s) - np.interp(low, place, s) for s in a.T], 1)
        for a in (sums, counts)
    )
    share = (len(x) / size) / 2  # of its steps at least half are there
    return np.where(count >= share, total / np.maximum(count, 1e-9), np.nan).astype(np.float32)


def _dense(batch: Batch) -> tuple[Float[Tensor, "b t c"], Tensor, Tensor]:
    """All samples in one array, shorter ones filled up with NaN behind; lengths; pieces."""
    rows = batch.pixels[:, 0, :, 0].cpu().numpy()  # (b, bytes)
    size = 4 + int(np.ascontiguousarray(rows[0, :4]).view("<u4")[0])
    if batch.extents is None and (rows[:, :size] == rows[0, :size]).all():  # one layout for all
        first = unpack_one(rows[0])["values"]
        body = np.ascontiguousarray(rows[:, size : size + first.nbytes])
        values = body.view("<f4").reshape(len(rows), *first.shape)
        lengths = np.full(len(rows), len(first))
        pieces = rows[:, size + first.nbytes] != 0
    else:
        samples = unpack(batch)
        lengths = np.array([len(s["values"]) for s in samples])
        shape = (len(samples), lengths.max(), samples[0]["values"].shape[1])
        values = np.full(shape, np.nan, np.float32)
        for row, sample in enumerate(samples):
            values[row, : lengths[row]] = sample["values"]
        pieces = np.array([bool(s["piece"][0]) for s in samples])
    return torch.from_numpy(values), torch.from_numpy(lengths), torch.from_numpy(pieces)


def _floats(values: Any) -> bool:
    if not isinstance(values, list) or len(values) > CHANNELS:
        return False
    return all(type(v) in (int, float) and math.isfinite(v) for v in values)
