"""Masks over a token grid. True means hidden; every row hides the same number of tokens."""

from collections.abc import Callable
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool1d

from .distributed import rand

Mask = Callable[[int, tuple[int, ...], torch.device | None], Bool[Tensor, "batch n"]]


def random(ratio: float) -> Mask:
    """Hide tokens uniformly at random: round(n * ratio) of them, and always leave one."""

    def mask(batch, grid, device=None):
        n = prod(grid)
        hidden = min(round(n * ratio), n - 1)
        return rand(batch, n, device).argsort(1) < hidden

    return mask


def spans(ratio: float, length: int) -> Mask:
    """Hide spans of `length` tokens that begin anywhere and may overlap (arXiv 2006.11477).

    Spans fall in random order until round(n * ratio) tokens are hidden; the last one may be cut.
    """

    def mask(batch, grid, device=None):
        n = prod(grid)
        hidden = max(1, min(round(n * ratio), n - 1))
        length_ = min(length, n)
        # when the span that begins at each place falls; a token is hidden by its earliest
        falls = rand(batch, n + length_ - 1, device).argsort(1).argsort(1)
        first = -max_pool1d(-falls.float()[:, None], length_, 1)[:, 0]  # (b, n)
        place = torch.arange(n, device=first.device)
        return (first * n + place).argsort(1).argsort(1) < hidden

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
