"""MSN, masked siamese networks. Assran et al., 2022, https://arxiv.org/abs/2204.07141

A view of which tokens are missing, and views of small parts, must be sorted among prototypes as a
slow copy of the network sorts a whole view; on average all prototypes are to be used alike.
Any modality whose encoder is a transformer on patches.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import distributed, masks, needs, schedules
from ..heads import Prototypes, mlp
from ..losses import sinkhorn
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher


class MSN(Method):
    views = Views(strong=2, local=10, share=(0.3, 1.0), local_share=(0.05, 0.3))
    optim = Optim("adamw", lr=2.5e-4, per=256, weight_decay=0.04, weight_decay_end=0.4,
                  betas=(0.9, 0.999), warmup=0.05, clip=3.0, final=0.001)  # fmt: skip
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        prototypes: int = 1024,
        hidden: int = 2048,
        dim: int = 256,
        ratio: float = 0.15,
        local_views: int = 10,
        temperature: float = 0.1,
        sharpening: float = 0.25,
        spread: float = 1.0,  # weight of the mean entropy, lambda in the paper
        momentum: float = 0.996,
    ):
        super().__init__(encoder)
        needs.tokens("MSN", encoder)
        self.views = replace(self.views, local=local_views)
        self.head = mlp(encoder.dim, hidden, hidden, dim, act=nn.GELU)
        self.prototypes = Prototypes(dim, prototypes)
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        self.mask = masks.random(ratio)
        self.temperature, self.sharpening, self.spread = temperature, sharpening, spread
        self.momentum = schedules.linear(momentum, 1.0, until=1.25)  # authors' code: not quite to 1

    @property
    def kept(self):
        return self.teacher.slow

    def loss(self, views, progress):
        whole, other, *small = views
        hidden = self.mask(len(other), self.encoder.grid, other.device)
        h = [self.encoder.pooled(masks.take(self.encoder.tokens(other), ~hidden))]
        h += [self.encoder(torch.cat(small))] if small else []
        logits = self.prototypes(self.head(torch.cat(h))) / self.temperature
        p = logits.float().softmax(-1)  # (anchors * b, k), views in order
        target = self.targets(whole)
        anchors = logits.float().log_softmax(-1).unflatten(0, (-1, len(target)))
        mean = distributed.gather(p).mean(0)
        self.watch = {"embedding": h[0].detach(), "assignments": target}
        self.chance = {"clusters": math.log(len(mean))}
        return {
            "clusters": -(target * anchors).sum(-1).mean(),
            "spread": self.spread * (math.log(len(mean)) + torch.xlogy(mean, mean).sum()),
        }

    @torch.no_grad()
    def targets(self, x) -> Float[Tensor, "b k"]:
        """Sharpened, and all prototypes used alike over the batch."""
        z = self.teacher_head(self.teacher(x))
        logits = self.prototypes(z).float() / self.temperature
        sharp = (logits.log_softmax(-1) / self.sharpening).log_softmax(-1)
        return distributed.own(sinkhorn(distributed.gather(sharp)), len(x))

    def after_step(self, progress):
        momentum = self.momentum(progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_head.follow(self.head, momentum)
