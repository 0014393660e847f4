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
from ..language import Cache, draw
from ..method import Method, Views
from ..optim import Optim
from ..ragged import Ragged
from ..shown import Continued
from ..stems import MASK, UNKNOWN

WRITTEN = 64  # tokens that it goes on with in the report, at most


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
        logits = self.encoder.logits(ragged.those(states, followed))
        self.watch = {"embedding": ragged.mean(states.detach(), followed)}
        self.chance = {"next": math.log(self.encoder.stem.count)}
        wanted = ragged.those(x.values[:, 1:], followed)
        total = cross_entropy(logits.float(), wanted, reduction="sum")
        # by the mean over ranks, whose documents have other lengths: every token counts the same
        return {"next": total / distributed.mean(followed.sum().float()).clamp(min=1)}

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        named = x.values.clone()
        named[:, 1:] = self.encoder.logits(self.encoder.features(x))[:, :-1].argmax(-1)
        texts = [values[valid] for values, valid in zip(x.values, x.valid, strict=True)]
        return {
            "original": x,
            "each token as named by those before": Ragged(named, x.valid),
            "from the middle on": Continued([self._continued(text) for text in texts]),
        }

    def _continued(self, tokens):
        """The first half of a document, how it goes on, and how it might, by chance."""
        known, true = tokens.tensor_split([-(-len(tokens) // 2)])
        cache, fresh, made = Cache(), known, []
        for _ in true[:WRITTEN]:
            logits = self.encoder.logits(self.encoder.step(fresh[None], cache)[0, -1]).float()
            logits[[MASK, UNKNOWN]] = -torch.inf
            fresh = draw(logits, 0.8, 0.95)[None]
            made += fresh.tolist()
        return known.tolist(), true[:WRITTEN].tolist(), made
