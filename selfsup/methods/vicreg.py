"""VICReg. Bardes, Ponce, LeCun, 2021, https://arxiv.org/abs/2105.04906

The two views of a sample get near embeddings (invariance), while over a batch each number keeps its
spread (variance) and no two numbers go together (covariance).
Any modality; any encoder that gives one vector per sample.
"""

from typing import Any

import torch
from torch.nn.functional import mse_loss

from ..distributed import gather
from ..heads import mlp
from ..losses import covariance, variance
from ..method import Method, Views
from ..optim import Optim


class VICReg(Method):
    views = Views(strong=2, share=(0.2, 1.0), alike=False)  # paper: from 0.08
    optim = Optim("lars", lr=0.2, per=256, weight_decay=1e-6, warmup=0.01, final=0.001)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        dim: int = 8192,
        invariance: float = 25.0,  # lambda, mu and nu in the paper
        variance: float = 25.0,
        covariance: float = 1.0,
    ):
        super().__init__(encoder)
        self.expander = mlp(encoder.dim, dim, dim, dim)
        self.weights = invariance, variance, covariance

    def loss(self, views, progress):
        x = torch.cat(views)  # one pass: batch norm must not tell the views apart
        h = self.encoder(x)
        z1, z2 = self.expander(h).float().chunk(2)
        z1, z2 = gather(z1), gather(z2)
        self.watch = {"embedding": h.detach()}
        near, spread, apart = self.weights
        return {
            "invariance": near * mse_loss(z1, z2),
            "variance": spread * (variance(z1) + variance(z2)) / 2,  # halved as in authors' code
            "covariance": apart * (covariance(z1) + covariance(z2)),
        }
