"""LeJEPA. Balestriero, LeCun, 2025, https://arxiv.org/abs/2511.08544

All views of a sample are drawn to the mean of its wide ones, while over a batch embeddings must be
spread as an isotropic Gaussian (SIGReg). No teacher, no stopped gradient, one weight.
Any modality; any encoder that gives one vector per sample.
"""

from dataclasses import replace
from typing import Any

import torch

from ..distributed import gather
from ..heads import mlp
from ..losses import directions, sigreg
from ..method import Method, Views
from ..optim import Optim


class LeJEPA(Method):
    views = Views(strong=2, local=6, share=(0.3, 1.0), local_share=(0.05, 0.3))
    optim = Optim("adamw", lr=5e-4, weight_decay=0.05, betas=(0.9, 0.999), final=0.001)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        hidden: int = 2048,
        dim: int = 16,  # authors' MINIMAL.md
        weight: float = 0.05,  # lambda in the paper
        slices: int = 1024,
        knots: int = 17,
        local_views: int = 6,
    ):
        super().__init__(encoder)
        self.views = replace(self.views, local=local_views)
        self.projector = mlp(encoder.dim, hidden, hidden, dim)
        self.weight, self.slices, self.knots = weight, slices, knots

    def loss(self, views, progress):
        wide, small = views[: self.views.strong], views[self.views.strong :]
        passes = [torch.cat(wide)] + ([torch.cat(small)] if small else [])  # one for each size
        h = torch.cat([self.encoder(x) for x in passes])
        z = self.projector(h).float().unflatten(0, (len(views), -1))  # (v, b, d)
        z = gather(z.transpose(0, 1)).transpose(0, 1)
        self.watch = {"embedding": h[: len(passes[0])].detach()}
        centre = z[: len(wide)].mean(0)
        drawn = directions(z.shape[-1], self.slices, z.device)
        return {
            "prediction": (1 - self.weight) * (z - centre).square().mean(),
            "sigreg": self.weight * sigreg(z, drawn, self.knots),
        }
