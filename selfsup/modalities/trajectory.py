"""Trajectories of a robot, a game, a plant: what was seen (pictures or numbers), and what was done.

A view is `Steps`: so many steps that follow each other, with numbers scaled by their mean and
deviation in the training data (of each number of a vector and of an action, of each channel).
"""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..data.base import Source
from ..data.batch import Batch
from ..data.fields import pack, unpack, unpack_one
from ..data.outcome import BadSample
from ..data.trajectories import whole
from ..method import Views
from ..ragged import mean as mean_of
from ..randomness import Draws
from ..steps import Steps, observer
from ..views import series as looks
from .base import Modality

LEARNED = 128  # samples from which scales are found, at most
WINDOW = 16  # steps of a view
LARGEST = 1 << 14  # numbers of an action or of a vector, and pixels along a side
FRAMES = 6  # of a sample that a person gets to see
DISTURBED = {"noise": 0.1, "level": 0.2}  # of a strong view, in deviations


class Trajectory(Modality):
    """Observations (t, d) or pictures (t, h, w, c), with actions (t, a).

    `without` names what views leave out, such as "noise,level".
    """

    name = "trajectory"
    contents = ("trajectories",)
    unit = "steps"
    raw_unit = unit
    baseline_name = "raw observations"
    default_method = "world_model"
    encoders = ("observer_small", "observer")
    mean, std = (0.0,), (1.0,)  # the scales are in `state`

    rules = "trajectory 1"
    operations = ("crop", *DISTURBED)

    def __init__(self, *, without: str = ""):
        self.without = self.left_out(without)
        self.shape: tuple[int, ...] = ()  # of an observation, channels first
        self.scales: dict[str, tuple[list[float], list[float]]] = {}
        self.range: tuple[list[float], list[float]] = ([], [])  # of actions

    # -------------------------------------------------------------------------- what is learned

    def learn(self, source: Source) -> None:
        """Means and deviations of observations and actions; the shape that most samples have."""
        found: dict[tuple, list[tuple[np.ndarray, np.ndarray]]] = {}
        for i in np.unique(np.linspace(0, len(source) - 1, LEARNED).astype(int)).tolist():
            try:
                seen, done = _checked(source.read(i))
            except BadSample:
                continue
            found.setdefault((*seen.shape[1:], done.shape[1]), []).append((seen, done))
        if not found:
            return
        pairs = max(found.values(), key=len)
        seen = np.concatenate([pair[0] for pair in pairs])
        done = np.concatenate([pair[1] for pair in pairs])
        self.shape = seen.shape[1:] if seen.ndim == 2 else (seen.shape[3], *seen.shape[1:3])
        rows = seen if seen.ndim == 2 else seen.reshape(-1, seen.shape[-1]) / np.float32(255)
        self.scales = {"observation": _scale(rows), "action": _scale(done)}
        self.range = done.min(0).tolist(), done.max(0).tolist()

    @property
    def state(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "range": self.range} | self.scales

    def restore(self, state: dict[str, Any]) -> None:
        shape = state["shape"]
        if not all(type(n) is int and 0 < n <= LARGEST for n in shape) or len(shape) > 3:
            raise ValueError(f"{shape} is no shape of an observation")
        self.shape = tuple(shape)
        if not shape:
            return
        for key in ("observation", "action"):
            level, spread = _numbers(state[key])
            if not all(s > 0 for s in spread) or (key == "observation" and len(level) != shape[0]):
                raise ValueError(f"the scale of {key} does not fit")
            self.scales[key] = level, spread
        self.range = _numbers(state["range"])
        if len(self.range[0]) != len(self.scales["action"][0]):
            raise ValueError("the range is not of as many numbers as an action has")

    @property
    def actions(self) -> int:
        return len(self.range[0])

    # -------------------------------------------------------------------------- one sample

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "n 1 1"]:
        """{"observation", "action"} of the steps of a stretch.

        Raises BadSample: no_observations, no_actions, lengths, not_a_trajectory, not_finite,
        too_short, shape.
        """
        seen, done = _checked(raw)
        shape = seen.shape[1:] if seen.ndim == 2 else (seen.shape[3], *seen.shape[1:3])
        if self.shape and (shape != self.shape or done.shape[1] != self.actions):
            told = f"observations {shape} and {done.shape[1]} numbers an action"
            raise BadSample("shape", f"{told}, where others have {self.shape} and {self.actions}")
        return pack({"observation": seen, "action": done})

    # -------------------------------------------------------------------------- batches

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Steps]:  # type: ignore[override]
        """Windows of `size` steps that begin anywhere; strong and local ones are disturbed."""
        samples, made = unpack(batch.to("cpu")), []
        for number in range(spec.count):
            own = draws.of_view(number)
            steps = size
            if number >= spec.light + spec.strong:
                steps = local_size or max(2, size // 2)
            room = torch.tensor([len(s["action"]) - steps for s in samples]).clamp(min=0)
            first = (own.uniform().cpu() * (room + 1)).long().tolist()
            if "crop" in self.without:
                first = [0] * len(samples)
            view = self._steps(samples, first, steps).to(batch.pixels.device)
            made.append(_disturbed(view, own, self.without) if number >= spec.light else view)
        return made

    def plain(self, batch: Batch, size: int) -> Steps:  # type: ignore[override]
        """All steps of a sample."""
        samples = unpack(batch.to("cpu"))
        longest = max(len(s["action"]) for s in samples)
        return self._steps(samples, [0] * len(samples), longest).to(batch.pixels.device)

    def _steps(self, samples: list[dict], first: list[int], steps: int) -> Steps:
        """`steps` steps of each sample, or as many as it has."""
        counts = [min(steps, len(s["action"]) - at) for s, at in zip(samples, first, strict=True)]
        kind = samples[0]["observation"]
        seen = np.zeros((len(samples), steps, *kind.shape[1:]), kind.dtype)
        done = np.zeros((len(samples), steps, samples[0]["action"].shape[1]), np.float32)
        for row, (sample, at, n) in enumerate(zip(samples, first, counts, strict=True)):
            seen[row, :n] = sample["observation"][at : at + n]
            done[row, :n] = sample["action"][at : at + n]
        valid = torch.arange(steps) < torch.tensor(counts)[:, None]
        return Steps(self.seen(seen), self.done(done), valid)

    def seen(self, x: np.ndarray) -> Float[Tensor, "b t *shape"]:
        """Observations (b, t, ...) as encoders see them."""
        level, spread = self._scale("observation", 1 if x.ndim == 3 else x.shape[-1])
        values = torch.from_numpy(x)
        if x.ndim == 3:
            return (values.float() - level) / spread
        values = values.movedim(-1, 2).contiguous().float()
        level, spread = (255 * s[:, None, None] for s in (level, spread))
        return values.sub_(level).div_(spread)

    def done(self, u: Float[np.ndarray, "*b a"]) -> Float[Tensor, "*b a"]:
        """Actions as encoders see them."""
        level, spread = self._scale("action", u.shape[-1])
        return (torch.from_numpy(u).float() - level) / spread

    def undone(self, u: Float[Tensor, "*b a"]) -> Float[np.ndarray, "*b a"]:
        """Actions as the world takes them."""
        level, spread = self._scale("action", u.shape[-1])
        return (u * spread + level).numpy()

    def _scale(self, of: str, n: int) -> tuple[Tensor, Tensor]:
        level, spread = self.scales.get(of, ([0.0] * n, [1.0] * n))
        return torch.tensor(level), torch.tensor(spread)

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """The mean over the steps of what was seen, as it is but for the scale."""
        x = self.plain(batch, 0)
        return mean_of(x.observations.flatten(2), x.valid)

    # -------------------------------------------------------------------------- for people

    def picture(self, x: Steps) -> UInt8[Tensor, "b 3 h w"]:  # type: ignore[override]
        """A few steps side by side; vectors as curves."""
        seen, lengths = x.observations.detach().cpu().float(), x.valid.sum(1).cpu()
        if seen.ndim == 3:
            here = x.valid.cpu()[:, None].expand(-1, seen.shape[2], -1)
            return looks.drawn(seen.transpose(1, 2), here, 64, 128)
        level, spread = self._scale("observation", seen.shape[2])
        unit = (seen * spread[:, None, None] + level[:, None, None]).clamp(0, 1)
        return (255 * _strip(unit, lengths)).round().byte()

    def thumbnail(self, sample: UInt8[np.ndarray, "n 1 1"]) -> UInt8[np.ndarray, "h w 3"]:
        fields = unpack_one(sample[:, 0, 0])
        x = self._steps([fields], [0], len(fields["action"]))
        return self.picture(x)[0].permute(1, 2, 0).numpy()

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]]:
        seen, done = _checked(raw)
        kind = "x".join(map(str, seen.shape[1:]))
        what = f"pictures of {kind}" if seen.ndim == 4 else f"{kind} numbers"
        return "stretch", f"{what}, {done.shape[1]} numbers an action", (len(seen), len(seen))

    def examples(self) -> list[Any]:
        """Noise, of several lengths."""
        random, made = np.random.Generator(np.random.Philox(20260101)), []
        for steps in (16, 9, 24):
            done = random.normal(size=(steps, self.actions or 2)).astype(np.float32)
            if len(self.shape) == 3:
                c, h, w = self.shape
                seen = random.integers(0, 256, (steps, h, w, c)).astype(np.uint8)
            else:
                seen = random.normal(size=(steps, *(self.shape or (4,)))).astype(np.float32)
            made.append({"observation": seen, "action": done})
        return made

    # -------------------------------------------------------------------------- sizes, encoders

    def extent(self, source: Source) -> int:
        lengths = []
        for i in np.unique(np.linspace(0, len(source) - 1, 32).astype(int)).tolist():
            try:
                lengths.append(len(_checked(source.read(i))[0]))
            except BadSample:
                continue
        return int(np.median(lengths)) if lengths else 0

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        size = max(2, min(WINDOW, extent))
        return size, f"so many steps are foretold at a time; a sample has about {extent}"

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        return observer(name, self.shape or (4,), self.actions or 2, **keywords)


