"""What one test sample adds to a score whose mean over samples is what is told.

Accuracy says nothing where one of two classes is rare: who never names it is right nearly always.
There the area under the ROC curve is told, the chance that a sample of the rare class is ranked
before one of the other.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from scipy.stats import rankdata
from torch import Tensor

RARE = 0.2  # share of the test samples: a class with less is not judged by accuracy
LEAST = 5  # samples of it that test: from fewer no interval of the area can be told


class Measure(NamedTuple):
    """`suffix` is what names of scores end in, `title` what they are called in a sentence."""

    rare: bool
    suffix: str
    title: str

    def __call__(
        self, logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]
    ) -> Float[np.ndarray, " n"]:
        if not self.rare:
            return (logits.argmax(1) == labels).double().numpy()
        margin = (logits[:, 1] - logits[:, 0]).double().numpy()
        return auroc(margin, labels.numpy() == 1)


ACCURACY = Measure(False, "", "linear probe")
AUROC = Measure(True, "_auroc", "linear probe, area under the ROC curve")


def measure_for(labels: Int64[Tensor, " n"], classes: int) -> Measure:
    """By the classes of the samples that test (-1: of none that teaches)."""
    counts = [int((labels == c).sum()) for c in range(classes)]
    rare = classes == 2 and sum(counts) == len(labels)
    rare = rare and LEAST <= min(counts) < RARE * len(labels)
    return AUROC if rare else ACCURACY


def auroc(
    score: Float[np.ndarray, " n"], positive: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Shares of the samples in the area under the ROC curve, which is their mean.

    A sample's is the area plus its influence on it: how far the share of the other class that it is
    ranked rightly against lies from the area, over the share of its own class (DeLong et al., 1988,
    equations 3 and 4); with few of a class as much wider as makes its variance unbiased. So the
    interval of the mean over samples is that of the area.
    """
    ones, zeros = score[positive], score[~positive]
    among = rankdata(score)
    placed = np.empty(len(score))
    placed[positive] = (among[positive] - rankdata(ones)) / len(zeros)
    placed[~positive] = 1 - (among[~positive] - rankdata(zeros)) / len(ones)
    area = placed[positive].mean()
    own = np.where(positive, len(ones), len(zeros))
    wider = np.sqrt(own / np.maximum(own - 1, 1))
    return area + (placed - area) * wider * len(score) / own
