"""What a fine-tuning found: the model, its number beside the controls, a sentence."""

from pathlib import Path
from typing import Any

from ..console import columns
from ..evaluate.result import Told
from ..transfer.model import Model, load_model
from ..transfer.tasks import Task

TUNED, PROBE = "fine-tuned", "frozen linear probe"


class Finetuned(Told):
    """The model, and its scores beside the controls."""

    @property
    def path(self) -> Path:
        return Path(self._told["model"])

    @property
    def model(self) -> Model:
        """The model, loaded from its folder."""
        return load_model(self.path)

    def score(self, of: str = TUNED) -> float:
        """KeyError where there is none."""
        for row in self._told["scores"]:
            if row["of"] == of:
                return row["value"]
        raise KeyError(f"no score of {of!r}")

    def __str__(self) -> str:
        scale = 100 if self._told["percent"] else 1
        digits = 1 if self._told["percent"] else 3
        rows = [(self._told["metric"], "", "95 % interval")]
        for row in self._told["scores"]:
            numbers = [f"{scale * row[key]:.{digits}f}" for key in ("value", "low", "high")]
            rows.append((row["of"], numbers[0], f"{numbers[1]} to {numbers[2]}"))
        return "\n".join([self.verdict, "", columns(rows), "", *self._told["notes"], "",
                          f"model: {self.path}"])  # fmt: skip


def conclude(
    task: Task, main: str, scores: list[dict], gains: list[dict], settings: dict[str, Any]
) -> dict[str, Any]:
    """The number, and whether it is better than every control beyond doubt."""
    scale, unit = (100, " %") if task.percent else (1, "")
    digits = 1 if task.percent else 3

    def said(value: float) -> str:
        return f"{scale * value:.{digits}f}"

    told = f"{main} ({settings['trained']}) on {settings['labels']} labels: {task.metric} "
    told += f"{said(scores[0]['value'])}{unit}"
    for gain in gains:
        if gain["low"] > 0:
            word = "better than"
        else:
            word = "worse than" if gain["high"] < 0 else "not clearly different from"
        value = next(row["value"] for row in scores if row["of"] == gain["over"])
        told += f", {word} {gain['over']} ({said(value)})"
    return {
        "sentence": told[:1].upper() + told[1:] + ".",
        "gain": bool(gains) and all(gain["low"] > 0 for gain in gains),
    }
