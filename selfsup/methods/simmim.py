"""SimMIM. Xie et al., 2021, https://arxiv.org/abs/2111.09886

Hide cells of tokens, let the whole encoder see where they were, and guess the hidden values from
its output with one linear layer.
Any modality whose stem gives patches of real values.
"""

from typing import Any

import torch
from torch import nn

from .. import distributed, masks
from ..method import Method, Views, needs_tokens
from ..optim import Optim


class SimMIM(Method):
    views = Views(light=1, share=(0.67, 1.0))
    optim = Optim("adamw", lr=2e-4, per=512, weight_decay=0.05, betas=(0.9, 0.999), clip=5.0)

    def __init__(self, encoder: Any, *, ratio: float = 0.6, cell: int = 2):
        super().__init__(encoder)
        needs_tokens("SimMIM", encoder)
        self.mask = masks.cells(ratio, cell)  # paper: cells of 32 pixels, two tokens of a ViT
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.dim))
        self.values = nn.Linear(encoder.dim, encoder.stem.patch_dim)

    def loss(self, views, progress):
        (x,) = views
        hidden = self.mask(len(x), self.encoder.grid, x.device)  # (b, n), True = hidden
        latent, predicted = self.rebuild(x, hidden)
        error = (predicted.float() - self.encoder.stem.patches(x)).abs().mean(-1)  # (b, n)
        self.watch = {"embedding": latent.mean(1).detach()}
        count = distributed.mean(hidden.sum().float())  # cells at the ends may be smaller
        return {"reconstruction": (error * hidden).sum() / count}

    def rebuild(self, x, hidden):
        """Latents of all tokens (b, n, d) and values guessed from them (b, n, p)."""
        tokens = self.encoder.tokens(x, hidden) + hidden[:, :, None] * self.mask_token
        latent = self.encoder.trunk(tokens)
        return latent, self.values(latent)

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        stem, hidden = self.encoder.stem, self.mask(len(x), self.encoder.grid, x.device)
        seen, rebuilt = stem.patches(x).clone(), stem.patches(x).clone()
        seen[hidden] = 0.0
        rebuilt[hidden] = self.rebuild(x, hidden)[1][hidden].to(rebuilt)
        return {
            "original": x,
            "what the encoder sees": stem.unpatch(seen),
            "rebuilt": stem.unpatch(rebuilt),
        }
