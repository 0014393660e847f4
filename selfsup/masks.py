"""Masks over a token grid. True means hidden; every row hides the same number of tokens.

Those of latent prediction come in pairs: what is seen, and what is to be foretold from it. Of
samples of different lengths (`choose`) each row hides its own share.
"""

from collections.abc import Callable
from math import log, prod

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import max_pool1d

from .distributed import gather, rand
from .errors import SelfsupError
from .ragged import Ragged
from .stems import MASK, SPECIAL

Mask = Callable[[int, tuple[int, ...], torch.device | None], Bool[Tensor, "batch n"]]
Pair = tuple[Bool[Tensor, "batch n"], Bool[Tensor, "batch n"]]
Pairs = Callable[[int, tuple[int, ...], torch.device | None], Pair]
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


def tube(ratio: float) -> Mask:
    """Hide the same places all along the first axis (VideoMAE, arXiv 2203.12602)."""
    across = random(ratio)

    def mask(batch, grid, device=None):
        if len(grid) < 2:
            raise _no_room("tubes need a second axis", grid)
        return across(batch, grid[1:], device).repeat(1, grid[0])

    return mask


def multiblock(
    blocks: int,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    context: tuple[float, float],
) -> Pairs:
    """Blocks to foretell, and the rest of one large block to see (arXiv 2301.08243, section 3).

    A block covers a share in `scale` of the last two axes, all along an axis before them (V-JEPA,
    arXiv 2404.08471); of a single axis it is a stretch. Blocks of a batch are of one size; one that
    would leave less than a sixteenth to see falls upon the first. What exceeds the fewest tokens of
    a row is left out by chance. Paper: the last are left out. I-JEPA's own blocks, unlike V-JEPA's,
    never reach the last row and column. Blocks of more than half need a `context` of everything, or
    what is left of it could lie behind them.
    """
    most = 0.7 if context[0] >= 1.0 else 0.5
    if context[0] <= scale[1]:
        raise SelfsupError(
            "E201",
            f"a block takes up to {scale[1]}, what is seen from {context[0]} on",
            why="a block could hide all that is to be seen",
        )

    def mask(batch, grid, device=None):
        plane = grid[-2:] if len(grid) > 1 else (1, *grid)
        n = prod(plane)
        if n < 4:
            raise _no_room("blocks need four places or more", grid)
        sizes = torch.rand(3)  # the same on all ranks: their generators agree
        share = (scale[0] + (scale[1] - scale[0]) * sizes[0]).item() * n
        stretch = (aspect[0] + (aspect[1] - aspect[0]) * sizes[1]).item()
        large = (context[0] + (context[1] - context[0]) * sizes[2]).item() * n
        draws = rand(batch, 2 * (blocks + 1), device).view(batch, blocks + 1, 2)
        seen = _block(draws[:, 0], plane, large, 1.0)
        foretold = first = _block(draws[:, 1], plane, min(share, most * n), stretch)
        seen = seen & ~first
        for number in range(2, blocks + 1):
            block = _block(draws[:, number], plane, min(share, most * n), stretch)
            enough = ((seen & ~block).sum(1, keepdim=True) >= max(1, n // 16)).expand_as(seen)
            block = torch.where(enough, block, first)
            seen, foretold = seen & ~block, foretold | block
        along = prod(grid) // n
        return tuple(_fewest(part.repeat(1, along)) for part in (seen, foretold))

    return mask


def following() -> Pairs:
    """See what comes before a place on the first axis that is longer than one; foretell it."""

    def mask(batch, grid, device=None):
        axis = next((i for i, cells in enumerate(grid) if cells > 1), None)
        if axis is None:
            raise _no_room("what follows needs two places on an axis", grid)
        now = 1 + int(torch.rand(()) * (grid[axis] - 1))  # the same on all ranks
        shape = [-1 if i == axis else 1 for i in range(len(grid))]
        at = torch.arange(grid[axis], device=device).view(shape).expand(grid).flatten()
        return (at < now).expand(batch, -1), (at == now).expand(batch, -1)

    return mask


def _block(
    at: Float[Tensor, "b 2"], plane: tuple[int, int], area: float, aspect: float
) -> Bool[Tensor, "b n"]:
    """One block of about `area` places for each row, by where it lies in what it has to move."""
    height = min(max(round((area * aspect) ** 0.5), 1), plane[0])
    width = min(max(round(area / height), 1), plane[1])
    inside = []
    for side, length, place in zip(plane, (height, width), at.unbind(1), strict=True):
        first = (place * (side - length + 1)).long()[:, None]
        cells = torch.arange(side, device=at.device)
        inside.append((cells >= first) & (cells < first + length))
    return (inside[0][:, :, None] & inside[1][:, None]).flatten(1)


def _fewest(where: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
    """As many in each row as the row with the fewest has, over all ranks."""
    fewest = gather(where.sum(1, keepdim=True).float()).min()
    rank = rand(*where.shape, where.device).masked_fill(~where, 2.0).argsort(1).argsort(1)
    return rank < fewest


def _no_room(what: str, grid: tuple[int, ...]) -> SelfsupError:
    told = " x ".join(map(str, grid))
    return SelfsupError("E202", f"{what}, and the tokens are {told}", do="choose another mask")


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


# ---- tokens of a vocabulary, in samples of different lengths ------------------------------------


def choose(
    x: Ragged,
    ratio: float,
    draws: Float[Tensor, "b n"],
    starts: Bool[Tensor, "b n"] | None = None,
) -> Bool[Tensor, "b n"]:
    """`ratio` of each sample's tokens, one at least; special tokens never.

    With `starts`, true where a word begins, whole words: those that hold the first so many tokens.
    """
    free = x.valid & (x.values >= SPECIAL)
    if starts is not None:
        after = (x.values < SPECIAL).roll(1, 1)  # what follows a special token begins a word
        place = torch.arange(x.shape[1], device=x.device) * (starts | after | ~free)
        first = place.cummax(1).values  # of each token's word
        draws = draws.gather(1, first)
    rank = draws.masked_fill(~free, 2.0).argsort(dim=1, stable=True).argsort(1)
    if starts is not None:
        rank = rank.gather(1, first)
    wanted = (ratio * free.sum(1)).round().clamp(min=1)
    return free & (rank < wanted[:, None])


def corrupt(
    tokens: Int64[Tensor, "b n"],
    chosen: Bool[Tensor, "b n"],
    fate: Float[Tensor, "b n"],
    other: Float[Tensor, "b n"],
    count: int,
) -> Int64[Tensor, "b n"]:
    """Of the chosen 80 % are MASK, 10 % any token by `other`, 10 % what they were.

    BERT, https://arxiv.org/abs/1810.04805, section 3.1.
    """
    strange = SPECIAL + (other * (count - SPECIAL)).long().clamp(max=count - SPECIAL - 1)
    tokens = torch.where(chosen & (fate < 0.9), strange, tokens)
    return tokens.masked_fill(chosen & (fate < 0.8), MASK)
