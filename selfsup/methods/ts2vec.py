"""TS2Vec. Yue et al., 2021, https://arxiv.org/abs/2106.10466

Two crops of a sample overlap; each place of the overlap must find itself in the other crop, among
the places of its sample (temporal) and the same place of other samples (instance), at every scale.
Any modality; any encoder that gives one vector a place and can hide places before its trunk.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import max_pool1d

from .. import machine, needs
from ..distributed import gather, rand
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher


class TS2Vec(Method):
    views = Views(light=1, share=(1.0, 1.0))  # the crops are made here, and never stretched
    optim = Optim("adamw", lr=1e-3, per=8, weight_decay=0.01, betas=(0.9, 0.999), warmup=0.0,
                  final=1.0)  # fmt: skip
    across_batch = True
    apart = True

    def __init__(self, encoder: Any, *, ratio: float = 0.5, alpha: float = 0.5):
        super().__init__(encoder)
        needs.tokens("TS2Vec", encoder, "tokens")
        self.ratio, self.alpha = ratio, alpha  # of places hidden; of the instance term
        self.average = Teacher(encoder)  # of the weights of all steps so far
        self.register_buffer("steps", torch.zeros(()))

    @property
    def kept(self):
        return self.average.slow  # "stochastic weight averaging" in the authors' code

    def loss(self, views, progress):
        (x,) = views
        places = self.encoder.grid[0]  # of the first axis, which is the one that is cropped
        unit = x.shape[2] // places
        (outer, left, right, end), offset = overlap(places, len(x), x.device)
        z1 = self.see(cut(x, offset + outer, right - outer, unit), unit)[:, left - outer :]
        z2 = self.see(cut(x, offset + left, end - left, unit), unit)[:, : right - left]
        self.watch = {"embedding": z1.detach().amax(1)}
        levels = 0
        terms = {"instance": x.new_zeros(()), "temporal": x.new_zeros(())}
        self.chance = dict.fromkeys(terms, 0.0)
        while (n := z1.shape[1]) > 0:  # algorithm 1: down to one place, each level counts the same
            everyone = [gather(z).transpose(0, 1) for z in (z1, z2)]  # (n, b, d)
            for name, pair, weight in (("instance", everyone, self.alpha),
                                       ("temporal", (z1, z2), 1 - self.alpha)):  # fmt: skip
                terms[name] = terms[name] + weight * contrast(*pair)
                self.chance[name] += weight * math.log(2 * pair[0].shape[1] - 1)
            levels += 1
            if n == 1:
                break
            z1, z2 = halved(z1), halved(z2)
        self.chance = {name: value / levels for name, value in self.chance.items()}
        return {name: term / levels for name, term in terms.items()}

    def see(self, x: Float[Tensor, "b c t *rest"], unit: int) -> Float[Tensor, "b n d"]:
        """One vector for each place of the first axis, with a share of all places hidden."""
        places = x.shape[2] // unit
        count = places * math.prod(self.encoder.grid[1:])
        hidden = rand(len(x), count, x.device) < self.ratio
        return self.encoder.features(x, hidden).unflatten(1, (places, -1)).mean(2)

    @torch.no_grad()
    def after_step(self, progress):
        self.steps += 1
        self.average.follow(self.encoder, 1 - 1 / self.steps.item())


def overlap(
    n: int, batch: int, device: torch.device
) -> tuple[tuple[int, ...], Int64[Tensor, " b"]]:
    """Two crops of n places: [outer, right) and [left, end), which share [left, right).

    The same for all samples (and ranks) but for an offset of each, so that all crops are one shape.
    """
    u = torch.rand(4).tolist()
    length = min(2 + int(u[0] * (n - 1)), n)
    left = int(u[1] * (n - length + 1))
    right = left + length
    outer, end = int(u[2] * (left + 1)), right + int(u[3] * (n - right + 1))
    offset = (rand(batch, 1, device)[:, 0] * (n - end + outer + 1)).long() - outer
    return (outer, left, right, end), offset


def cut(x: Float[Tensor, "b c t *rest"], start: Tensor, n: int, unit: int) -> Tensor:
    """n places of `unit` steps from each sample's own start on: (b, c, n * unit, ...)."""
    steps = start[:, None] * unit + torch.arange(n * unit, device=x.device)
    rows = torch.arange(len(x), device=x.device)[:, None]
    return x.transpose(1, 2)[rows, steps].transpose(1, 2)


def halved(z: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
    return max_pool1d(z.transpose(1, 2), 2).transpose(1, 2)


def contrast(z1: Float[Tensor, "g m d"], z2: Float[Tensor, "g m d"]) -> Tensor:
    """Equations 1 and 2: each of a group's 2m vectors picks its partner among the 2m - 1 others.

    Dot products without temperature. With m = 1 there is nothing to pick, and the loss is 0.
    """
    return _Contrast.apply(torch.cat([z1, z2], 1))


class _Contrast(torch.autograd.Function):
    """-log p(partner | the other 2m - 1), its gradient found in the same pass.

    Similarities are symmetric, so one product gives the gradient of both their sides. It may be of
    half precision; they may not, being large for want of a temperature.
    """

    @staticmethod
    def forward(ctx, z):
        half, m = machine.product_dtype(z), z.shape[1] // 2
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        with torch.autocast(z.device.type, enabled=False):
            p = wide @ wide.mT  # (g, 2m, 2m)
            p.diagonal(0, 1, 2).fill_(-torch.inf)  # never its own candidate
            partner, highest = p.diagonal(m, 1, 2).repeat(1, 2), p.amax(2)  # (g, 2m)
            p = p.softmax(2)
            loss = (highest - p.amax(2).log() - partner).mean()
            for way in (m, -m):
                p.diagonal(way, 1, 2).sub_(1)
            gradient = (p + p.mT).to(half) @ z.to(half)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        (gradient,) = ctx.saved_tensors
        return gradient * (dy / gradient[..., 0].numel())
