"""Ridge regression: numbers from frozen features, exactly.

Minimised is |y - x weight|^2 + strength * |weight|^2, on standardised features, the bias free.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..randomness import mix
from ..stop import stop
from .linear import Scale, scale_of

STRENGTHS = tuple(10.0**power for power in range(-4, 6))
FOLDS = 3
ROUNDS, CLOSE, TINY = 50, 1e-9, 1e-300  # of conjugate gradients


def solutions(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], strengths: Sequence[float]
) -> Iterator[tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]]:
    """Weight and bias at each strength for centred features, all from one decomposition.

    What is not known of y (NaN) has no part in the fit.
    """
    eigenvalues, axes = torch.linalg.eigh(x.T @ x)
    eigenvalues, known = eigenvalues.clamp(min=0), y.isfinite()
    if known.all():
        bias = y.mean(0)
        inner = axes.T @ (x.T @ (y - bias))
        for strength in strengths:
            yield axes @ (inner / (eigenvalues + strength)[:, None]), bias
        return
    one = torch.ones_like(x[:, :1])
    z, y = torch.cat([x @ axes, one], 1), torch.where(known, y, 0)
    penalty = torch.ones_like(z[0])
    penalty[-1] = 0  # of the bias
    curvature, found = torch.cat([eigenvalues, one.sum(0)]), z.new_zeros(z.shape[1], y.shape[1])
    for strength in strengths:
        found = _known_alone(z, y, known, strength * penalty, curvature, found)
        yield axes @ found[:-1], found[-1]


def _known_alone(
    z: Float[Tensor, "n d"],
    y: Float[Tensor, "n k"],
    known: Bool[Tensor, "n k"],
    penalty: Float[Tensor, " d"],
    curvature: Float[Tensor, " d"],
    found: Float[Tensor, "d k"],
) -> Float[Tensor, "d k"]:
    """Ridge regression of each column on its known rows, by conjugate gradients from `found` on.

    They are conditioned by `curvature`, z.T @ z, which is diagonal: without gaps one step is all.
    """
    whole = (curvature + penalty)[:, None]
    away = z.T @ (y - known * (z @ found)) - penalty[:, None] * found
    along, before = torch.zeros_like(found), y.new_ones(y.shape[1])
    enough = CLOSE**2 * ((z.T @ y).square() / whole).sum(0)
    for _ in range(ROUNDS):
        size = (away.square() / whole).sum(0)
        if (size <= enough).all():
            break
        along = away / whole + size / before * along
        change = z.T @ (known * (z @ along)) + penalty[:, None] * along
        step = size / (along * change).sum(0).clamp(min=TINY)
        found, away = found + step * along, away - step * change
        before = size.clamp(min=TINY)
    return found


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
