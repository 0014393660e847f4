"""iGPT. Chen et al., 2020, https://proceedings.mlr.press/v119/chen20s.html

Find a palette in the data, and name the entry of each token from the tokens before it, row by row.
What such a network knows is in its middle: the encoder is its lower half, and the upper, which
turns knowledge into names, is thrown away.
Any modality whose stem gives patches of real values; an encoder that sees no later tokens.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .. import needs
from ..clusters import Clusters, shares
from ..distributed import gather
from ..method import Method, Views
from ..optim import Optim
from ..trunks import Transformer


class IGPT(Method):
    views = Views(light=1, share=(0.67, 1.0))
    # paper: the best of 0.01, 0.003, 0.001, ...
    optim = Optim("adamw", lr=1e-3, per=128, weight_decay=0.0, betas=(0.9, 0.95), warmup=0.02)
    across_batch = True  # the palette is of all ranks' tokens

    def __init__(self, encoder: Any, *, clusters: int = 512, upper: int = 12):
        super().__init__(encoder)
        needs.causal("iGPT", encoder)
        # Departure: entries are of whole patches, as large as the stem cuts them, not of single
        # values; found while training goes on; and the encoder gets the values, not the entries
        self.palette = Clusters(clusters, encoder.stem.patch_dim)
        self.start = nn.Parameter(0.02 * torch.randn(encoder.dim))  # what the first one follows
        heads = encoder.trunk.blocks[0].attn.heads
        self.upper = Transformer(encoder.dim, upper, heads, causal=True)
        self.entry = nn.Linear(encoder.dim, clusters, bias=False)

    def loss(self, views, progress):
        (x,) = views
        target = self.entries(x)
        final = self.encoder.features(x)
        scores = self.scores(final)
        self.watch = {"embedding": final.mean(1).detach()}
        self.watch["assignments"] = shares(target, scores.shape[-1])
        used = self.palette.counts / self.palette.counts.sum()
        self.chance = {"next": float(-torch.xlogy(used, used).sum())}  # knowing how many of each
        return {"next": cross_entropy(scores.flatten(0, 1).float(), target.flatten())}

    def scores(self, final: Float[Tensor, "b n d"]) -> Float[Tensor, "b n k"]:
        """Of each entry at each place, from the places before it (equation 1)."""
        start = self.start.to(final.dtype).expand(len(final), 1, -1)
        return self.entry(self.upper(torch.cat([start, final[:, :-1]], 1)))

    @torch.no_grad()
    def entries(self, x: Float[Tensor, "b c *size"]) -> Int64[Tensor, "b n"]:
        """Which of the palette each patch is nearest to."""
        patches = self.encoder.stem.patches(x).float()
        seen = gather(patches).flatten(0, 1)
        if not self.palette.counts.any():
            self.palette.fit(seen)
        self.palette.see(seen)
        return self.palette(patches.flatten(0, 1)).view(patches.shape[:2])

    def after_step(self, progress):
        self.palette.move()

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        stem = self.encoder.stem
        values = self.palette.centres * self.palette.std + self.palette.mean  # (k, p)
        patches = stem.patches(x)
        own = self.palette(patches.flatten(0, 1)).view(patches.shape[:2])
        named = self.scores(self.encoder.features(x)).argmax(-1)
        return {
            "original": x,
            "in the palette": stem.unpatch(values[own]),
            "each token as named by those before": stem.unpatch(values[named]),
        }
