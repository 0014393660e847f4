"""Causal language model (GPT). Radford et al., 2018, https://openai.com/index/language-unsupervised

Name every next token from those before it.
Any data whose tokens come from a vocabulary; a causal encoder, whose own vectors of tokens name
the next one, so that it can go on with a document after training.
"""

import math
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from .. import distributed, needs, ragged
from ..method import Method, Views
from ..optim import Optim
from ..ragged import Ragged


class CLM(Method):
    views = Views(light=1)
    optim = Optim("adamw", lr=1e-3, per=64, weight_decay=0.1, betas=(0.9, 0.99), warmup=0.05,
                  clip=1.0, final=0.1)  # fmt: skip  # nanoGPT's for small models

    def __init__(self, encoder: Any):
        super().__init__(encoder)
        needs.vocabulary("CLM", encoder, causal=True)

    def loss(self, views, progress):
        (x,) = views
        followed = x.valid[:, 1:]  # the last token of a document has nothing to name
        seen = Ragged(x.values[:, :-1], followed)
        states = self.encoder.features(seen)
        logits = self.encoder.logits(states[followed])
        self.watch = {"embedding": ragged.mean(states.detach(), followed)}
        self.chance = {"next": math.log(self.encoder.stem.count)}
        total = cross_entropy(logits.float(), x.values[:, 1:][followed], reduction="sum")
        # by the mean over ranks, whose documents have other lengths: every token counts the same
        return {"next": total / distributed.mean(followed.sum().float()).clamp(min=1)}

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        named = x.values.clone()
        named[:, 1:] = self.encoder.logits(self.encoder.features(x))[:, :-1].argmax(-1)
        return {"original": x, "each token as named by those before": Ragged(named, x.valid)}
