"""Weighted nearest neighbours. Wu et al., 2018, https://arxiv.org/abs/1805.01978, section 3.4

The class of a sample is voted by its k most similar training samples. Nothing is trained, so the
number says what the space already looks like; DINO reports it with k = 20, temperature 0.07.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ..stop import stop

NEIGHBOURS, TEMPERATURE = 20, 0.07
BLOCK = 1024  # queries at a time
GALLERY_BLOCK = 65536  # 1024 x 65536 similarities are 256 MB


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "q d"],
    gallery: Float[Tensor, "n d"],
    k: int,
    *,
    apart: Int64[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """The k most similar gallery rows by cosine, exactly: similarities, falling, and row numbers.

    With `apart` the queries are the gallery, and none is neighbour of those with its own number
    there: where too few others are left, similarities are -inf.
    Memory is bounded by blocks, whatever the sizes. k is cut to what the gallery has.
    """
    k = min(k, len(gallery) - (apart is not None))
    queries, gallery = normalize(queries, dim=-1), normalize(gallery, dim=-1)
    found = []
    for start in range(0, len(queries), BLOCK):
        stop.check()
        part = queries[start : start + BLOCK]
        best = part.new_empty(len(part), 0)
        rows = torch.empty(len(part), 0, dtype=torch.int64, device=part.device)
        for low in range(0, len(gallery), GALLERY_BLOCK):
            similarity = part @ gallery[low : low + GALLERY_BLOCK].T  # (block, gallery block)
            if apart is not None:
                own, others = apart[start : start + BLOCK, None], apart[low : low + GALLERY_BLOCK]
                similarity[own == others] = -torch.inf
            value, row = similarity.topk(min(k, similarity.shape[1]))
            best, rows = torch.cat([best, value], 1), torch.cat([rows, row + low], 1)
            if best.shape[1] > k:
                best, chosen = best.topk(k)
                rows = rows.gather(1, chosen)
        found.append((best, rows))
    return torch.cat([s for s, _ in found]), torch.cat([r for _, r in found])


def vote(
    similarity: Float[Tensor, "q k"],
    labels: Int64[Tensor, "q k"],
    classes: int,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "q classes"]:
    """What the neighbours say of each class: a sum of exp(similarity / temperature).

    The weights are divided by the largest of each query, which changes no order and overflows
    at no temperature.
    """
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    return weights.new_zeros(len(labels), classes).scatter_add_(1, labels, weights)


def predict(
    queries: Float[Tensor, "q d"],
    gallery: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    classes: int,
    *,
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Int64[Tensor, " q"]:
    """The class of each query by its k nearest labelled samples."""
    similarity, rows = nearest(queries, gallery, k)
    return vote(similarity, labels[rows], classes, temperature).argmax(1)
