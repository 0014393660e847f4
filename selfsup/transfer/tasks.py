"""What labels may ask for, and how a network is trained to answer.

A task says how a network reads a sample, what its loss is, how one sample's answer is scored, and
how an answer is told. The learning rate, and whether light views help (mirrored digits do not), are
chosen on a part of the training labels; the last epoch is taken.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .. import machine
from ..data.base import Source
from ..data.batch import Batch
from ..load import LoadedEncoder
from ..method import Views
from ..randomness import Draws, mix, order
from ..stop import stop
from . import core
from .core import BATCH, LAYER_DECAY, Effort

SHARE = (0.35, 1.0)  # of a sample that a light view shows
HEAD, LOW_RANK, FULL = "head", "lora", "full"
HOW = (HEAD, LOW_RANK, FULL)
# Candidates, by what is trained; from scratch all is, and may move faster
RATES = {HEAD: (1e-3, 1e-2), LOW_RANK: (1e-3, 5e-3), FULL: (1e-4, 1e-3)}
SCRATCH_RATES = (1e-3, 3e-3)
TRIALS = 3  # trainings that `choose` takes: two rates, then the better one without views


class Choice(NamedTuple):
    """What is chosen on held-out labels: the learning rate, and light views or the plain one."""

    rate: float
    light: bool = True


@dataclass(frozen=True)
class Part:
    """Samples with what is to be said of them: `targets[i]` belongs to `rows[i]` of the store.

    `whole` is equal for samples of which none may teach what others choose: copies, and clips of
    one recording. Without it no copies are known.
    """

    store: Any
    rows: np.ndarray
    targets: Any
    whole: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def groups(self) -> np.ndarray:
        """A number for each sample, from 0 on, equal for clips of one recording."""
        own = self.store.source.groups()
        if own is None:
            return np.arange(len(self))
        return np.unique(own[self.rows], return_inverse=True)[1]

    def apart(self) -> np.ndarray:
        """A number for each sample, from 0 on, equal for those that only choose together."""
        if self.whole is None:
            return self.groups()
        return np.unique(self.whole, return_inverse=True)[1]

    def take(self, places: np.ndarray) -> "Part":
        places = np.flatnonzero(places) if places.dtype == bool else places
        targets = self.targets
        chosen = (
            targets[places] if isinstance(targets, np.ndarray) else [targets[i] for i in places]
        )
        whole = None if self.whole is None else self.whole[places]
        return replace(self, rows=self.rows[places], targets=chosen, whole=whole)


class Network(nn.Module):
    """An encoder and a linear layer on what a task reads of it."""

    def __init__(self, encoder: nn.Module, task: "Task"):
        super().__init__()
        self.encoder, self.task = encoder, task
        self.head = nn.Linear(task.width(encoder), task.outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Any) -> Tensor:
        return self.task.answer(self, x)

    def start_head(self, weight: Float[Tensor, "d k"], bias: Float[Tensor, " k"]) -> None:
        with torch.no_grad():
            self.head.weight.copy_(weight.T)
            self.head.bias.copy_(bias)


class Task(ABC):
    """Subclasses are final; their fields, as JSON, are all that an answer needs to be read."""

    name: ClassVar[str]
    metric: ClassVar[str]  # in words
    percent: ClassVar[bool] = True
    better: ClassVar[int] = 1  # -1 where less is better
    needs_all: ClassVar[str] = ""  # why all weights are to move, however few the labels
    table: ClassVar[bool] = True  # whether a CSV can hold its answers
    light: ClassVar[bool] = True  # whether light views may be tried
    whole: ClassVar[bool] = False  # whether an answer is of a whole file, however long
    layer_decay: ClassVar[float] = LAYER_DECAY  # where all layers are trained
    most_batch: ClassVar[int] = BATCH
    evaluated: ClassVar[int] = 256  # samples at a time
    rates: ClassVar[dict[str, tuple[float, float]]] = RATES
    scratch_rates: ClassVar[tuple[float, float]] = SCRATCH_RATES
    outputs: int

    @abstractmethod
    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    @abstractmethod
    def parse(cls, told: Mapping[str, Any]) -> Self:
        """From `to_json`, written by anybody. Raises ValueError, KeyError or TypeError."""

    def width(self, encoder: Any) -> int:
        return int(encoder.dim)

    def read(self, encoder: Any, x: Any) -> Float[Tensor, "b *n width"]:
        """What the linear layer gets."""
        return encoder(x)

    def answer(self, network: Network, x: Any) -> Tensor:
        return network.head(self.read(network.encoder, x).float())

    def look(
        self,
        encoder: LoadedEncoder,
        part: Part,
        places: np.ndarray,
        counters: np.ndarray | None = None,
        seed: int = 0,
    ) -> tuple[Any, Any]:
        """Some samples of a part and what is to be said; with `counters` as light views."""
        batch = part.store.batch(part.rows[places], counters).to(encoder.device)
        if counters is None:
            x = self.plain(encoder, batch)
        else:
            draws, views = Draws(mix(seed, 0x66696E65), batch.samples), Views(light=1, share=SHARE)
            (x,) = encoder.modality.views(batch, views, draws, encoder.size)
        return x, self.targets(part, places, encoder.device)

    def plain(self, encoder: LoadedEncoder, batch: Any) -> Any:
        return encoder.modality.plain(batch, encoder.size)

    @abstractmethod
    def targets(self, part: Part, places: np.ndarray, device: torch.device) -> Any: ...

    @abstractmethod
    def loss(self, out: Tensor, y: Any) -> Tensor: ...

    @abstractmethod
    def outcome(self, out: Tensor, y: Any) -> np.ndarray:
        """What the summary needs of each sample, (b, ...)."""

    def summary(self, outcomes: np.ndarray) -> float:
        """The metric over samples."""
        return float(outcomes.mean())

    def classwise(self, outcomes: np.ndarray) -> dict[str, float]:
        """What the metric is the mean of, where it is one over classes."""
        return {}

    def shown(self, network: Network, encoder: LoadedEncoder, part: Part) -> dict[str, bytes]:
        """Files for people to look at, of samples that test."""
        return {}

    @abstractmethod
    def tell(self, out: Tensor, batch: Batch) -> dict[str, list | np.ndarray]:
        """Answers as columns with a row a sample."""

    def samples(self, source: Source) -> Source:
        """What of the data is answered for."""
        return source

    def held(self, part: Part, seed: int) -> np.ndarray | None:
        """The fifth of a part that chooses between rates; None where nothing can be spared.

        Of clips whole recordings, of which there must be as many as of samples else; so of copies.
        """
        groups = part.apart()
        count = int(groups.max(initial=-1)) + 1
        if count < 10:
            return None
        return np.isin(groups, order(seed, 2, count)[: count // 5])

    def effort(self, labels: int, affordable: float) -> Effort | None:
        return core.effort(labels, affordable)

    def groups(self, network: Network, choice: Choice, decay: float) -> list[dict[str, Any]]:
        return core.groups(network, choice.rate, decay)

    def settings(self) -> dict[str, Any]:
        """Of `fit`, where they are not the usual ones."""
        return {}


# ---- training --------------------------------------------------------------------------------


def fresh(
    task: Task, encoder: LoadedEncoder, *, pretrained: bool, seed: int, how: str = FULL
) -> Network:
    """A network to train: a copy of the pretrained encoder, or one with weights from `seed`."""
    inner = deepcopy(encoder.encoder) if pretrained else encoder.untrained(seed).encoder
    inner.requires_grad_(how != HEAD)
    if how == LOW_RANK:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, 0x6C6F7261))
            core.adapt(inner)
    return Network(inner, task).to(encoder.device)


def train(
    network: Network,
    encoder: LoadedEncoder,
    part: Part,
    *,
    steps: int,
    choice: Choice,
    pretrained: bool,
    seed: int,
    precision: str = "auto",
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Train in place on a part. `choice` is from `choose`."""
    task, n = network.task, len(part)
    size = core.batch_of(n, task.most_batch)

    def look(step: int) -> tuple[Any, Any]:
        places = core.picks(seed, step, size, n)
        counters = np.arange(step * size, (step + 1) * size) if choice.light else None
        return task.look(encoder, part, places, counters, seed)

    whole = all(p.requires_grad for p in network.encoder.parameters())
    groups = task.groups(network, choice, task.layer_decay if pretrained and whole else 1.0)
    core.fit(network, groups, look, task.loss, steps=steps, seed=seed, pretrained=pretrained,
             precision=precision, tell=tell, **task.settings())  # fmt: skip


