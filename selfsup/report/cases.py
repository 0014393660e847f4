"""Of other tasks: few labels, a forecast beside what came, what was heard beside what was said."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from ..evaluate.result import subjects
from . import plots
from .page import Markup, clean, table, tag
from .plots import Series
from .scores import number, rows

MOST, STEPS = 8, 1000  # cases that are shown, steps of one
POINTS, SUBJECTS = 400, 12  # of a curve, at most


def few_labels(found: dict[str, Any]) -> Markup | None:
    """Scores against the number of labelled samples, where they are told."""
    few, heads = found.get("few"), found.get("heads")  # of a model, of a probe
    points: dict[str, list[tuple[float, ...]]] = {}
    for row in rows(few.get("curve") if isinstance(few, dict) else found.get("curve"))[:POINTS]:
        point = values([row.get(key) for key in ("labels", "value", "low", "high")])
        if point[0] > 0 and np.isfinite(point[1]):
            points.setdefault(clean(row.get("of"), 40), []).append(tuple(point.tolist()))
    names = subjects(points)[:SUBJECTS]
    lines = [Series(of, *np.array(sorted(points[of])).T) for of in names]
    counts = sorted({point[0] for of in names for point in points[of]})
    heads = heads if isinstance(heads, dict) else {}
    metric = found.get("metric") or next(iter(heads), "accuracy")
    shown = plots.lines(
        "Few labels", lines, unit=clean(metric, 40), x_label="labelled samples",
        log_x=len(counts) > 1, x_ticks=[(count, f"{count:,.0f}") for count in counts],
        percent=not heads and found.get("percent", True) is True, width=460, height=280,
        note="Bars are 95 % intervals.",
    )  # fmt: skip
    return shown or None


def forecasts(found: dict[str, Any]) -> Markup | None:
    """What was known, what came, what the encoder foretold, and the last value."""
    figures = []
    for case in rows(found.get("cases"))[:MOST]:
        past, future = (values(case.get(key)) for key in ("past", "future"))
        true = Series(
            "values",
            np.arange(len(past) + len(future)) - len(past) + 1.0,
            np.concatenate([past, future]),
            colour=7,
        )
        guesses = []
        for i, row in enumerate(rows(case.get("guesses"))[:3]):
            y = values(row.get("values"))
            guesses.append(Series(clean(row.get("of"), 40), np.arange(len(y)) + 1.0, y, colour=i))
        title = f"{clean(case.get('channel'), 40)}, after step {clean(case.get('step'), 20)}"
        shown = [s for s in (true, *guesses) if len(s.x)]
        figures.append(
            plots.lines(title, shown, x_label="steps ahead", unit="scaled", stops=(0.5,))
        )
    return tag("div", figures, class_="charts") if figures else None


def transcripts(found: dict[str, Any]) -> Markup | None:
    """What was said and what was heard."""
    heard = found.get("heard")
    heard = heard[:MOST] if isinstance(heard, list) else []
    pairs = [pair for pair in heard if isinstance(pair, list) and len(pair) == 2]
    lines = [[clean(said, 200), clean(guess, 200)] for said, guess in pairs]
    caption = "Recordings that test, after the most transcribed speech"
    return table(["said", "heard"], lines, caption=caption) if lines else None


def values(told: Any) -> Float[np.ndarray, " n"]:
    """The numbers of a list; NaN for what is none."""
    told = told[:STEPS] if isinstance(told, list) else []
    found = [number(value) for value in told]
    return np.array([np.nan if value is None else value for value in found])


CASES: dict[str, Callable[[dict[str, Any]], Markup | None]] = {
    "forecast": forecasts,
    "transcribe": transcripts,
}
