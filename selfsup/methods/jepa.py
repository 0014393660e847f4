"""I-JEPA. Assran et al., 2023, https://arxiv.org/abs/2301.08243

From a part of a sample foretell what a slow teacher, which sees all of it, makes of the rest: not
values but latents. A narrow predictor is told where, and what it foretells needs no disturbed view.
Any modality whose stem gives tokens on a grid: on three axes the blocks go all along the first one,
as in V-JEPA (https://arxiv.org/abs/2404.08471), whose second mask of a few large blocks is drawn by
`long_blocks`: one pass of the teacher serves both. With mask="next" it foretells what comes next on
the first axis from all that came before, and the teacher, too, sees nothing of what follows. The
encoder looks both ways within what came before: its attention is not causal.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import l1_loss, layer_norm, smooth_l1_loss

from .. import masks, needs, schedules
from ..encoder import sincos
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Teacher
from ..trunks import Transformer


class JEPA(Method):
    views = Views(light=1, share=(0.3, 1.0))  # mirrored, where the modality does; the paper's not
    optim = Optim("adamw", lr=1e-3, per=2048, weight_decay=0.04, weight_decay_end=0.4,
                  betas=(0.9, 0.999), warmup=0.13, final=0.001)  # fmt: skip

    def __init__(
        self,
        encoder: Any,
        *,
        mask: Literal["blocks", "next"] = "blocks",
        blocks: int = 4,
        scale: tuple[float, float] = (0.15, 0.2),
        aspect: tuple[float, float] = (0.75, 1.5),
        context: tuple[float, float] = (0.85, 1.0),
        long_blocks: int = 0,
        long_scale: tuple[float, float] = (0.7, 0.7),
        error: Literal["smooth_l1", "l1"] = "smooth_l1",
        predictor_dim: int = 384,
        predictor_depth: int = 12,
        predictor_heads: int = 12,
        momentum: float = 0.996,
    ):
        super().__init__(encoder)
        needs.tokens("JEPA", encoder)
        self.next = mask == "next"
        self.masks = [masks.multiblock(blocks, scale, aspect, context)]
        if long_blocks:  # seen from all the rest
            self.masks.append(masks.multiblock(long_blocks, long_scale, aspect, (1.0, 1.0)))
        if self.next:
            self.masks = [masks.following()]
        self.error = l1_loss if error == "l1" else smooth_l1_loss
        self.teacher = Teacher(encoder)
        self.predictor = Predictor(encoder, predictor_dim, predictor_depth, predictor_heads)
        self.momentum = schedules.linear(momentum, 1.0)

    @property
    def kept(self):
        return self.teacher.slow

    def loss(self, views, progress):
        (x,) = views
        pairs = [mask(len(x), self.encoder.grid, x.device) for mask in self.masks]
        latents, targets = self.targets(x, pairs)
        tokens = self.encoder.tokens(x)
        errors = []
        for (seen, foretold), target in zip(pairs, targets, strict=True):
            z = self.encoder.trunk(masks.take(tokens, seen))
            predicted = self.predictor(z, seen, foretold)
            errors.append(self.error(predicted.float(), target))
        self.watch = {"embedding": latents.mean(1)}
        return {"prediction": torch.stack(errors).mean()}

    @torch.no_grad()
    def targets(self, x, pairs):
        """What the teacher makes of all that it sees, and of what is to be foretold, normalised."""
        slow = self.teacher.slow
        asked = [foretold for _, foretold in pairs]
        if self.next:
            ((seen, foretold),) = pairs
            known = seen | foretold  # or what follows would be in the target
            latents = slow.trunk(masks.take(slow.tokens(x), known)).float()
            asked = [foretold[known].view(len(x), -1)]
        else:
            latents = slow.features(x).float()  # (b, n, d)
        normal = layer_norm(latents, latents.shape[-1:])
        return latents, [masks.take(normal, foretold) for foretold in asked]

    @torch.no_grad()
    def after_step(self, progress):
        self.teacher.follow(self.encoder, self.momentum(progress))

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        stem = self.encoder.stem
        seen, foretold = self.masks[0](len(x), self.encoder.grid, x.device)
        patches = stem.patches(x)
        return {
            "original": x,
            "what the encoder sees": stem.unpatch(patches * seen[..., None]),
            "whose latents it foretells": stem.unpatch(patches * foretold[..., None]),
        }


class Predictor(nn.Module):
    """A narrow transformer on what was seen and on blank tokens, each with its place.

    Departure: all blocks in one pass, as in V-JEPA, instead of one pass each. Blank tokens hold
    nothing but their places, so they have little to tell each other. V-JEPA has a blank for each
    kind of mask; here one.
    """

    positions: Tensor

    def __init__(self, encoder: Any, dim: int, depth: int, heads: int):
        super().__init__()
        self.narrow, self.wide = nn.Linear(encoder.dim, dim), nn.Linear(dim, encoder.dim)
        self.blank = nn.Parameter(0.02 * torch.randn(dim))
        self.register_buffer("positions", sincos(encoder.grid, dim))  # fixed
        self.trunk = Transformer(dim, depth, heads)

    def forward(
        self, z: Float[Tensor, "b s d"], seen: Bool[Tensor, "b n"], foretold: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b f d"]:
        places = self.positions.expand(len(z), -1, -1)
        known = self.narrow(z) + masks.take(places, seen)
        asked = self.blank + masks.take(places, foretold)
        x = self.trunk(torch.cat([known, asked.to(known)], 1))
        return self.wide(x[:, known.shape[1] :])
