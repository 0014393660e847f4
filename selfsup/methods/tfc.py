"""TF-C, time-frequency consistency. Zhang et al., 2022, https://arxiv.org/abs/2206.08496

What one encoder makes of a sample and what another makes of its spectrum along the last axis must
find each other among those of other samples; each must also know its own input once disturbed.
Any modality of real values on a grid; any encoder that gives one vector per sample.
"""

import math
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from .. import needs
from ..distributed import gather, rand
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim


class TFC(Method):
    views = Views(light=1, strong=1, share=(1.0, 1.0))
    optim = Optim("adamw", lr=3e-4, per=128, weight_decay=3e-4, betas=(0.9, 0.99), warmup=0.05)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        hidden: int = 256,
        dim: int = 128,
        temperature: float = 0.2,
        weight: float = 0.2,
        changed: float = 0.1,
    ):
        super().__init__(encoder)
        needs.grid("TF-C", encoder)
        # Departure: of the two encoders this one is kept. Paper: both, side by side
        self.spectral = deepcopy(encoder)
        self.projector = mlp(encoder.dim, hidden, dim)  # R_T and R_F in the paper
        self.spectral_projector = mlp(encoder.dim, hidden, dim)
        self.channels = encoder.entrance.shape[1]
        self.temperature, self.weight, self.changed = temperature, weight, changed

    def loss(self, views, progress):
        plain = spectrum(views[0], self.channels)
        h = self.encoder(torch.cat(views))  # one pass: batch norm must not tell the views apart
        s = self.spectral(torch.cat([plain, disturbed(plain, self.channels, self.changed)]))
        self.watch = {"embedding": h.detach()}
        z, r = self.projector(h.chunk(2)[0]), self.spectral_projector(s.chunk(2)[0])
        # as in the authors' code: equation 5 takes from the last term that of disturbed samples
        # too, which it so drives apart, and weighs all terms alike. Without what that code adds to
        # each term, about one less half of what the partner is given (PolyLoss)
        pairs = {
            "time": (self.weight, *h.chunk(2)),
            "frequency": (self.weight, *s.chunk(2)),
            "consistency": (1.0, z, r),
        }
        terms = {}
        for name, (weight, a, b) in pairs.items():
            a, b = gather(a.float()), gather(b.float())
            terms[name] = weight * nt_xent(a, b, self.temperature)
            self.chance[name] = weight * math.log(2 * len(a) - 1)
        return terms


def spectrum(x: Float[Tensor, "b c *size"], channels: int) -> Float[Tensor, "b c *size"]:
    """How much there is of each frequency along the last axis; all of what follows the values, the
    marks that a value is there, becomes 1."""
    with torch.autocast(x.device.type, enabled=False):
        # Departure: of unit scale. Authors: larger by the root of the length
        values = torch.fft.fft(x[:, :channels].float(), dim=-1, norm="ortho").abs()
    return torch.cat([values, torch.ones_like(x[:, channels:])], 1)


def disturbed(
    x: Float[Tensor, "b c *size"], channels: int, share: float
) -> Float[Tensor, "b c *size"]:
    """A `share` of frequencies is removed, and another gets up to a tenth of the largest more
    (section 4.2). Authors' code adds up a spectrum with less and one with more: twice as large."""
    values = x[:, :channels]
    draws = rand(len(x), 3 * values[0].numel(), x.device).view(len(x), 3, *values.shape[1:])
    removed, added, amount = draws.unbind(1)
    largest = values.flatten(1).amax(1).view(-1, *[1] * (x.ndim - 1))
    more = (added < share) * amount * 0.1 * largest
    return torch.cat([values * (removed >= share) + more, x[:, channels:]], 1)


def nt_xent(z1: Float[Tensor, "b d"], z2: Float[Tensor, "b d"], temperature: float) -> Tensor:
    """Equation 1, averaged over the 2b: -log p(partner | the other 2b - 1), by cosine."""
    with torch.autocast(z1.device.type, enabled=False):  # half digits are too few
        z = normalize(torch.cat([z1, z2]), dim=-1)
        similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    partner = torch.arange(len(z), device=z.device).roll(len(z1))
    return cross_entropy(similarity.masked_fill(itself, -torch.inf), partner)
