"""Colorization. Zhang, Isola, Efros, 2016, https://arxiv.org/abs/1603.08511

Foretell some channels of a sample from the others: what colour a thing has depends on what it is.
Without a choice of channels the encoder sees their mean, and how each differs from it is foretold.
Any data on a grid with two channels or more, and any encoder for it.

The encoder stays blind to what is held out: its first weights ignore it from the start, and get no
gradient by which they could do otherwise. So evaluation may feed it samples as they are.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from .. import needs
from ..errors import SelfsupError
from ..heads import mlp
from ..losses import unseen
from ..method import Method, Views
from ..optim import Optim
from ..stems import cut


class Colorization(Method):
    views = Views(light=1, share=(0.2, 1.0))
    optim = Optim("adamw", lr=3e-4, per=256, weight_decay=1e-3, betas=(0.9, 0.99), warmup=0.05)

    def __init__(self, encoder: Any, *, seen: tuple[int, ...] = (), hidden: int = 512):
        super().__init__(encoder)
        needs.grid("colorization", encoder)
        channels = encoder.entrance.shape[1]
        held = [c for c in range(channels) if c not in seen]
        if channels < 2 or not held or max(seen, default=0) >= channels:
            raise SelfsupError(
                "E202",
                f"colorization of {channels} channels, of which {seen or 'the mean'} is seen",
                why="it foretells some channels from others, and this encoder has too few channels",
                do="choose another method, or --set method.seen=[0]",
            )
        self.channels, self.held = channels, held
        see = torch.zeros(channels, channels)
        see[list(seen), list(seen)] = 1.0
        self.register_buffer("see", see if seen else torch.full_like(see, 1 / channels))
        with torch.no_grad():
            encoder.entrance.copy_(torch.einsum("di...,ij->dj...", encoder.entrance, self.see))
        # Departure: values, not 313 bins of rebalanced colours, which few data have
        self.values = mlp(encoder.dim, hidden, len(held) * math.prod(encoder.cell), norm=False)

    def loss(self, views, progress):
        (x,) = views
        grey, target = self.split(x)
        places = self.encoder.features(grey)  # (b, n, d)
        self.watch = {"embedding": places.mean(1).detach()}
        self.constant = {"channels": unseen(target)}
        return {"channels": mse_loss(self.values(places).float(), target)}

    def split(self, x: Float[Tensor, "b c *size"]) -> tuple[Tensor, Float[Tensor, "b n p"]]:
        """What the encoder gets, and what is held out from it, for each place."""
        values, rest = (
            x[:, : self.channels],
            x[:, self.channels :],
        )  # the rest are marks, and no values
        grey = torch.einsum("ij,bj...->bi...", self.see, values)
        return torch.cat([grey, rest], 1), cut((values - grey)[:, self.held], self.encoder.grid)
