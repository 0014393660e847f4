"""BEiT. Bao, Dong, Piao, Wei, 2021, https://arxiv.org/abs/2106.08254

Hide blocks of tokens, and name the code of what was behind each, out of a book of codes.
The book is that of a discrete VAE, which learns in the first part of the same run to rebuild
samples from their codes, and then stays as it is.
Any modality whose stem gives patches of real values.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from .. import distributed, masks, needs, schedules
from ..clusters import shares
from ..encoder import sincos
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher
from ..trunks import Transformer


class BEiT(Method):
    views = Views(light=1, share=(0.2, 1.0))  # paper: from 0.08, and colours disturbed
    optim = Optim("adamw", lr=1.5e-3, per=2048, weight_decay=0.05, betas=(0.9, 0.999), warmup=0.02,
                  clip=3.0)  # fmt: skip
    across_batch = True  # the diversity of codes

    def __init__(
        self,
        encoder: Any,
        *,
        ratio: float = 0.4,
        codes: int = 8192,
        hidden: int = 256,
        settle: float = 0.2,
        gumbel: tuple[float, float] = (1.0, 0.0625),
        diversity: float = 0.3,
    ):
        super().__init__(encoder)
        needs.tokens("BEiT", encoder)
        self.mask = masks.blocks(ratio)
        self.blank = nn.Parameter(0.02 * torch.randn(encoder.dim))  # the mask token
        self.name = nn.Linear(encoder.dim, codes)
        # Departure: a book from the same data and run. Paper: one learned before, from 250 million
        # samples. The encoder learns from it while it forms, so that no step is without use
        self.tokeniser = Tokeniser(encoder.stem.patch_dim, encoder.grid, hidden, codes)
        self.settled = Teacher(self.tokeniser)  # gives the targets, which so stand still in the end
        self.settle, self.diversity = settle, diversity
        self.gumbel = schedules.geometric(*gumbel)

    def loss(self, views, progress):
        (x,) = views
        patches = self.encoder.stem.patches(x)
        hidden = self.mask(len(x), self.encoder.grid, x.device)
        target = self.settled.slow.codes_of(patches)  # (b, n)
        tokens = self.encoder.tokens(x, hidden) + self.blank * hidden[:, :, None]
        final = self.encoder.trunk(tokens)
        scores = self.name(final[hidden])
        found = shares(target, scores.shape[1])
        self.watch = {"embedding": final.mean(1).detach(), "assignments": found}
        used = distributed.mean(found.mean(0))
        self.chance = {"named": float(-torch.xlogy(used, used).sum())}  # knowing how many of each
        # once settled, on one sample and times zero: all ranks agree on who takes part in a step
        learns = progress < self.settle
        error, even = self.rebuild(patches if learns else patches[:1], progress)
        return {
            "named": cross_entropy(scores.float(), target[hidden]),
            "rebuilt": learns * error,
            "diversity": learns * self.diversity * (1 - even),
        }

    def rebuild(self, patches: Float[Tensor, "b n p"], progress: float) -> tuple[Tensor, Tensor]:
        """The squared error of what is rebuilt, and which share of the codes is in use.

        Departure: instead of equation 2's KL, by which each place chooses evenly, codes are used
        evenly over the batch, as in wav2vec 2.0: with the KL few stay in use (docs/LOG.md).
        """
        rebuilt, p = self.tokeniser(patches, self.gumbel(min(progress / self.settle, 1.0)))
        used = distributed.gather(p.mean((0, 1))[None]).mean(0)
        even = (-torch.xlogy(used, used).sum()).exp() / len(used)
        return (rebuilt.float() - patches).square().mean(), even

    def after_step(self, progress):
        if progress < self.settle:
            self.settled.follow(self.tokeniser, 0.0)


class Tokeniser(nn.Module):
    """A code for each patch by itself; a decoder that sees all codes of a sample."""

    def __init__(self, patch_dim: int, grid: tuple[int, ...], hidden: int, codes: int):
        super().__init__()
        self.choose = mlp(patch_dim, hidden, codes, norm=False, act=nn.GELU)
        nn.init.normal_(self.choose[-1].weight, std=0.3)  # decided from the start
        self.book = nn.Parameter(torch.randn(codes, hidden))
        self.register_buffer("positions", sincos(grid, hidden))
        self.decoder = Transformer(hidden, depth=1, heads=4)
        self.values = nn.Linear(hidden, patch_dim)

    def forward(self, patches: Float[Tensor, "b n p"], temperature: float) -> tuple[Tensor, Tensor]:
        """Rebuilt from codes drawn by Gumbel noise, (b, n, p); their probabilities, (b, n, k)."""
        scores = self.choose(patches).float()
        draws = distributed.rand(len(scores), scores[0].numel(), scores.device).view_as(scores)
        noise = -(-draws.clamp(1e-7, 1 - 1e-7).log()).log()
        soft = ((scores + noise) / temperature).softmax(-1)
        # one code a place, as in codes_of: from mixtures more is rebuilt than one code tells
        hard = one_hot(soft.argmax(-1), soft.shape[-1]) + soft - soft.detach()
        tokens = hard @ self.book + self.positions
        return self.values(self.decoder(tokens)), scores.softmax(-1)

    @torch.no_grad()
    def codes_of(self, patches: Float[Tensor, "b n p"]) -> Int64[Tensor, "b n"]:
        return self.choose(patches).argmax(-1)
