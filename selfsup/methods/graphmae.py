"""GraphMAE. Hou et al., 2022, https://arxiv.org/abs/2205.10803

What is known of half the nodes is hidden, and must be found out from their neighbours. Hidden
nodes are blanked once more before the decoder, so that it is the encoder that has to find out.
Graphs; any encoder that gives one vector per node.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import needs
from ..method import Method, Views
from ..optim import Optim


class GraphMAE(Method):
    views = Views(light=1, share=(1.0, 1.0))  # paper: no augmentation
    optim = Optim("adamw", lr=1e-3, weight_decay=2e-4, betas=(0.9, 0.999), warmup=0.0)

    def __init__(
        self, encoder: Any, *, ratio: float = 0.5, noise: float = 0.05, sharpness: float = 3.0
    ):
        super().__init__(encoder)
        needs.nodes("GraphMAE", encoder)
        self.ratio, self.noise, self.sharpness = ratio, noise, sharpness
        self.token = nn.Parameter(torch.zeros(encoder.width))  # [MASK]
        self.between = nn.Linear(encoder.dim, encoder.dim, bias=False)
        self.decoder = encoder.layer(encoder.width)

    def loss(self, views, progress):
        (x,) = views
        hidden, blank, shown = self.mask(x)
        h = self.encoder.nodes(shown, blank, self.token)
        again = self.between(h) * ~hidden[:, None]  # re-mask
        similarity = self.decoder.cosine(again, x)[hidden]
        self.watch = {"embedding": h.detach()}
        self.chance = {"reconstruction": 1.0}  # of directions that have nothing in common
        return {"reconstruction": scaled_cosine(similarity, self.sharpness)}

    def mask(self, x):
        """Who is hidden (n,); who of them shows the token; the others show another node's values.

        At least one node is hidden and one is not.
        """
        n, device = x.nodes, x.device
        order = torch.rand(n, device=device).argsort()
        count = min(max(1, int(self.ratio * n)), max(1, n - 1))
        noisy = int(self.noise * count)
        hidden = torch.zeros(n, dtype=torch.bool, device=device)
        blank = hidden.clone()
        hidden[order[:count]] = True
        blank[order[noisy:count]] = True
        instead = torch.arange(n, device=device)
        instead[order[:noisy]] = torch.randint(n, (noisy,), device=device)
        return hidden, blank, x.exchanged(instead) if noisy else x


def scaled_cosine(similarity: Float[Tensor, " n"], sharpness: float) -> Tensor:
    """Equation 2: the mean of (1 - cos(x, z)) ** sharpness."""
    return (1 - similarity.float()).pow(sharpness).mean()
