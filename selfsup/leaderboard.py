"""What a comparison found: who is ahead, by what, and how far labels and label-free numbers agree.

compare.json holds the settings of each contender, the budget, and a score for each time that one
was judged.
"""

import math
from typing import Any

import numpy as np

from .console import columns, duration
from .evaluate import controls
from .evaluate.quality import Quality

BY_PROBE, BY_QUALITY = "linear probe", "label-free quality"
GONE = ("collapsed", "diverged")
WITHOUT = "without-"  # an operation of the views


class Comparison:
    """What was found. `best` is the name of the winner, `to_json()` everything; printing it gives
    the leaderboard."""

    def __init__(self, told: dict[str, Any]):
        self._told = told

    @property
    def best(self) -> str:
        return leaderboard(self._told)[0]["name"]

    def to_json(self) -> dict[str, Any]:
        board = leaderboard(self._told)
        return self._told | {
            "best": board[0]["name"],
            "leaderboard": board,
            **agreement(self._told),
        }

    def __str__(self) -> str:
        return "\n".join(
            [sentence(self._told), "", columns(rows(self._told)), "", *notes(self._told)]
        )


# ---- how long -----------------------------------------------------------------------------------


def full_minutes(told: dict[str, Any]) -> float:
    """Minutes of a run that reaches the end, so that all training fits the budget."""
    count, before, total = len(told["contenders"]), 0.0, 0.0
    for rung in told["rungs"]:
        total += count * (rung - before)
        count, before = kept(count), rung
    return told["budget"]["minutes"] / total


def length(told: dict[str, Any]) -> str:
    steps = told["budget"].get("steps")
    return f"{steps} steps" if steps else duration(60 * full_minutes(told))


def kept(count: int) -> int:
    return math.ceil(count / 2)


# ---- who is ahead ----------------------------------------------------------------------------


def leaderboard(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The last score of each contender: those that came furthest first, among them the best."""
    last = {row["name"]: row for row in told["scores"]}  # later rungs come later
    found = []
    for rung in sorted({row["rung"] for row in last.values()}, reverse=True):
        found += ranked(told, [row for row in last.values() if row["rung"] == rung])
    return found


def ranked(told: dict[str, Any], scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores of one rung, best first. A collapsed run is behind all others."""
    if told["by"] == BY_PROBE:
        value = {id(row): row["probe"][controls.PRETRAINED]["value"] for row in scores}
    else:
        value = dict(zip(map(id, scores), _mean_places(scores), strict=True))
    return sorted(scores, key=lambda row: (row["health"] in GONE, -value[id(row)]))


def _mean_places(scores: list[dict[str, Any]]) -> list[float]:
    """The mean, over the label-free numbers, of a score's place among all: from 0 to 1."""
    table = np.array([[row["quality"][field] for field in Quality._fields] for row in scores])
    below = (table[:, None] > table[None]).sum(1) + (table[:, None] == table[None]).sum(1) / 2
    return (below / len(scores)).mean(1).tolist()


def agreement(told: dict[str, Any]) -> dict[str, Any]:
    """Spearman's correlation of the label-free numbers with the probe, over all scores."""
    scores = [row for row in told["scores"] if "probe" in row]
    if len(scores) < 3:
        return {}
    from scipy.stats import spearmanr  # scikit-learn brings scipy

    probe = [row["probe"][controls.PRETRAINED]["value"] for row in scores]
    columns = {f: [row["quality"][f] for row in scores] for f in Quality._fields}
    columns["together"] = _mean_places(scores)
    found = {
        name: float(spearmanr(values, probe).statistic)
        for name, values in columns.items()
        if len(set(values)) > 1 and len(set(probe)) > 1
    }
    return {"correlation": found, "correlation_over": len(scores)}


# ---- for people ------------------------------------------------------------------------------


def sentence(told: dict[str, Any]) -> str:
    board = leaderboard(told)
    first = board[0]
    if told["by"] == BY_QUALITY:
        return (
            f"{first['name']} is ahead by what can be said without labels; give --labels to know "
            "more."
        )
    scores = {k: v for k, v in first["probe"].items() if isinstance(v, dict)}
    best = scores.pop(controls.PRETRAINED)
    over = ", ".join(f"{of} {100 * found['value']:.1f}" for of, found in scores.items())
    text = f"{first['name']} is ahead: {_measure(first)} {_percent(best)} ({over})"
    rivals = [row for row in board[1:] if row["rung"] == first["rung"]]
    if rivals and rivals[0]["probe"][controls.PRETRAINED]["high"] >= best["low"]:
        text += f"; {rivals[0]['name']} is within the interval"
    if max(found["high"] for found in scores.values()) >= best["low"]:
        text += "; it does not clearly beat its controls"
    if parts := {r["name"].removeprefix(WITHOUT): r for r in board if "contribution" in r}:
        clear = [name for name, row in parts.items() if row["contribution"]["low"] > 0]
        text += f"; views clearly gain from {', '.join(clear) or 'no operation alone'}"
    return text + "."


def rows(told: dict[str, Any]) -> list[list[str]]:
    """The leaderboard with its head, cell by cell."""
    board = leaderboard(told)
    others = [k for k in board[0].get("probe", {}) if k not in ("train", "test", "measure")]
    head = ["", "reached", *(_measure(board[0]) if o == controls.PRETRAINED else o for o in others)]
    apart = any("contribution" in row for row in board)
    head += ["contribution"] * apart
    found = [[*head, *Quality._fields, "samples/s", "health"]]
    for row in board:
        scores = [_percent(row["probe"][of]) for of in others]
        scores += [_percent(row["contribution"], "+") if "contribution" in row else ""] * apart
        numbers = [f"{row['quality'][field]:.2f}" for field in Quality._fields]
        speed = row["samples_per_second"]
        found.append(
            [
                row["name"],
                f"{row['rung']:.0%}",
                *scores,
                *numbers,
                f"{speed:.0f}" if speed else "-",
                row["health"],
            ]
        )
    return found


def notes(told: dict[str, Any]) -> list[str]:
    """What to know about the numbers, in sentences."""
    count, last = len(told["contenders"]), leaderboard(told)[0]
    lines = [f"{count} contenders, {length(told)} each to the end; ± is half of a 95 % interval."]
    if len(told["rungs"]) > 1:
        lines[0] += " The worse half stops at 25 %, and of the others at 50 %."
    if "probe" in last:
        probe = last["probe"]
        lines.append(
            f"{probe['train']} labels teach the probe and {probe['test']} judge it, all from the "
            "training part; the test part is untouched: selfsup evaluate."
        )
    if any("contribution" in row for row in told["scores"]):
        lines.append(
            "contribution: all views minus the views without that operation, on the same test "
            "samples. Its interval is of these samples: another seed may differ by more."
        )
    lines.append(
        "rank: effective rank over its limit; stability: own second view nearest; agreement: "
        "neighbours kept by another view."
    )
    found = agreement(told)
    if found.get("correlation"):
        listed = ", ".join(f"{name} {value:+.2f}" for name, value in found["correlation"].items())
        lines.append(
            f"Spearman with the probe over {found['correlation_over']} scores: {listed}. "
            "Near 0 or below, such numbers say nothing here."
        )
    return lines


def _measure(row: dict[str, Any]) -> str:
    return row.get("probe", {}).get("measure", "linear probe")


def _percent(found: dict[str, Any], sign: str = "") -> str:
    return f"{100 * found['value']:{sign}.1f} ± {50 * (found['high'] - found['low']):.1f}"
