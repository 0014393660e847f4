"""Masks over a token grid. True means hidden; every row hides the same number of tokens."""

from collections.abc import Callable
from math import log, prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool1d

from .distributed import rand

Mask = Callable[[int, tuple[int, ...], torch.device | None], Bool[Tensor, "batch n"]]
MOST = 16  # blocks that `blocks` draws for a row


def random(ratio: float) -> Mask:
    """Hide tokens uniformly at random: round(n * ratio) of them, and always leave one."""

    def mask(batch, grid, device=None):
        n = prod(grid)
        hidden = min(round(n * ratio), n - 1)
        return rand(batch, n, device).argsort(1) < hidden

    return mask


def cells(ratio: float, side: int) -> Mask:
    """Hide cells of `side` tokens along each axis, at random (SimMIM, arXiv 2111.09886).

    Along an axis that such cells do not tile, or where one would be all of it, they are smaller.
    """

    def mask(batch, grid, device=None):
        sides = [max(s for s in range(1, side + 1) if n % s == 0 and s < max(n, 2)) for n in grid]
        coarse = tuple(n // s for n, s in zip(grid, sides, strict=True))
        hidden = random(ratio)(batch, coarse, device).view(batch, *coarse)
        for axis, s in enumerate(sides, 1):
            hidden = hidden.repeat_interleave(s, axis)
        return hidden.flatten(1)

    return mask


def block(ratio: float) -> Mask:
    """Hide one block anywhere, with about this share of the tokens and sides like the grid's."""

    def mask(batch, grid, device=None):
        return _boxes(batch, 1, grid, (ratio, ratio), 1.0, device)[:, 0]

    return mask


def blocks(ratio: float, smallest: float = 0.08, aspect: float = 0.3) -> Mask:
    """Hide blocks anywhere, one after another, until round(n * ratio) tokens are hidden (BEiT,
    arXiv 2106.08254, algorithm 1); the last one is cut.

    A block has a share of the tokens from `smallest` (paper: 16 of 196) to `ratio`, and sides whose
    proportion is `aspect` to one over it.
    """

    def mask(batch, grid, device=None):
        n = prod(grid)
        hidden = max(1, min(round(n * ratio), n - 1))
        boxes = _boxes(batch, MOST, grid, (min(smallest, ratio), ratio), aspect, device)
        falls = torch.arange(MOST, device=boxes.device)[:, None].expand_as(boxes)
        first = falls.masked_fill(~boxes, MOST).amin(1)  # a token is hidden by its earliest block
        place = torch.arange(n, device=first.device)
        return (first * n + place).argsort(1).argsort(1) < hidden

    return mask


def _boxes(
    batch: int,
    count: int,
    grid: tuple[int, ...],
    share: tuple[float, float],
    aspect: float,
    device: torch.device | None,
) -> Bool[Tensor, "b count n"]:
    """Blocks at random places of a grid, with a share of its tokens between these two."""
    axes = len(grid)
    draws = rand(batch, count * (1 + 2 * axes), device).view(batch, count, 1 + 2 * axes)
    volume = share[0] + (share[1] - share[0]) * draws[..., 0]
    stretch = (draws[..., 1 : 1 + axes] - 0.5) * log(1 / aspect)
    stretch = stretch - stretch.mean(-1, keepdim=True)  # the volume stays
    inside = torch.ones(batch, count, *grid, dtype=torch.bool, device=draws.device)
    for axis, side in enumerate(grid):
        length = side * volume ** (1 / axes) * stretch[..., axis].exp()
        length = length.round().clamp(1, side)
        first = (draws[..., 1 + axes + axis] * (side - length + 1)).floor()
        at = torch.arange(side, device=draws.device)
        along = (at >= first[..., None]) & (at < (first + length)[..., None])  # (b, count, side)
        inside &= along.view(batch, count, *(side if i == axis else 1 for i in range(axes)))
    return inside.flatten(2)


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
