"""SimCSE. Gao, Yao, Chen, 2021, https://arxiv.org/abs/2104.08821

A sample goes through the encoder twice, and must find itself among the others of the batch: nothing
but what dropout leaves out makes the two differ.
Any modality; any encoder that gives one vector per sample and has dropout.
"""

import math
from typing import Any

from torch import nn

from .. import needs
from ..distributed import gather
from ..losses import info_nce
from ..method import Method, Views
from ..optim import Optim


class SimCSE(Method):
    views = Views(light=1, share=(1.0, 1.0))
    # paper: from a pretrained encoder, 3e-5 for 64, one pass
    optim = Optim("adamw", lr=3e-5, per=64, weight_decay=0.0, betas=(0.9, 0.999), warmup=0.05)
    across_batch = True
    apart = True

    def __init__(self, encoder: Any, *, temperature: float = 0.05):
        super().__init__(encoder)
        needs.dropout("SimCSE", encoder)
        self.head = nn.Sequential(nn.Linear(encoder.dim, encoder.dim), nn.Tanh())
        self.temperature = temperature

    def loss(self, views, progress):
        (x,) = views
        h = self.encoder(x)
        z1, z2 = gather(self.head(h)), gather(self.head(self.encoder(x)))
        self.watch = {"embedding": h.detach()}
        self.chance = {"contrast": math.log(len(z1))}
        return {"contrast": info_nce(z1, z2, self.temperature)}  # equation 4
