"""Intervals of 95 %: what another draw of the test samples would have said."""

from collections.abc import Callable

import numpy as np

from ..evaluate.forecast import Judge, over_blocks
from ..evaluate.interval import FEWEST, Interval, edges
from ..randomness import mix
from ..transfer.forecast import Forecast
from ..transfer.tasks import Task

RESAMPLES = 500


def interval(
    summary: Callable[[np.ndarray], float],
    outcomes: np.ndarray,
    seed: int,
    signed: bool = False,
    among: int = 1,
) -> Interval:
    """A metric and its 95 % interval: percentile bootstrap over test samples.

    Of fewer than 5 all that can be, where `signed` below 0 too. Draws that have no metric tell
    nothing.
    """
    n, value = len(outcomes), summary(outcomes)
    if n < FEWEST:
        reach = max(1.0, abs(value))
        kind = f"all that can be: {n} test samples tell too little"
        return Interval(value, -reach if signed else 0.0, reach, kind)
    generator = np.random.default_rng(mix(seed, 0x626F6F74))
    found = [summary(outcomes[generator.integers(0, n, n)]) for _ in range(RESAMPLES)]
    if np.isnan(found).all():
        return Interval(value, value, value, "none: what tests has no metric")
    low, high = np.nanquantile(found, edges(among))
    return Interval(value, float(low), float(high), "bootstrap over test samples")


def difference(
    task: Task, ours: np.ndarray, theirs: np.ndarray, seed: int, among: int = 1
) -> Interval:
    """By how much ours are better on the same samples, resampled together."""

    def gain(both: np.ndarray) -> float:
        return task.better * (task.summary(both[:, 0]) - task.summary(both[:, 1]))

    return interval(gain, np.stack([ours, theirs], 1), seed, signed=True, among=among)


def over_stretches(
    task: Forecast,
    judge: Judge,
    ours: np.ndarray,
    theirs: np.ndarray | None = None,
    among: int = 1,
) -> Interval:
    """The error of forecasts, or by how much it is less than theirs: over blocks of stretches,
    or over series.

    Where the test part holds too few that do not overlap, as far as single ones go.
    """
    each = task.shares(ours) if theirs is None else task.shares(theirs) - task.shares(ours)
    origins, count = judge.origins(2, task.horizon), judge.blocks(task.horizon)
    found = over_blocks(each[None], origins, task.horizon, count, among)
    value, low, high = (found[key] for key in ("value", "low", "high"))
    assert value is not None
    if low is None or high is None:
        reach, kind = float(np.nanmax(np.abs(each))), "all that can be: what tests is too little"
        return Interval(value, value - reach, value + reach, kind)
    return Interval(value, low, high, f"t over {count} {judge.units}")