@torch.no_grad()
def outcomes(
    network: Network, encoder: LoadedEncoder, part: Part, precision: str = "auto"
) -> np.ndarray:
    """What the task notes of each sample of a part, from views without chance."""
    device = encoder.device
    bf16 = machine.choose_precision(precision, device.type) == "bf16"
    network.eval()
    found = []
    for low in range(0, len(part), network.task.evaluated):
        stop.check()
        places = np.arange(low, min(low + network.task.evaluated, len(part)))
        x, y = network.task.look(encoder, part, places)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            out = network(x)
        found.append(network.task.outcome(out.float(), y))
    return np.concatenate(found)


@torch.no_grad()
def vectors(task: Task, encoder: LoadedEncoder, part: Part) -> Float[Tensor, "n width"]:
    """What the linear layer gets of each sample, float32."""
    found = []
    for low in range(0, len(part), task.evaluated):
        stop.check()
        x, _ = task.look(encoder, part, np.arange(low, min(low + task.evaluated, len(part))))
        found.append(task.read(encoder.encoder, x).float().cpu())
    return torch.cat(found)


def seconds_per_sample(
    task: Task, encoder: LoadedEncoder, part: Part, *, pretrained: bool = False, how: str = FULL
) -> float:
    """What training costs here: three timed steps after two that warm up."""
    network = fresh(task, encoder, pretrained=pretrained, seed=0, how=how)
    for steps in (2, 3):
        started = time.perf_counter()
        train(network, encoder, part, steps=steps, choice=Choice(1e-4, task.light),
              pretrained=pretrained, seed=0)  # fmt: skip
        spent = time.perf_counter() - started
    return spent / (3 * core.batch_of(len(part), task.most_batch))


