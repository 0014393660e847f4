"""What a fine-tuning found: the model, its number beside the controls, a sentence."""

import shlex
from pathlib import Path
from typing import Any

from ..console import columns
from ..evaluate.result import Told, cell, gained, subjects
from ..transfer.model import Model, load_model
from ..transfer.tasks import Task

TUNED, PROBE = "fine-tuned", "frozen linear probe"


class Finetuned(Told):
    """The model, its scores beside the controls, and where it was asked for a curve of few labels.

    `curve` has a row for each count of labels and each network: "shots", "of", "value" ...
    """

    @property
    def path(self) -> Path:
        return Path(self._told["model"])

    @property
    def model(self) -> Model:
        """The model, loaded from its folder."""
        return load_model(self.path)

    @property
    def curve(self) -> list[dict[str, Any]]:
        return self._told["few"]["curve"] if "few" in self._told else []

    def score(self, of: str = TUNED) -> float:
        """KeyError where there is none."""
        for row in self._told["scores"]:
            if row["of"] == of:
                return row["value"]
        raise KeyError(f"no score of {of!r}")

    def __str__(self) -> str:
        percent = self._told["percent"]
        rows = [(self._told["metric"], "", "95 % interval")]
        for row in self._told["scores"]:
            value, low, high = (figure(row[key], percent) for key in ("value", "low", "high"))
            rows.append((row["of"], value, f"{low} to {high}"))
        parts = [self._classes(), ""] if "classes" in self._told["scores"][0] else []
        few = [self._few(), ""] if self.curve else []
        command = f"selfsup predict {shlex.quote(str(self.path))} DATA"
        return "\n".join([self.verdict, "", columns(rows), "", *parts, *few, *self._told["notes"],
                          "", f"model: {self.path}", "", f"next:\n  {command}"])  # fmt: skip

    def _classes(self) -> str:
        """What the metric is the mean of; a class that some never said may be missing there."""
        scores, percent = self._told["scores"], self._told["percent"]
        names = dict.fromkeys(name for row in scores for name in row["classes"])
        rows = [("of class", *names)]
        for row in scores:
            found = (row["classes"].get(name) for name in names)
            rows.append((row["of"], *("" if v is None else figure(v, percent) for v in found)))
        return columns(rows)

    def _few(self) -> str:
        """The table of the curve."""
        told, percent = self._told["few"], self._told["percent"]
        names = subjects(row["of"] for row in told["curve"])
        rows = [(self._told["metric"], *names, "gain over the better control")]
        for shots in sorted({row["shots"] for row in told["curve"]}):
            found = {row["of"]: row for row in told["curve"] if row["shots"] == shots}
            cells = (cell(found.get(of), percent) for of in names)
            rows.append((so_many(shots, told["per_class"]), *cells, gained(found, percent)))
        return columns(rows)


def figure(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def so_many(labels: int, per_class: bool) -> str:
    return ("1 label" if labels == 1 else f"{labels} labels") + " per class" * per_class


def conclude(
    task: Task,
    main: str,
    scores: list[dict],
    gains: list[dict],
    settings: dict[str, Any],
    few: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The number beside the others, and whether it is better than all that is not pretrained.

    The frozen probe is pretrained too: what fine-tuning adds to it says nothing of pretraining. A
    gain with `few` labels counts where all bring none.
    """
    told = f"{main} ({settings['trained']}) on {settings['labels']} labels: {task.metric} "
    told += figure(scores[0]["value"], task.percent) + " %" * task.percent
    for gain in gains:
        if gain["low"] > 0:
            word = "better than"
        else:
            word = "worse than" if gain["high"] < 0 else "not clearly different from"
        value = next(row["value"] for row in scores if row["of"] == gain["over"])
        told += f", {word} {gain['over']} ({figure(value, task.percent)})"
    controls = [gain for gain in gains if gain["over"] != PROBE]
    helps = bool(controls) and all(gain["low"] > 0 for gain in controls)
    told = f"{told[:1].upper()}{told[1:]}."
    if few is not None and few["gain"] and not helps:
        return {
            "sentence": f"Pretraining helps where labels are few. {few['sentence']} {told}",
            "gain": True,
        }
    return {"sentence": told if few is None else f"{told} {few['sentence']}", "gain": helps}
