"""Jigsaw. Noroozi, Favaro, 2016, https://arxiv.org/abs/1603.09246

Say where each piece of a sample belongs. Here in the form for tokens (DropPos, Wang et al., 2023,
https://arxiv.org/abs/2309.03576): most tokens are gone, most of the others have lost their places,
and each of those names its own. Attention knows no order but places, so nothing need be shuffled.
Any modality whose encoder is a transformer on patches, on a grid of any number of axes.

Departure: a linear layer names places. DropPos has two more blocks for it, takes near places for
partly right at first, and weighs pieces by how much they are like the whole.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from .. import distributed, masks, needs
from ..method import Method, Views
from ..optim import Optim


class Jigsaw(Method):
    views = Views(light=1, share=(0.2, 1.0))
    optim = Optim("adamw", lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95), warmup=0.05)

    def __init__(self, encoder: Any, *, gone: float = 0.5, lost: float = 0.75):
        super().__init__(encoder)
        needs.tokens("jigsaw", encoder)
        # of n tokens some are gone (paper: 0.75), which keeps pieces from fitting edge to edge
        self.mask, self.lost = masks.random(gone), lost
        self.blank = nn.Parameter(torch.zeros(encoder.dim))  # instead of a place
        self.places = nn.Linear(encoder.dim, math.prod(encoder.grid))

    def loss(self, views, progress):
        (x,) = views
        encoder = self.encoder
        seen = ~self.mask(len(x), encoder.grid, x.device)  # (b, n)
        place = torch.arange(seen.shape[1], device=x.device).expand_as(seen)[seen].view(len(x), -1)
        pieces = min(max(1, round(place.shape[1] * self.lost)), place.shape[1] - 1)
        lost = distributed.rand(*place.shape, x.device).argsort(1) < pieces  # (b, seen)
        known = torch.where(lost[..., None], self.blank, encoder.positions[place])
        final = encoder.trunk(masks.take(encoder.embed(x), seen) + known)
        self.watch = {"embedding": final.mean(1).detach()}
        self.chance = {"places": math.log(seen.shape[1])}
        return {"places": cross_entropy(self.places(final[lost]).float(), place[lost])}
