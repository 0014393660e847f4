"""BGRL. Thakoor et al., 2021, https://arxiv.org/abs/2102.06514

A node is predicted, from one view of its graph, as a slow copy of the encoder sees it in another;
there are no negatives. Views lose edges and some of what is known of all nodes.
Graphs; any encoder that gives one vector per node.

Departure: the copy begins as the encoder is; in the authors' code it is drawn by itself.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from .. import distributed, needs, schedules
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher


class BGRL(Method):
    # paper, appendix: edges lose .2 to .5, columns .1 to .4, by data set
    views = Views(light=2, share=(0.6, 0.75), alike=False)
    optim = Optim("adamw", lr=5e-4, weight_decay=1e-5, betas=(0.9, 0.999), warmup=0.1)

    def __init__(self, encoder: Any, *, hidden: int = 512, momentum: float = 0.99):
        super().__init__(encoder)
        needs.nodes("BGRL", encoder)
        self.predictor = mlp(encoder.dim, hidden, encoder.dim, norm=False, act=nn.PReLU)
        self.teacher = Teacher(encoder)
        self.momentum = schedules.cosine(momentum, 1.0)

    def loss(self, views, progress):
        x = torch.cat(views)  # one pass: batch norm must not tell the views apart
        h = self.encoder.nodes(x)
        q1, q2 = self.predictor(h).float().chunk(2)
        with torch.no_grad():
            z1, z2 = self.teacher.slow.nodes(x).float().chunk(2)
        self.watch = {"embedding": h.detach()}
        # by the mean over ranks, whose graphs have other sizes: every node counts the same
        nodes = distributed.mean(torch.tensor(float(len(q1)), device=h.device))
        return {"regression": (distance(q1, z2) + distance(q2, z1)).sum() / nodes}

    def after_step(self, progress):
        self.teacher.follow(self.encoder, self.momentum(progress))


def distance(q: Float[Tensor, "n d"], z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Equation 3 but for a constant, as in the authors' code: 1 - cos for each node."""
    return 1 - cosine_similarity(q, z, dim=-1)