def _checked(raw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Observations float32 (t, d) or uint8 (t, h, w, c), actions float32 (t, a)."""
    if not isinstance(raw, dict):
        raise BadSample("not_a_trajectory", f"{type(raw).__name__} has no actions")
    fields = whole({str(k): np.asarray(v) for k, v in raw.items()})
    seen, done = fields["observation"], fields["action"].astype(np.float32)
    if len(seen) < 2:
        raise BadSample("too_short", f"{len(seen)} steps; two make a trajectory")
    if seen.ndim not in (2, 4) or max(seen.shape[1:]) > LARGEST or done.shape[1] > LARGEST:
        raise BadSample("not_a_trajectory", f"observations of shape {seen.shape[1:]}")
    for name, values in (("observations", seen), ("actions", done)):
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
        if len(bad):
            raise BadSample("not_finite", f"{name} that are not finite, first at step {bad[0]}")
    if seen.ndim == 2:
        return seen.astype(np.float32), done
    if seen.shape[1] in (1, 3) and seen.shape[3] not in (1, 3, 4):
        seen = seen.transpose(0, 2, 3, 1)
    if seen.dtype.kind == "f":  # in [0, 1], as far as there are such pictures
        seen = np.round(255 * seen.clip(0, 1))
    return np.ascontiguousarray(seen.astype(np.uint8)), done


def _scale(rows: Float[np.ndarray, "n d"]) -> tuple[list[float], list[float]]:
    """Mean and deviation; 1 for what never changes."""
    level, spread = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
    spread[spread <= 1e-6 * np.maximum(np.abs(level), 1e-6)] = 1.0
    return level.tolist(), spread.tolist()


def _disturbed(x: Steps, draws: Draws, without: Collection[str]) -> Steps:
    """Noise of a tenth of the deviation, and a level that is a little off."""
    most = DISTURBED | dict.fromkeys(without, 0.0)
    n = math.prod(x.shape[1:])
    noise = most["noise"] * draws.normal(n).view(x.shape)
    level = most["level"] * draws.normal().view(-1, *[1] * (x.ndim - 1))
    return Steps(x.observations + noise + level, x.actions, x.valid)


def _strip(x: Float[Tensor, "b t c h w"], lengths: Tensor) -> Float[Tensor, "b 3 h w"]:
    """FRAMES of the steps that are there, a gap between them."""
    b, _, c, h, w = x.shape
    at = (torch.linspace(0, 1, FRAMES) * (lengths[:, None] - 1)).round().long()
    shown = x[torch.arange(b)[:, None], at]  # (b, FRAMES, c, h, w)
    shown = shown[:, :, :3] if c >= 3 else shown[:, :, :1].expand(-1, -1, 3, -1, -1)
    wide = torch.ones(b, FRAMES, 3, h, w + 1)
    wide[..., :w] = shown
    return wide.permute(0, 2, 3, 1, 4).flatten(3)


def _numbers(pair: Any) -> tuple[list[float], list[float]]:
    low, high = ([float(v) for v in part] for part in pair)
    if len(low) != len(high) or len(low) > LARGEST or not np.isfinite([*low, *high]).all():
        raise ValueError("a scale is not two lists of as many finite numbers")
    return low, high
