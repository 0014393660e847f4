"""ELECTRA. Clark et al., 2020, https://arxiv.org/abs/2003.10555

A small network names hidden tokens and puts what it believes in their places; the encoder says of
every token whether it was there or was put there. Only what is found, not how, has a gradient.
Any data whose tokens come from a vocabulary; an encoder that sees both sides.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, gelu

from .. import distributed, needs, ragged
from ..masks import choose
from ..method import Method, Views
from ..optim import Optim
from ..ragged import Ragged
from ..stems import MASK, Vocabulary


class ELECTRA(Method):
    views = Views(light=1)
    # paper: small models 5e-4 for 128, large ones 2e-4 for 2,048
    optim = Optim("adamw", lr=5e-4, per=128, weight_decay=1e-2, betas=(0.9, 0.999), warmup=0.05,
                  clip=1.0)  # fmt: skip

    def __init__(
        self, encoder: Any, *, ratio: float = 0.15, share: float = 0.25, weight: float = 50.0
    ):
        super().__init__(encoder)
        needs.vocabulary("ELECTRA", encoder, causal=False)
        self.ratio, self.weight = ratio, weight  # weight: lambda in the paper
        self.generator = encoder.narrowed(share)
        self.generator.stem = Narrowed(encoder.stem, self.generator.dim)
        self.back = nn.Linear(self.generator.dim, encoder.dim)
        self.norm = nn.LayerNorm(encoder.dim)
        self.dense, self.judge = nn.Linear(encoder.dim, encoder.dim), nn.Linear(encoder.dim, 1)

    def loss(self, views, progress):
        (x,) = views
        hidden = choose(x, self.ratio, self._draws(x))
        logits = self.name(x, hidden).float()
        put = x.values.clone()
        put[hidden] = drawn(logits.detach(), self._draws(x)[hidden])
        states = self.encoder.features(Ragged(put, x.valid))
        suspicion = self.judge(gelu(self.dense(states[x.valid])))[:, 0].float()
        strange = (put != x.values)[x.valid].float()  # what happens to be right is no replacement
        self.watch = {"embedding": ragged.mean(states.detach(), x.valid)}
        self.chance = {"named": math.log(self.encoder.stem.count)}
        named = cross_entropy(logits, x.values[hidden], reduction="sum")
        found = binary_cross_entropy_with_logits(suspicion, strange, reduction="sum")
        # by the mean over ranks, whose documents have other lengths: every token counts the same
        return {
            "named": named / distributed.mean(hidden.sum().float()).clamp(min=1),
            "found": self.weight * found / distributed.mean(x.valid.sum().float()),
        }

    def name(self, x: Ragged, hidden: Bool[Tensor, "b n"]) -> Float[Tensor, "k v"]:
        """What the generator believes of each hidden token."""
        # as in the paper; authors' code leaves 15 % of them in sight
        seen = Ragged(x.values.masked_fill(hidden, MASK), x.valid)
        states = self.back(self.generator.features(seen)[hidden])
        return self.encoder.logits(self.norm(gelu(states)))

    def _draws(self, x: Ragged) -> Float[Tensor, "b n"]:
        # for the whole context, however long the longest document is: so ranks draw alike
        width = max(self.encoder.size, x.shape[1])
        return distributed.rand(len(x), width, x.device)[:, : x.shape[1]]


class Narrowed(nn.Module):
    """The encoder's own vectors of tokens (section 3.2), made narrower."""

    def __init__(self, stem: Vocabulary, dim: int):
        super().__init__()
        self.wide = (stem,)  # in a tuple: its weights are the encoder's and counted there
        self.narrow = nn.Linear(stem.tokens.shape[1], dim)

    def forward(self, x: Int64[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        return self.narrow(self.wide[0](x))


@torch.no_grad()
def drawn(logits: Float[Tensor, "k v"], even: Float[Tensor, " k"]) -> Int64[Tensor, " k"]:
    """A token from each row's probabilities, by a number in [0, 1): equation 2's x_hat."""
    whole = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(whole, (even.double() * whole[:, -1])[:, None], right=True)[:, 0]
