"""A teacher: a slow copy of a module."""

from copy import deepcopy

import torch
from torch import nn


class Teacher(nn.Module):
    """Equal to the student at birth, then an exponential moving average of it. Never trained."""

    def __init__(self, student: nn.Module):
        super().__init__()
        self.slow = deepcopy(student).requires_grad_(False)

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
