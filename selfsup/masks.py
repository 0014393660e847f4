"""Masks over a token grid. True means hidden; where not said otherwise as many in every row."""

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


def cells(ratio: float, side: int) -> Mask:
    """Hide cells of `side` tokens along each axis at random; those at the far ends may be cut.

    No cell is longer than half an axis.
    """
    cell = random(ratio)

    def mask(batch, grid, device=None):
        sides = [max(1, min(side, g // 2)) for g in grid]
        coarse = tuple(-(-g // s) for g, s in zip(grid, sides, strict=True))
        hidden = cell(batch, coarse, device).view(batch, *coarse)
        for axis, (g, s) in enumerate(zip(grid, sides, strict=True), 1):
            hidden = hidden.repeat_interleave(s, axis).narrow(axis, 0, g)
        return hidden.flatten(1)

    return mask


def blocks(low: float, high: float, stretch: float = 3.0, most: int = 16) -> Mask:
    """Hide boxes that fall anywhere and may overlap, in each row a share between low and high.

    As in BEiT (arXiv 2106.08254, algorithm 1) boxes fall until so many tokens are hidden; of the
    last one as many as are needed. Their sides are up to `stretch` times longer than others.
    """

    def mask(batch, grid, device=None):
        n, axes = prod(grid), len(grid)
        numbers = rand(batch, most * (1 + 2 * axes) + n + 1, device)
        count = (n * (low + (high - low) * numbers[:, :1])).round().clamp(1, n - 1)
        tie, numbers = numbers[:, 1 : n + 1], numbers[:, n + 1 :].unflatten(1, (most, -1))
        share = high * (0.1 + 0.9 * numbers[..., :1])  # of all tokens, (b, most, 1)
        long = stretch ** (numbers[..., 1 : axes + 1] - 0.5)
        long = long / long.log().mean(-1, keepdim=True).exp()
        size = torch.tensor(grid, device=numbers.device)
        length = (size * share ** (1 / axes) * long).round().clamp(min=1).minimum(size)
        start = (numbers[..., axes + 1 :] * (size - length + 1)).floor()
        inside = torch.ones(batch, most, *[1] * axes, dtype=torch.bool, device=numbers.device)
        for axis, g in enumerate(grid):
            place, shape = torch.arange(g, device=numbers.device), [1] * axes
            shape[axis] = g
            after = place >= start[..., axis, None]
            before = place < (start + length)[..., axis, None]
            inside = inside & (after & before).view(batch, most, *shape)
        inside = inside.flatten(2)  # (b, most, n)
        fell = torch.where(inside.any(1), inside.int().argmax(1), most)
        return (fell + tie).argsort(1).argsort(1) < count

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
