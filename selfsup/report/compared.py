"""The page of a comparison: who is ahead, how they got there, what each number means."""

from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from .. import leaderboard as boards
from ..evaluate.controls import PRETRAINED
from . import plots, write
from .page import document, section, table, tag


def compared(out: Path, told: dict[str, Any]) -> Path:
    """Write OUT/report.html. Raises SelfsupError E701 when it cannot be written."""
    head, *body = boards.rows(told)
    words = 2 if told["by"] == boards.BY_QUALITY else 1
    parts = [
        tag("header", tag("h1", f"selfsup comparison: {out.resolve().name}")),
        tag(
            "main",
            section("verdict", "Which one?", tag("p", boards.sentence(told), class_="lead")),
            section(
                "board",
                "Leaderboard",
                table(
                    head, body, caption="Each at the end of its training", numbers=len(head) - words
                ),
                tag("ul", [tag("li", note) for note in boards.notes(told)]),
            ),
            section("way", "On the way", tag("div", _curves(told), class_="charts")),
            section("runs", "Runs", _runs(out, told)),
        ),
        tag("footer", "One file, no network, no scripts: it can be mailed, archived and printed."),
    ]
    html = document(
        f"selfsup comparison: {out.resolve().name}", parts, generator=f"selfsup {__version__}"
    )
    return write(out / "report.html", html.encode())


def _curves(told: dict[str, Any]) -> list[Any]:
    """Score over the seconds of training, one curve a contender."""
    wanted = [("rank", "Effective rank"), ("stability", "Stability"), ("agreement", "Agreement")]
    figures = []
    if told["by"] == boards.BY_PROBE:
        figures.append(_curve(told, "Linear probe", lambda row: row["probe"][PRETRAINED]["value"]))
    for field, title in wanted:
        figures.append(_curve(told, title, lambda row, field=field: row["quality"][field]))
    return figures


def _curve(told: dict[str, Any], title: str, value: Any) -> Any:
    series = []
    for name in told["contenders"]:
        mine = [row for row in told["scores"] if row["name"] == name and row["seconds"]]
        x = np.array([row["seconds"] for row in mine], float)
        series.append(plots.Series(name, x, np.array([value(row) for row in mine], float)))
    series = [s for s in series if len(s.x)]
    return plots.lines(title, series, x_label="seconds of training", percent=True)


def _runs(out: Path, told: dict[str, Any]) -> Any:
    """What each contender was, and the command that judges it further."""
    rows = [
        [row["name"], row["encoder"], f"{row['step']:,}", f"selfsup report {out / row['name']}"]
        for row in told["leaderboard"]
    ]
    return table(["", "encoder", "steps", "more"], rows, caption="Each is an ordinary run")
