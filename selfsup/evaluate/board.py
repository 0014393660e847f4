"""Scores as they are measured, and what the encoder gains over the better of its controls."""

from typing import Any

import numpy as np

from .controls import BEFORE, PRETRAINED
from .interval import Interval, difference, over_both, over_samples, over_seeds
from .result import score


class Board:
    """`scores`, and a `curve` of those with few labels, are rows as evaluation.json has them.

    `labels` is how many teach, where a score does not say otherwise.
    """

    def __init__(self, labels: int, seed: int):
        self.labels, self.seed = labels, seed
        self.scores: list[dict[str, Any]] = []
        self.curve: list[dict[str, Any]] = []
        self.few_gains: dict[int, tuple[Interval, str]] = {}  # shots -> gain, control
        self._outcomes: dict[tuple[str, str], np.ndarray] = {}
        self._points: dict[tuple[int, str], np.ndarray] = {}

    def add(
        self, protocol: str, of: str, outcomes: np.ndarray, labels: int | None = None, **more: Any
    ) -> None:
        """`outcomes` (networks, test samples): of one network by bootstrap, of several by t."""
        self._outcomes[protocol, of] = outcomes
        values = [float(v) for v in outcomes.mean(1)]
        several = len(values) > 1
        interval = over_seeds(values) if several else over_samples(outcomes[0], self.seed)
        if several:
            more["values"] = values
        labels = self.labels if labels is None else labels
        self.scores.append(score(protocol, of, interval, interval.value, labels, **more))

    def add_values(
        self, protocol: str, of: str, values: list[float], labels: int, **more: Any
    ) -> None:
        """What is no mean over test samples: a value for each network, one has no interval."""
        interval = over_seeds(values) if len(values) > 1 else None
        self.scores.append(score(protocol, of, interval, float(np.mean(values)), labels, **more))

    def stand_in(self, protocol: str, of: str, other: str) -> None:
        """Compare with what the `other` protocol found of this control."""
        self._outcomes[protocol, of] = self._outcomes[other, of]

    def compare(self, protocol: str) -> tuple[Interval, str]:
        """Put the gain over the better control beside the score of the pretrained encoder.

        And the one over the encoder that it started from, where there is one.
        """
        others = {of: o for (p, of), o in self._outcomes.items() if p == protocol}
        ours, before = others.pop(PRETRAINED), others.pop(BEFORE, None)
        control = max(others, key=lambda of: others[of].mean())
        gain = difference(ours[0], others[control], self.seed)
        for row in self.scores:
            if row["protocol"] == protocol and row["of"] == PRETRAINED:
                row["gain"] = _row(gain, control)
                if before is not None:
                    row["since"] = self.since(protocol)
        return gain, control

    def since(self, protocol: str) -> dict[str, Any]:
        """The gain over the encoder that it started from."""
        ours, before = (self._outcomes[protocol, of] for of in (PRETRAINED, BEFORE))
        return _row(difference(ours[0], before, self.seed), BEFORE)

    def add_point(
        self, shots: int, labels: int, of: str, protocol: str, outcomes: np.ndarray, **more: Any
    ) -> None:
        """`outcomes` (draws, test samples), with `shots` labels per class."""
        self._points[shots, of] = outcomes
        interval = over_both(outcomes, self.seed)
        more = {"shots": shots, "values": [float(v) for v in outcomes.mean(1)]} | more
        self.curve.append(score(protocol, of, interval, interval.value, labels, **more))

    def compare_point(self, shots: int) -> None:
        rows = {row["of"]: row for row in self.curve if row["shots"] == shots}
        ours, before = rows.pop(PRETRAINED), rows.pop(BEFORE, None)
        control = max(rows, key=lambda of: rows[of]["value"])
        gain = self._point_gain(shots, control)
        ours["gain"] = _row(gain, control)
        if before is not None:
            ours["since"] = _row(self._point_gain(shots, BEFORE), BEFORE)
        self.few_gains[shots] = gain, control

    def _point_gain(self, shots: int, other: str) -> Interval:
        # the same seeds drew the same labels, so they are compared in pairs
        mine, theirs = self._points[shots, PRETRAINED], self._points[shots, other]
        draws = min(len(mine), len(theirs))
        return over_both(mine[:draws] - theirs[:draws], self.seed, signed=True)


def _row(gain: Interval, control: str) -> dict[str, Any]:
    return {
        "value": gain.value,
        "low": gain.low,
        "high": gain.high,
        "interval": gain.kind,
        "control": control,
    }