def choose(
    task: Task,
    encoder: LoadedEncoder,
    part: Part,
    *,
    effort: Effort,
    pretrained: bool,
    seed: int,
    how: str = FULL,
    start: Callable[[Network, np.ndarray], None] | None = None,
) -> Choice:
    """The candidate that does best on held-out labels, trained on the rest.

    `start(network, places)` gives the head its beginning from those labels alone. Where there is
    nothing to spare: the first candidate.
    """
    rates = task.rates[how] if pretrained else task.scratch_rates
    held = task.held(part, seed)
    if held is None:
        return Choice(rates[0], task.light)
    teach, judge = part.take(~held), part.take(held)

    def score(choice: Choice) -> float:
        network = fresh(task, encoder, pretrained=pretrained, seed=seed, how=how)
        if start is not None:
            start(network, ~held)
        steps = effort.of(len(teach)).steps
        train(network, encoder, teach, steps=steps, choice=choice, pretrained=pretrained, seed=seed)
        return task.better * task.summary(outcomes(network, encoder, judge))

    found = {choice: score(choice) for choice in (Choice(rate, task.light) for rate in rates)}
    best = max(found, key=found.__getitem__)
    plain = best._replace(light=False)
    return plain if task.light and score(plain) > found[best] else best


# ---- classes and numbers ---------------------------------------------------------------------


