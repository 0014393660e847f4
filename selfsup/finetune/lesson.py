"""What labels teach: a linear layer on the frozen encoder, and from there more of the network."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..evaluate import linear
from ..evaluate.features import extract
from ..evaluate.finetune import plain_head
from ..evaluate.linear import Scale, scale_of
from ..evaluate.ridge import ridge
from ..load import LoadedEncoder
from ..randomness import mix
from ..transfer import core, tasks
from ..transfer.core import Effort
from ..transfer.forecast import Forecast
from ..transfer.tasks import (
    FULL,
    HEAD,
    LOW_RANK,
    Choice,
    Classify,
    Network,
    Part,
    Regress,
    Task,
)
from ..transfer.transcribe import Transcribe

FEW, SOME = 200, 2000  # labels up to which only the head, or only adapters are trained
EXACT = (Classify, Regress, Forecast)  # tasks whose frozen probe has a formula

Tell = Callable[[str], None]


def how_much(task: Task, encoder: LoadedEncoder, labels: int) -> tuple[str, str]:
    """What of the network moves, and why."""
    if task.needs_all:
        return FULL, task.needs_all
    if labels <= FEW:
        return HEAD, f"{labels} labels: a linear layer takes what they say"
    if labels <= SOME and core.adaptable(encoder.encoder):
        return LOW_RANK, f"{labels} labels: few for all weights, so adapters beside them move"
    return FULL, f"{labels} labels are enough to move all weights"


class Lesson:
    """Labelled samples, and how long a network is trained on them.

    `choices` are learning rates and views by what is trained, made on these labels where they are
    not given.
    """

    def __init__(
        self,
        encoder: LoadedEncoder,
        task: Task,
        part: Part,
        effort: Effort,
        seed: int,
        choices: dict[tuple[str, bool], Choice] | None = None,
    ):
        self.encoder, self.task, self.part = encoder, task, part
        self.effort, self.seed = effort, seed
        self.choices = {} if choices is None else choices
        self.scale: Scale | None = None  # of the features: their own

    @cached_property
    def vectors(self) -> Float[Tensor, "n d"]:
        """Frozen features."""
        if isinstance(self.task, Forecast):
            return tasks.vectors(self.task, self.encoder, self.part)
        return extract(self.encoder, self.part.store, self.part.rows)

    def some(
        self,
        places: np.ndarray,
        effort: Effort,
        seed: int,
        choices: dict[tuple[str, bool], Choice],
    ) -> "Lesson":
        """That of some samples alone; all say how features are scaled, which needs no label."""
        part = self.part.take(places)
        lesson = Lesson(self.encoder, told_by(part, self.task), part, effort, seed, choices)
        if isinstance(self.task, EXACT):
            lesson.vectors = self.vectors[torch.from_numpy(places)]
            lesson.scale = scale_of(self.vectors)
        return lesson

    def choice(self, how: str, pretrained: bool) -> Choice:
        if (how, pretrained) not in self.choices:
            begins = how != HEAD and self._begins(pretrained)
            self.choices[how, pretrained] = tasks.choose(
                self.task, self.encoder, self.part, effort=self.effort, pretrained=pretrained,
                seed=self.seed, how=how, start=self._start if begins else None,
            )  # fmt: skip
        return self.choices[how, pretrained]

    def probe(self, tell: Tell) -> Network:
        """A linear layer on the frozen encoder: exact where there is a formula, else trained."""
        if not isinstance(self.task, EXACT):
            return self._trained_head(self.part, tell)
        network = tasks.fresh(self.task, self.encoder, pretrained=True, seed=self.seed, how=HEAD)
        self._start(network, np.ones(len(self.part), bool))
        return network

    def train(self, how: str, pretrained: bool, tell: Tell) -> Network:
        """More than the head, which begins as the probe has it; or all of it from scratch."""
        tell("choosing the learning rate")
        choice = self.choice(how, pretrained)
        network = tasks.fresh(
            self.task, self.encoder, pretrained=pretrained, seed=mix(self.seed, 0), how=how
        )
        if self._begins(pretrained):
            self._start(network, np.ones(len(self.part), bool))
        tasks.train(
            network, self.encoder, self.part, steps=self.effort.steps, choice=choice,
            pretrained=pretrained, seed=self.seed, tell=tell,
        )  # fmt: skip
        return network

    def settings(self, how: str, pretrained: bool, network: Network) -> dict[str, Any]:
        """How a network was trained, for the record."""
        choice = self.choice(how, pretrained)
        return {
            "learning_rate": choice.rate, "light_views": choice.light,
            "steps": self.effort.steps, "epochs": round(self.effort.epochs, 2),
            "layer_decay": self.task.layer_decay if pretrained and how == FULL else 1.0,
            "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "weights": sum(p.numel() for p in network.parameters()),
        }  # fmt: skip

    def _begins(self, pretrained: bool) -> bool:
        return pretrained and not isinstance(self.task, Transcribe)

    def _start(self, network: Network, places: np.ndarray) -> None:
        """Give the head what some of these labels say of the frozen features."""
        part = self.part.take(places)
        if isinstance(self.task, EXACT):
            x = self.vectors[torch.from_numpy(places)]
            network.start_head(*fit(self.task, x, part, self.seed, self.scale))
        else:
            network.head.load_state_dict(self._trained_head(part).head.state_dict())

    def _trained_head(self, part: Part, tell: Tell = lambda text: None) -> Network:
        choice = self.choice(HEAD, pretrained=True)
        network = tasks.fresh(self.task, self.encoder, pretrained=True, seed=self.seed, how=HEAD)
        tasks.train(
            network, self.encoder, part, steps=self.effort.of(len(part)).steps, choice=choice,
            pretrained=True, seed=self.seed, tell=tell,
        )  # fmt: skip
        return network


def told_by(part: Part, task: Task) -> Task:
    """The task as these labels alone tell it: the scale of numbers, the letters of texts.

    Classes are known by name, those of masks too.
    """
    if isinstance(task, Regress):
        return Regress.of(part.targets)
    if isinstance(task, Transcribe):
        return Transcribe(sorted({c for text in part.targets for c in text}), task.size)
    return task


def fit(
    task: Task, x: Float[Tensor, "n d"], part: Part, seed: int, scale: Scale | None = None
) -> tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]:
    """The linear layer on features of a part that answers best: its weight and bias."""
    targets = torch.from_numpy(part.targets)
    if isinstance(task, Classify):
        groups = part.groups()
        probe = linear.probe(x, targets, task.outputs, scale=scale, seed=seed, groups=groups)
        return plain_head(*probe)
    if isinstance(task, Forecast):
        future, level, spread = task.parts(targets)
        return ridge(x, ((future - level) / spread).flatten(1), scale=scale, shuffled=False)
    assert isinstance(task, Regress)
    y = (targets - task.mean) / task.deviation
    return ridge(x, y[:, None], scale=scale, seed=seed, groups=part.groups())
