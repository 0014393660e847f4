"""Relative position. Doersch, Gupta, Efros, 2015, https://arxiv.org/abs/1505.05192

Two cells of a sample, neither touching nor aligned, go through the same encoder: on which side of
the first does the second lie? Of d axes there are 3^d - 1 sides.
Any data on a grid, and any encoder for it that takes smaller inputs.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from .. import distributed, needs
from ..errors import SelfsupError
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim


class RelativePosition(Method):
    views = Views(light=1, share=(0.5, 1.0))
    # Departure: no channels are dropped; that is against lenses, which not all data were seen by
    optim = Optim("sgd", lr=0.1, per=256, weight_decay=5e-4, momentum=0.9, warmup=0.05)

    def __init__(
        self,
        encoder: Any,
        *,
        cell: float = 0.375,  # of the side of a sample
        gap: float = 0.1875,  # half a cell
        jitter: float = 0.03,  # 7 of 96 px of a cell, on either side; paper: of both
        hidden: int = 512,
    ):
        super().__init__(encoder)
        needs.grid("relative position", encoder)
        self.cell, self.gap, self.jitter = cell, gap, jitter
        self.patch = getattr(encoder.stem, "patch", None)  # of which cells are made
        # axes on which there are neighbours
        self.free = [n > 1 if self.patch else True for n in encoder.grid]
        if not any(self.free):
            raise SelfsupError("E202", "relative position needs two places along some axis")
        self.sides = 3 ** sum(self.free) - 1
        self.side = mlp(2 * encoder.dim, hidden, self.sides)

    def loss(self, views, progress):
        (x,) = views
        first, second, side = self.cells(x)
        h = self.encoder(torch.cat([first, second]))  # (2b, d)
        said = self.side(torch.cat(h.chunk(2), 1)).float()
        self.watch = {"embedding": h.detach()}
        self.chance = {"side": math.log(self.sides)}
        return {"side": cross_entropy(said, side)}

    def cells(self, x: Float[Tensor, "b c *size"]) -> tuple[Tensor, Tensor, Int64[Tensor, " b"]]:
        """Two cells of each sample, and the side of the second."""
        axes = len(self.free)
        draws = distributed.rand(len(x), 1 + 2 * axes, x.device)
        side = (draws[:, 0] * self.sides).long()
        # the number in the middle, in base 3, is the cell itself and is left out
        number = side + (side >= self.sides // 2)
        steps = self.patch or (1,) * axes
        first = second = x
        for axis, n in enumerate(x.shape[2:]):
            if not self.free[axis]:
                continue
            towards, number = number % 3 - 1, number // 3
            length = max(int(n * self.cell) // steps[axis], 1) * steps[axis]
            gap = min(round(n * self.gap), n - 2 * length)
            jitter = min(round(n * self.jitter), gap, n - 2 * length - gap)
            moved = ((2 * draws[:, 1 + axis] - 1) * (jitter + 0.5)).round().long()
            offset = towards * (length + gap) + moved.clamp(-jitter, jitter)
            room = n - length - offset.abs()
            at = (draws[:, 1 + axes + axis] * (room + 1)).long().clamp(max=room)
            at = at - offset.clamp(max=0)
            first, second = (
                window(first, axis, at, length),
                window(second, axis, at + offset, length),
            )
        return first, second, side


def window(x: Tensor, axis: int, start: Int64[Tensor, " b"], length: int) -> Tensor:
    """So many places along an axis, from a start that each sample has of its own."""
    at = start[:, None] + torch.arange(length, device=x.device)
    at = at.view(len(x), *(length if i == axis + 1 else 1 for i in range(1, x.ndim - 1)))
    return x.gather(
        axis + 2, at[:, None].expand(*x.shape[: axis + 2], length, *x.shape[axis + 3 :])
    )
