"""Groups of vectors, found while training goes on."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import one_hot


class Clusters(nn.Module):
    """k-means: fitted to one batch, then moved by each (Sculley, 2010), slower and slower.

    A batch may come in parts: `see` each, then `move` once.
    """

    centres: Tensor
    counts: Tensor  # vectors that a centre is the mean of
    new: Tensor  # such vectors since the last move, and their sum
    total: Tensor

    def __init__(self, count: int, dim: int, rounds: int = 20):
        super().__init__()
        self.rounds = rounds
        self.register_buffer("centres", torch.zeros(count, dim))
        self.register_buffer("counts", torch.zeros(count))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("new", torch.zeros(count), persistent=False)  # zero between steps
        self.register_buffer("total", torch.zeros(count, dim), persistent=False)

    def forward(self, x: Float[Tensor, "n d"]) -> Int64[Tensor, " n"]:
        return self.distances(x).argmin(-1)

    def fit(self, x: Float[Tensor, "n d"]) -> None:
        std, mean = torch.std_mean(x, 0)
        self.mean.copy_(mean)
        # what never differed is not made large once it does
        self.std.copy_(torch.where(std > 1e-5, std, torch.ones_like(std)))
        self.centres.copy_(far_apart((x - self.mean) / self.std, len(self.centres)))
        for _ in range(self.rounds):
            self.counts.zero_()
            self.see(x)
            self.move()
            empty = (self.counts == 0).nonzero()[:, 0]
            far = self.distances(x).amin(-1).topk(min(len(empty), len(x))).indices
            self.centres[empty[: len(far)]] = (x[far] - self.mean) / self.std

    def see(self, x: Float[Tensor, "n d"]) -> None:
        """Vectors to move by."""
        own = one_hot(self(x), len(self.centres)).float()  # (n, k)
        self.new += own.sum(0)
        with torch.autocast(x.device.type, enabled=False):
            self.total += own.T @ ((x - self.mean) / self.std)

    def move(self) -> None:
        """Each centre towards the mean of its vectors, by their share of all that it ever had."""
        self.counts += self.new
        change = self.total - self.new[:, None] * self.centres
        self.centres += change / self.counts.clamp(min=1)[:, None]
        self.new.zero_()
        self.total.zero_()

    def distances(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        return torch.cdist((x - self.mean) / self.std, self.centres)


def far_apart(x: Float[Tensor, "n d"], count: int) -> Float[Tensor, "k d"]:
    """k-means++ (Arthur, Vassilvitskii, 2007): each start by chance, sooner if far from the others.

    Chance is the same every time, so that all ranks begin alike.
    """
    chances = torch.rand(count, generator=torch.Generator().manual_seed(0)).to(x.device)
    near = torch.ones(len(x), device=x.device)  # squared distance to the nearest start
    starts = []
    for i, chance in enumerate(chances):
        whole = near.double().cumsum(0)
        place = torch.searchsorted(whole, (chance * whole[-1])[None], right=True)
        starts.append(x[place.clamp(max=len(x) - 1)])
        distance = (x - starts[-1]).square().sum(1)
        near = distance if i == 0 else near.minimum(distance)
    return torch.cat(starts)


def shares(numbers: Int64[Tensor, "b n"], count: int) -> Float[Tensor, "b k"]:
    """How large a part of each sample's places is in each of `count` groups."""
    one = torch.full(numbers.shape, 1 / numbers.shape[1], device=numbers.device)
    return torch.zeros(len(numbers), count, device=numbers.device).scatter_add_(1, numbers, one)
