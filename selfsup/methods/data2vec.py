"""data2vec. Baevski et al., 2022, https://arxiv.org/abs/2202.03555

Hide blocks of tokens, and predict in their places what the upper layers of a slow copy, which sees
the whole sample, have computed there: no values, no symbols, the same for all kinds of data.
Any modality whose encoder is a transformer on patches.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, smooth_l1_loss

from .. import masks, schedules
from ..method import Method, Views, needs_tokens
from ..optim import Optim
from ..teacher import Teacher


class Data2Vec(Method):
    views = Views(light=1, share=(0.2, 1.0))
    optim = Optim("adamw", lr=2e-3, per=2048, weight_decay=0.05, betas=(0.9, 0.999), warmup=0.05)

    def __init__(
        self,
        encoder: Any,
        *,
        ratio: float = 0.6,
        layers: int = 6,  # K in the paper: of how many the target is the mean
        beta: float = 2.0,
        momentum: float = 0.9998,
        momentum_end: float = 0.9998,
    ):
        super().__init__(encoder)
        needs_tokens("data2vec", encoder)
        self.mask = masks.blocks(ratio, ratio)
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.dim))
        self.regress = nn.Linear(encoder.dim, encoder.dim)
        self.teacher = Teacher(encoder)
        self.layers, self.beta = min(layers, len(encoder.trunk.blocks)), beta
        self.momentum = schedules.linear(momentum, momentum_end)

    def loss(self, views, progress):
        (x,) = views
        hidden = self.mask(len(x), self.encoder.grid, x.device)  # (b, n), True = hidden
        blank = hidden[:, :, None] * self.mask_token
        latent = self.encoder.trunk(self.encoder.tokens(x, hidden) + blank)
        predicted = self.regress(latent[hidden]).float()
        self.watch = {"embedding": latent.mean(1).detach()}
        return {"regression": smooth_l1_loss(predicted, self.target(x)[hidden], beta=self.beta)}

    @torch.no_grad()
    def target(self, x) -> Float[Tensor, "b n d"]:
        """Section 3.3: the mean over layers, each token of each layer normalised by itself."""
        slow: Any = self.teacher.slow
        found = slow.trunk.inner(slow.tokens(x), self.layers)
        return torch.stack([layer_norm(y.float(), y.shape[-1:]) for y in found]).mean(0)

    def after_step(self, progress):
        self.teacher.follow(self.encoder, self.momentum(progress))
