"""A teacher: a slow copy of a module."""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from . import distributed


class Teacher(nn.Module):
    """Equal to the student at birth, then an exponential moving average of it. Never trained.

    Dropout and the like are for the student alone; batch norm uses the batch, as the student's.
    """

    def __init__(self, student: nn.Module):
        super().__init__()
        self.slow = deepcopy(student).requires_grad_(False)
        self._quieten()

    def train(self, mode: bool = True) -> "Teacher":
        super().train(mode)
        self._quieten()
        return self

    def _quieten(self) -> None:
        for module in self.slow.modules():
            if not isinstance(module, _BatchNorm):
                module.training = False

    @torch.no_grad()
    def forward(self, *args, **kwargs):
        return self.slow(*args, **kwargs)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """slow = momentum * slow + (1 - momentum) * student; buffers are copied."""
        slow, fast = list(self.slow.parameters()), list(student.parameters())
        torch._foreach_lerp_(slow, fast, 1 - momentum)
        for old, new in zip(self.slow.buffers(), student.buffers(), strict=True):
            old.copy_(new)


class Centre(nn.Module):
    """A moving mean of what a teacher says (DINO, arXiv 2104.14294, equation 4), over all ranks."""

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("total", torch.zeros(dim))  # since the last step
        self.register_buffer("rows", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """x without the mean of earlier steps."""
        self.total += x.sum(0)
        self.rows += len(x)
        return x - self.mean

    @torch.no_grad()
    def move(self, momentum: float) -> None:
        rows = distributed.mean(self.rows)
        if rows > 0:
            self.mean.lerp_(distributed.mean(self.total) / rows, 1 - momentum)
        self.total.zero_()
        self.rows.zero_()
