"""What the space looks like: how many directions it uses, and whether clusters are classes."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ..randomness import order

MOST = 10_000  # samples that are clustered, drawn at random; more change nothing but the time


@torch.no_grad()
def effective_rank(x: Float[Tensor, "n d"]) -> float:
    """exp of the entropy of the normalised singular values: from 1 to min(n, d).

    RankMe, Garrido et al., 2022, https://arxiv.org/abs/2210.02885, equation 1. Not centred, as
    there: a constant space has rank 1.
    """
    values = torch.linalg.svdvals(x.double()) if min(x.shape) <= 64 else _singular(x)
    share = values / values.sum().clamp(min=1e-300) + 1e-7  # paper: epsilon = 1e-7
    return torch.exp(-(share * share.log()).sum()).item()


def _singular(x: Float[Tensor, "n d"]) -> Float[Tensor, " k"]:
    """Singular values from the smaller Gram matrix: exact enough in double, and far faster."""
    x = x.double()
    gram = x.T @ x if len(x) > x.shape[1] else x @ x.T
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()


class Agreement(NamedTuple):
    """Agreement of clusters and classes: 1 is perfect, 0 is what chance gives (ari) or less."""

    nmi: float
    ari: float


def clustering(x: Float[Tensor, "n d"], y: Int64[Tensor, " n"], seed: int = 0) -> Agreement:
    """k-means on the unit sphere with as many clusters as classes, compared with the classes.

    Normalised mutual information (arithmetic mean) and adjusted Rand index, both of scikit-learn.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if len(x) > MOST:  # not the first ones: folders come class by class
        some = torch.from_numpy(np.sort(order(0, 0, len(x))[:MOST]))
        x, y = x[some.to(x.device)], y[some.to(y.device)]
    classes = len(y.unique())
    points = normalize(x, dim=-1).cpu().numpy().astype(np.float32)
    with warnings.catch_warnings():
        # A collapsed encoder has fewer distinct points than classes; the score says so itself
        warnings.filterwarnings("ignore", category=Warning, module="sklearn")
        found = KMeans(classes, n_init=3, random_state=seed % 2**32).fit_predict(points)
    labels = y.cpu().numpy()
    return Agreement(
        float(normalized_mutual_info_score(labels, found)),
        float(adjusted_rand_score(labels, found)),
    )
