"""Did pretraining help? One sentence, from numbers that have an interval and a control."""

from dataclasses import asdict, dataclass, field
from math import exp, log
from typing import Any

import numpy as np

from .controls import behind
from .interval import Interval

Curve = dict[int, float]  # labels in all -> accuracy
NOTABLE = 1.15  # times the labels, from which on a sentence speaks of it


@dataclass(frozen=True)
class Verdict:
    """`gain` is true only when the interval of `points` lies above zero.

    points, low, high: percentage points over the better control; `labels_worth`: how many times
    the labels the best control needs for the same accuracy, `at_least` when its curve ends first.
    """

    gain: bool
    sentence: str
    points: float
    low: float
    high: float
    control: str
    labels_worth: float | None = None
    at_least: bool = False
    cause: str = ""
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Worth:
    """How much `labels` labels are worth with the encoder, in labels without it."""

    labels: int
    factor: float
    at_least: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def labels_needed(curve: Curve, accuracy: float) -> tuple[float, bool]:
    """Labels at which a curve reaches an accuracy, interpolated over the logarithm of the labels.

    The second is true when the curve ends below it, so that the last count is a lower bound; below
    the curve's first point the first count is returned, an upper bound.
    The curve is taken as its running maximum: more labels are never worth less.
    """
    counts = sorted(curve)
    heights = np.maximum.accumulate([curve[n] for n in counts])
    if accuracy <= heights[0]:
        return float(counts[0]), False
    for (n1, a1), (n2, a2) in zip(
        zip(counts, heights, strict=True), zip(counts[1:], heights[1:], strict=True), strict=False
    ):
        if accuracy <= a2:
            share = (accuracy - a1) / (a2 - a1)
            return exp(log(n1) + share * (log(n2) - log(n1))), False
    return float(counts[-1]), True


def worth(ours: Curve, controls: list[Curve]) -> list[Worth]:
    """At each of our label counts, against the best that any control does with as many labels."""
    counts = sorted({n for curve in controls for n in curve})
    if not counts:
        return []
    best = {n: max(curve[n] for curve in controls if n in curve) for n in counts}
    found = []
    for labels, accuracy in sorted(ours.items()):
        if labels not in best or labels == counts[-1]:
            continue  # nothing lies beyond it to compare with
        needed, at_least = labels_needed(best, accuracy)
        found.append(Worth(labels, needed / labels, at_least))
    return found


@dataclass(frozen=True)
class Facts:
    """What a cause of no gain is sought in. Scores and shares in [0, 1]."""

    ours: float
    rank: float
    untrained_rank: float
    dim: int
    steps: int | None = None
    epochs: float | None = None
    samples: int = 0
    size: int = 0
    score: str = "linear probe"  # what `ours` is
    common: float = 0.0  # what always naming the commonest class has
    notes: list[str] = field(default_factory=list)


