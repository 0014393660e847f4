"""Inpainting (context encoder). Pathak et al., 2016, https://arxiv.org/abs/1604.07379

Cut a block out of a sample, encode what is left, and paint the block in from that.
Any data on a grid, and any encoder for it, with tokens or convolutions.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from .. import masks, needs
from ..heads import mlp
from ..losses import unseen
from ..method import Method, Views
from ..optim import Optim
from ..stems import paste


class Inpainting(Method):
    views = Views(light=1, share=(0.2, 1.0))
    optim = Optim("adamw", lr=2e-3, per=256, weight_decay=1e-3, betas=(0.5, 0.999), warmup=0.05)

    def __init__(self, encoder: Any, *, ratio: float = 0.25, hidden: int = 512):
        super().__init__(encoder)
        needs.grid("inpainting", encoder)
        self.mask, self.channels = masks.block(ratio), encoder.entrance.shape[1]
        # Departure: one for all channels; the paper's layer has a matrix for each
        self.across = nn.Linear(*[math.prod(encoder.grid)] * 2)
        self.values = mlp(encoder.dim, hidden, self.channels * math.prod(encoder.cell), norm=False)

    def loss(self, views, progress):
        (x,) = views
        hidden = self.hide(x)
        places, painted = self.paint(x, hidden)
        self.watch = {"embedding": places.mean(1).detach()}
        # Departure: equation 1 alone; the paper adds a small adversarial loss, for looks, and seen
        # pixels at the edge of the block, which count ten times
        values = x[:, : self.channels]
        error = (painted.float() - values).square()
        self.constant = {"reconstruction": unseen(values.flatten(2).mT[hidden.flatten(1)])}
        return {"reconstruction": (error * hidden).sum() / (hidden.sum() * self.channels)}

    def hide(self, x: Float[Tensor, "b c *size"]) -> Bool[Tensor, "b 1 *size"]:
        """True where the block is: of one size in all samples."""
        size = tuple(x.shape[2:])
        return self.mask(len(x), size, x.device).view(len(x), 1, *size)

    def paint(self, x, hidden):
        """A vector for each place (b, n, d), and values for all of them (b, c, *size)."""
        places = self.encoder.features(x.masked_fill(hidden, 0.0))
        spread = places + gelu(self.across(places.transpose(1, 2))).transpose(1, 2)
        return places, paste(self.values(spread), self.encoder.grid, tuple(x.shape[2:]))

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        hidden, painted = self.hide(x), x.clone()
        painted[:, : self.channels] = self.paint(x, hidden)[1].to(x)
        return {
            "original": x,
            "what the encoder sees": x.masked_fill(hidden, 0.0),
            "painted in": torch.where(hidden, painted, x),
        }
