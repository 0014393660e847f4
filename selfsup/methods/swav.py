"""SwAV. Caron et al., 2020, https://arxiv.org/abs/2006.09882

Each view must foretell how another view of its sample is sorted among prototypes, where over a
batch all prototypes are used alike (Sinkhorn-Knopp): clustering while learning.
Any modality; any encoder that gives one vector per sample.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from .. import distributed
from ..heads import Prototypes, mlp
from ..losses import sinkhorn
from ..memory import Queue
from ..method import Method, Views
from ..optim import Optim


class SwAV(Method):
    views = Views(strong=2, local=6, share=(0.14, 1.0), local_share=(0.05, 0.14))
    optim = Optim("lars", lr=0.6, per=256, weight_decay=1e-6, warmup=0.0, final=0.001)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        prototypes: int = 3000,
        hidden: int = 2048,
        dim: int = 128,
        local_views: int = 6,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        rounds: int = 3,
        queue: int = 3840,  # for batches that are small against the prototypes
        queue_from: float = 0.075,  # "after 15 epochs" of 200
        freeze: float = 0.005,  # prototypes, "during the first epoch"
    ):
        super().__init__(encoder)
        self.views = replace(self.views, local=local_views)
        self.projector = mlp(encoder.dim, hidden, dim)
        # Departure: made length one in each pass; the authors rescale the weights themselves
        self.prototypes = Prototypes(dim, prototypes)
        self.queues = nn.ModuleList(Queue(queue, dim) for _ in range(self.views.strong))
        self.temperature, self.epsilon, self.rounds = temperature, epsilon, rounds
        self.queue_from, self.freeze = queue_from, freeze

    def loss(self, views, progress):
        wide, small = views[: self.views.strong], views[self.views.strong :]
        passes = [torch.cat(wide)] + ([torch.cat(small)] if small else [])  # one for each size
        h = torch.cat([self.encoder(x) for x in passes])
        z = normalize(self.projector(h).float(), dim=-1)
        with torch.autocast(z.device.type, enabled=False):
            scores = self.prototypes(z, progress < self.freeze).unflatten(0, (len(views), -1))
            z = z.detach().unflatten(0, (len(views), -1))  # (v, b, d)
            codes = torch.stack([self.codes(i, z[i], progress) for i in range(len(wide))])
            loss = swapped(scores / self.temperature, codes)
        self.watch = {
            "embedding": h[: len(passes[0])].detach(),
            "assignments": codes.flatten(0, 1),
        }
        self.chance = {"swav": math.log(scores.shape[-1])}
        return {"swav": loss}

    @torch.no_grad()
    def codes(self, view: int, z: Float[Tensor, "b d"], progress: float) -> Float[Tensor, "b k"]:
        """How this rank's samples are sorted, among those of all ranks and of the queue."""
        queue: Any = self.queues[view]
        everyone = distributed.gather(z)
        use = progress >= self.queue_from and queue.full
        rows = torch.cat([everyone, queue.rows]) if use else everyone
        sorted_ = sinkhorn(self.prototypes(rows) / self.epsilon, self.rounds)
        queue.push(everyone)
        return distributed.own(sorted_, len(z))


def swapped(scores: Float[Tensor, "v b k"], codes: Float[Tensor, "w b k"]) -> Tensor:
    """Equation 6: cross-entropy of each view's scores with the codes of each *other* wide view."""
    w, v = len(codes), len(scores)
    logs = scores.log_softmax(-1)
    pairs = [-(codes[i] * logs[j]).sum(-1) for i in range(w) for j in range(v) if i != j]
    return torch.stack(pairs).mean()
