"""Forecasts: what comes after a stretch of a recording, from the vector of its last place."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data.base import Source
from ..data.batch import Batch
from ..data.fields import pack, unpack
from ..data.series import Piece, SeriesSource, timed
from ..errors import SelfsupError
from ..inference import assemble
from .tasks import Network, Part, Task, number, words

LEAST_SPREAD = 1e-2  # of a stretch, in deviations of the training part


class Forecast(Task):
    """The next `horizon` steps of each channel.

    Values are scaled by `mean` and `deviation` of the training part; with `instance`, what is
    learned is relative to level and deviation of the stretch that is known, else with `last` to
    the last value in it.
    """

    name, metric, percent, better, light = "forecast", "squared error", False, -1, False

    def __init__(
        self, horizon: int, channels: list[str], mean: list[float], deviation: list[float],
        instance: bool, context: int, last: bool = False,
    ):  # fmt: skip
        self.horizon, self.channels = horizon, channels
        self.instance, self.last = instance, last
        self.context = context  # steps that are known
        self.mean, self.deviation = np.array(mean), np.array(deviation)
        self.outputs = horizon * len(channels)

    def to_json(self) -> dict[str, Any]:
        return {
            "horizon": self.horizon, "channels": self.channels, "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(), "instance": self.instance,
            "context": self.context, "last": self.last,
        }  # fmt: skip

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Self:
        channels = words(told["channels"])
        horizon, context = (int(number(told[key])) for key in ("horizon", "context"))
        mean, deviation = ([number(v) for v in told[key]] for key in ("mean", "deviation"))
        if not len(mean) == len(deviation) == len(channels) or min(deviation) <= 0:
            raise ValueError("a mean and a deviation for each channel")
        instance, last = told["instance"], told.get("last", False)
        if not isinstance(instance, bool) or not isinstance(last, bool):
            raise ValueError(f"instance is {instance!r}, last {last!r}")
        if not 0 < horizon <= 1 << 12 or not context > 0:
            raise ValueError(f"horizon is {horizon}, context {context}")
        return cls(horizon, channels, mean, deviation, instance, context, last)

    def read(self, encoder: Any, x: Tensor) -> Float[Tensor, "b d"]:
        return encoder.features(x)[:, -1]

    def answer(self, network: Network, x: Tensor) -> Float[Tensor, "b h c"]:
        return super().answer(network, x).unflatten(1, (self.horizon, len(self.channels)))

    def targets(
        self, part: Part, places: np.ndarray, device: torch.device
    ) -> Float[Tensor, "b h2 c"]:
        """The scaled future, then the level and the deviation that it is learned relative to."""
        return torch.from_numpy(part.targets[places]).to(device)

    def loss(self, out: Float[Tensor, "b h c"], y: Float[Tensor, "b h2 c"]) -> Tensor:
        future, level, spread = self.parts(y)
        off = out.float() - (future - level) / spread
        known = off.isfinite()
        return torch.where(known, off, 0.0).square().sum() / known.sum().clamp(min=1)

    @staticmethod
    def parts(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return y[:, :-2], y[:, -2:-1], y[:, -1:]

    def outcome(self, out: Tensor, y: Tensor) -> np.ndarray:
        """Squared and absolute error over the known values, and their number: (b, 3)."""
        future, level, spread = self.parts(y)
        return wrong(out * spread + level, future)

    def summary(self, outcomes: np.ndarray) -> float:
        return float(outcomes[:, 0].sum() / max(outcomes[:, 2].sum(), 1))

    @staticmethod
    def shares(outcomes: np.ndarray) -> Float[np.ndarray, " n"]:
        """What each stretch adds, so that the mean is the summary; NaN where nothing is known."""
        squared, known = outcomes[:, 0], outcomes[:, 2]
        return np.where(known > 0, squared / known[known > 0].mean(), np.nan)

    def held(self, part: Part, seed: int) -> np.ndarray | None:
        """The last fifth: stretches drawn at random would overlap with those that teach."""
        if len(part) < 10:
            return None
        return np.arange(len(part)) >= len(part) - len(part) // 5

    # ---- answers -----------------------------------------------------------------------------

    def samples(self, source: Source) -> Source:
        if not isinstance(source, SeriesSource):
            raise SelfsupError("E201", f"{source.place} holds no series to forecast")
        return Ends(source, self.context)

    def tell(self, out: Tensor, batch: Batch) -> dict[str, list | np.ndarray]:
        own = len(self.channels)  # calendar channels come behind
        past = [sample["values"][-self.context :, :own] for sample in unpack(batch)]
        scaled = [(values - self.mean) / self.deviation for values in past]
        level, spread = level_of(scaled, self.instance, self.last)
        said = (out.double().cpu().numpy() * spread + level) * self.deviation + self.mean
        return {
            f"{channel}+{step + 1}": said[:, step, c]
            for step in range(self.horizon)
            for c, channel in enumerate(self.channels)
        }


class Ends(Source):
    """The last steps of each series: what a forecast goes on from."""

    content = "series"

    def __init__(self, source: SeriesSource, steps: int):
        super().__init__(source.place)
        self.steps = steps
        self.series, self.names, self.inner = source.series, source.names, source
        self.columns, self.kind, self.notes = source.columns, source.kind, source.notes
        self.problems, self.ignored = source.problems, source.ignored

    def __len__(self) -> int:
        return len(self.series)

    def name(self, i: int) -> str:
        return self.names[i]

    def read(self, i: int) -> np.ndarray:
        time = self.inner.times[i]
        own = slice(-self.steps, None)
        return timed(self.series[i][own], None if time is None else time[own], Piece)

    def fingerprint(self) -> str:
        return self.inner.fingerprint()


class Stretches:
    """Stretches of recordings that end before given steps, as a store gives samples."""

    def __init__(self, series: list[np.ndarray], origins: list[tuple[int, int]], context: int):
        self.series, self.origins, self.context = series, origins, context

    def batch(self, rows: np.ndarray, counters: np.ndarray | None = None) -> Batch:
        chosen = [self.origins[i] for i in rows.tolist()]
        past = [self.series[i][t - self.context : t] for i, t in chosen]
        batch = assemble([pack({"values": p, "piece": np.array([True])}) for p in past])
        assert batch is not None
        return batch


def level_of(
    past: list[Float[np.ndarray, "t c"]], instance: bool, last: bool = False
) -> tuple[Float[np.ndarray, "n 1 c"], Float[np.ndarray, "n 1 c"]]:
    """Mean and deviation of each stretch, or its last value and 1, or 0 and 1."""
    if not instance:
        level = np.zeros((len(past), 1, past[0].shape[1]))
        return last_known(past) if last else level, np.ones_like(level)
    with np.errstate(invalid="ignore"):
        mean = np.stack([np.nanmean(values, 0, keepdims=True) for values in past])
        spread = np.stack([np.nanstd(values, 0, keepdims=True) for values in past])
    return np.nan_to_num(mean), np.nan_to_num(spread).clip(min=LEAST_SPREAD)


def last_known(past: Iterable[Float[np.ndarray, "t c"]]) -> Float[np.ndarray, "n 1 c"]:
    """The last value of each channel that is there; the mean, 0, where none is."""
    found = []
    for values in past:
        steps = np.arange(len(values))[:, None]
        place = np.where(np.isfinite(values), steps, -1).max(0, keepdims=True)
        value = np.take_along_axis(np.nan_to_num(values), place.clip(0), 0)
        found.append(np.where(place < 0, 0.0, value))
    return np.stack(found)


def wrong(said: Tensor, truth: Tensor) -> Float[np.ndarray, "b 3"]:
    off = (said - truth).double()
    known = off.isfinite()
    off = torch.where(known, off, 0.0)
    found = [off.square().sum((1, 2)), off.abs().sum((1, 2)), known.sum((1, 2)).double()]
    return torch.stack(found, 1).cpu().numpy()
