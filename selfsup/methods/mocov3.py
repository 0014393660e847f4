"""MoCo v3. Chen, Xie, He, 2021, https://arxiv.org/abs/2104.02057

Each view must find the other view of its sample, encoded by a slow copy, among the batch; no queue.
What tokens are made of stays as it was drawn, which keeps transformers stable.
Any modality; any encoder that gives one vector per sample.
"""

import math
from typing import Any

import torch

from .. import schedules
from ..distributed import gather
from ..encoder import ResNet
from ..heads import mlp
from ..losses import info_nce
from ..method import Method, Views
from ..optim import Optim
from ..stems import Patches
from ..teacher import Teacher


class MoCoV3(Method):
    views = Views(strong=2, share=(0.2, 1.0), alike=False)  # paper: from 0.08 for transformers
    optim = Optim("adamw", lr=1.5e-4, per=256, weight_decay=0.1, betas=(0.9, 0.999), warmup=0.13)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        hidden: int = 4096,
        dim: int = 256,
        layers: int = 3,  # of the projector; paper: 3 for transformers, 2 for ResNets
        temperature: float = 0.2,  # paper: 1.0 for ResNets
        momentum: float = 0.99,
        freeze_stem: bool = True,
    ):
        super().__init__(encoder)
        if freeze_stem and isinstance(getattr(encoder, "stem", None), Patches):
            encoder.stem.requires_grad_(False)  # section 4.2: "random patch projection"
        self.projector = mlp(encoder.dim, *[hidden] * (layers - 1), dim, last_norm=True)
        # as in the authors' code: with a ResNet no batch norm comes last
        self.predictor = mlp(dim, hidden, dim, last_norm=not isinstance(encoder, ResNet))
        self.teacher, self.teacher_projector = Teacher(encoder), Teacher(self.projector)
        self.temperature = temperature
        self.momentum = schedules.cosine(momentum, 1.0)

    def loss(self, views, progress):
        x = torch.cat(views)  # one pass: batch norm must not tell the views apart
        h = self.encoder(x)
        q1, q2 = self.predictor(self.projector(h)).float().chunk(2)
        k1, k2 = self.teacher_projector(self.teacher(x)).float().chunk(2)
        q1, q2, k1, k2 = gather(q1), gather(q2), gather(k1), gather(k2)
        scale = 2 * self.temperature  # so that the gradient's size does not depend on it
        self.watch = {"embedding": h.detach()}
        self.chance = {"info_nce": 2 * scale * math.log(len(q1))}
        both = info_nce(q1, k2, self.temperature) + info_nce(q2, k1, self.temperature)
        return {"info_nce": scale * both}

    def after_step(self, progress):
        momentum = self.momentum(progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_projector.follow(self.projector, momentum)
