"""data2vec. Baevski et al., 2022, https://arxiv.org/abs/2202.03555

Behind hidden tokens, foretell what a slow teacher that sees everything makes of them in its upper
layers. With `copies` above 1, that many masks share a teacher's pass
(data2vec 2.0, https://arxiv.org/abs/2212.07525).
Any modality whose encoder is a transformer on tokens of real values.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, smooth_l1_loss

from .. import masks, needs
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher


class Data2Vec(Method):
    views = Views(light=1, share=(0.2, 1.0))  # paper: strong views from 0.08 on
    optim = Optim("adamw", lr=2e-3, per=2048, weight_decay=0.05, betas=(0.9, 0.999), warmup=0.05,
                  clip=3.0)  # fmt: skip

    def __init__(
        self,
        encoder: Any,
        *,
        ratio: float = 0.6,
        layers: int = 6,  # K in the paper
        beta: float = 2.0,
        copies: int = 1,
        momentum: float = 0.9998,
    ):
        super().__init__(encoder)
        needs.tokens("data2vec", encoder)
        self.mask = masks.blocks(ratio)
        self.blank = nn.Parameter(0.02 * torch.randn(encoder.dim))  # the mask token
        self.predict = nn.Linear(encoder.dim, encoder.dim)
        self.teacher = Teacher(encoder)
        self.layers, self.beta, self.copies, self.momentum = layers, beta, copies, momentum

    def loss(self, views, progress):
        (x,) = views
        with torch.no_grad():
            slow = self.teacher.slow
            target = averaged(slow.trunk.added(slow.tokens(x), self.layers))  # (b, n, d)
        rows = self.copies * len(x)
        hidden = self.mask(rows, self.encoder.grid, x.device)  # a sample's copies lie side by side
        tokens = self.encoder.tokens(x.repeat_interleave(self.copies, 0), hidden)
        final = self.encoder.trunk(tokens + self.blank * hidden[:, :, None])
        predicted = self.predict(masks.take(final, hidden))
        wanted = masks.take(target.repeat_interleave(self.copies, 0), hidden)
        self.watch = {"embedding": final.mean(1).detach()}
        return {"latents": smooth_l1_loss(predicted.float(), wanted, beta=self.beta)}

    def after_step(self, progress):
        self.teacher.follow(self.encoder, self.momentum)


def averaged(layers: list[Float[Tensor, "b n d"]]) -> Float[Tensor, "b n d"]:
    """Section 3.3: the mean over layers, of each token normalised by itself in each layer."""
    return torch.stack([layer_norm(x.float(), x.shape[-1:]) for x in layers]).mean(0)
