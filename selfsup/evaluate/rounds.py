"""The result of a published protocol: accuracies of several rounds, of each encoder and control."""

import time
from collections.abc import Callable

import numpy as np

from ..console import columns
from ..load import LoadedEncoder
from .controls import PRETRAINED, behind, named
from .interval import Interval
from .result import Told


class Rounds(Told):
    """Accuracy by round. The verdict is on the gain over the better control."""

    def __str__(self) -> str:
        rows = [("", "accuracy", "±", "deviation of rounds")]
        for row in self._told["scores"]:
            deviation = np.std(row["values"], ddof=1) if len(row["values"]) > 1 else 0.0
            half = (row["high"] - row["low"]) / 2
            rows.append((row["of"], *(f"{100 * x:.1f}" for x in (row["value"], half, deviation))))
        notes = "\n".join(self._told["notes"])
        return f"{self.verdict}\n\n{columns(rows)}\n\n{self._told['statement']}\n{notes}".rstrip()


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
) -> Rounds:
    """`values` are all accuracies of each subject, `shown` the one that is told, with its interval.

    `over` is the gain over a control, on the same rounds or samples.
    """
    control = max((of for of in shown if of != PRETRAINED), key=lambda of: shown[of].value)
    gain = over(control)
    ours, theirs = (100 * shown[of].value for of in (PRETRAINED, control))
    beside = f"{ours:.1f} %, beside {theirs:.1f} % of {named(control)}"
    if gain.low > 0:
        sentence = f"Pretraining helped: {beside} (+{100 * gain.value:.1f} ± {100 * gain.half:.1f})"
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
    return Rounds(
        {
            "task": task,
            "time": time.time(),
            "verdict": {"sentence": sentence, "gain": bool(gain.low > 0), "control": control},
            "scores": scores,
            "gain": gain._asdict(),
            "statement": statement,
            "notes": notes,
            "data": {"place": place},
            "encoder": encoder.card.to_json(),
            "seconds": round(time.monotonic() - began, 2),
        }
    )