class Classify(Task):
    """One of several classes."""

    name, metric = "classify", "accuracy"

    def __init__(self, classes: list[str]):
        self.classes, self.outputs = classes, len(classes)

    def to_json(self) -> dict[str, Any]:
        return {"classes": self.classes}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Self:
        return cls(words(told["classes"]))

    def targets(self, part: Part, places: np.ndarray, device: torch.device) -> Tensor:
        return torch.from_numpy(part.targets[places]).to(device)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(out.float(), y)

    def outcome(self, out: Tensor, y: Tensor) -> np.ndarray:
        return (out.argmax(1) == y).cpu().numpy().astype(float)

    def tell(self, out: Tensor, batch: Batch) -> dict[str, list | np.ndarray]:
        shares = out.double().softmax(1).cpu().numpy()
        told: dict[str, list | np.ndarray] = {
            "label": [self.classes[i] for i in shares.argmax(1).tolist()]
        }
        return told | {
            f"p_{c}": shares[:, i].astype(np.float32) for i, c in enumerate(self.classes)
        }

    def held(self, part: Part, seed: int) -> np.ndarray | None:
        """A fifth of each class; with fewer than five labels of a class none is spared.

        Of clips whole recordings, each of the class of its first; five of them in each class; so
        of copies.
        """
        groups = part.apart()
        labels = part.targets[np.unique(groups, return_index=True)[1]]  # of each group
        counts = np.bincount(labels, minlength=part.targets.max() + 1)
        if counts[np.unique(part.targets)].min() < 5:
            return None
        held = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            some = order(mix(seed, int(label)), 2, len(members))[: len(members) // 5]
            held[members[some]] = True
        return held[groups]


class Regress(Task):
    """A number. The network gives it in deviations from the mean of the training labels."""

    name, metric, percent = "regress", "R2", False

    def __init__(self, mean: float, deviation: float):
        self.mean, self.deviation, self.outputs = mean, deviation, 1

    @classmethod
    def of(cls, numbers: Float[np.ndarray, " n"]) -> "Regress":
        return cls(float(numbers.mean()), float(numbers.std()) or 1.0)

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "deviation": self.deviation}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Self:
        mean, deviation = number(told["mean"]), number(told["deviation"])
        if deviation <= 0:
            raise ValueError(f"deviation is {deviation}")
        return cls(mean, deviation)

    def targets(self, part: Part, places: np.ndarray, device: torch.device) -> Tensor:
        scaled = (part.targets[places] - self.mean) / self.deviation
        return torch.from_numpy(scaled).float().to(device)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return (out[:, 0].float() - y).square().mean()

    def outcome(self, out: Tensor, y: Tensor) -> np.ndarray:
        """What it is and what was said, (b, 2)."""
        both = torch.stack([y, out[:, 0]], 1).double().cpu().numpy()
        return both * self.deviation + self.mean

    def summary(self, outcomes: np.ndarray) -> float:
        """Share of the variance that is explained: 0 for always saying the mean.

        NaN where there is none.
        """
        truth, said = outcomes.T
        if not np.ptp(truth):
            return float("nan")
        return float(1 - np.square(truth - said).sum() / np.square(truth - truth.mean()).sum())

    def tell(self, out: Tensor, batch: Batch) -> dict[str, list | np.ndarray]:
        return {"number": out[:, 0].double().cpu().numpy() * self.deviation + self.mean}


# ---- what a card may say ---------------------------------------------------------------------


def words(value: Any) -> list[str]:
    """A list of different words. Raises ValueError."""
    good = isinstance(value, list) and 0 < len(value) <= 1 << 16
    if not good or not all(isinstance(v, str) for v in value) or len(set(value)) < len(value):
        raise ValueError(f"no list of different words: {str(value)[:80]}")
    return value


def number(value: Any) -> float:
    """A finite number. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"no number: {str(value)[:80]}")
    return float(value)
