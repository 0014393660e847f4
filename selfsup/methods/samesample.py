"""Same sample or not. After Arandjelovic, Zisserman, 2017, https://arxiv.org/abs/1705.08168

The question of Look, Listen and Learn: do two small parts show one sample, or two? A small network
answers from the vectors of both, each part once beside one of its own sample, once of the next.
Any modality; any encoder that gives one vector per sample.

Departure: the paper asks whether a picture and a sound are of one video, by a network for each and
one on both vectors side by side. Here both parts are of one kind and go through one encoder, so
what is asked must not depend on their order.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ..distributed import gather, own
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim


class SameSample(Method):
    # strong, or levels and colours alone would tell; small, or the two show the same
    views = Views(strong=2, share=(0.05, 0.35))
    optim = Optim("adamw", lr=1e-4, per=256, weight_decay=1e-5, betas=(0.9, 0.999), warmup=0.05)
    across_batch = True

    def __init__(self, encoder: Any, *, hidden: int = 128):
        super().__init__(encoder)
        self.answer = mlp(2 * encoder.dim, hidden, 1)

    def loss(self, views, progress):
        one, other = h = self.encoder(torch.cat(views)).float().chunk(2)  # (b, d) each
        strange = own(gather(other).roll(-1, 0), len(other))  # of the next sample, of all ranks'
        said = self.answer(torch.cat([pair(one, other), pair(one, strange)]))[:, 0].float()
        same = torch.ones_like(said)
        same[len(one) :] = 0.0
        self.watch = {"embedding": torch.cat(h).detach()}
        self.chance = {"same": math.log(2)}
        return {"same": binary_cross_entropy_with_logits(said, same)}


def pair(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, "b d2"]:
    """What two vectors share and where they differ, whichever comes first."""
    return torch.cat([a * b, (a - b).abs()], 1)
