"""How few labels are enough: the score over the number of labelled samples per class."""

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from ..randomness import mix, order
from .linear import Scale, probe
from .measure import ACCURACY, Measure


def draw(labels: Int64[np.ndarray, " n"], shots: int, seed: int) -> Int64[np.ndarray, " m"]:
    """`shots` row numbers of each class (fewer where it has fewer), by `seed`; sorted.

    What is drawn for few shots is part of what is drawn for more, so that a curve over shots
    compares equal samples.
    """
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows.append(members[order(mix(seed, int(label)), 1, len(members))[:shots]])
    return np.sort(np.concatenate(rows))


def possible(
    labels: Int64[np.ndarray, " n"], shots: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """The counts that at least half of the classes can give, and those that they cannot.

    A count that takes every sample of every class is the full probe again and is left out.
    """
    counts = np.unique(labels, return_counts=True)[1]
    wanted = sorted(set(shots))
    fitting = [s for s in wanted if (counts >= s).mean() >= 0.5 and s < counts.max()]
    return fitting, [s for s in wanted if s not in fitting]


def few_labels(
    train: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Int64[Tensor, " m"],
    classes: int,
    shots: int,
    seed: int,
    scale: Scale,
    measure: Measure = ACCURACY,
    groups: Int64[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " m"]:
    """What `measure` says of each test sample by a linear probe with few labels.

    `scale` comes from all training samples: that needs no label, and few samples know it badly.
    `groups` of the training samples stay whole where the strength is chosen.
    """
    rows = draw(labels.numpy(), shots, seed)
    own = None if groups is None else groups[rows]
    plane, _ = probe(train[rows], labels[rows], classes, scale=scale, seed=seed, groups=own)
    return measure(plane(scale(test)), test_labels)
