"""The numbers of evaluation.json, as far as they can be read: a page is not lost to one bad row."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ..evaluate import result
from ..evaluate.controls import BEFORE, PRETRAINED, SCRATCH, UNTRAINED
from ..evaluate.result import TITLES
from .page import clean

# Places in the palette. The encoder that is judged is always the first one.
MOST = 400  # rows that are read; an evaluation has about a hundred
COLOURS = {PRETRAINED: 0, UNTRAINED: 1, BEFORE: 3, SCRATCH: 4}  # and 2 for the classical baseline


@dataclass(frozen=True)
class Gain:
    """Over the better control, in the unit of the score."""

    value: float
    low: float
    high: float
    control: str


@dataclass(frozen=True)
class Score:
    """In per cent where `percent`. `labels` is how many taught in all; `shots` how many of each
    class, None off the curve. `low` and `high` are None where there is no interval."""

    protocol: str
    of: str
    labels: int | None
    shots: int | None
    value: float
    low: float | None
    high: float | None
    percent: bool
    gain: Gain | None

    @property
    def title(self) -> str:
        return TITLES[self.protocol][0] if self.protocol in TITLES else self.protocol

    @property
    def colour(self) -> int:
        return COLOURS.get(self.of, 2)


def scores(evaluation: dict[str, Any], which: str = "scores") -> list[Score]:
    """`scores` or `curve`, in the order of the file."""
    found = rows(evaluation.get(which))[:MOST]
    return [score for row in found if (score := _score(row)) is not None]


def rows(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; nothing where there is no list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def subjects(found: Iterable[Score]) -> list[str]:
    """Whose features were measured, the pretrained encoder first."""
    return result.subjects(score.of for score in found)[:12]


def number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)


def signed(value: float) -> str:
    """With its sign, and a minus that is as wide as the plus."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _score(row: dict[str, Any]) -> Score | None:
    value = number(row.get("value"))
    if value is None or not row.get("protocol") or not row.get("of"):
        return None
    protocol = clean(row["protocol"], 60)
    percent = TITLES.get(protocol, ("", False))[1]
    factor = 100.0 if percent else 1.0

    def scaled(value: Any) -> float | None:
        found = number(value)
        return None if found is None else found * factor

    labels, shots = number(row.get("labels")), number(row.get("shots"))
    return Score(
        protocol=protocol,
        of=clean(row["of"], 60),
        labels=None if labels is None else int(labels),
        shots=None if shots is None else int(shots),
        value=value * factor,
        low=scaled(row.get("low")),
        high=scaled(row.get("high")),
        percent=percent,
        gain=_gain(row.get("gain"), factor),
    )


def _gain(row: Any, factor: float) -> Gain | None:
    if not isinstance(row, dict):
        return None
    value, low, high = (number(row.get(name)) for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return None
    return Gain(value * factor, low * factor, high * factor, clean(row.get("control", ""), 60))
