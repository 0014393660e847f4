"""What can be said of an encoder without any label.

None of these numbers is a promise: `compare` shows how well they agree with a probe wherever there
are labels to tell.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data.store import Store
from ..load import LoadedEncoder
from ..method import Views
from ..modalities.base import Modality
from ..randomness import Draws, mix
from ..stop import stop
from .features import BATCH, extract, faithful
from .knn import nearest
from .structure import effective_rank

SAMPLES, NEIGHBOURS = 1000, 10


class Quality(NamedTuple):
    """`rank`: effective rank of the vectors over what it could be (RankMe, arXiv 2210.02885).
    `stability`: share of samples whose nearest vector, among those of a second strong view of all
    samples, is their own. `agreement`: share of the ten nearest neighbours of a sample that it
    keeps when every sample is looked at once more. All from 0 to 1."""

    rank: float
    stability: float
    agreement: float


def quality(
    encoder: LoadedEncoder, store: Store, rows: np.ndarray, modality: Modality, seed: int = 0
) -> Quality:
    """Of the samples `rows`, of which at most 1,000 are used; `modality` makes the views that
    `seed` draws."""
    rows = rows[:SAMPLES]
    plain = extract(encoder, store, rows)
    first, second = _strong(encoder, store, rows, modality, seed)
    return Quality(
        effective_rank(plain) / min(plain.shape), stability(first, second), agreement(first, second)
    )


def stability(first: Float[Tensor, "n d"], second: Float[Tensor, "n d"]) -> float:
    _, found = nearest(first, second, 1)
    return (found[:, 0] == torch.arange(len(first))).float().mean().item()


def agreement(first: Float[Tensor, "n d"], second: Float[Tensor, "n d"]) -> float:
    k = min(NEIGHBOURS, len(first) - 1)
    each = torch.arange(len(first), device=first.device)
    _, a = nearest(first, first, k, apart=each)
    _, b = nearest(second, second, k, apart=each)
    return (a[:, :, None] == b[:, None]).any(-1).float().mean().item()


def _strong(
    encoder: LoadedEncoder, store: Store, rows: np.ndarray, modality: Modality, seed: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Vectors of two strong views of each sample."""
    fast = faithful(encoder, store, rows)
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for low in range(0, len(rows), BATCH):
        stop.check()
        batch = store.batch(rows[low : low + BATCH]).to(fast.device)
        draws = Draws(mix(seed, 0x7175616C), batch.samples)
        views = modality.views(batch, Views(strong=2), draws, encoder.size)
        for vectors, x in zip(found, views, strict=True):
            vectors.append(fast(x).cpu())
    return torch.cat(found[0]), torch.cat(found[1])
