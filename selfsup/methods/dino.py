"""DINO. Caron et al., 2021, https://arxiv.org/abs/2104.14294

A student that sees any part of a sample predicts how a slow teacher, which sees most of it, sorts
the sample among prototypes. Centring and sharpening of the teacher keep both from collapsing.
Any modality; any encoder that gives one vector per sample.

Departure: `clip` is of the gradient as a whole; the authors clip each parameter's by itself.
"""

import math
from dataclasses import replace
from typing import Any

import torch

from .. import distributed, schedules
from ..heads import Sorter
from ..losses import across_views
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher


class DINO(Method):
    views = Views(strong=2, local=6, share=(0.4, 1.0), local_share=(0.05, 0.4), alike=False)
    optim = Optim("adamw", lr=5e-4, weight_decay=0.04, weight_decay_end=0.4, betas=(0.9, 0.999),
                  warmup=0.1, clip=3.0, final=0.002)  # fmt: skip

    def __init__(
        self,
        encoder: Any,
        *,
        prototypes: int = 65536,
        hidden: int = 2048,
        dim: int = 256,
        head_norm: bool = False,
        local_views: int = 6,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        teacher_temperature_end: float = 0.07,
        momentum: float = 0.996,
        centre_momentum: float = 0.9,
        freeze: float = 0.01,
    ):
        super().__init__(encoder)
        self.views = replace(self.views, local=local_views)
        self.head = Sorter(encoder.dim, hidden, dim, prototypes, head_norm)
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        self.register_buffer("centre", torch.zeros(prototypes))  # C in the paper
        self.register_buffer("seen", torch.zeros(prototypes))  # teacher logits since the last step
        self.register_buffer("rows", torch.zeros(()))
        self.temperature, self.centre_momentum, self.freeze = temperature, centre_momentum, freeze
        self.teacher_temperature = schedules.linear(
            teacher_temperature, teacher_temperature_end, until=0.3
        )
        self.momentum = schedules.cosine(momentum, 1.0)

    @property
    def kept(self):
        return self.teacher.slow

    def loss(self, views, progress):
        wide, small = views[: self.views.strong], views[self.views.strong :]
        passes = [torch.cat(wide)] + ([torch.cat(small)] if small else [])  # one for each size
        h = torch.cat([self.encoder(x) for x in passes])
        frozen = progress < self.freeze  # "we freeze the last layer during the first epoch"
        z = self.head(h, frozen)  # (v * b, k), views in order
        student = z.unflatten(0, (len(views), -1)) / self.temperature
        with torch.no_grad():
            t = self.teacher_head(self.teacher(passes[0])).float()
            self.seen += t.sum(0)
            self.rows += len(t)
            sharp = (t - self.centre) / self.teacher_temperature(progress)
            teacher = sharp.softmax(-1).unflatten(0, (len(wide), -1))  # (wide, b, k)
        self.watch = {
            "embedding": h[: len(passes[0])].detach(),
            "assignments": teacher.flatten(0, 1),
        }
        self.chance = {"dino": math.log(len(self.centre))}
        return {"dino": across_views(student, teacher)}

    @torch.no_grad()
    def after_step(self, progress):
        momentum = self.momentum(progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_head.follow(self.head, momentum)
        rows = distributed.mean(self.rows)
        if rows > 0:  # equation 4
            batch_centre = distributed.mean(self.seen) / rows
            self.centre.lerp_(batch_centre, 1 - self.centre_momentum)
        self.seen.zero_()
        self.rows.zero_()
