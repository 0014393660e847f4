"""HuBERT. Hsu et al., 2021, https://arxiv.org/abs/2106.07447

Hide spans of tokens; what the trunk makes of a hidden one must name the cluster of what was there.
Clusters are first of what tokens are made of, later of what the encoder itself made of them.
Any modality whose stem gives real values in an order: waveforms, spectrograms, series.

Departure: clusters go on moving while the encoder trains; the paper's are found once, before.
"""

from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from .. import masks, needs
from ..clusters import Clusters
from ..distributed import gather
from ..method import Method, Views
from ..optim import Optim
from ..shown import Groups


class HuBERT(Method):
    views = Views(light=1)
    optim = Optim("adamw", lr=5e-4, weight_decay=0.01, betas=(0.9, 0.98), warmup=0.08, clip=10.0)
    across_batch = True  # clusters are of all ranks' tokens

    def __init__(
        self,
        encoder: Any,
        *,
        ratio: float = 0.57,
        span: int = 10,
        clusters: int = 100,
        again: float = 0.38,
        dim: int = 256,
        temperature: float = 0.1,
        penalty: float = 10.0,
        stem_gradient: float = 0.1,
    ):
        super().__init__(encoder)
        needs.local("HuBERT", encoder)
        # paper: starts with probability 0.08, which hides 57 %; here the same share in every row
        self.mask = masks.spans(ratio, span)
        self.blank = nn.Parameter(torch.rand(encoder.dim))  # instead of a hidden token
        self.context = nn.Linear(encoder.dim, dim)
        self.labels = nn.Parameter(torch.rand(clusters, dim))  # e_c of equation 3
        # first MFCC, then a middle layer in the paper; here what the untrained stem gives, then the
        # first half of the encoder as it was when progress reached `again`: 250k of 650k steps
        self.past = deepcopy(encoder).requires_grad_(False)
        self.past.trunk.blocks = self.past.trunk.blocks[: max(1, len(encoder.trunk.blocks) // 2)]
        self.outer = Clusters(clusters, encoder.stem.local_dim)
        self.inner = Clusters(clusters, encoder.dim)
        self.register_buffer("second", torch.zeros(()))  # 1 once clusters are of the encoder
        self.again, self.temperature = again, temperature
        self.penalty, self.stem_gradient = penalty, stem_gradient

    def loss(self, views, progress):
        (x,) = views
        stem, terms = self.encoder.stem, {}
        local = stem.local(x)  # (b, n, c)
        if local.requires_grad:
            local = local * self.stem_gradient + (1 - self.stem_gradient) * local.detach()
            terms["penalty"] = self.penalty * local.float().square().mean()
        grid = stem.grid_of(tuple(x.shape[2:]))
        hidden = self.mask(len(x), grid, x.device)
        final = self.final(local, hidden, grid)
        target = masks.take(self.clusters(x)[..., None], hidden)[..., 0]  # (b, k)
        c = self.context(masks.take(final, hidden))
        scores = named(c, self.labels, self.temperature)
        terms["named"] = cross_entropy(scores.flatten(0, 1), target.flatten())
        found = one_hot(target.flatten(), len(self.labels)).float()
        self.watch = {"embedding": final.mean(1).detach(), "assignments": found}
        used = self.used.counts / self.used.counts.sum()
        self.chance = {"named": float(-torch.xlogy(used, used).sum())}  # knowing how many of each
        return terms

    def final(self, local, hidden, grid):
        """What the trunk makes of tokens of which some are hidden."""
        seen = self.encoder.stem.project(local)
        tokens = torch.where(hidden[..., None], self.blank.to(local.dtype), seen)
        return self.encoder.trunk(tokens + self.encoder.positions_at(grid))

    @property
    def used(self) -> Clusters:
        return self.inner if self.second else self.outer

    @torch.no_grad()
    def clusters(self, x: Float[Tensor, "b c *size"]) -> Int64[Tensor, "b n"]:
        """Of each token, all of them seen."""
        features = self.material(x)
        seen = gather(features.float()).flatten(0, 1)
        if not self.used.counts.any():
            self.used.fit(seen)
        self.used.see(seen)
        return self.used(features.flatten(0, 1).float()).view(features.shape[:2])

    def material(self, x):
        """What clusters are of."""
        return self.past.features(x) if self.second else self.past.stem.local(x)

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        stem, features = self.encoder.stem, self.material(x)
        grid, count = stem.grid_of(tuple(x.shape[2:])), len(self.labels)
        hidden = self.mask(len(x), grid, x.device)
        true = self.used(features.flatten(0, 1).float()).view(features.shape[:2])
        c = self.context(self.final(stem.local(x), hidden, grid))
        guessed = named(c, self.labels, self.temperature).argmax(-1)
        return {
            "original": x,
            "what the encoder sees": stem.unpatch(stem.patches(x) * ~hidden[..., None]),
            "the cluster of each place": Groups(true, count, grid),
            "as named where it is hidden": Groups(guessed.where(hidden, -1), count, grid),
        }

    @torch.no_grad()
    def after_step(self, progress):
        self.used.move()
        if progress >= self.again and not self.second:
            self.past.load_state_dict(self.encoder.state_dict(), strict=False)  # half of it
            self.second.fill_(1)


def named(
    c: Float[Tensor, "b k d"], labels: Float[Tensor, "v d"], temperature: float
) -> Float[Tensor, "b k v"]:
    """The logarithms of equation 3 but for their sum: cosines over a temperature."""
    with torch.autocast(c.device.type, enabled=False):  # in float32, as the authors
        return normalize(c.float(), dim=-1) @ normalize(labels.float(), dim=-1).T / temperature
