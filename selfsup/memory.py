"""A memory of past embeddings."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize


class Queue(nn.Module):
    """First in, first out: the last `length` embeddings, the newest in front; random directions
    until it is full. All ranks push the same rows: gather them before."""

    rows: Tensor  # (length, d)
    seen: Tensor

    def __init__(self, length: int, dim: int):
        super().__init__()
        self.register_buffer("rows", normalize(torch.randn(length, dim), dim=-1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    @property
    def full(self) -> bool:
        return int(self.seen) >= len(self.rows)

    @torch.no_grad()
    def push(self, x: Float[Tensor, "b d"]) -> None:
        # a new tensor: losses still need the old one for their gradients
        self.rows = torch.cat([x.to(self.rows), self.rows])[: len(self.rows)].clone()
        self.seen += len(x)
