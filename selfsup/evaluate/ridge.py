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
ROUNDS, CLOSE = 50, 1e-6


def solutions(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], strengths: Sequence[float]
) -> Iterator[tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]]:
    """Weight and bias at each strength for centred features, all from one decomposition.

    What is not known of y (NaN) is taken to be what the fit says of it, until that stays: then it
    has no part in the fit.
    """
    eigenvalues, axes = torch.linalg.eigh(x.T @ x)
    known = y.isfinite()
    gaps = not bool(known.all())
    y = torch.where(known, y, y.nanmean(0).nan_to_num()) if gaps else y
    for strength in strengths:
        for _ in range(ROUNDS if gaps else 1):
            bias = y.mean(0)
            inner = axes.T @ (x.T @ (y - bias))
            weight = axes @ (inner / (eigenvalues.clamp(min=0) + strength)[:, None])
            if gaps:
                before, y = y, torch.where(known, y, x @ weight + bias)
                if (y - before).abs().max() < CLOSE:
                    break
        yield weight, bias


def ridge(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n k"],
    *,
    scale: Scale | None = None,
    seed: int = 0,
    shuffled: bool = True,
    groups: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]:
    """Weight and bias on plain features; of y there may be gaps (NaN).

    The strength is the one with the smallest error on three folds, each held out in turn; without
    `shuffled`, folds are thirds in the order given; `groups`, numbered from 0 on, stay whole.
    `scale` is taken from `x` unless given.
    """
    scale = scale or scale_of(x)
    z, y, n = scale(x).double(), y.double(), len(x)

    def fits(rows: Tensor, strengths: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
        mean = z[rows].mean(0)
        for weight, bias in solutions(z[rows] - mean, y[rows], strengths):
            yield weight, bias - mean @ weight

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
                off[i] += (z[test] @ weight + bias - y[test]).square().nansum().item()
        best = STRENGTHS[int(off.argmin())]
    ((weight, bias),) = fits(torch.ones(n, dtype=torch.bool), (best,))
    weight = weight / scale.deviation.double()[:, None]
    return weight, bias - scale.mean.double() @ weight
