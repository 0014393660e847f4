"""Ridge regression: numbers from frozen features, exactly.

Minimised is |y - x weight|^2 + strength * |weight|^2, on standardised features, the bias free.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..randomness import mix
from ..stop import stop
from .linear import Scale, scale_of

STRENGTHS = tuple(10.0**power for power in range(-4, 6))
FOLDS = 3


def solutions(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], strengths: Sequence[float]
) -> Iterator[Float[Tensor, "d k"]]:
    """The weight at each strength, all from one decomposition."""
    eigenvalues, axes = torch.linalg.eigh(x.T @ x)
    inner = axes.T @ (x.T @ y)
    for strength in strengths:
        yield axes @ (inner / (eigenvalues.clamp(min=0) + strength)[:, None])


def ridge(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n k"],
    *,
    scale: Scale | None = None,
    seed: int = 0,
    shuffled: bool = True,
    groups: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]:
    """Weight and bias on plain features.

    The strength is the one with the smallest error on three folds, each held out in turn; without
    `shuffled`, folds are thirds in the order given; `groups`, numbered from 0 on, stay whole.
    `scale` is taken from `x` unless given.
    """
    scale = scale or scale_of(x)
    z, y, n = scale(x).double(), y.double(), len(x)

    def fits(rows: Tensor, strengths: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
        mean, middle = z[rows].mean(0), y[rows].mean(0)
        for weight in solutions(z[rows] - mean, y[rows] - middle, strengths):
            yield weight, middle - mean @ weight

    best = 1.0
    groups = np.arange(n) if groups is None else groups
    count = int(groups.max(initial=-1)) + 1
    if count >= 2 * FOLDS:
        generator = np.random.default_rng(mix(seed, 3))
        places = generator.permutation(count) if shuffled else np.arange(count)
        fold = torch.from_numpy((places * FOLDS // count)[groups])
        off = np.zeros(len(STRENGTHS))
        for held in range(FOLDS):
            stop.check()
            test = fold == held
            for i, (weight, bias) in enumerate(fits(~test, STRENGTHS)):
                off[i] += (z[test] @ weight + bias - y[test]).square().sum().item()
        best = STRENGTHS[int(off.argmin())]
    ((weight, bias),) = fits(torch.ones(n, dtype=torch.bool), (best,))
    weight = weight / scale.deviation.double()[:, None]
    return weight, bias - scale.mean.double() @ weight
