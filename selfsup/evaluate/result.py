"""What an evaluation found: numbers, each beside its controls, as JSON, as a table, as a sentence.

evaluation.json is described in docs/evaluation.md; `format` grows when a reader would break.
"""

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import console
from .controls import BEFORE, PRETRAINED, SCRATCH, UNTRAINED
from .interval import Interval

FORMAT = 1
# Protocol -> how it is called for people, and whether it is a share, shown in percent
TITLES = {
    "knn": ("kNN accuracy", True),
    "linear": ("linear probe accuracy", True),
    "linear_balanced": ("linear probe, classes equal", True),
    "linear_auroc": ("linear probe, area under the ROC curve", True),
    "attentive": ("attentive probe accuracy", True),
    "finetune": ("fine-tuned accuracy", True),
    "finetune_auroc": ("fine-tuned, area under the ROC curve", True),
    "retrieval_recall_1": ("retrieval recall@1", True),
    "retrieval_recall_5": ("retrieval recall@5", True),
    "retrieval_recall_10": ("retrieval recall@10", True),
    "retrieval_map": ("retrieval mean average precision", True),
    "clustering_nmi": ("clusters and classes, NMI", False),
    "clustering_ari": ("clusters and classes, ARI", False),
    "effective_rank": ("effective rank", False),
}


def subjects(found: Iterable[str]) -> list[str]:
    """Whose scores there are, in the order of tables: the classical baseline comes third."""
    place = {PRETRAINED: 0, UNTRAINED: 1, SCRATCH: 3, BEFORE: 4}
    return sorted(set(found), key=lambda of: (place.get(of, 2), of))


def score(
    protocol: str, of: str, interval: Interval | None, value: float, labels: int, **more: Any
) -> dict[str, Any]:
    """One number as evaluation.json has it."""
    row: dict[str, Any] = {"protocol": protocol, "of": of, "labels": labels, "value": value}
    if interval is not None:
        row |= {"low": interval.low, "high": interval.high, "interval": interval.kind}
    return row | more


class Told(ABC):
    """What was found, beside its controls, and the verdict.

    `verdict` is the sentence, `gain` whether pretraining helped, `to_json()` everything; printing
    it gives the table.
    """

    def __init__(self, told: dict[str, Any]):
        self._told = told

    @property
    def verdict(self) -> str:
        return self._told["verdict"]["sentence"]

    @property
    def gain(self) -> bool:
        return self._told["verdict"]["gain"]

    def to_json(self) -> dict[str, Any]:
        return self._told

    @abstractmethod
    def __str__(self) -> str: ...

    def __repr__(self) -> str:
        return str(self)


class Evaluation(Told):
    """Scores of every protocol."""

    def score(
        self, protocol: str, of: str = PRETRAINED, shots: int | None = None
    ) -> dict[str, Any]:
        """One score; `shots` picks a point of the few-label curve. KeyError where there is none."""
        rows = self._told["scores"] if shots is None else self._told["curve"]
        for row in rows:
            if row["protocol"] == protocol and row["of"] == of and row.get("shots") == shots:
                return row
        raise KeyError(f"no score {protocol!r} of {of!r}" + (f", {shots} shots" if shots else ""))

    def rows(self) -> list[list[str]]:
        """The table with its head, cell by cell."""
        columns = subjects(r["of"] for r in self._all())
        rows = [["", *columns, gain_head(self._all())]]
        for protocol, (title, percent) in TITLES.items():
            found = {r["of"]: r for r in self._told["scores"] if r["protocol"] == protocol}
            if protocol.startswith("finetune") and found:
                # the frozen controls with the same labels stand in the same row
                for row in self._told["scores"]:
                    if row["protocol"] == protocol.replace("finetune", "finetune_frozen"):
                        found[row["of"]] = row
                if found[PRETRAINED]["labels"] < self._told["split"]["train"]:
                    title += f", {found[PRETRAINED]['labels']} labels"
            if found:
                rows.append([title, *(cell(found.get(s), percent) for s in columns), gained(found)])
        return rows + few_rows(self._told["curve"], columns)

    def notes(self) -> list[str]:
        """What to know about the numbers, in sentences."""
        split = self._told["split"]
        lines = [
            f"{split['train']} samples with labels teach, {split['test']} test, "
            f"{len(self._told['data']['classes'])} classes: {split['statement']}.",
            "± is half of a 95 % interval.",
        ]
        return lines + [note if note.endswith(".") else note + "." for note in self._told["notes"]]

    def table(self) -> str:
        """Plain text, aligned."""
        rows = self.rows()
        return console.columns(rows) + "\n\n" + "\n".join(self.notes())

    def __str__(self) -> str:
        return f"{self.verdict}\n\n{self.table()}"

    def _repr_html_(self) -> str:
        head, *body = self.rows()
        cells = "".join(f"<th>{html.escape(c)}</th>" for c in head)
        lines = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in body
        )
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes())
        return (
            f"<p><b>{html.escape(self.verdict)}</b></p><table><thead><tr>{cells}</tr></thead>"
            f"<tbody>{lines}</tbody></table><ul>{notes}</ul>"
        )

    def _all(self) -> list[dict[str, Any]]:
        return self._told["scores"] + self._told["curve"]


def few_rows(curve: list[dict[str, Any]], columns: list[str]) -> list[list[str]]:
    """A row of a table for each count of labels per class."""
    rows = []
    for shots in sorted({r["shots"] for r in curve}):
        found = {r["of"]: r for r in curve if r["shots"] == shots}
        cells = [cell(found.get(s), True) for s in columns]
        rows.append([f"{shots} label{'s' * (shots > 1)} per class", *cells, gained(found)])
    return rows


def cell(row: dict[str, Any] | None, percent: bool) -> str:
    """A value with half of its interval, for a table."""
    if row is None:
        return "-"
    scale = 100 if percent else 1
    digits = 1 if percent or row["value"] >= 10 else 3
    text = f"{scale * row['value']:.{digits}f}"
    if "low" in row:
        text += f" ± {scale * (row['high'] - row['low']) / 2:.{digits}f}"
    return text


def gain_head(rows: Iterable[dict[str, Any]]) -> str:
    """Above what `gained` says of these rows."""
    start = ", and over the start" if any("since" in row for row in rows) else ""
    return f"gain over the better control{start}"


def gained(found: dict[str, dict[str, Any]], percent: bool = True) -> str:
    """By how much the pretrained is better than the better control, and which that is.

    And than the encoder that it started from, where there is one.
    """
    row, told = found.get(PRETRAINED, {}), []
    scale, digits = (100, 1) if percent else (1, 3)
    for gain in (row.get("gain"), row.get("since")):
        if gain is not None:
            half = scale * (gain["high"] - gain["low"]) / 2
            told.append(
                f"{scale * gain['value']:+.{digits}f} ± {half:.{digits}f} ({gain['control']})"
            )
    return ", ".join(told)


def home_of(run: Any) -> Path | None:
    """The folder of a run, where evaluations are kept; None for exports and loaded encoders."""
    home = getattr(run, "path", run)
    if not isinstance(home, str | Path) or not (Path(home) / "checkpoints").is_dir():
        return None
    return Path(home)


def keep(run: Any, task: str, found: Told) -> None:
    """evaluation-TASK.json in the run's folder, where there is one: what was found, and as text."""
    from ..run import Run

    home = home_of(run)
    if home is not None:
        told = found.to_json() | {"task": task, "text": str(found)}
        Run.open(home).write_json(f"evaluation-{task}.json", told)
