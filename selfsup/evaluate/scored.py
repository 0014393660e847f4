"""The result of a probe on frozen features: a table of scores, and a verdict on one of them."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..console import columns
from ..load import LoadedEncoder
from .controls import PRETRAINED, behind, named
from .interval import Interval
from .result import Told


class Few(NamedTuple):
    """What `ours` gains over the better control with few labels: so many, of `unit`."""

    labels: int
    unit: str
    ours: float
    control: str
    gain: Interval


class Scored(Told):
    """A row of scores for each subject; `heads` are their names and how many digits they have."""

    def __str__(self) -> str:
        heads = self._told["heads"]
        rows = [("", *heads)]
        for row in self._told["scores"]:
            rows.append((row["of"], *(f"{row[name]:.{d}f}" for name, d in heads.items())))
        told = [self.verdict, "", columns(rows)]
        if self._told["curve"]:
            first = next(iter(heads))
            subjects = list(dict.fromkeys(row["of"] for row in self._told["curve"]))
            counts = sorted({row["labels"] for row in self._told["curve"]})
            found = {(r["of"], r["labels"]): r["value"] for r in self._told["curve"]}
            few = [(f"{first}, few labels", *map(str, counts))]
            few += [(of, *(f"{found[of, n]:.{heads[first]}f}" for n in counts)) for of in subjects]
            told += ["", columns(few)]
        return "\n".join([*told, "", *self._told["notes"]])


def best_control(scores: dict[str, list[dict[str, float]]], head: str) -> str:
    """Whose mean is largest."""
    controls = [of for of in scores if of != PRETRAINED]
    return max(controls, key=lambda of: np.mean([found[head] for found in scores[of]]))


def conclude(
    task: str,
    metric: str,
    heads: dict[str, int],
    scores: dict[str, list[dict[str, float]]],
    control: str,
    gain: Interval,
    notes: list[str],
    encoder: LoadedEncoder,
    place: str,
    began: float,
    curve: list[dict[str, Any]] | None = None,
    few: Sequence[Few] = (),
) -> Scored:
    """`scores` of each of a subject's networks; `gain` over the control, in the first of `heads`,
    which sentences call `metric`. A gain with `few` labels counts where all bring none."""
    first = next(iter(heads))
    ours, theirs = (
        float(np.mean([found[first] for found in scores[of]])) for of in (PRETRAINED, control)
    )
    beside = f"{metric} {ours:.3f}, beside {theirs:.3f} of {named(control)}"
    sure = max((point for point in few if point.gain.low > 0), key=_low, default=None)
    if sure and gain.low <= 0:
        low = sure.ours - sure.gain.value
        sentence = f"Pretraining helped where labels are few: with those of {sure.labels} "
        sentence += f"{sure.unit} {metric} {sure.ours:.3f}, beside {low:.3f} of "
        sentence += f"{named(sure.control)} (+{sure.gain.value:.3f} ± {sure.gain.half:.3f}); "
        sentence += f"with all of them {beside} ({gain.value:+.3f} ± {gain.half:.3f})"
    elif gain.low > 0:
        sentence = f"Pretraining helped: {beside} (+{gain.value:.3f} ± {gain.half:.3f})"
    elif gain.high < 0:
        sentence = f"{behind(control)}: {beside} ({gain.value:.3f} ± {gain.half:.3f})"
    else:
        sentence = f"No gain that is certain: {beside} (± {gain.half:.3f})"
    rows = [
        {"protocol": task, "of": of, "networks": len(several)}
        | {name: float(np.mean([found[name] for found in several])) for name in heads}
        for of, several in scores.items()
    ]
    return Scored(
        {
            "format": 1,
            "task": task,
            "time": time.time(),
            "verdict": {
                "sentence": sentence,
                "gain": bool(sure or gain.low > 0),
                "control": control,
            },
            "heads": heads,
            "scores": rows,
            "curve": curve or [],
            "gain": gain._asdict(),
            "gains_with_few": [point._asdict() | {"gain": point.gain._asdict()} for point in few],
            "notes": notes,
            "data": {"place": place},
            "encoder": encoder.card.to_json(),
            "seconds": round(time.monotonic() - began, 1),
        }
    )


def _low(point: Few) -> float:
    return point.gain.low
