"""SimCLR. Chen et al., 2020, https://arxiv.org/abs/2002.05709

Two views of one sample must find each other among all the other views of the batch.
Any modality; any encoder that gives one vector per sample.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ..distributed import gather
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim


class SimCLR(Method):
    views = Views(strong=2, share=(0.2, 1.0))  # paper: from 0.08; here 0.2, better for short runs
    optim = Optim("lars", lr=0.3, per=256, weight_decay=1e-6, warmup=0.1)
    across_batch = True

    def __init__(
        self, encoder: Any, *, hidden: int = 2048, dim: int = 128, temperature: float = 0.2
    ):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, dim)  # g(.) in the paper
        self.temperature = temperature  # paper: 0.1 for ImageNet, 0.5 for CIFAR-10

    def loss(self, views, progress):
        x = torch.cat(views)  # one pass: batch norm must not tell the views apart
        h = self.encoder(x)
        z1, z2 = self.projector(h).float().chunk(2)
        z1, z2 = gather(z1), gather(z2)
        self.watch = {"embedding": h.detach()}
        self.chance = {"nt_xent": math.log(2 * len(z1) - 1)}
        return {"nt_xent": nt_xent(z1, z2, self.temperature)}


def nt_xent(z1: Float[Tensor, "b d"], z2: Float[Tensor, "b d"], temperature: float) -> Tensor:
    """Equation 1, averaged over the 2b views: -log p(partner | the other 2b - 1 views)."""
    with torch.autocast(z1.device.type, enabled=False):  # half digits are too few
        z = normalize(torch.cat([z1, z2]), dim=-1)
        similarity = z @ z.T / temperature  # (2b, 2b)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = similarity.masked_fill(itself, -torch.inf)  # never its own candidate
    partner = torch.arange(len(z), device=z.device).roll(len(z1))
    return cross_entropy(similarity, partner)
