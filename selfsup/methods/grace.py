"""GRACE. Zhu et al., 2020, https://arxiv.org/abs/2006.04131

A node must find itself in another view of the graph, among all nodes of both views. Views lose
edges and some of what is known of all nodes; the second one loses more than the first.
Graphs; any encoder that gives one vector per node.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from .. import machine, needs
from ..distributed import gather_ragged
from ..errors import SelfsupError
from ..heads import mlp
from ..method import Method, Views
from ..optim import Optim
from ..sparse import shuffled

ROWS = 256  # of the similarities that one product makes


class GRACE(Method):
    # authors' code, Cora: edges lose .2 and .4, columns .3 and .4
    views = Views(light=2, share=(0.6, 0.75), alike=False)
    optim = Optim("adamw", lr=5e-4, weight_decay=1e-5, betas=(0.9, 0.999), warmup=0.0, final=1.0)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        hidden: int = 128,
        dim: int = 128,
        temperature: float = 0.4,
        most: int = 8192,
    ):
        super().__init__(encoder)
        needs.nodes("GRACE", encoder)
        if temperature < 0.02:  # exp(1 / temperature) must stay finite
            raise SelfsupError("E201", "method.temperature: GRACE's is at least 0.02", do="try 0.4")
        self.projector = mlp(encoder.dim, hidden, dim, norm=False, act=nn.ELU)
        self.temperature, self.most = temperature, most

    def loss(self, views, progress):
        h = self.encoder.nodes(torch.cat(views))
        u, v = h.chunk(2)
        turn, n = shuffled(views[0])
        if n > self.most:  # the cost grows with the square: so many nodes of a batch, on all ranks
            u, v = u[turn < self.most], v[turn < self.most]
        u, v = self.projector(torch.cat([u, v])).float().chunk(2)
        u, v = gather_ragged(torch.cat([u, v], 1))[0].chunk(2, 1)
        self.watch = {"embedding": h.detach()}
        self.chance = {"contrast": math.log(2 * len(u) - 1)}
        return {"contrast": contrast(u, v, self.temperature)}


def contrast(u: Float[Tensor, "n d"], v: Float[Tensor, "n d"], temperature: float) -> Tensor:
    """Equations 1 and 2: both ways, negatives within and between the views."""
    z = normalize(torch.cat([u, v]), dim=-1)
    return _Contrast.apply(z, temperature)


class _Contrast(torch.autograd.Function):
    """-log p(partner | the other 2n - 1), its gradient found in the same pass.

    Similarities are the same both ways: blocks of rows hold the columns from their diagonal on, and
    the gradient of row i is sum over j of (p_ij + p_ji - 2 [j is i's partner]) z_j. For 2,708 nodes
    they take 29 MB in half precision, where autograd goes ten times over 117; for 8,192 in float32
    half a gigabyte.
    Under autocast they are of half precision, unlike other methods' contrasts: float32 takes twice
    as long. For 2,708 nodes at temperature 0.4 the loss is off by at most 1e-4 of itself, the
    gradient by 0.1 %; by 12 % where all nodes are alike, at a cosine of 0.9999.
    """

    @staticmethod
    def forward(ctx, z, temperature):
        half = machine.product_dtype(z)
        n, blocks, totals = len(z), [], torch.zeros_like(z[:, 0])
        partners = z.roll(n // 2, 0)
        narrow, scaled = z.to(half), (z / temperature).to(half)
        with torch.autocast(z.device.type, enabled=False):
            for low in range(0, n, ROWS):
                near = (scaled[low : low + ROWS] @ narrow[low:].T).exp_()  # (r, 2n - low)
                near.diagonal().zero_()  # never its own candidate
                high = low + len(near)
                totals[low:high] += near.sum(1, dtype=z.dtype)
                totals[high:] += near[:, len(near) :].sum(0, dtype=z.dtype)
                blocks.append((low, high, near))
            loss = totals.log().mean() - (z * partners).sum(1).mean() / temperature
            gradient, one_of = -2 / temperature * partners, (n / totals).to(half)
            for low, high, near in blocks:
                p = near.mul_(one_of[low:high, None] + one_of[low:])  # both ways, times n
                gradient[low:high] += (p @ scaled[low:]).to(z.dtype) / n
                gradient[high:] += (p[:, len(p) :].T @ scaled[low:high]).to(z.dtype) / n
        ctx.save_for_backward(gradient / n)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        return ctx.saved_tensors[0] * dy, None
