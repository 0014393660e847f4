"""TiCo. Zhu et al., 2022, https://arxiv.org/abs/2206.10698

One view's embedding is drawn to what a slow copy says of the other view, and away from directions
in which the embeddings of all samples so far lie: a covariance matrix remembers them.
Any modality; any encoder that gives one vector per sample.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from .. import schedules
from ..distributed import gather
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher


class TiCo(Method):
    views = Views(strong=2, share=(0.2, 1.0), alike=False)
    optim = Optim("lars", lr=0.2, per=256, weight_decay=1.5e-6, warmup=0.01)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        hidden: int = 4096,
        dim: int = 256,
        weight: float = 8.0,  # rho in the paper
        memory: float = 0.9,  # beta
        momentum: float = 0.99,
    ):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, dim)
        self.teacher, self.teacher_projector = Teacher(encoder), Teacher(self.projector)
        self.register_buffer("covariance", torch.zeros(dim, dim))  # C in the paper
        self.weight, self.memory = weight, memory
        self.momentum = schedules.cosine(momentum, 1.0)

    def loss(self, views, progress):
        x = torch.cat(views)  # one pass: batch norm must not tell the views apart
        h = self.encoder(x)
        z1, z2 = normalize(self.projector(h).float(), dim=-1).chunk(2)
        t1, t2 = normalize(self.teacher_projector(self.teacher(x)).float(), dim=-1).chunk(2)
        # Departure: both ways, as BYOL; one covariance matrix for both
        z, t = torch.cat([gather(z1), gather(z2)]), torch.cat([gather(t2), gather(t1)])
        with torch.autocast(z.device.type, enabled=False):
            # as in lightly's loss: this batch's own share has a gradient, what is kept has none
            c = self.memory * self.covariance + (1 - self.memory) * (z.T @ z) / len(z)
            self.covariance = c.detach()
            self.watch = {"embedding": h.detach()}
            return {
                "invariance": 1 - (z * t).sum(-1).mean(),
                "contrast": self.weight * contrast(z, c),
            }

    def after_step(self, progress):
        momentum = self.momentum(progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_projector.follow(self.projector, momentum)


def contrast(z: Float[Tensor, "b d"], c: Float[Tensor, "d d"]) -> Tensor:
    """The mean of z' C z: how much of a sample lies where all of them do."""
    return ((z @ c) * z).sum(-1).mean()
