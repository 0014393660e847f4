"""The attentive probe: which places matter is learned from the labels too.

Masked and predictive methods put what they know into places and give no vector for the whole; the
mean over places may drown it. As V-JEPA's probe (arXiv 2404.08471) a few learned queries look at
all places of a frozen encoder; departure: with one query a head, keys and values need no matrices
of their own, and none are used. Every head gives a weighted mean of places, and a plane decides.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..data.store import Store
from ..load import LoadedEncoder
from ..randomness import mix, order
from ..stop import stop
from .features import batch_size, faithful

STRENGTHS = (1.0, 0.1, 0.01, 0.001, 0.0001)  # of the L2 penalty, as in the linear probe
EPOCHS, BATCH, RATE = 30, 64, 1e-2
HELD_OUT = 5  # one part in so many of the training labels chooses the strength
MOST = 1 << 30  # bytes that the features of all places may take


def fits(encoder: LoadedEncoder, samples: int) -> bool:
    """Whether there are places, the same ones in every sample, and memory for all of them."""
    grid = getattr(encoder.encoder, "grid", None)
    if grid is None or not hasattr(encoder.encoder, "features"):
        return False
    return 4 * samples * int(np.prod(grid)) * encoder.dim <= MOST


def places(
    encoder: LoadedEncoder, store: Store, rows: np.ndarray, tell: Callable[[str], None]
) -> Float[Tensor, "n m d"]:
    """One vector for each place of these samples,."""
    fast, size, found = faithful(encoder, store, rows), batch_size(encoder), []
    network: Any = fast.encoder
    for low in range(0, len(rows), size):
        stop.check()
        batch = store.batch(rows[low : low + size])
        x = encoder.modality.plain(batch.to(fast.device), encoder.size)
        with torch.no_grad():
            found.append(network.features(x.to(fast.dtype)).cpu().float())
        tell(f"{low + len(batch)}/{len(rows)}")
    return torch.cat(found)


class Heads(nn.Module):
    """Probes side by side, one for each strength of the penalty; x is (b, m, d)."""

    def __init__(self, x: Float[Tensor, "n m d"], classes: int, strengths: tuple[float, ...]):
        super().__init__()
        d = x.shape[2]
        some = x[:: max(1, len(x) // 256)].flatten(0, 1)
        deviation, mean = torch.std_mean(some, 0)
        self.mean, self.deviation = mean, deviation.clamp(min=1e-6 * float(deviation.max()))
        self.strengths = torch.tensor(strengths)
        heads = max(2, d // 64)
        self.queries = nn.Parameter(0.5 * torch.randn(len(strengths), heads, d) / d**0.5)
        self.weight = nn.Parameter(torch.zeros(len(strengths), heads * d, classes))
        self.bias = nn.Parameter(torch.zeros(len(strengths), 1, classes))

    def forward(self, x: Float[Tensor, "b m d"]) -> Float[Tensor, "g b c"]:
        x = (x - self.mean) / self.deviation
        looked = torch.einsum("bmd,ghd->gbhm", x, self.queries).softmax(-1)
        pooled = torch.einsum("gbhm,bmd->gbhd", looked, x).flatten(2)
        return pooled @ self.weight + self.bias

    def penalty(self) -> Tensor:
        return 0.5 * (self.strengths * self.weight.square().sum((1, 2))).sum()


def train(
    x: Float[Tensor, "n m d"],
    y: Int64[Tensor, " n"],
    classes: int,
    strengths: tuple[float, ...],
    seed: int,
) -> Heads:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 0x70726F6265))
        heads = Heads(x, classes, strengths)
    optimizer = torch.optim.Adam(heads.parameters(), RATE)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(EPOCHS):
        stop.check()
        for rows in torch.from_numpy(order(seed, epoch, len(x))).split(BATCH):
            logits = heads(x[rows])
            target = y[rows].repeat(len(strengths))
            loss = len(strengths) * cross_entropy(logits.flatten(0, 1), target)
            (loss + heads.penalty()).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return heads


def predict(heads: Heads, x: Float[Tensor, "n m d"]) -> Int64[Tensor, "g n"]:
    with torch.no_grad():
        return torch.cat([heads(part).argmax(-1) for part in x.split(BATCH)], 1)


def probe(
    x: Float[Tensor, "n m d"],
    y: Int64[Tensor, " n"],
    classes: int,
    seed: int = 0,
    groups: Int64[np.ndarray, " n"] | None = None,
) -> Heads:
    """The strength is chosen on held-out training labels; then all of them teach.

    Of `groups`, numbered from 0 on, each stays whole.
    """
    groups = np.arange(len(y)) if groups is None else groups
    turn = np.argsort(order(seed, EPOCHS, int(groups.max()) + 1))[groups]
    rows = torch.from_numpy(np.argsort(turn, kind="stable"))
    away = torch.from_numpy(turn)[rows] % HELD_OUT == 0
    held, taught = rows[away], rows[~away]
    strength = STRENGTHS[0]
    if len(held) and len(taught):
        heads = train(x[taught], y[taught], classes, STRENGTHS, seed)
        right = (predict(heads, x[held]) == y[held]).float().mean(1)
        strength = STRENGTHS[int(right.argmax())]  # of equals the strongest
    return train(x, y, classes, (strength,), seed)
