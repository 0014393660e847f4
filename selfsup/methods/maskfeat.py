"""MaskFeat. Wei et al., 2021, https://arxiv.org/abs/2112.09133

Behind hidden tokens, foretell in which directions the values change there: histograms of oriented
gradients (HOG), which leave out brightness, contrast and other things not worth foretelling.
Data on a grid of two axes; an encoder that is a transformer on patches.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, mse_loss, normalize, pad

from .. import masks, needs
from ..losses import unseen
from ..method import Method, Views
from ..optim import Optim
from ..stems import cut


class MaskFeat(Method):
    views = Views(light=1, share=(0.5, 1.0))
    optim = Optim("adamw", lr=2e-4, per=256, weight_decay=0.05, betas=(0.9, 0.999), warmup=0.05,
                  clip=0.02)  # fmt: skip

    def __init__(self, encoder: Any, *, ratio: float = 0.4, bins: int = 9, cells: int = 2):
        super().__init__(encoder)
        needs.tokens("MaskFeat", encoder)
        needs.grid("MaskFeat", encoder, 2)
        self.mask, self.bins = masks.blocks(ratio), bins
        # histograms along each side of a patch: paper: 2, of 8 px each
        self.pool = tuple(side // math.gcd(side, cells) for side in encoder.cell)
        self.channels = encoder.entrance.shape[1]
        count = math.prod(side // p for side, p in zip(encoder.cell, self.pool, strict=True))
        self.blank = nn.Parameter(0.02 * torch.randn(encoder.dim))  # the mask token
        self.predict = nn.Linear(encoder.dim, self.channels * bins * count)

    def loss(self, views, progress):
        (x,) = views
        hidden = self.mask(len(x), self.encoder.grid, x.device)
        tokens = self.encoder.tokens(x, hidden) + self.blank * hidden[:, :, None]
        final = self.encoder.trunk(tokens)
        predicted = self.predict(masks.take(final, hidden))
        histograms = hog(x[:, : self.channels].float(), self.bins, self.pool)
        target = masks.take(cut(histograms, self.encoder.grid), hidden)
        self.watch = {"embedding": final.mean(1).detach()}
        self.constant = {"gradients": unseen(target)}
        return {"gradients": mse_loss(predicted.float(), target)}


@torch.no_grad()
def hog(x: Float[Tensor, "b c h w"], bins: int, pool: tuple[int, ...]) -> Tensor:
    """Gradients of each channel, by direction without sign, each as much as it is steep: summed
    over cells of `pool`, then of length one over the bins; (b, c * bins, h / pool, w / pool)."""
    c = x.shape[1]
    smooth, change = x.new_tensor([1.0, 2.0, 1.0]), x.new_tensor([1.0, 0.0, -1.0])  # Sobel
    kernel = torch.outer(smooth, change)
    padded = pad(x, (1, 1, 1, 1), mode="reflect")
    gx = conv2d(padded, kernel.expand(c, 1, 3, 3), groups=c)
    gy = conv2d(padded, kernel.T.expand(c, 1, 3, 3), groups=c)
    steep = torch.hypot(gx, gy)
    # opposite directions share a bin: phases from -pi to pi make twice as many, taken modulo
    number = (torch.atan2(gx, gy) / math.pi * bins).floor().long() % bins
    parts = [avg_pool2d(steep * (number == k), pool) for k in range(bins)]
    return normalize(torch.stack(parts, 2), dim=2).flatten(1, 2)
