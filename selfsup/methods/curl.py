"""CURL. Laskin, Srinivas, Abbeel, 2020, https://arxiv.org/abs/2004.04136

A view must find the other view of its sample, encoded by a slow copy of the encoder, among the
others of the batch, by a learned bilinear product instead of cosines. Made for agents, whose
critic shares the encoder (`python -m benchmarks.curl`). Any modality.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..distributed import gather
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher


class CURL(Method):
    # paper: crops of 0.7 alone, by which what an agent looks at is told; other data need more
    views = Views(strong=2, share=(0.2, 1.0))
    optim = Optim(
        "adamw", lr=1e-3, per=512, weight_decay=0.0, betas=(0.9, 0.999), warmup=0.0, final=1.0
    )
    across_batch = True

    def __init__(self, encoder: Any, *, dim: int = 50, momentum: float = 0.95):
        super().__init__(encoder)
        self.head = nn.Sequential(nn.Linear(encoder.dim, dim), nn.LayerNorm(dim))
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        self.product = nn.Parameter(torch.rand(dim, dim))  # W in the paper
        self.momentum = momentum

    def loss(self, views, progress):
        one, other = views
        h = self.encoder(one)
        q, k = gather(self.head(h).float()), gather(self.keys(other))
        self.watch = {"embedding": h.detach()}
        self.chance = {"info_nce": math.log(len(q))}
        return {"info_nce": bilinear(q, k, self.product)}

    def queries(self, x: Any) -> Float[Tensor, "b d"]:
        return self.head(self.encoder(x)).float()

    def keys(self, x: Any) -> Float[Tensor, "b d"]:
        return self.teacher_head(self.teacher(x)).float()

    def after_step(self, progress):
        self.teacher.follow(self.encoder, self.momentum)
        self.teacher_head.follow(self.head, self.momentum)


def bilinear(
    q: Float[Tensor, "b d"], k: Float[Tensor, "b d"], product: Float[Tensor, "d d"]
) -> Tensor:
    """Equation 4, averaged: -log of exp(q'Wk+) over the sum of exp(q'Wk) of all keys, k+ too."""
    with torch.autocast(q.device.type, enabled=False):  # the exponents are large
        similarity = q @ product @ k.T  # (b, b)
    return cross_entropy(similarity, torch.arange(len(q), device=q.device))
