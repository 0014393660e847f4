"""The result of a probe on frozen features: a table of scores, and a verdict on one of them."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..console import columns
from ..load import LoadedEncoder
from .controls import PRETRAINED, behind, named
from .interval import Interval, over_seeds
from .result import Told, score

# subject -> labelled samples -> outcomes (draws, test samples)
Fewer = dict[str, dict[int, np.ndarray]]


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
            gains = [r["gain"] for r in self._told["curve"] if "gain" in r]
            halves = (f"{g['value']:+.3f} ± {(g['high'] - g['low']) / 2:.3f}" for g in gains)
            few.append(("gain over the better control", *halves))
            told += ["", columns(few)]
        return "\n".join([*told, "", *self._told["notes"]])


def best_control(scores: dict[str, list[dict[str, float]]], head: str) -> str:
    """Whose mean is largest."""
    controls = [of for of in scores if of != PRETRAINED]
    return max(controls, key=lambda of: np.mean([found[head] for found in scores[of]]))


def curve_of(
    fewer: Fewer,
    measure: Callable[[np.ndarray], np.ndarray],
    over: Callable[[np.ndarray, np.ndarray, int], Interval],
) -> list[dict[str, Any]]:
    """Rows of scores with few labels, those of the encoder with the gain over the better control.

    `measure` gives each draw its score, `over` the gain of one over the other `among` so many: as
    the surest speaks where all labels bring none, they are to hold all at once.
    """
    rows: list[dict[str, Any]] = []
    for of, found in fewer.items():
        for count, outcomes in found.items():
            values = measure(outcomes).tolist()
            drawn = over_seeds(values)
            rows.append(score("few", of, drawn, drawn.value, count, values=values))
            if of == PRETRAINED:
                others = {name: measure(fewer[name][count]).mean() for name in fewer if name != of}
                control = max(others, key=others.__getitem__)
                gain = over(outcomes, fewer[control][count], len(found))
                rows[-1]["gain"] = gain._asdict() | {"control": control}
    return rows


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
) -> Scored:
    """`scores` of each of a subject's networks; `gain` over the control, in the first of `heads`,
    which sentences call `metric`. A gain in the `curve` counts where all labels bring none."""
    first = next(iter(heads))
    ours, theirs = (
        float(np.mean([found[first] for found in scores[of]])) for of in (PRETRAINED, control)
    )
    beside = f"{metric} {ours:.3f}, beside {theirs:.3f} of {named(control)}"
    sure = [row for row in curve or [] if "gain" in row and row["gain"]["low"] > 0]
    if sure and gain.low <= 0:
        row = max(sure, key=lambda row: row["gain"]["low"])
        few = row["gain"]
        sentence = f"Pretraining helped where labels are few: with those of {row['labels']} "
        sentence += f"samples {metric} {row['value']:.3f}, beside "
        sentence += f"{row['value'] - few['value']:.3f} of {named(few['control'])} "
        sentence += f"(+{few['value']:.3f} ± {(few['high'] - few['low']) / 2:.3f}); "
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
            "notes": notes,
            "data": {"place": place},
            "encoder": encoder.card.to_json(),
            "seconds": round(time.monotonic() - began, 1),
        }
    )
