"""Stems: what a sample is cut into before a trunk sees it."""

from math import prod

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from .errors import SelfsupError

# The first tokens of every vocabulary: the end (and start) of a document, a hidden token, one
# that is not in the vocabulary
END, MASK, UNKNOWN = range(3)
SPECIAL = 3


class Patches(nn.Module):
    """Cut a regular signal into patches: series (1 axis), image or spectrogram (2), video (3).

    Inputs of another size than `size` are cut just the same, into another grid.
    """

    def __init__(self, size: tuple[int, ...], patch: tuple[int, ...], channels: int, dim: int):
        super().__init__()
        self.size, self.patch, self.channels = size, patch, channels
        self.grid = self.grid_of(size)
        # laid out as a convolution's weight, (d, c, *patch): the layout that timm's ViT has
        self.weight = nn.Parameter(torch.empty(dim, channels, *patch))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.xavier_uniform_(self.weight.view(dim, -1))  # as a linear layer, as in MAE

    def grid_of(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """How many patches an input of `size` gives along each axis."""
        if len(size) != len(self.patch) or any(
            s % p for s, p in zip(size, self.patch, strict=True)
        ):
            raise SelfsupError(
                "E202",
                f"patches of {self.patch} do not tile an input of {tuple(size)}",
                why="every side of the input must be a multiple of the patch's side",
                do="choose another resolution or --set encoder.patch=...",
            )
        return tuple(s // p for s, p in zip(size, self.patch, strict=True))

    @property
    def patch_dim(self) -> int:
        return self.channels * prod(self.patch)

    @property
    def local_dim(self) -> int:
        return self.patch_dim

    @property
    def entrance(self) -> Tensor:
        return self.weight

    @property
    def cell(self) -> tuple[int, ...]:
        return self.patch

    def patches(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b n p"]:
        """The values of each patch, by channel, then place: what masked methods rebuild."""
        return cut(x, self.grid_of(tuple(x.shape[2:])))

    def unpatch(self, patches: Float[Tensor, "b n p"], grid=None) -> Float[Tensor, "b c *size"]:
        """The inverse of `patches`."""
        grid = grid or self.grid
        size = tuple(g * p for g, p in zip(grid, self.patch, strict=True))
        return paste(patches, grid, size)

    def local(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b n p"]:
        """What each token is made of, before `project`: the values of its patch."""
        return self.patches(x)

    def project(self, local: Float[Tensor, "b n p"]) -> Float[Tensor, "b n d"]:
        return linear(local, self.weight.flatten(1), self.bias)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b n d"]:
        return self.project(self.local(x))


def cut(x: Float[Tensor, "b c *size"], grid: tuple[int, ...]) -> Float[Tensor, "b n p"]:
    """The values in each cell of a grid that tiles x, by channel, then place."""
    axes, parts = len(grid), [x.shape[0], x.shape[1]]
    for cells, side in zip(grid, _sides(grid, tuple(x.shape[2:])), strict=True):
        parts += [cells, side]
    order = [0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2)]
    return x.reshape(parts).permute(order).flatten(1, axes).flatten(2)  # (b, n, c * cell)


def paste(
    cells: Float[Tensor, "b n p"], grid: tuple[int, ...], size: tuple[int, ...]
) -> Float[Tensor, "b c *size"]:
    """The inverse of `cut`."""
    axes, sides = len(grid), _sides(grid, size)
    x = cells.reshape(len(cells), *grid, -1, *sides)
    order = [0, 1 + axes]
    for axis in range(axes):
        order += [1 + axis, 2 + axes + axis]
    return x.permute(order).reshape(len(x), -1, *size)


def _sides(grid: tuple[int, ...], size: tuple[int, ...]) -> list[int]:
    """Of a cell."""
    if any(side % cells for side, cells in zip(size, grid, strict=True)):
        raise SelfsupError(
            "E202",
            f"a grid of {grid} does not tile an input of {size}",
            do="choose another resolution or encoder",
        )
    return [side // cells for side, cells in zip(size, grid, strict=True)]


class Vocabulary(nn.Module):
    """A learned vector for each of `count` tokens; the first are END, MASK and UNKNOWN.

    `starts`, where it is known, tells which tokens begin a word.
    """

    starts: Bool[Tensor, " v"] | None

    def __init__(self, count: int, dim: int):
        super().__init__()
        self.count = count
        self.tokens = nn.Parameter(0.02 * torch.randn(count, dim))
        self.register_buffer("starts", None, persistent=False)  # of the vocabulary, not learned

    def forward(self, x: Int64[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        return embedding(x, self.tokens)
