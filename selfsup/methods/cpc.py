"""CPC, contrastive predictive coding. Oord, Li, Vinyals, 2018, https://arxiv.org/abs/1807.03748

From a summary of what came so far foretell the next steps along an axis, well enough to tell what
does come from what comes elsewhere.
Any modality whose encoder is a transformer on tokens in an order: along the first axis of the grid
that has more than one place. Of two axes, the rows below are foretold, column by column. `ways`
lets steps take turns by chance, so that no place is always last: from the end too ("both"), and
along the other axes ("all": from all four sides, CPC v2, https://arxiv.org/abs/1905.09272).
"""

import math
from itertools import product
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import distributed, needs
from ..errors import SelfsupError
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim


class CPC(Method):
    views = Views(light=1, share=(0.2, 1.0))
    optim = Optim("adamw", lr=2e-4, per=256, weight_decay=0.01, betas=(0.9, 0.999), warmup=0.05)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        steps: int = 5,
        ways: Literal["forward", "both", "all"] = "forward",
        negatives: int = 1024,
        hidden: int = 512,
        dim: int = 256,
    ):
        super().__init__(encoder)
        needs.tokens("CPC", encoder)
        long = [axis for axis, places in enumerate(encoder.grid) if places > 1]
        if not long:
            raise SelfsupError("E202", "CPC foretells tokens from others, and there is one")
        axes, turned = long if ways == "all" else long[:1], (False, True)[: 1 + (ways != "forward")]
        self.ways = [*product(axes, turned)]
        self.steps = min(steps, max(encoder.grid[axis] for axis in axes) - 1)
        self.negatives = negatives
        self.latent = mlp(encoder.dim, hidden, dim, norm=False)  # of each token by itself: z
        # W_k, one for a step and a way
        self.foretell = nn.Linear(encoder.dim, len(self.ways) * self.steps * dim, bias=False)

    def loss(self, views, progress):
        (x,) = views
        encoder = self.encoder
        grid = encoder.stem.grid_of(tuple(x.shape[2:]))
        local = encoder.embed(x)  # (b, n, d)
        way = int(torch.rand(()) * len(self.ways)) if len(self.ways) > 1 else 0
        axis, back = self.ways[way]
        # Departure: one moment a step, from which all of the trunk, which looks both ways, sees
        # only what came before. Paper: every moment, by a network that looks one way
        now = 1 + int(torch.rand(()) * (grid[axis] - 1))  # the same on all ranks
        tokens = lined(local + encoder.positions_at(grid), grid, axis, back)
        final = encoder.trunk(tokens[:, :now].flatten(1, 2))
        context = final[:, -tokens.shape[2] :]  # of the last row: c
        to_come = lined(local, grid, axis, back)[:, now : now + self.steps]
        z = self.latent(to_come).float()  # (b, k, m, e)
        said = self.foretell(context).chunk(len(self.ways), -1)[way]
        said = said.unflatten(-1, (self.steps, -1)).float()
        said = said.transpose(1, 2)[:, : z.shape[1]]  # (b, k, m, e)
        self.watch = {"embedding": final.mean(1).detach()}
        loss, wrong = contrast(said.flatten(0, 2), z.flatten(0, 2), self.negatives)
        self.chance = {"future": math.log(1 + wrong)}
        return {"future": loss}


def lined(
    tokens: Float[Tensor, "b n d"], grid: tuple[int, ...], axis: int, back: bool
) -> Float[Tensor, "b length m d"]:
    """Row after row along an axis of the grid, from its end with `back`."""
    rows = tokens.unflatten(1, grid).movedim(1 + axis, 1)
    rows = rows.reshape(len(tokens), grid[axis], -1, tokens.shape[-1])
    return rows.flip(1) if back else rows


def contrast(said: Float[Tensor, "q e"], z: Float[Tensor, "q e"], count: int) -> tuple[Tensor, int]:
    """Equation 4: -log p(what comes | it and others), by exp(z'Wc), and how many others there were.

    They are drawn from all samples, places and steps of the batch.
    """
    everything = distributed.gather(z)
    others = torch.randperm(len(everything), device=z.device)[:count]  # the same on all ranks
    own = distributed.rank() * len(z) + torch.arange(len(z), device=z.device)
    with torch.autocast(z.device.type, enabled=False):
        wrong = (said @ everything[others].T).masked_fill(others == own[:, None], -torch.inf)
        right = (said * z).sum(-1, keepdim=True)
        candidates = torch.cat([right, wrong], 1)
    return (candidates.logsumexp(1) - right[:, 0]).mean(), len(others)
