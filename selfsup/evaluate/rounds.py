"""The result of a published protocol: accuracies of several rounds, of each encoder and control."""

import time

import numpy as np

from ..console import columns
from ..load import LoadedEncoder
from .controls import PRETRAINED, behind, named
from .interval import over_seeds
from .result import Told


class Rounds(Told):
    """Accuracy by round. The verdict is on the mean difference to the better control."""

    def __str__(self) -> str:
        rows = [("", "accuracy", "deviation")]
        for row in self._told["scores"]:
            deviation = np.std(row["values"], ddof=1) if len(row["values"]) > 1 else 0.0
            rows.append((row["of"], f"{100 * row['value']:.1f}", f"{100 * deviation:.1f}"))
        notes = "\n".join(self._told["notes"])
        return f"{self.verdict}\n\n{columns(rows)}\n\n{self._told['statement']}\n{notes}".rstrip()


def conclude(
    task: str,
    found: dict[str, list[float]],
    paired: dict[str, list[float]],
    statement: str,
    notes: list[str],
    encoder: LoadedEncoder,
    place: str,
    began: float,
) -> Rounds:
    """`found` are all accuracies of each subject, `paired` one a round, to be compared in pairs."""
    controls = [of for of in paired if of != PRETRAINED]
    control = max(controls, key=lambda of: np.mean(found[of]))
    gain = over_seeds(
        [a - b for a, b in zip(paired[PRETRAINED], paired[control], strict=True)]
    )  # fmt: skip
    ours = 100 * float(np.mean(found[PRETRAINED]))
    theirs = 100 * float(np.mean(found[control]))
    beside = f"{ours:.1f} %, beside {theirs:.1f} % of {named(control)}"
    if gain.low > 0:
        sentence = f"Pretraining helped: {beside} (+{100 * gain.value:.1f} ± {100 * gain.half:.1f})"
    elif gain.high < 0:
        sentence = f"{behind(control)}: {beside}"
    else:
        sentence = f"No gain that is certain: {beside} (± {100 * gain.half:.1f})"
    scores = [
        {"protocol": task, "of": of, "value": float(np.mean(values)), "values": values}
        for of, values in found.items()
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
