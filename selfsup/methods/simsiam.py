"""SimSiam. Chen, He, 2020, https://arxiv.org/abs/2011.10566

A network predicts, from one view, its own output for the other view, which is held still.
Neither negatives nor a slow copy: the predictor and the stopped gradient are enough.
Any modality; any encoder that gives one vector per sample.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim


class SimSiam(Method):
    views = Views(strong=2, share=(0.2, 1.0))
    optim = Optim("sgd", lr=0.05, per=256, weight_decay=1e-4, momentum=0.9, warmup=0.0)
    steady = ("predictor",)  # "fixed learning rate": table 1 and its discussion

    def __init__(self, encoder: Any, *, hidden: int = 2048, bottleneck: int = 512):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, hidden, hidden, last_norm=True)  # f's MLP
        self.predictor = mlp(hidden, bottleneck, hidden)  # h in the paper

    def loss(self, views, progress):
        x = torch.cat(views)  # one pass: batch norm must not tell the views apart
        h = self.encoder(x)
        z = self.projector(h)
        p1, p2 = self.predictor(z).float().chunk(2)
        z1, z2 = z.float().chunk(2)
        self.watch = {"embedding": h.detach()}
        return {"similarity": (distance(p1, z2) + distance(p2, z1)) / 2}


def distance(p: Float[Tensor, "b d"], z: Float[Tensor, "b d"]) -> Tensor:
    """Equations 1 and 3: -cos(p, stopgrad(z)), averaged."""
    return -cosine_similarity(p, z.detach(), dim=-1).mean()
