"""Several encoders with one space: each sees its part of a sample, and their vectors are compared.

A tower is any encoder and a linear map into the space that all of them share.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from .errors import SelfsupError

# The width of the shared space, and which of a modality's encoders its tower takes
TOWERS = {
    "towers_micro": {"dim": 128, "level": 0},
    "towers_mini": {"dim": 128, "level": 1},
    "towers_small": {"dim": 256, "level": 2},
    "towers_base": {"dim": 512, "level": 3},
}


@dataclass(frozen=True, eq=False)
class Parts:
    """One view of samples that have several parts, each as its own encoder wants it.

    Behaves like a tensor where methods treat views alike whatever they hold: `torch.cat`, `len`,
    rows by index, `to`, `shape`.
    """

    of: Mapping[str, Any]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function is torch.cat and set(kwargs or {}) <= {"dim"}:
            return cls({name: torch.cat([p.of[name] for p in args[0]]) for name in args[0][0].of})
        return NotImplemented

    def __len__(self) -> int:
        return len(next(iter(self.of.values())))

    def __getitem__(self, rows: Any) -> "Parts":
        return Parts({name: part[rows] for name, part in self.of.items()})

    def to(self, *args: Any, **kwargs: Any) -> "Parts":
        """Numbers in another type; symbols only move."""
        device = torch.empty(0).to(*args, **kwargs).device
        return Parts(
            {
                name: part.to(*args, **kwargs) if part.is_floating_point() else part.to(device)
                for name, part in self.of.items()
            }
        )

    def float(self) -> "Parts":
        return self.to(torch.float32)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), len(self.of)))

    @property
    def ndim(self) -> int:
        return 2

    @property
    def device(self) -> torch.device:
        return next(iter(self.of.values())).device

    def is_floating_point(self) -> bool:
        return any(part.is_floating_point() for part in self.of.values())


class Tower(nn.Module):
    """An encoder, and the map from its vectors into the shared space."""

    def __init__(self, encoder: Any, dim: int):
        super().__init__()
        self.encoder, self.dim = encoder, dim
        self.projection = nn.Linear(encoder.dim, dim, bias=False)
        nn.init.normal_(self.projection.weight, std=encoder.dim**-0.5)

    def forward(self, x: Any) -> Float[Tensor, "b d"]:
        return self.projection(self.encoder(x))

    def features(self, x: Any) -> Float[Tensor, "b n e"]:
        """One vector for each place, as the encoder has it."""
        return self.encoder.features(x)


class Towers(nn.Module):
    """`vectors` gives each tower's own; `forward` their mean, once all have the length one.

    The encoders of `frozen` towers stay as they are (arXiv 2111.07991), their maps do not.
    """

    def __init__(self, encoders: Mapping[str, Any], *, dim: int, frozen: tuple[str, ...] = ()):
        super().__init__()
        if len(encoders) < 2:
            raise SelfsupError("E202", f"{len(encoders)} towers", why="at least two are compared")
        if unknown := set(frozen) - set(encoders):
            raise SelfsupError(
                "E202",
                f"there is no tower {', '.join(sorted(unknown))} to keep frozen",
                do=f"the towers are {', '.join(encoders)}",
            )
        self.dim, self.frozen = dim, tuple(frozen)
        self.towers = nn.ModuleDict({name: Tower(e, dim) for name, e in encoders.items()})
        for encoder in self._still():
            encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Towers":
        """Frozen towers keep their statistics, too."""
        super().train(mode)
        for encoder in self._still():
            encoder.eval()
        return self

    def _still(self) -> list[nn.Module]:
        towers: Any = self.towers
        return [towers[name].encoder for name in self.frozen]

    def vectors(self, x: Parts) -> dict[str, Float[Tensor, "b d"]]:
        return {name: tower(x.of[name]) for name, tower in self.towers.items()}

    def features(self, x: Parts) -> Float[Tensor, "b k d"]:
        """One vector for each part."""
        return torch.stack(list(self.vectors(x).values()), 1)

    def forward(self, x: Parts) -> Float[Tensor, "b d"]:
        return normalize(self.features(x).float(), dim=-1).mean(1)


def towers(
    name: str,
    encoders: Mapping[str, Any],
    *,
    dim: int | None = None,
    parts: tuple[str, ...] = (),
    frozen: tuple[str, ...] = (),
) -> Towers:
    """An encoder for each part of a sample, and one space for all. `parts` names other encoders
    and their settings: image=vit_tiny, image.depth=6."""
    return Towers(encoders, dim=dim or TOWERS[name]["dim"], frozen=tuple(frozen))
