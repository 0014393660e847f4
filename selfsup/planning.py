"""Which actions lead to a goal, by a model that foretells: draw many, keep the best, draw again.

A cost takes sequences of actions (b, k, h, a), k for each of b situations, and says how bad each
is: (b, k). Everything random comes from `generator`.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Actions = Float[Tensor, "b h a"]
Cost = Callable[[Float[Tensor, "b k h a"]], Float[Tensor, "b k"]]


def cem(
    cost: Cost,
    mean: Actions,
    deviation: Float[Tensor, " a"],
    *,
    generator: torch.Generator,
    count: int = 256,
    elite: int = 8,
    rounds: int = 6,
    least: float = 0.7,
    clip: Callable[[Tensor], Tensor] = lambda actions: actions,
) -> Actions:
    """Cross-entropy method (Rubinstein 1999): draws around the best of the last draws.

    `mean` is where the search begins; the mean of the last best is where it ends. Deviations
    never fall below `least` of the first ones, or the search ends at the first wall.
    """
    spread = deviation.expand_as(mean)
    for _ in range(rounds):
        tried = _around(mean, spread, count, generator, clip)
        order = cost(tried).argsort(1)[:, :elite]
        best = _rows(tried, order)  # (b, elite, h, a)
        mean, spread = best.mean(1), best.std(1).maximum(least * deviation)
    return mean


def mppi(
    cost: Cost,
    mean: Actions,
    deviation: Float[Tensor, " a"],
    *,
    generator: torch.Generator,
    count: int = 256,
    rounds: int = 6,
    temperature: float = 0.1,
    clip: Callable[[Tensor], Tensor] = lambda actions: actions,
) -> Actions:
    """Model predictive path integral control (Williams et al., https://arxiv.org/abs/1509.01149).

    The mean of all that were drawn, the cheaper the heavier; `temperature` is in units of the
    deviation of their costs.
    """
    spread = deviation.expand_as(mean)
    for _ in range(rounds):
        tried = _around(mean, spread, count, generator, clip)
        costs = cost(tried)
        unit = costs.std(1, keepdim=True).clamp(min=1e-9)
        weights = (-(costs - costs.amin(1, keepdim=True)) / (temperature * unit)).softmax(1)
        mean = (weights[:, :, None, None] * tried).sum(1)
    return mean


PLANNERS: dict[str, Any] = {"cem": cem, "mppi": mppi}


def _around(
    mean: Actions,
    spread: Float[Tensor, "b h a"],
    count: int,
    generator: torch.Generator,
    clip: Callable[[Tensor], Tensor],
) -> Float[Tensor, "b k h a"]:
    """The mean itself, and sequences around it."""
    b, h, a = mean.shape
    noise = torch.randn(b, count, h, a, generator=generator)
    noise[:, 0] = 0.0
    return clip(mean[:, None] + spread[:, None] * noise)


def _rows(x: Float[Tensor, "b k h a"], rows: Tensor) -> Float[Tensor, "b m h a"]:
    return x[torch.arange(len(x))[:, None], rows]
