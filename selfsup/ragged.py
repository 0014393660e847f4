"""Samples of different lengths in one batch: values, and which of them are there."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows padded to the longest. `valid` is true where a row has a value, from its start on.

    Behaves like a tensor where methods treat views alike whatever they hold: `torch.cat`, `len`,
    rows by index, `to`, `shape`.
    """

    values: Tensor  # (b, n, ...)
    valid: Bool[Tensor, "b n"]

    @classmethod
    def of(cls, rows: list[Tensor]) -> "Ragged":
        """From tensors (n_i, ...)."""
        lengths = torch.tensor([len(row) for row in rows])
        values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return cls(values, torch.arange(values.shape[1]) < lengths[:, None])

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function is torch.cat and set(kwargs or {}) <= {"dim"}:
            parts, longest = args[0], max(part.values.shape[1] for part in args[0])
            return cls(
                torch.cat([_longer(part.values, longest) for part in parts]),
                torch.cat([_longer(part.valid, longest) for part in parts]),
            )
        return NotImplemented

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> "Ragged":
        return Ragged(self.values[rows], self.valid[rows])

    def to(self, *args: Any, **kwargs: Any) -> "Ragged":
        return Ragged(self.values.to(*args, **kwargs), self.valid.to(self.values.device))

    @property
    def lengths(self) -> Tensor:  # (b,)
        return self.valid.sum(1)

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def device(self) -> torch.device:
        return self.values.device

    def is_floating_point(self) -> bool:
        return self.values.is_floating_point()


def those(x: Shaped[Tensor, "b n *d"], where: Bool[Tensor, "b n"]) -> Shaped[Tensor, "k *d"]:
    """Values of some tokens in reading order; of all of them at no cost, which indices have."""
    return x.flatten(0, 1) if bool(where.all()) else x[where]


def mean(x: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
    """The mean over what is there."""
    weight = valid.to(x.dtype)[:, :, None]
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def _longer(x: Tensor, n: int) -> Tensor:
    return pad(x, (0, 0) * (x.ndim - 2) + (0, n - x.shape[1]))
