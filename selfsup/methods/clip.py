"""CLIP. Radford et al., 2021, https://arxiv.org/abs/2103.00020

The parts of one sample must find each other among the parts of all other samples of the batch; as
a choice of one among all (softmax), or as a yes or no for each pair (SigLIP, Zhai et al., 2023,
https://arxiv.org/abs/2303.15343). Any samples of two or more parts, each with its own encoder.
"""

import math
from itertools import combinations
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from .. import needs
from ..distributed import gather, rank
from ..errors import SelfsupError
from ..method import Method, Views
from ..optim import Optim
from ..shown import Alike

MOST = math.log(100)  # section 2.5: "clipped to prevent scaling the logits by more than 100"


class CLIP(Method):
    """With more than two towers every pair of them is compared, or the `anchor` with each other
    (as in ImageBind, arXiv 2305.05665)."""

    views = Views(light=1, share=(0.5, 1.0))
    # paper: lr 5e-4 for a batch of 32,768; here for 256, as suits batches that fit one machine
    optim = Optim("adamw", lr=5e-4, per=256, weight_decay=0.2, betas=(0.9, 0.98), warmup=0.1)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        kind: Literal["softmax", "sigmoid"] = "softmax",
        temperature: float | None = None,  # paper: 0.07; SigLIP, algorithm 1: 0.1
        bias: float = -10.0,  # of the sigmoid alone
        anchor: str = "",
    ):
        super().__init__(encoder)
        needs.towers("CLIP", encoder)
        names = list(encoder.towers)
        if anchor and anchor not in names:
            raise SelfsupError("E202", f"there is no tower {anchor!r}", do=f"one of {names}")
        self.pairs = [p for p in combinations(names, 2) if not anchor or anchor in p]
        self.kind = kind
        if kind == "sigmoid":
            self.bias = nn.Parameter(torch.tensor([float(bias)]))
        temperature = temperature or (0.1 if kind == "sigmoid" else 0.07)
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)]))

    def loss(self, views, progress):
        (x,) = views
        z = {name: normalize(v.float(), dim=-1) for name, v in self.encoder.vectors(x).items()}
        own = {name: v.detach() for name, v in z.items()}
        self.watch = {"embedding": torch.stack(list(own.values())).mean(0)}
        self.watch |= {f"embedding/{name}": v for name, v in own.items()}
        everyone = {name: gather(v) for name, v in z.items()}
        n, share = len(everyone[self.pairs[0][0]]), 1 / len(self.pairs)
        first, scale = rank() * len(x), self.log_scale.exp()
        terms, guess = {}, math.log(n)
        with torch.autocast(x.device.type, enabled=False):  # half digits are too few for 100 times
            for a, b in self.pairs:
                if self.kind == "softmax":
                    term = softmax(z[a], everyone[b], first, scale)
                    term = (term + softmax(z[b], everyone[a], first, scale)) / 2
                else:
                    term = sigmoid(z[a], everyone[b], first, scale, self.bias)
                    guess = math.log(n) + (n - 1) * math.log(n / max(1, n - 1))  # all pairs alike
                terms[f"{a}_{b}"] = share * term
        self.chance = dict.fromkeys(terms, share * guess)
        return terms

    @torch.no_grad()
    def after_step(self, progress):
        self.log_scale.clamp_(max=MOST)

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        z = {name: normalize(v.float(), dim=-1) for name, v in self.encoder.vectors(x).items()}
        return {f"{a} and {b}": Alike((a, b), z[a] @ z[b].T) for a, b in self.pairs}


def softmax(
    z: Float[Tensor, "b d"], others: Float[Tensor, "n d"], first: int, scale: Tensor
) -> Tensor:
    """Figure 3, for the rows from `first` on: -log p(partner | all n), averaged over the rows.

    Each rank has its own rows alone, so that n^2 similarities are never in one place.
    """
    partner = first + torch.arange(len(z), device=z.device)
    return cross_entropy(scale * z @ others.T, partner)


def sigmoid(
    z: Float[Tensor, "b d"], others: Float[Tensor, "n d"], first: int, scale: Tensor, bias: Tensor
) -> Tensor:
    """SigLIP, section 3.2: -log sigmoid of each pair, wanted or not; summed, over the rows."""
    partner = first + torch.arange(len(z), device=z.device)
    logits = scale * z @ others.T + bias  # (b, n)
    sign = -torch.ones_like(logits)
    sign[torch.arange(len(z), device=z.device), partner] = 1.0
    return -logsigmoid(sign * logits).sum() / len(z)
