"""Looks at batches of series: parts of them at any length, and disturbances that keep the meaning.

Series are (b, c, t) float32 with `here` (b, c, t): where they have values. What is missing holds
the straight line between its neighbours, so that nothing jumps, and `here` tells it apart.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..randomness import Draws

STRETCH = 1.5  # at most, of the part of a series that a view shows
NOISE, SCALE, BEND = 0.2, 0.2, 0.15  # deviations, in deviations of the channel itself
WAVES = 3  # half periods of the slowest bends
HOLE, HOLED = 0.2, 0.5  # longest part of a view that is taken out, and how often
OPERATIONS = ("crop", "noise", "scale", "bend", "hole")  # that the setting `without` leaves out


class Series(NamedTuple):
    values: Float[Tensor, "b c t"]
    here: Bool[Tensor, "b c t"]


class Spans(NamedTuple):
    """Where a view begins and how many steps it shows, for each sample."""

    start: Float[Tensor, " b"]
    length: Float[Tensor, " b"]


def draw_spans(
    draws: Draws, n: Int64[Tensor, " b"], size: int, share: tuple[float, float], pieces: Tensor
) -> Spans:
    """A part of each series, `share` of it, but never stretched more than STRETCH times.

    Pieces of a recording are never stretched at all: `size` of their steps are shown.
    """
    length = n * draws.uniform(*share)
    length = length.clamp(min=size / STRETCH).minimum(n.float())
    length = torch.where(pieces, torch.tensor(float(size), device=n.device), length)
    room = (n - length).clamp(min=0.0)
    start = draws.uniform() * room
    return Spans(torch.where(pieces, start.floor() + (n - length).clamp(max=0), start), length)


def whole(n: Int64[Tensor, " b"], size: int, pieces: Tensor) -> Spans:
    """All of a series, and of a piece of a recording its last steps."""
    length = torch.where(pieces, torch.full_like(n, size), n)
    return Spans(torch.where(pieces, n - size, torch.zeros_like(n)).float(), length.float())


def show(x: Float[Tensor, "b c t"], n: Int64[Tensor, " b"], spans: Spans, size: int) -> Series:
    """The spans at `size` steps, each between its two nearest values; NaN is missing.

    Before the beginning and behind the end everything is missing.
    """
    places = torch.arange(size, device=x.device) + 0.5
    at = spans.start[:, None] + places * (spans.length / size)[:, None] - 0.5  # (b, size)
    last = (n - 1)[:, None].float()
    inside = (at > -0.5 - 1e-3) & (at < last + 0.5 + 1e-3)
    at = at.clamp(min=0.0).minimum(last)
    low = at.floor()
    share = (at - low)[:, None]  # (b, 1, size)
    before = low.long()
    after = (before + 1).minimum(last.long())
    shape = (x.shape[0], x.shape[1], size)
    left = x.gather(2, before[:, None].expand(shape))
    right = x.gather(2, after[:, None].expand(shape))
    gone = bool(x.isnan().any())
    here = inside[:, None].expand(shape)
    if not gone and bool(inside.all()):
        return Series(torch.lerp(left, right, share.expand(shape)), here)
    weight = torch.stack([(1 - share) * ~left.isnan(), share * ~right.isnan()])
    total = weight.sum(0)
    values = weight[0] * left.nan_to_num() + weight[1] * right.nan_to_num()
    here = here & (total >= 0.5)
    return Series(bridged(values / total.clamp(min=1e-6), here), here)


def bridged(values: Float[Tensor, "b c t"], here: Bool[Tensor, "b c t"]) -> Tensor:
    """What is missing on a straight line between its neighbours; at the ends, as the nearest."""
    t = values.shape[2]
    place = torch.arange(t, device=values.device).expand_as(values)
    before = torch.where(here, place, -1).cummax(2).values
    after = torch.where(here, place, t).flip(2).cummin(2).values.flip(2)
    none = before.lt(0) & after.ge(t)
    first, second = (
        torch.where(before < 0, after, before).clamp(max=t - 1),
        torch.where(after >= t, before, after).clamp(min=0),
    )
    share = (place - first) / (second - first).clamp(min=1)
    line = torch.lerp(values.gather(2, first), values.gather(2, second), share.to(values.dtype))
    return torch.where(here, values, line.masked_fill(none, 0.0))


def disturb(series: Series, draws: Draws, without: Collection[str] = ()) -> Series:
    """Noise, another scale and a slow bend for each channel, and at times a hole."""
    most = {"noise": NOISE, "scale": SCALE, "bend": BEND, "hole": HOLE}
    most |= dict.fromkeys(without, 0.0)
    values, here = series
    b, c, t = values.shape
    unit = deviation(series)[1]
    noise = draws.normal(c * t).view(b, c, t) * draws.uniform(0.0, most["noise"])[:, None, None]
    place = (torch.arange(t, device=values.device) + 0.5) / t
    waves = torch.stack([torch.cos(math.pi * k * place) for k in range(1, WAVES + 1)])
    bend = draws.normal(c * WAVES).view(b, c, WAVES) @ waves * most["bend"]  # (b, c, t)
    gain = 1 + most["scale"] * draws.normal(c).view(b, c, 1)
    hole = draws.uniform(0.0, most["hole"]) * draws.chance(HOLED)
    start = draws.uniform() * (1 - hole)
    cut = (place >= start[:, None]) & (place < (start + hole)[:, None])  # (b, t)
    values = values * gain * (1 + bend) + noise * unit
    here = here & ~cut[:, None]
    return Series(values if bool(here.all()) else bridged(values, here), here)


def deviation(series: Series) -> tuple[Float[Tensor, "b c 1"], Float[Tensor, "b c 1"]]:
    """Mean and deviation of each channel of each series, over what is there."""
    weight = series.here.to(series.values.dtype)
    count = weight.sum(2, keepdim=True).clamp(min=1)
    mean = (series.values * weight).sum(2, keepdim=True) / count
    square = ((series.values - mean).square() * weight).sum(2, keepdim=True) / count
    return mean, square.sqrt()


def leveled(series: Series) -> Series:
    """Each channel of each series with mean 0 and deviation 1 (instance normalisation)."""
    mean, unit = deviation(series)
    return Series((series.values - mean) / unit.clamp(min=1e-3), series.here)


def drawn(
    values: Float[Tensor, "b c t"], here: Bool[Tensor, "b c t"], height: int, width: int
) -> Tensor:
    """Curves as pictures, uint8 (b, 3, height, width): a colour each, none where none is there."""
    b, c, t = values.shape
    at = (torch.arange(width) * t // width).clamp(max=t - 1)
    nearby = (at + max(1, t // width)).clamp(max=t - 1)
    shown = values.masked_fill(~here, torch.nan)
    low = shown.nan_to_num(torch.inf).amin((1, 2), keepdim=True)
    high = shown.nan_to_num(-torch.inf).amax((1, 2), keepdim=True)
    rows = (high - values) / (high - low).clamp(min=1e-6) * (height - 3) + 1  # (b, c, t)
    first, second = rows[:, :, at], rows[:, :, nearby]
    top, bottom = first.minimum(second) - 0.7, first.maximum(second) + 0.7
    line = torch.arange(height)[:, None]  # (height, 1)
    ink = (line >= top[:, :, None]) & (line <= bottom[:, :, None]) & here[:, :, None, at]
    picture = torch.full((b, 3, height, width), 255, dtype=torch.uint8)
    for channel in range(c):
        colour = torch.tensor(COLOURS[channel % len(COLOURS)], dtype=torch.uint8)[:, None, None]
        picture = torch.where(ink[:, channel, None], colour, picture)
    return picture


COLOURS = (
    (31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14),
    (23, 190, 207), (140, 86, 75), (227, 119, 194),
)  # fmt: skip
