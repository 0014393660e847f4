"""Training the whole network on labels, from the pretrained weights or, as a control, from scratch.

Both are one recipe: AdamW, warm-up and cosine, the last epoch taken; the learning rate, and whether
light views help (mirrored digits do not), chosen on a part of the training labels. What differs is
what pretrained weights ask for: the head starts as the linear probe (LP-FT, Kumar et al., 2022,
https://arxiv.org/abs/2202.10054), lower layers move less (layer-wise decay, as in BEiT and MAE),
and batch statistics stay.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .. import machine
from ..data.store import Store
from ..load import LoadedEncoder
from ..method import Views
from ..randomness import Draws, mix, order
from ..stop import stop
from .linear import Plane, Scale

LEAST_BATCH, BATCH = 16, 64
WEIGHT_DECAY, CLIP, WARMUP = 0.05, 1.0, 0.1
SHARE = (0.35, 1.0)  # of a sample that a light view shows
LAYER_DECAY = 0.75
RATES = {True: (1e-4, 1e-3), False: (1e-3, 3e-3)}  # candidates: pretrained, from scratch
TRIALS = 3  # trainings that `choose` takes: two rates, then the better one without views
EVALUATED = 256  # samples at a time


MOST_SAMPLES, MOST_STEPS = 40_000, 400  # wanted; more steps where the labels need more passes
LEAST_STEPS, LEAST_EPOCHS = 100, 10  # a network trained for less is not worth comparing with


@dataclass(frozen=True)
class Effort:
    """How long a network is trained: `steps` batches of `batch` of its labels."""

    labels: int
    steps: int

    @property
    def batch(self) -> int:
        return batch_of(self.labels)

    @property
    def samples(self) -> int:
        return self.steps * self.batch

    @property
    def epochs(self) -> float:
        return self.samples / self.labels

    def of(self, labels: int) -> "Effort":
        """The same number of passes over other labels."""
        return Effort(labels, max(1, round(self.epochs * labels / batch_of(labels))))


def batch_of(labels: int) -> int:
    """A quarter of the labels, within bounds: steps are what few labels have need of."""
    return min(labels, max(LEAST_BATCH, min(BATCH, labels // 4)))


def effort(labels: int, affordable: float) -> Effort | None:
    """What is wanted for so many labels, halved until it takes no more samples than affordable.

    None where too little would be left of it. Halving, and not dividing by what fits, makes two
    evaluations on one machine train for the same number of steps although they measure the time.
    """
    batch = batch_of(labels)
    least = max(LEAST_STEPS, -(-LEAST_EPOCHS * labels // batch))
    steps = max(least, min(MOST_STEPS, MOST_SAMPLES // batch), round(20 * labels / batch))
    while steps * batch > affordable and steps > least:
        steps = max(least, steps // 2)
    return Effort(labels, steps) if steps * batch <= affordable else None


class Choice(NamedTuple):
    """What is chosen on held-out labels: the learning rate, and light views or the plain one."""

    rate: float
    light: bool = True


class Classifier(nn.Module):
    """An encoder and a linear head."""

    def __init__(self, encoder: nn.Module, classes: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(int(encoder.dim), classes)  # type: ignore[arg-type]
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b classes"]:
        return self.head(self.encoder(x).float())

    def start_head(self, plane: Plane, scale: Scale) -> None:
        """Begin as the linear probe: its plane on standardised features, here on plain ones."""
        weight = plane.weight.double() / scale.deviation.double()[:, None]  # (d, classes)
        bias = plane.bias.double() - scale.mean.double() @ weight
        with torch.no_grad():
            self.head.weight.copy_(weight.T)
            self.head.bias.copy_(bias)


def depth_of(name: str) -> int:
    """How far from the input a parameter of an encoder lies: stems 0, then blocks or stages."""
    found = re.match(r"(?:trunk\.(?:blocks\.)?|layer)(\d+)", name)
    if found is None:
        return 10_000 if name.startswith("trunk.norm") else 0
    return int(found[1]) + name.startswith("trunk")


def groups(network: Classifier, rate: float, decay: float) -> list[dict]:
    """Parameter groups: rate * decay ** (layers above); no weight decay on vectors."""
    named = list(network.encoder.named_parameters())
    top = max((d for d in (depth_of(n) for n, _ in named) if d < 10_000), default=0) + 1
    made: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in named:
        scale = decay ** (top - min(depth_of(name), top))
        fades = WEIGHT_DECAY if parameter.ndim > 1 and name != "positions" else 0.0
        made.setdefault((rate * scale, fades), []).append(parameter)
    made.setdefault((rate, WEIGHT_DECAY), []).append(network.head.weight)
    made.setdefault((rate, 0.0), []).append(network.head.bias)
    return [{"params": p, "lr": r, "peak": r, "weight_decay": w} for (r, w), p in made.items()]


def train(
    network: Classifier,
    encoder: LoadedEncoder,
    store: Store,
    rows: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    *,
    steps: int,
    choice: Choice,
    pretrained: bool,
    seed: int,
    precision: str = "auto",
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Train in place. `rows` are sample numbers of the store, `labels` their classes."""
    device = next(network.parameters()).device
    precision = machine.choose_precision(precision, device.type)
    parameters = groups(network, choice.rate, LAYER_DECAY if pretrained else 1.0)
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.999), fused=True)
    network.train()
    if pretrained:  # a few labels estimate the statistics worse than all of pretraining did
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    size = batch_of(len(rows))
    views = Views(light=1, share=SHARE)
    for step in range(steps):
        stop.check()
        progress = step / steps
        warm = min(1.0, (step + 1) / max(1, round(WARMUP * steps)))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * warm * (1 + np.cos(np.pi * progress)) / 2

        counters = np.arange(step * size, (step + 1) * size)
        picks = np.array([_nth(seed, int(c), len(rows)) for c in counters])
        batch = store.batch(rows[picks], counters).to(device)
        if choice.light:
            draws = Draws(mix(seed, 0x66696E65), batch.samples)
            (x,) = encoder.modality.views(batch, views, draws, encoder.size)
        else:
            x = encoder.modality.plain(batch, encoder.size)
        y = torch.from_numpy(labels[picks]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            scores = network(x)
        loss = cross_entropy(scores.float(), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        tell(f"step {step + 1}/{steps}")
    network.eval()


_orders: dict[tuple[int, int, int], np.ndarray] = {}


def _nth(seed: int, counter: int, n: int) -> int:
    """The counter-th sample of endless shuffled passes over n."""
    key = (seed, counter // n, n)
    if key not in _orders:
        _orders.clear()
        _orders[key] = order(*key)
    return int(_orders[key][counter % n])


@torch.no_grad()
def outcome(
    network: Classifier,
    encoder: LoadedEncoder,
    store: Store,
    rows: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    precision: str = "auto",
) -> np.ndarray:
    """1 for each sample that is classified correctly, else 0: (n,) float."""
    device = next(network.parameters()).device
    precision = machine.choose_precision(precision, device.type)
    network.eval()
    right = []
    for low in range(0, len(rows), EVALUATED):
        stop.check()
        batch = store.batch(rows[low : low + EVALUATED]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            scores = network(encoder.modality.plain(batch, encoder.size))
        right.append(scores.argmax(1).cpu().numpy() == labels[low : low + EVALUATED])
    return np.concatenate(right).astype(float)


def fresh(encoder: LoadedEncoder, classes: int, *, pretrained: bool, seed: int) -> Classifier:
    """A network to train: a copy of the pretrained encoder, or one with weights from `seed`."""
    from copy import deepcopy

    source = deepcopy(encoder.encoder) if pretrained else encoder.untrained(seed).encoder
    return Classifier(source.requires_grad_(True), classes).to(encoder.device)


def seconds_per_sample(
    encoder: LoadedEncoder, store: Store, rows: Int64[np.ndarray, " n"], classes: int
) -> float:
    """What training costs here: three timed steps after two that warm up."""
    network = fresh(encoder, classes, pretrained=False, seed=0)
    labels = np.arange(len(rows)) % classes
    size = batch_of(len(rows))
    for steps in (2, 3):
        started = time.perf_counter()
        train(network, encoder, store, rows, labels, steps=steps, choice=Choice(1e-4),
              pretrained=False, seed=0)  # fmt: skip
        spent = time.perf_counter() - started
    return spent / (3 * size)


def choose(
    encoder: LoadedEncoder,
    store: Store,
    rows: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    classes: int,
    *,
    effort: Effort,
    pretrained: bool,
    seed: int,
    head: Callable[[np.ndarray], tuple[Plane, Scale]] | None = None,
) -> Choice:
    """The candidate that does best on a fifth of the labels, trained on the rest.

    With fewer than five labels of a class there is nothing to spare: the first candidate.
    """
    rates = RATES[pretrained]
    counts = np.bincount(labels)
    if counts[counts > 0].min() < 5:
        return Choice(rates[0])
    held = np.zeros(len(rows), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held[members[order(mix(seed, int(label)), 2, len(members))[: len(members) // 5]]] = True

    def right(choice: Choice) -> float:
        network = fresh(encoder, classes, pretrained=pretrained, seed=seed)
        if head is not None:
            network.start_head(*head(~held))
        steps = effort.of(int((~held).sum())).steps
        train(network, encoder, store, rows[~held], labels[~held], steps=steps, choice=choice,
              pretrained=pretrained, seed=seed)  # fmt: skip
        return float(outcome(network, encoder, store, rows[held], labels[held]).mean())

    found = {choice: right(choice) for choice in map(Choice, rates)}
    best = max(found, key=found.__getitem__)
    plain = best._replace(light=False)
    return plain if right(plain) > found[best] else best
