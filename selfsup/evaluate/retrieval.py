"""Search by example: is what lies nearest of the same class? With the best and the worst cases."""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ..stop import stop
from .knn import nearest

DEPTHS = (1, 5, 10)
PAIRS = 50_000_000  # query-gallery pairs that are sorted for the mean average precision
SHOWN, EACH = 8, 6  # cases of each kind, and neighbours of each


@dataclass(frozen=True)
class Case:
    """A query and its nearest gallery samples, as row numbers of the two parts."""

    query: int
    neighbours: tuple[int, ...]
    similarity: tuple[float, ...]
    same_class: tuple[bool, ...]

    def to_json(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Retrieval:
    """recall[k]: share of queries with one of their class among the k nearest.

    `average_precision` (q,) is over the whole gallery, for the first queries only where there are
    too many to sort; `hits` (q, k) are the booleans behind recall.
    """

    recall: dict[int, float]
    average_precision: Float[Tensor, " m"]
    hits: Bool[Tensor, "q k"]
    best: list[Case]
    worst: list[Case]


@torch.no_grad()
def retrieval(
    queries: Float[Tensor, "q d"],
    query_labels: Int64[Tensor, " q"],
    gallery: Float[Tensor, "n d"],
    gallery_labels: Int64[Tensor, " n"],
) -> Retrieval:
    """Cosine search of a gallery by queries of known classes.

    Best cases: all neighbours shown are of the query's class, most similar first. Worst: none is,
    most similar first, because the encoder was sure of them.
    """
    similarity, rows = nearest(queries, gallery, max(DEPTHS))
    hits = gallery_labels[rows] == query_labels[:, None]  # (q, k)
    recall = {k: hits[:, :k].any(1).float().mean().item() for k in DEPTHS}
    most = max(1, min(len(queries), PAIRS // max(len(gallery), 1)))
    # Every so many-th query: a folder sorted by class would otherwise show its first class only
    chosen = torch.arange(most, device=queries.device) * len(queries) // most
    precision = average_precision(queries[chosen], query_labels[chosen], gallery, gallery_labels)
    shown = min(EACH, rows.shape[1])
    right, sure = hits[:, :shown].sum(1), similarity[:, :shown].mean(1)
    key = right + 0.4 * sure  # cosines lie within -1 and 1, so a hit always counts more
    best = key.argsort(descending=True)[:SHOWN]
    worst = (right - 0.4 * sure).argsort()[:SHOWN]

    def case(q: int) -> Case:
        return Case(
            q,
            tuple(rows[q, :shown].tolist()),
            tuple(round(s, 4) for s in similarity[q, :shown].tolist()),
            tuple(hits[q, :shown].tolist()),
        )

    return Retrieval(
        recall,
        precision,
        hits,
        [case(q) for q in best.tolist()],
        [case(q) for q in worst.tolist()],
    )


@torch.no_grad()
def average_precision(
    queries: Float[Tensor, "q d"],
    query_labels: Int64[Tensor, " q"],
    gallery: Float[Tensor, "n d"],
    gallery_labels: Int64[Tensor, " n"],
) -> Float[Tensor, " q"]:
    """Mean precision at the ranks of a query's own class, the gallery sorted by cosine.

    Classes absent from the gallery give 0.
    """
    queries, gallery = normalize(queries, dim=-1), normalize(gallery, dim=-1)
    rank = torch.arange(1, len(gallery) + 1, device=gallery.device)
    found = []
    for part, labels in zip(queries.split(128), query_labels.split(128), strict=True):
        stop.check()
        order = (part @ gallery.T).argsort(1, descending=True)  # (b, n)
        same = (gallery_labels[order] == labels[:, None]).float()
        precision = same.cumsum(1) / rank
        found.append((precision * same).sum(1) / same.sum(1).clamp(min=1))
    return torch.cat(found)
