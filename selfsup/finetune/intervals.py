"""Intervals of 95 %: what another draw of the test samples would have said."""

from collections.abc import Callable, Iterator

import numpy as np

from ..randomness import mix
from ..transfer.tasks import Task

RESAMPLES = 500


def resampled(n: int, seed: int, blocks: int) -> Iterator[np.ndarray]:
    """Sample numbers drawn with replacement; with `blocks`, so many stretches of neighbours."""
    units = np.array_split(np.arange(n), min(blocks, n)) if blocks else None
    generator = np.random.default_rng(mix(seed, 0x626F6F74))
    for _ in range(RESAMPLES):
        if units is None:
            yield generator.integers(0, n, n)
        else:
            yield np.concatenate([units[i] for i in generator.integers(0, len(units), len(units))])


def interval(
    summary: Callable[[np.ndarray], float], outcomes: np.ndarray, seed: int, blocks: int = 0
) -> tuple[float, float, float]:
    """A metric and its 95 % interval: percentile bootstrap over test samples."""
    found = [summary(outcomes[rows]) for rows in resampled(len(outcomes), seed, blocks)]
    low, high = np.quantile(found, (0.025, 0.975))
    return summary(outcomes), float(low), float(high)


def difference(
    task: Task, ours: np.ndarray, theirs: np.ndarray, seed: int
) -> tuple[float, float, float]:
    """By how much ours are better on the same samples, resampled together."""

    def gain(both: np.ndarray) -> float:
        return task.better * (task.summary(both[:, 0]) - task.summary(both[:, 1]))

    return interval(gain, np.stack([ours, theirs], 1), seed, task.blocks)
