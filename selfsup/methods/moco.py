"""MoCo v2. Chen, Fan, Girshick, He, 2020, https://arxiv.org/abs/2003.04297

A view must find the other view of its sample, encoded by a slow copy of the encoder, among a queue
of samples seen before (MoCo, arXiv 1911.05722): many negatives, however small the batch.
Any modality; any encoder that gives one vector per sample.
"""

import math
from typing import Any

import torch
from torch import nn

from .. import distributed, schedules
from ..heads import mlp
from ..losses import info_nce
from ..memory import Queue
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher


class MoCo(Method):
    views = Views(strong=2, share=(0.2, 1.0))
    optim = Optim("sgd", lr=0.03, per=256, weight_decay=1e-4, momentum=0.9, warmup=0.0)

    def __init__(
        self,
        encoder: Any,
        *,
        queue: int = 65536,
        hidden: int = 2048,
        dim: int = 128,
        temperature: float = 0.2,
        momentum: float = 0.999,
        momentum_end: float = 0.999,
        norm_batch: int = 32,
        head_norm: bool = False,
    ):
        super().__init__(encoder)
        # Pooled features of an untrained network point almost the same way; batch norm tells them
        # apart from the first step, which short runs need. The authors leave it out.
        self.head = mlp(encoder.dim, hidden, dim, norm=head_norm)
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        self.queue = Queue(queue, dim)
        self.temperature, self.norm_batch = temperature, norm_batch
        self.momentum = schedules.cosine(momentum, momentum_end)

    def loss(self, views, progress):
        one, other = views
        h = self.encoder(one)
        q = self.head(h).float()
        k = self.keys(other)
        self.watch = {"embedding": h.detach()}
        self.chance = {"info_nce": math.log(1 + len(self.queue.rows))}
        loss = info_nce(q, k, self.temperature, negatives=self.queue.rows)
        self.queue.push(nn.functional.normalize(distributed.gather(k), dim=-1))
        return {"info_nce": loss}

    @torch.no_grad()
    def keys(self, x):
        """Keys (b, d) of the other views, in parts of `norm_batch` samples.

        "Shuffling BN": keys come from other samples' batch statistics than queries. A positive that
        shared them with its query, while the queue's negatives do not, could be told by them. The
        paper has eight devices with 32 samples each; here parts are every n-th sample of the batch,
        which is in random order as it is, and the same samples on any number of ranks.
        """
        parts = max(1, len(x) * distributed.world() // self.norm_batch)
        found = [self.teacher_head(self.teacher(x[i::parts])).float() for i in range(parts)]
        k = found[0].new_empty(len(x), found[0].shape[1])
        for i, part in enumerate(found):
            k[i::parts] = part
        return k

    def after_step(self, progress):
        momentum = self.momentum(progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_head.follow(self.head, momentum)
