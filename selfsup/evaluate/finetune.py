"""Training the whole network on classes, from pretrained weights or, as a control, from scratch.

Both are one recipe, that of `selfsup.transfer`: AdamW, warm-up and cosine, the last epoch taken;
the learning rate and light views chosen on a part of the training labels. What differs is what
pretrained weights ask for: the head starts as the linear probe (LP-FT, Kumar et al., 2022,
https://arxiv.org/abs/2202.10054), lower layers move less, and batch statistics stay.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..data.store import Store
from ..load import LoadedEncoder
from ..transfer import tasks
from ..transfer.core import LAYER_DECAY, Effort, effort
from ..transfer.tasks import TRIALS, Choice, Classify, Network, Part
from .linear import Plane, Scale

__all__ = [
    "LAYER_DECAY",
    "TRIALS",
    "Choice",
    "Effort",
    "Network",
    "choose",
    "effort",
    "fresh",
    "logits",
    "plain_head",
    "seconds_per_sample",
    "train",
]


def plain_head(
    plane: Plane, scale: Scale
) -> tuple[Float[Tensor, "d classes"], Float[Tensor, " classes"]]:
    """A linear probe's weight and bias as they are on plain features: its own are standardised."""
    weight = plane.weight.double() / scale.deviation.double()[:, None]  # (d, classes)
    return weight, plane.bias.double() - scale.mean.double() @ weight


class Scored(Classify):
    """Notes of a sample how sure of each class the network is."""

    def outcome(self, out: Tensor, y: Tensor) -> np.ndarray:
        return out.cpu().numpy()


class Likely(Classify):
    """Notes of a sample how likely its own class is to the network."""

    def outcome(self, out: Tensor, y: Tensor) -> np.ndarray:
        return -cross_entropy(out, y, reduction="none").cpu().numpy()


def fresh(encoder: LoadedEncoder, classes: int, *, pretrained: bool, seed: int) -> Network:
    """A network to train: a copy of the pretrained encoder, or one with weights from `seed`."""
    task = Scored([str(i) for i in range(classes)])
    return tasks.fresh(task, encoder, pretrained=pretrained, seed=seed)


def train(
    network: Network,
    encoder: LoadedEncoder,
    store: Store,
    rows: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    **settings: Any,
) -> None:
    """Train in place. `rows` are sample numbers of the store, `labels` their classes."""
    tasks.train(network, encoder, Part(store, rows, labels), **settings)


def logits(
    network: Network,
    encoder: LoadedEncoder,
    store: Store,
    rows: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    precision: str = "auto",
) -> Float[Tensor, "n classes"]:
    """What a network of `fresh` says of each sample."""
    return torch.from_numpy(tasks.outcomes(network, encoder, Part(store, rows, labels), precision))


def seconds_per_sample(
    encoder: LoadedEncoder, store: Store, rows: Int64[np.ndarray, " n"], classes: int
) -> float:
    """What training costs here."""
    task = Classify([str(i) for i in range(classes)])
    return tasks.seconds_per_sample(
        task, encoder, Part(store, rows, np.arange(len(rows)) % classes)
    )


def choose(
    encoder: LoadedEncoder,
    store: Store,
    rows: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    classes: int,
    *,
    head: Callable[[np.ndarray], tuple[Plane, Scale]] | None = None,
    rare: bool = False,
    whole: Int64[np.ndarray, " n"] | None = None,
    **settings: Any,
) -> Choice:
    """The candidate that does best on a fifth of the labels, trained on the rest.

    By accuracy; where a class is `rare`, of which accuracy tells nothing, by the likelihood.
    `whole` are groups that the division keeps whole.
    """

    def start(network: Network, places: np.ndarray) -> None:
        assert head is not None
        network.start_head(*plain_head(*head(places)))

    task = (Likely if rare else Classify)([str(i) for i in range(classes)])
    part = Part(store, rows, labels, whole)
    return tasks.choose(task, encoder, part, start=start if head else None, **settings)
