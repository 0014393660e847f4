"""`python -m recipes` writes docs/methods.md from the records in results.json, and from those of
`python -m benchmarks.methods`, whose way over time it draws in docs/methods.html."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import methods as budgets
from selfsup import __version__, listing
from selfsup.report import plots
from selfsup.report.page import document, section, tag

from . import JUDGING, RESULTS

PLOTS = Path(__file__).parent.parent / "docs" / "methods.html"
PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
HEAD = """# Methods, and on which data they were shown to learn

Written by `python -m recipes` from `recipes/results.json`, where each recipe puts what it
measured. All figures are of the final step, in percent, with half the width of a 95 % interval; the
controls are the same encoder untrained (several initialisations) and the classical features of the
kind of data, judged by the same probe on the same split. In the table stand recipes and, as "DATA
in BUDGET", runs of all methods under one budget (below; an encoder is named where it was asked
for), bold where the linear probe is ahead of each control by more than both half widths together
(in quadrature), with every seed. "runs" says that the contract test trains the method on such data,
and that no record is there yet; "has no ..." is what the method itself says of encoders of such
data that it refuses.

"""
STARRED = (
    "Verdicts, word for word. With a star: taken when intervals of few labels, nodes, pairs and "
    "folds did not cover all chances yet, and were too narrow."
)
LEAD = (
    "Each of at most 2,000 labelled samples by its neighbours among the others, while training "
    "goes on: not the published parts that the final figures of methods.md are of."
)
SEARCHED = (
    "`--try` of `python -m benchmarks.methods`: judged by a part of the training labels that the "
    "tables above are not of. What won is what the plan chooses on processors (selfsup/suited.py)."
)
TOLD_APART = 8  # curves in a figure
OWN = ("pretrained", "untrained")  # what every record has; the third is the modality's baseline


def page() -> str:
    """The whole page, as Markdown. What runs where is told by the contract."""
    from test_contract import lack

    rows = json.loads(RESULTS.read_text())
    kinds = list(listing.modalities())
    lines = ["| method | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for name, method in listing.methods().items():
        cells = []
        for kind in kinds:
            found = {r["recipe"] for r in rows if (r["method"], r["modality"]) == (name, kind)}
            found |= beside(name, kind)
            cells.append(", ".join(sorted(found)) or lack(name, kind) or "runs")
        lines.append(f"| [{method.title.rstrip('.')}]({method.link}) | {' | '.join(cells)} |")
    lines += ["", "## Records", ""]
    head = ["recipe", "seed", "encoder", "samples seen", "minutes", "linear probe", "untrained",
            "classical", "kNN", "untrained", "classical"]  # fmt: skip
    lines += ["| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * (len(head) - 3)]
    for row in rows:
        if "linear" not in row:
            continue
        cells = _head(row)
        for protocol in ("linear", "knn"):
            for of in sorted(row[protocol], key=_place):
                value, low, high = row[protocol][of]
                name = "" if of in OWN else f" ({of})"
                cells.append(f"{value} ± {(high - low) / 2:.1f}{name}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += other_tasks([row for row in rows if "scores" in row])
    lines += ["", STARRED, "", *verdicts(rows)]
    return HEAD + "\n".join(lines + side_by_side() + searched()) + "\n"


def verdicts(rows: list[dict]) -> list[str]:
    """Of evaluations, and of the health of training where a record has it."""
    lines = []
    for row in rows:
        star = "" if row.get("judging") == JUDGING else "*"
        health = f" Training: {row['health']}." if "health" in row else ""
        lines.append(f"- {row['recipe']}, seed {row['seed']}{star}: {row['verdict']}{health}")
    return lines


def beside(method: str, modality: str) -> set[str]:
    """Data on which the method ran under the same budget as others; bold where it was ahead of both
    controls with every seed."""
    seeds: dict[str, list[bool]] = {}
    for row in budgets.rows():
        if (row["method"], budgets.SETS[row["set"]].modality) == (method, modality):
            told = f"{row['set']} in {row['budget']}"
            told += f" with {_encoder_name(row)}" if "asked" in row else ""
            seeds.setdefault(told, []).append(ahead(row["linear"]))
    return {f"**{told}**" if all(found) else told for told, found in seeds.items()}


def ahead(linear: dict[str, list[float]]) -> bool:
    """Of each control by more than both half widths in quadrature."""
    value, low, high = linear["pretrained"]
    return all(
        value - other > np.hypot(high - low, most - least) / 2
        for of, (other, least, most) in linear.items()
        if of != "pretrained"
    )


def _head(row: dict) -> list[Any]:
    return [row["recipe"], row["seed"], _encoder(row), f"{row['samples']:,}", row["minutes"]]


def other_tasks(rows: list[dict]) -> list[str]:
    """Records of other tasks than classification: a line for each measure, as evaluation has it."""
    head = ["recipe", "seed", "encoder", "samples seen", "minutes", "measure", "pretrained",
            "controls"]  # fmt: skip
    lines = ["", "## Records of other tasks", "", "| " + " | ".join(head) + " |"]
    lines.append("|---|---|---|---:|---:|---|---:|---|")
    for row in rows:
        for measure, found in row["scores"].items():
            shown = {of: _interval(*numbers) for of, numbers in found.items()}
            ours = shown.pop(OWN[0], "-")
            controls = ", ".join(f"{of} {number}" for of, number in shown.items())
            lines.append("| " + " | ".join(map(str, [*_head(row), measure, ours, controls])) + " |")
    return lines


def _interval(value: float, low: float | None = None, high: float | None = None) -> str:
    return (
        f"{value:.3g}" if low is None or high is None else f"{value:.3g} ({low:.3g} to {high:.3g})"
    )


def side_by_side() -> list[str]:
    """All methods under one budget: a table for each data set and budget, best first."""
    lines: list[str] = []
    for name, budget in sorted({(r["set"], r["budget"]) for r in budgets.rows()}):
        rows = [r for r in budgets.rows() if (r["set"], r["budget"]) == (name, budget)]
        rows.sort(key=lambda r: -r["linear"]["pretrained"][0])
        lines += ["", f"## {name}, {budget} of training each", ""]
        common = ", ".join(f"{k} {v}" for k, v in budgets.SETS[name].settings.items())
        lines += [
            "`python -m benchmarks.methods`; drawn over time in [methods.html](methods.html). "
            + (f"Set for all: {common}. " if common else "")
            + "Programs of low priority ran beside some runs: compare passes before accuracies.",
            "",
        ]
        head = ["method", "seed", "encoder", "linear probe", "untrained", "classical", "kNN",
                "untrained", "classical", "rank", "samples/s", "passes", "memory",
                "health, alarms on the way"]  # fmt: skip
        lines += ["| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * 10 + "---|"]
        for row in rows:
            name = row["method"] + (f" of {row['teacher']}" if "teacher" in row else "")
            cells = [name, row["seed"], _encoder(row)]
            linear, knn = row["linear"], row["knn"]
            cells += [
                f"{value} ± {(high - low) / 2:.1f}"
                for value, low, high in (linear[of] for of in sorted(linear, key=_place))
            ]
            cells += [f"{knn[of][0]}" for of in sorted(knn, key=_place)]
            cells += [row["effective_rank"], row["samples_per_second"], row["epochs"]]
            rang = [f"{kind} at {step}" for step, kind, _ in row.get("verdicts", ())]
            cells += [f"{row['memory_gib']} GiB", ", ".join([row["health"], *rang])]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def searched() -> list[str]:
    """What settings were chosen by, most accurate first for each method."""
    lines: list[str] = []
    rows = budgets.rows(budgets.SEARCH)
    for name, budget in sorted({(r["set"], r["budget"]) for r in rows}):
        some = [r for r in rows if (r["set"], r["budget"]) == (name, budget)]
        some.sort(key=lambda r: (r["method"], -r["linear"]["pretrained"][0]))
        lines += ["", f"## Settings tried on {name}, {budget} of training each", "", SEARCHED, ""]
        head = ["method", "encoder", "set beside the plan's choice", "seed", "linear probe",
                "untrained", "classical", "kNN", "rank", "passes"]  # fmt: skip
        lines += ["| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * (len(head) - 3)]
        for row in some:
            linear = row["linear"]
            cells = [row["method"], _encoder(row), row["tried"] or "nothing", row["seed"]]
            cells += [f"{linear[of][0]}" for of in sorted(linear, key=_place)]
            cells += [row["knn"]["pretrained"][0], row["effective_rank"], row["epochs"]]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _encoder(row: dict) -> str:
    own = ", ".join(f"{k} {v}" for k, v in row["encoder"].items() if k != "name")
    return row["encoder"]["name"] + (f" ({own})" if own else "")


def _curve_name(row: dict) -> str:
    return row["method"] + (f" ({_encoder_name(row)})" if "asked" in row else "")


def _encoder_name(row: dict) -> str:
    """With what tells it from encoders of the same name in this set of data."""
    own = row["encoder"]
    alike = [e for e in budgets.SETS[row["set"]].encoders if e["name"] == own["name"]]
    apart = {k: v for k, v in own.items() if v and any(e.get(k) != v for e in alike)}
    return ", ".join([own["name"], *(k if v is True else f"{k} {v}" for k, v in apart.items())])


def _place(of: str) -> int:
    return (*OWN, of).index(of)


def drawing() -> str:
    """Online kNN over seconds of training, seed 0; best first, as many curves as can be told apart
    in a figure."""
    figures = []
    for name, budget in sorted({(r["set"], r["budget"]) for r in budgets.rows()}):
        rows = [
            r
            for r in budgets.rows()
            if (r["set"], r["budget"], r["seed"]) == (name, budget, 0) and r["knn_over_seconds"]
        ]
        rows.sort(key=lambda r: -r["knn_over_seconds"][-1][1])
        for first in range(0, len(rows), TOLD_APART):
            some = rows[first : first + TOLD_APART]
            series = [
                plots.Series(_curve_name(r), *np.array(r["knn_over_seconds"]).T / [[1], [100]])
                for r in some
            ]
            places = f"places {first + 1} to {first + len(some)} of {len(rows)}"
            figures.append(
                plots.lines(
                    f"{name}, {budget}: kNN accuracy, {places}",
                    series,
                    x_label="seconds",
                    percent=True,
                    width=900,
                    height=360,
                )
            )
    body = tag("main", section("time", "Accuracy over time", figures, lead=LEAD))
    return document("selfsup methods", body, generator=f"selfsup {__version__}")


if __name__ == "__main__":
    sys.path.append(str(PAGE.parent.parent / "tests"))
    PAGE.write_text(page())
    if budgets.rows():
        PLOTS.write_text(drawing())
    print(PAGE)
