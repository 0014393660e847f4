"""Masked language model (BERT). Devlin et al., 2018, https://arxiv.org/abs/1810.04805

Hide some tokens of a document and name them from both sides. Of those that are chosen, 80 % are
hidden, 10 % exchanged for others and 10 % left, so that the encoder must know every token in its
place.
Any data whose tokens come from a vocabulary; an encoder that sees both sides.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from .. import distributed, needs, ragged
from ..errors import SelfsupError
from ..masks import choose, corrupt
from ..method import Method, Views
from ..optim import Optim
from ..ragged import Ragged
from ..shown import Guess, Guesses
from ..stems import MASK

SHOWN = 6  # hidden tokens of a document whose names the report tells


class MLM(Method):
    views = Views(light=1)
    # paper: lr 1e-4, betas 0.9 and 0.999; here those of ModernBERT, arXiv 2412.13663
    optim = Optim("adamw", lr=8e-4, weight_decay=1e-2, betas=(0.9, 0.98), warmup=0.06, clip=1.0)

    def __init__(self, encoder: Any, *, ratio: float = 0.3, whole: bool = False):
        super().__init__(encoder)
        needs.vocabulary("MLM", encoder, causal=False)
        if whole and encoder.stem.starts is None:
            raise SelfsupError("E201", "method.whole: these tokens do not tell where words begin")
        self.whole = whole  # hide whole words (the authors' release of May 2019)
        self.ratio = ratio  # paper: 0.15; here 0.3, as in ModernBERT (and arXiv 2202.08005)
        self.dense = nn.Linear(encoder.dim, encoder.dim)
        self.norm = nn.LayerNorm(encoder.dim)
        self.bias = nn.Parameter(torch.zeros(encoder.stem.count))

    def loss(self, views, progress):
        (x,) = views
        chosen = self._choose(x)
        seen = corrupt(x.values, chosen, self._draws(x), self._draws(x), self.encoder.stem.count)
        states = self.encoder.features(Ragged(seen, x.valid))
        logits = self.name(states[chosen])  # of scored tokens alone: most of the head's work
        self.watch = {"embedding": ragged.mean(states.detach(), x.valid)}
        self.chance = {"masked": math.log(self.encoder.stem.count)}
        total = cross_entropy(logits.float(), x.values[chosen], reduction="sum")
        # by the mean over ranks, whose documents have other lengths: every token counts the same
        return {"masked": total / distributed.mean(chosen.sum().float()).clamp(min=1)}

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        chosen = self._choose(x)
        seen = x.values.masked_fill(chosen, MASK)
        logits = self.name(self.encoder.features(Ragged(seen, x.valid))[chosen])
        chances, first = logits.float().softmax(-1).topk(3)  # (k, 3)
        named = x.values.masked_scatter(chosen, first[:, 0])
        rows = [[] for _ in range(len(x))]
        for (b, i), sure, tokens in zip(chosen.nonzero().tolist(), chances, first, strict=True):
            note = ", ".join(f"{100 * p:.0f} %" for p in sure.tolist())
            rows[b].append(Guess(i, [int(x.values[b, i])], tokens.tolist(), note))
        right = int((named == x.values)[chosen].sum())
        return {
            "original": x,
            "what the encoder sees": Ragged(seen, x.valid),
            "the hidden tokens as it names them": Ragged(named, x.valid),
            "hidden tokens": Guesses([row[:SHOWN] for row in rows], right, int(chosen.sum())),
        }

    def name(self, states: Float[Tensor, "k d"]) -> Float[Tensor, "k v"]:
        return self.encoder.logits(self.norm(gelu(self.dense(states)))) + self.bias

    def _choose(self, x: Ragged) -> Bool[Tensor, "b n"]:
        starts = self.encoder.stem.starts[x.values] if self.whole else None
        return choose(x, self.ratio, self._draws(x), starts)

    def _draws(self, x: Ragged) -> Float[Tensor, "b n"]:
        # for the whole context, however long the longest document is: so ranks draw alike
        width = max(self.encoder.size, x.shape[1])
        return distributed.rand(len(x), width, x.device)[:, : x.shape[1]]
