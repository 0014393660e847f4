"""MDLM. Sahoo et al., 2024, https://arxiv.org/abs/2406.07524

Hide any share of a document's tokens, from hardly any to all, and name them from those that are
left: weighted by the share, this bounds the likelihood of the document, and turned round it writes.
Any data whose tokens come from a vocabulary; an encoder that sees both sides, whose own vectors of
tokens name the hidden ones, so that it can write after training.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from .. import distributed, needs, ragged
from ..method import Method, Views
from ..optim import Optim
from ..ragged import Ragged
from ..stems import MASK

LEAST = 1e-3  # epsilon of the schedule: something stays at t = 1, and t begins here


class MDLM(Method):
    views = Views(light=1)
    optim = Optim("adamw", lr=3e-4, per=512, weight_decay=0.0, betas=(0.9, 0.999), warmup=0.05,
                  clip=1.0)  # fmt: skip  # paper: constant after 2,500 of a million steps

    def __init__(self, encoder: Any):
        super().__init__(encoder)
        needs.vocabulary("MDLM", encoder, causal=False)

    def loss(self, views, progress):
        (x,) = views
        t = times(len(x), x.device)
        hidden = x.valid & (self._draws(x) < (1 - LEAST) * t[:, None])
        states = self.encoder.features(Ragged(x.values.masked_fill(hidden, MASK), x.valid))
        weight = (1 / t)[:, None].expand_as(hidden)[hidden]
        nats = cross_entropy(self.scores(states[hidden]), x.values[hidden], reduction="none")
        tokens = distributed.mean(x.valid.sum().float())  # all, hidden or not
        self.watch = {"embedding": ragged.mean(states.detach(), x.valid)}
        guess = math.log(self.encoder.stem.count - 1)
        self.chance = {"bound": guess * float(weight.sum() / x.valid.sum())}
        return {"bound": (weight * nats).sum() / tokens}

    def scores(self, states: Float[Tensor, "k d"]) -> Float[Tensor, "k v"]:
        """Of each token at a hidden place. SUBS: never MASK; what is seen is not asked for."""
        logits = self.encoder.logits(states).float()
        never = torch.arange(logits.shape[-1], device=logits.device) == MASK
        return logits.masked_fill(never, -torch.inf)

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        hidden = x.valid & (self._draws(x) < 0.5)
        seen = Ragged(x.values.masked_fill(hidden, MASK), x.valid)
        named = x.values.clone()
        named[hidden] = self.scores(self.encoder.features(seen)[hidden]).argmax(-1)
        return {
            "original": x,
            "half of the tokens": seen,
            "the others as it names them": Ragged(named, x.valid),
        }

    def _draws(self, x: Ragged) -> Float[Tensor, "b n"]:
        # for the whole context, however long the longest document is: so ranks draw alike
        width = max(self.encoder.size, x.shape[1])
        return distributed.rand(len(x), width, x.device)[:, : x.shape[1]]


def times(rows: int, device: torch.device) -> Float[Tensor, " b"]:
    """A time for each row, at even steps over the batch of all ranks from a start by chance.

    Log-linear schedule: sigma = -log(1 - (1 - epsilon) t) hides a token with the probability
    1 - exp(-sigma) = (1 - epsilon) t, and the weight sigma' / (exp(sigma) - 1) is 1 / t.
    """
    number = torch.arange(rows, device=device) + distributed.rank() * rows
    even = (torch.rand((), device=device) + number / (rows * distributed.world())) % 1
    return LEAST + (1 - LEAST) * even
