"""Barlow Twins. Zbontar, Jing, Misra, LeCun, Deny, 2021, https://arxiv.org/abs/2103.03230

Over a batch, each number of one view's embedding must go with the same number of the other view's,
and with no other number. So views agree, and no two numbers say the same.
Any modality; any encoder that gives one vector per sample.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..distributed import gather
from ..heads import mlp
from ..losses import off_diagonal
from ..method import Method, Views
from ..optim import Optim


class BarlowTwins(Method):
    views = Views(strong=2, share=(0.2, 1.0), alike=False)  # paper: from 0.08
    optim = Optim("lars", lr=0.2, per=256, weight_decay=1e-6, warmup=0.01, final=0.001)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        dim: int = 8192,
        trade_off: float = 0.0051,  # lambda in the paper
        scale: float = 0.024,  # authors' code; matters with LARS for what is not scaled alone
    ):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, dim, dim, dim)
        self.trade_off, self.scale = trade_off, scale

    def loss(self, views, progress):
        x = torch.cat(views)  # one pass: batch norm must not tell the views apart
        h = self.encoder(x)
        z1, z2 = self.projector(h).float().chunk(2)
        c = cross_correlation(gather(z1), gather(z2))
        self.watch = {"embedding": h.detach()}
        return {
            "invariance": self.scale * (1 - c.diagonal()).square().sum(),
            "redundancy": self.scale * self.trade_off * off_diagonal(c).square().sum(),
        }


def cross_correlation(z1: Float[Tensor, "b d"], z2: Float[Tensor, "b d"]) -> Float[Tensor, "d d"]:
    """Equation 2, over the batch."""
    with torch.autocast(z1.device.type, enabled=False):
        return standardise(z1).T @ standardise(z2) / len(z1)


def standardise(z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """As batch norm without gain and bias."""
    var, mean = torch.var_mean(z, 0, correction=0)
    return (z - mean) * (var + 1e-5).rsqrt()
