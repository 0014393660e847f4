"""NNCLR. Dwibedi, Aytar, Tompson, Sermanet, Zisserman, 2021, https://arxiv.org/abs/2104.14548

As positives not the other view of a sample but, in a queue of samples seen before, the nearest
neighbour of that view: so other samples of the same kind come to lie together.
Any modality; any encoder that gives one vector per sample.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..distributed import gather
from ..heads import mlp
from ..losses import info_nce
from ..memory import Queue
from ..method import Method, Views
from ..optim import Optim


class NNCLR(Method):
    views = Views(strong=2, share=(0.2, 1.0))
    optim = Optim("lars", lr=0.3, per=256, weight_decay=1e-6, warmup=0.01)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        queue: int = 98304,
        hidden: int = 2048,
        dim: int = 256,
        predictor_hidden: int = 4096,
        temperature: float = 0.1,
    ):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, hidden, dim, last_norm=True)
        self.predictor = mlp(dim, predictor_hidden, dim)
        self.queue = Queue(queue, dim)  # Q in the paper, the support set
        self.temperature = temperature

    def loss(self, views, progress):
        x = torch.cat(views)  # one pass: batch norm must not tell the views apart
        h = self.encoder(x)
        z = self.projector(h)
        p1, p2 = self.predictor(z).float().chunk(2)
        z1, z2 = z.detach().float().chunk(2)
        p1, p2, z1, z2 = gather(p1), gather(p2), gather(z1), gather(z2)
        near1, near2 = nearest(z1, self.queue.rows), nearest(z2, self.queue.rows)
        self.queue.push(normalize(z1, dim=-1))  # appendix: one view of each sample
        self.watch = {"embedding": h.detach()}
        self.chance = {"info_nce": math.log(len(p1))}
        both = info_nce(near1, p2, self.temperature) + info_nce(near2, p1, self.temperature)
        return {"info_nce": both / 2}


@torch.no_grad()
def nearest(z: Float[Tensor, "b d"], queue: Float[Tensor, "m d"]) -> Float[Tensor, "b d"]:
    """Equation 2: for each row the one in the queue that is nearest; both have length one."""
    with torch.autocast(z.device.type, enabled=False):  # in half digits many are as near as another
        return queue[(normalize(z, dim=-1) @ queue.T).argmax(-1)]
