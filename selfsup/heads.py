"""Small networks that sit on an encoder while it trains and are thrown away afterwards."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


def mlp(*dims: int, norm: bool = True, act: type[nn.Module] = nn.ReLU, last_norm: bool = False):
    """mlp(a, b, c): Linear-BatchNorm-activation between layers, plain Linear at the end.

    `last_norm` adds a BatchNorm without gain and bias after the last layer.
    """
    layers: list[nn.Module] = []
    for i, o in pairwise(dims[:-1]):
        layers += [nn.Linear(i, o, bias=not norm)]
        layers += [nn.BatchNorm1d(o), act()] if norm else [act()]
    layers += [nn.Linear(dims[-2], dims[-1], bias=not last_norm)]
    layers += [nn.BatchNorm1d(dims[-1], affine=False)] if last_norm else []
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Cosine similarity to `count` learned directions of length one."""

    def __init__(self, dim: int, count: int):
        super().__init__()
        # as a linear layer starts: an optimizer's steps have a size of their own, and would hardly
        # turn directions that are longer
        limit = dim**-0.5
        self.directions = nn.Parameter(torch.empty(count, dim).uniform_(-limit, limit))

    def forward(self, x: Float[Tensor, "b d"], frozen: bool = False) -> Float[Tensor, "b k"]:
        directions = normalize(self.directions, dim=-1)
        if frozen:  # the gradient exists and is zero: all ranks agree on who takes part in a step
            directions = directions.detach() + 0 * (directions - directions.detach())
        return linear(normalize(x, dim=-1), directions)


class Sorter(nn.ModuleDict):
    """A perceptron, then cosines to prototypes (DINO, arXiv 2104.14294, section 3).

    Pooled features of an untrained network point almost the same way. Batch norm tells them apart
    from the first step, which short runs need; the authors leave it out.
    """

    def __init__(self, inputs: int, hidden: int, dim: int, prototypes: int, norm: bool = False):
        project = mlp(inputs, hidden, hidden, dim, norm=norm, act=nn.GELU)
        for layer in project:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        super().__init__({"project": project, "prototypes": Prototypes(dim, prototypes)})

    def forward(self, x: Float[Tensor, "b d"], frozen: bool = False) -> Float[Tensor, "b k"]:
        return self["prototypes"](self["project"](x), frozen)
