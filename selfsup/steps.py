"""What was seen and what was done, step by step, in one batch; and encoders that look at a step."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from . import ragged
from .chunks import Chunked, in_chunks
from .errors import SelfsupError


@dataclass(frozen=True, eq=False)
class Steps:
    """`actions[:, i]` was done where `observations[:, i]` was seen, and led to what follows.

    Shorter rows are padded to the longest; `valid` is true where a row has a step, from its start
    on. Behaves like a tensor where methods treat views alike whatever they hold: `torch.cat`,
    `len`, rows by index, `to`, `shape`.
    """

    observations: Tensor  # (b, t, d) or (b, t, c, h, w)
    actions: Float[Tensor, "b t a"]
    valid: Bool[Tensor, "b t"]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function is torch.cat and set(kwargs or {}) <= {"dim"}:
            parts, longest = args[0], max(part.observations.shape[1] for part in args[0])
            fields = ("observations", "actions", "valid")
            return cls(*(torch.cat([_longer(getattr(p, f), longest) for p in parts])
                         for f in fields))  # fmt: skip
        return NotImplemented

    def __len__(self) -> int:
        return len(self.observations)

    def __getitem__(self, rows: Any) -> "Steps":
        return Steps(self.observations[rows], self.actions[rows], self.valid[rows])

    def to(self, *args: Any, **kwargs: Any) -> "Steps":
        seen = self.observations.to(*args, **kwargs)
        return Steps(seen, self.actions.to(seen), self.valid.to(seen.device))

    def float(self) -> "Steps":
        return self.to(torch.float32)

    @property
    def shape(self) -> torch.Size:
        return self.observations.shape

    @property
    def ndim(self) -> int:
        return self.observations.ndim

    @property
    def device(self) -> torch.device:
        return self.observations.device

    def is_floating_point(self) -> bool:
        return self.observations.is_floating_point()


def _longer(x: Tensor, n: int) -> Tensor:
    return pad(x, (0, 0) * (x.ndim - 2) + (0, n - x.shape[1]))


class Observer(Chunked):
    """One vector for each step, from what is seen at that step alone.

    `shape` is that of an observation, `actions` how many numbers an action has. Pictures go
    through convolutions that keep where things are, vectors through a perceptron.
    """

    def __init__(self, shape: tuple[int, ...], actions: int, *, dim: int, hidden: int, depth: int):
        super().__init__()
        self.shape, self.actions, self.dim = shape, actions, dim
        if len(shape) == 1:
            layers: list[nn.Module] = [nn.Linear(shape[0], hidden)]
            for _ in range(depth - 1):
                layers += [nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, hidden)]
            layers += [nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, dim)]
        else:
            layers, (inputs, *sides), width = [], shape, hidden // 16
            for _ in range(depth):  # each halves the picture
                layers += [nn.Conv2d(inputs, width, 4, 2, 1), nn.GELU()]
                inputs, sides = width, [side // 2 for side in sides]
                width = min(2 * width, hidden // 8)
            layers += [nn.Flatten(), nn.Linear(inputs * prod(sides), hidden)]
            layers += [nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, dim)]
        self.layers = nn.Sequential(*layers)

    @in_chunks
    def features(self, x: Steps) -> Float[Tensor, "b t d"]:
        each = x.observations.flatten(0, 1)
        if each.ndim == 4:
            each = each.contiguous(memory_format=torch.channels_last)
        return self.layers(each).unflatten(0, x.shape[:2])

    def forward(self, x: Steps) -> Float[Tensor, "b d"]:
        """The mean over the steps."""
        return ragged.mean(self.features(x), x.valid)


OBSERVERS = {
    "observer_small": {"dim": 32, "hidden": 256, "depth": 3},
    "observer": {"dim": 64, "hidden": 512, "depth": 4},
}


def observer(
    name: str,
    shape: tuple[int, ...],
    actions: int,
    *,
    dim: int | None = None,
    hidden: int | None = None,
    depth: int | None = None,
) -> Observer:
    """Steps of trajectories one by one: convolutions for pictures, a perceptron for vectors."""
    if name not in OBSERVERS:
        raise SelfsupError(
            "E202", f"no encoder is called {name!r}", do=f"one of {', '.join(OBSERVERS)}"
        )
    sizes = dict(OBSERVERS[name])
    sizes |= {k: v for k, v in {"dim": dim, "hidden": hidden, "depth": depth}.items() if v}
    return Observer(shape, actions, **sizes)
