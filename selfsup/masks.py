"""Masks over a token grid. True means hidden; every row hides the same number of tokens."""

from collections.abc import Callable
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .distributed import rand

Mask = Callable[[int, tuple[int, ...], torch.device | None], Bool[Tensor, "batch n"]]


def random(ratio: float) -> Mask:
    """Hide tokens uniformly at random: round(n * ratio) of them, and always leave one."""

    def mask(batch, grid, device=None):
        n = prod(grid)
        hidden = min(round(n * ratio), n - 1)
        return rand(batch, n, device).argsort(1) < hidden

    return mask


def take(tokens: Float[Tensor, "b n d"], where: Bool[Tensor, "b n"]) -> Float[Tensor, "b k d"]:
    """The tokens where the mask is True, in their order."""
    return tokens[where].view(len(tokens), -1, tokens.shape[-1])


def put(
    tokens: Float[Tensor, "b k d"], where: Bool[Tensor, "b n"], blank: Float[Tensor, " d"]
) -> Float[Tensor, "b n d"]:
    """The inverse of `take`: tokens back in their places, `blank` everywhere else."""
    full = blank.to(tokens.dtype).expand(*where.shape, -1).clone()
    full[where] = tokens.flatten(0, 1)
    return full
