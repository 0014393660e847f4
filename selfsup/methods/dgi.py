"""DGI. Velickovic et al., 2018, https://arxiv.org/abs/1809.10341

What a node says is of its graph or not: a summary of the whole graph must tell its nodes from those
of a corrupted one, in which each node shows what is known of another.
Graphs; any encoder that gives one vector per node.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import softplus

from .. import distributed, needs
from ..method import Method, Views
from ..optim import Optim
from ..sparse import Graphs, numbers, pool


class DGI(Method):
    views = Views(light=1, share=(1.0, 1.0))  # paper: no augmentation
    optim = Optim("adamw", lr=1e-3, weight_decay=0.0, betas=(0.9, 0.999), warmup=0.0, final=1.0)

    def __init__(self, encoder: Any):
        super().__init__(encoder)
        needs.nodes("DGI", encoder)
        self.weight = nn.Parameter(torch.empty(encoder.dim, encoder.dim))  # W of equation 4
        nn.init.xavier_uniform_(self.weight)

    def loss(self, views, progress):
        (x,) = views
        both = torch.cat([x, x.exchanged(corruption(x))])
        h, wrong = self.encoder.nodes(both).chunk(2)
        s = pool(h.float(), x.graph, x.count, "mean").sigmoid()  # paper: the readout, equation 3
        self.watch = {"embedding": h.detach()}
        self.chance = {"discrimination": math.log(2)}
        total = discrimination(h.float(), wrong.float(), s[x.graph], self.weight)
        # by the mean over ranks, whose graphs have other sizes: every node counts the same
        nodes = distributed.mean(torch.tensor(float(x.nodes), device=x.device))
        return {"discrimination": total / (2 * nodes)}


def corruption(x: Graphs) -> Int64[Tensor, " n"]:
    """The nodes of each graph in another order: "row-wise shuffling", section 4.2."""
    order = numbers(x).argsort()
    return order[x.graph[order].argsort(stable=True)]  # graph by graph, as the nodes are


def discrimination(
    h: Float[Tensor, "n d"],
    wrong: Float[Tensor, "n d"],
    s: Float[Tensor, "n d"],
    weight: Float[Tensor, "d d"],
) -> Tensor:
    """Equations 1 and 4, summed: -log D(h, s) - log(1 - D(wrong, s)), D = sigmoid(h W s)."""
    asked = s @ weight.T
    return softplus(-(h * asked).sum(1)).sum() + softplus((wrong * asked).sum(1)).sum()
