"""BYOL. Grill et al., 2020, https://arxiv.org/abs/2006.07733

A network predicts, from one view, what a slow copy of itself says of the other; no negatives.
That only one side predicts, and that no gradient flows into the other, keeps both from collapsing.
Any modality; any encoder that gives one vector per sample.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from .. import schedules
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher


class BYOL(Method):
    views = Views(strong=2, share=(0.2, 1.0), alike=False)  # paper: from 0.08
    optim = Optim("lars", lr=0.2, per=256, weight_decay=1.5e-6, warmup=0.01)

    def __init__(
        self, encoder: Any, *, hidden: int = 4096, dim: int = 256, momentum: float = 0.996
    ):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, dim)
        self.predictor = mlp(dim, hidden, dim)
        self.teacher, self.teacher_projector = Teacher(encoder), Teacher(self.projector)
        self.momentum = schedules.cosine(momentum, 1.0)  # tau in the paper

    def loss(self, views, progress):
        x = torch.cat(views)  # one pass: batch norm must not tell the views apart
        h = self.encoder(x)
        q1, q2 = self.predictor(self.projector(h)).float().chunk(2)
        z1, z2 = self.teacher_projector(self.teacher(x)).float().chunk(2)
        self.watch = {"embedding": h.detach()}
        return {"regression": distance(q1, z2) + distance(q2, z1)}

    def after_step(self, progress):
        momentum = self.momentum(progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_projector.follow(self.projector, momentum)


def distance(q: Float[Tensor, "b d"], z: Float[Tensor, "b d"]) -> Tensor:
    """Equation 2: squared distance of the directions, 2 - 2 cos, averaged."""
    return 2 - 2 * cosine_similarity(q, z, dim=-1).mean()
