"""The result of a published protocol: accuracies of several rounds, of each encoder and control."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from ..console import columns
from ..load import LoadedEncoder
from .controls import BEFORE, PRETRAINED, behind, named
from .interval import Interval
from .result import Told, few_rows, gain_head, score, subjects


class Rounds(Told):
    """Accuracy by round. The verdict is on the gain over the better control.

    Where there are points with few labels, they are a second table.
    """

    def __str__(self) -> str:
        rows = [("", "accuracy", "±", "deviation of rounds")]
        for row in self._told["scores"]:
            deviation = np.std(row["values"], ddof=1) if len(row["values"]) > 1 else 0.0
            half = (row["high"] - row["low"]) / 2
            rows.append((row["of"], *(f"{100 * x:.1f}" for x in (row["value"], half, deviation))))
        tables = [columns(rows)]
        if curve := self._told["curve"]:
            of = subjects(row["of"] for row in curve)
            head = ["", *of, gain_head(curve)]
            tables.append(columns([head, *few_rows(curve, of)]))
        notes = "\n".join(self._told["notes"])
        told = [self.verdict, *tables, f"{self._told['statement']}\n{notes}"]
        return "\n\n".join(told).rstrip()


def point(
    shots: int,
    labels: int,
    values: dict[str, Float[np.ndarray, "networks rounds"]],
    over: Callable[[Float[np.ndarray, "networks rounds"]], Interval],
) -> list[dict[str, Any]]:
    """Accuracies with `shots` labels per class, beside the better control.

    Of the same rounds, so that the gain is one of pairs; `over` gives a mean its interval.
    """
    rows = []
    for of, one in values.items():
        found, more = over(one), {"shots": shots, "values": one.ravel().tolist()}
        rows.append(score("few", of, found, found.value, labels, **more))
    others = (of for of in values if of not in (PRETRAINED, BEFORE))
    control = max(others, key=lambda of: values[of].mean())
    gain = over(values[PRETRAINED] - values[control])
    rows[0]["gain"] = gain._asdict() | {"control": control}
    if BEFORE in values:
        rows[0]["since"] = since(over(values[PRETRAINED] - values[BEFORE]))
    return rows


def since(gain: Interval) -> dict[str, Any]:
    """The gain over the encoder that it started from, as evaluation-TASK.json has it."""
    return gain._asdict() | {"control": BEFORE}


def conclude(
    task: str,
    values: dict[str, list[float]],
    shown: dict[str, Interval],
    over: Callable[[str], Interval],
    statement: str,
    notes: list[str],
    encoder: LoadedEncoder,
    place: str,
    began: float,
    curve: list[dict[str, Any]] | None = None,
    forgot: dict[str, Any] | None = None,
) -> Rounds:
    """`values` are all accuracies of each subject, `shown` the one that is told, with its interval.

    `over` is the gain over a control, on the same rounds or samples; `curve` are points with few
    labels, of which the surest speaks where the gain with all of them is not certain. `forgot` is
    the gain over the encoder that it started from, on data of before.
    """
    others = (of for of in shown if of not in (PRETRAINED, BEFORE))
    control = max(others, key=lambda of: shown[of].value)
    gain = over(control)
    ours, theirs = (100 * shown[of].value for of in (PRETRAINED, control))
    beside = f"{ours:.1f} %, beside {theirs:.1f} % of {named(control)}"
    sure = [row for row in curve or [] if "gain" in row and row["gain"]["low"] > 0]
    if gain.low > 0:
        sentence = f"Pretraining helped: {beside} (+{100 * gain.value:.1f} ± {100 * gain.half:.1f})"
    elif sure:
        row = max(sure, key=lambda row: row["gain"]["low"])
        best, count = row["gain"], row["shots"]
        sentence = (
            f"Pretraining helps where labels are few: {100 * best['value']:+.1f} points over "
            f"{named(best['control'])} with {count} label{'s' * (count > 1)} per class "
            f"({100 * best['low']:+.1f} to {100 * best['high']:+.1f}); with all labels {beside} "
            f"({100 * gain.value:+.1f} ± {100 * gain.half:.1f})"
        )
    elif gain.high < 0:
        sentence = f"{behind(control)}: {beside}"
    else:
        sentence = f"No gain that is certain: {beside} (± {100 * gain.half:.1f})"
    scores = [
        {
            "protocol": task,
            "of": of,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "interval": one.kind,
            "values": values[of],
        }
        for of, one in shown.items()
    ]
    if BEFORE in shown:
        scores[0]["since"] = since(over(BEFORE))
    return Rounds(
        {
            "task": task,
            "time": time.time(),
            "verdict": {
                "sentence": sentence,
                "gain": bool(gain.low > 0 or sure),
                "control": control,
            },
            "scores": scores,
            "curve": curve or [],
            "gain": gain._asdict(),
            "forgot": forgot,
            "statement": statement,
            "notes": notes,
            "data": {"place": place},
            "encoder": encoder.card.to_json(),
            "seconds": round(time.monotonic() - began, 2),
        }
    )