def judge(
    gain: Interval,
    control: str,
    controls: dict[str, float],
    worths: list[Worth],
    facts: Facts,
    few: list[tuple[int, Interval, str]] | None = None,
    finetuned: tuple[Interval, str, int] | None = None,
) -> Verdict:
    """The sentence. `gain` is ours minus the better control, in shares of the test samples.

    `few` are the gains at each count of labels per class, and over which control; `finetuned` is
    the gain of fine-tuning, over which control, and on how many labels.
    """
    points, low, high = (100 * v for v in (gain.value, gain.low, gain.high))
    middle = sorted(worths, key=lambda w: w.factor)[(len(worths) - 1) // 2] if worths else None
    factor = middle.factor if middle and middle.factor > NOTABLE else None
    bounded = bool(factor and middle and middle.at_least)
    many = times(factor, bounded) if factor else ""
    others = ", ".join(f"{100 * v:.1f} {k}" for k, v in controls.items())
    scores = f"{facts.score} {100 * facts.ours:.1f} %; {others}"
    if low > 0:
        sentence = (
            f"Pretraining helps: {points:+.1f} points over {_article(control)} "
            f"(95 % interval {low:+.1f} to {high:+.1f}"
        )
        if factor:
            sentence += f"), worth {many} the labels ({scores})."
        else:
            sentence += f"; {scores})."
        return Verdict(True, sentence, points, low, high, control, factor, bounded)
    cause, advice = likely_cause(gain, control, facts)
    sure = [(found, shots, other) for shots, found, other in few or [] if found.low > 0]
    if sure:
        found, shots, other = max(sure, key=lambda point: point[0].low)
        plural = "label" if shots == 1 else "labels"
        sentence = (
            f"Pretraining helps where labels are few: {100 * found.value:+.1f} points over "
            f"{_article(other)} with {shots} {plural} per class "
            f"({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        )
        if factor:
            sentence += f", worth {many} the labels"
        sentence += (
            f"; with all labels {points:+.1f} against {_article(control)} ({low:+.1f} to "
            f"{high:+.1f}; {scores})."
        )
        return Verdict(True, sentence, points, low, high, control, factor, bounded, cause, advice)
    if finetuned is not None and finetuned[0].low > 0:
        found, other, labels = finetuned
        plain = "are worse than" if high < 0 else "give no clear gain over"
        sentence = (
            f"Frozen features {plain} {_article(control)} ({points:+.1f} points, "
            f"{low:+.1f} to {high:+.1f}; {scores}), but fine-tuning does: "
            f"{100 * found.value:+.1f} points over {_article(other)} with {labels} labels "
            f"({100 * found.low:+.1f} to {100 * found.high:+.1f})."
        )
        return Verdict(
            True, sentence, points, low, high, control, None, False, cause, "fine-tune it"
        )
    head = behind(control) if high < 0 else "No clear gain"
    sentence = (
        f"{head}: {points:+.1f} points against {_article(control)} (95 % interval {low:+.1f} to "
        f"{high:+.1f}; {scores}). Likely cause: {cause}. Try: {advice}."
    )
    return Verdict(False, sentence, points, low, high, control, None, False, cause, advice)


def likely_cause(gain: Interval, control: str, facts: Facts) -> tuple[str, str]:
    """Why there is no gain and what to do about it, the surest sign first."""
    # few directions are no collapse where the network had no more of them before training
    if facts.rank < min(max(2.0, 0.02 * facts.dim), facts.untrained_rank):
        return (
            f"the embedding has collapsed: it uses {facts.rank:.1f} of {facts.dim} directions",
            "another method or a lower learning rate; events.jsonl of the run says when it began",
        )
    # where one class is nearly all there is, who always names it has as much
    if facts.ours > 0.98 and facts.common < 0.9:
        return (
            "the task is solved without pretraining, nothing is left to gain",
            "fewer labels: the few-label curve shows where pretraining would matter",
        )
    if facts.epochs is not None and facts.epochs < 20:
        return (
            f"too short a training: every sample was seen {facts.epochs:.1f} times",
            "a longer run (--minutes), or a smaller encoder or resolution that sees more",
        )
    if gain.high > 0 and gain.half > 0.02:
        return (
            f"too few test samples to tell: the interval is {100 * gain.half:.1f} points "
            "to either side",
            "more labelled test samples",
        )
    if 0 < facts.samples < 1000:
        return (
            f"only {facts.samples} samples to learn from",
            "more unlabelled data, also from nearby sources",
        )
    if control.startswith("pixels"):
        return (
            "the classes differ in plain colour and layout, which views throw away",
            "method mae, or weaker views",
        )
    if facts.rank < 0.5 * facts.untrained_rank:
        return (
            f"the embedding uses few directions ({facts.rank:.0f} of {facts.dim})",
            "a larger batch or another method",
        )
    return (
        "the method's views do not match what the labels depend on",
        "another method (selfsup list methods) or a longer run",
    )


def _article(control: str) -> str:
    return {"untrained": "the same network untrained", "from scratch": "training from scratch"}.get(
        control, control
    )


def times(factor: float, at_least: bool) -> str:
    """About 4 times."""
    number = f"{factor:.0f}" if factor >= 3 else f"{factor:.1f}"
    return f"{'at least' if at_least else 'about'} {number} times"
