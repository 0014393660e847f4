"""Rotation. Gidaris, Singh, Komodakis, 2018, https://arxiv.org/abs/1803.07728

Say by how many quarter turns a sample was turned: who can tell knows what things look like upright.
Data on a square grid of two axes whose upright matters; any encoder for it.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .. import needs
from ..errors import SelfsupError
from ..method import Method, Views
from ..optim import Optim


class Rotation(Method):
    views = Views(light=1, share=(0.5, 1.0))
    optim = Optim("sgd", lr=0.1, per=128, weight_decay=5e-4, momentum=0.9, warmup=0.05)

    def __init__(self, encoder: Any):
        super().__init__(encoder)
        needs.grid("rotation", encoder, 2)
        self.turns = nn.Linear(encoder.dim, 4)

    def loss(self, views, progress):
        (x,) = views
        h = self.encoder(turned(x))  # all four turns of a sample in one batch, as in the paper
        asked = torch.arange(4, device=h.device).repeat_interleave(len(x))
        self.watch = {"embedding": h[: len(x)].detach()}
        self.chance = {"turns": math.log(4)}
        return {"turns": cross_entropy(self.turns(h).float(), asked)}


def turned(x: Float[Tensor, "b c s s"]) -> Float[Tensor, "b4 c s s"]:
    """By 0, 1, 2 and 3 quarters: first all samples by none."""
    if x.shape[2] != x.shape[3]:
        raise SelfsupError(
            "E202",
            f"rotation needs squares, and views are {x.shape[2]} x {x.shape[3]}",
            why="their shape alone would tell the turn: this encoder has no square grid",
            do="choose another method: selfsup list methods",
        )
    return torch.cat([x.rot90(quarters, (2, 3)) for quarters in range(4)])
