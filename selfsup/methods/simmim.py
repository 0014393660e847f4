"""SimMIM. Xie et al., 2021, https://arxiv.org/abs/2111.09886

Hide large cells of the input behind one learned token, let the whole encoder see the rest, and read
the hidden values off its output with a single linear layer.
Any modality whose stem gives patches of real values.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import l1_loss

from .. import masks, needs
from ..losses import unseen
from ..method import Method, Views
from ..optim import Optim


class SimMIM(Method):
    views = Views(light=1, share=(0.67, 1.0))
    optim = Optim("adamw", lr=2e-4, per=512, weight_decay=0.05, betas=(0.9, 0.999), warmup=0.1,
                  clip=5.0)  # fmt: skip

    def __init__(self, encoder: Any, *, ratio: float = 0.6, cell: int = 2):
        super().__init__(encoder)
        needs.tokens("SimMIM", encoder)
        self.mask = masks.cells(ratio, cell)  # paper: 32 px, two of ViT-B's patches
        self.blank = nn.Parameter(0.02 * torch.randn(encoder.dim))  # the mask token
        self.values = nn.Linear(encoder.dim, encoder.stem.patch_dim)

    def loss(self, views, progress):
        (x,) = views
        hidden = self.mask(len(x), self.encoder.grid, x.device)  # (b, n), True = hidden
        final, predicted = self.rebuild(x, hidden)
        target = masks.take(self.encoder.stem.patches(x), hidden)
        self.watch = {"embedding": final.mean(1).detach()}
        self.constant = {"reconstruction": unseen(target, l1_loss)}
        return {"reconstruction": l1_loss(predicted.float(), target)}

    def rebuild(self, x, hidden):
        """Final tokens (b, n, d) and the values of the hidden ones (b, h, p)."""
        tokens = self.encoder.tokens(x, hidden) + self.blank * hidden[:, :, None]
        final = self.encoder.trunk(tokens)
        return final, self.values(masks.take(final, hidden))

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        stem, hidden = self.encoder.stem, self.mask(len(x), self.encoder.grid, x.device)
        patches = stem.patches(x)
        seen, rebuilt = patches.clone(), patches.clone()
        seen[hidden] = 0.0
        rebuilt[hidden] = self.rebuild(x, hidden)[1].flatten(0, 1).to(rebuilt)
        return {
            "original": x,
            "what the encoder sees": stem.unpatch(seen),
            "rebuilt": stem.unpatch(rebuilt),
        }
