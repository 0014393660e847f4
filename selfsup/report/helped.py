"""Did it help: every number beside its controls."""

from typing import Any

import numpy as np

from . import plots
from .cases import CASES, few_labels
from .page import Markup, clean, facts, join, missing, section, table, tag, text
from .plots import Interval, Series
from .reading import Folder
from .scores import PRETRAINED, SCRATCH, Score, number, rows, scores, signed, subjects

NONE = "—"
DRAWN = ("plan", "retrieve")  # tasks that have sections of their own
COMPARED = ("knn", "linear", "linear_auroc", "finetune", "finetune_auroc", "retrieval_recall_1")


def evaluation(folder: Folder) -> Markup:
    """Every number beside its controls."""
    whole, few = scores(folder.evaluation), scores(folder.evaluation, "curve")
    title = "Did pretraining help?"
    if not whole and not few and not folder.evaluation and folder.tasks:
        names = ", ".join(clean(name, 40) for name in folder.tasks)
        told = f"Judged by {names}: the figures, each beside its controls, are further below."
        return section("evaluation", title, tag("p", told))
    if not whole and not few:
        why = "Labels are used for this alone, never for training."
        if folder.evaluation:
            why = "evaluation.json is there, but holds no scores that this version reads."
        what = "scores, each beside its controls."
        return section("evaluation", title, missing(what, folder.evaluate, why))
    pictures = []
    compared = [s for p in COMPARED for s in whole if s.protocol == p]
    if compared:
        bars = [
            Interval(
                s.title, s.of, s.value, s.value if s.low is None else s.low,
                s.value if s.high is None else s.high, s.colour,
            )
            for s in compared
        ]  # fmt: skip
        note = "Dots are means, bars 95 % intervals. Where bars overlap, the order may be chance."
        pictures.append(plots.intervals("All labels", bars, note=note))
    if few:
        pictures.append(label_curve(few, whole, _classes(folder)))
    parts: list[object] = [tag("div", pictures, class_="two")]
    if whole:
        parts.append(score_table("Scores with all labels", whole))
    if few:
        parts.append(score_table("Linear probe with few labels for each class", few))
    worths = [
        [
            f"{labels:,.0f}",
            f"{'at least ' if row.get('at_least') else ''}{factor:.2g} times as many",
        ]
        for row in rows(folder.evaluation.get("labels_worth"))[:20]
        if (labels := number(row.get("labels"))) and (factor := number(row.get("factor")))
    ]
    if worths:
        parts.append(
            table(
                ["labels with pretraining", "needed without it, for the same accuracy"], worths,
                caption="What labels are worth, against the best control", numbers=2, compact=True,
            )
        )  # fmt: skip
    return section(
        "evaluation",
        title,
        parts,
        _about(folder),
        lead="Every score stands beside the same encoder before training and beside a classical "
        "baseline: the same samples, the same probe. Only what is left between them is due to "
        "pretraining.",
    )


def tasks(folder: Folder) -> list[tuple[str, str, Markup]]:
    """What evaluations of other tasks found, as they printed it, few labels and single cases."""
    parts: list[Markup] = []
    for name, found in folder.tasks.items():
        if isinstance(said := found.get("text"), str) and name not in DRAWN:
            parts += [tag("h3", clean(name, 40)), tag("pre", text(said, 8000), class_="scroll")]
            parts += [s for show in (few_labels, CASES.get(name)) if show and (s := show(found))]
    if not parts:
        return []
    return [("tasks", "Other tasks", section("tasks", "Other tasks", *parts))]


def _classes(folder: Folder) -> int:
    data = folder.evaluation.get("data")
    found = data.get("classes") if isinstance(data, dict) else None
    return max(1, len(found)) if isinstance(found, list) else 1


def _about(folder: Folder) -> list[Markup | None]:
    """On which data and how: what a reader needs to trust the numbers."""
    told = folder.evaluation
    split, data = object_of(told.get("split")), object_of(told.get("data"))
    pairs: list[tuple[object, object]] = []
    if data.get("place"):
        pairs.append(("labelled data", clean(data["place"], 200)))
    if isinstance(data.get("classes"), list):
        pairs.append(("classes", f"{len(data['classes']):,}"))
    for name, label in (("train", "samples that teach"), ("test", "samples that test")):
        if isinstance(split.get(name), int):
            pairs.append((label, f"{split[name]:,}"))
    if split.get("statement"):
        pairs.append(("split", clean(split["statement"], 200)))
    if isinstance(data.get("skipped"), int) and data["skipped"]:
        pairs.append(("labelled files skipped", f"{data['skipped']:,}"))
    notes = told.get("notes") if isinstance(told.get("notes"), list) else []
    return [
        facts(pairs) if pairs else None,
        tag("ul", [tag("li", clean(n, 300)) for n in notes[:12]], class_="note") if notes else None,
    ]


def object_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def label_curve(few: list[Score], whole: list[Score], classes: int) -> Markup:
    """Accuracy against the number of labels: how many labels pretraining is worth."""
    # where all labels teach, the probe's own score continues its curve; from scratch, fine-tuning's
    told = next((s.protocol.removeprefix("linear") for s in few if s.of == PRETRAINED), "")
    end = {SCRATCH: f"finetune{told}"}
    ends = [s for s in whole if s.protocol == end.get(s.of, f"linear{told}")]
    most = max(s.shots or 0 for s in few)
    ends = [s for s in ends if s.labels and s.labels / classes > 1.2 * most]
    series = []
    for of in subjects(few):
        points = [(float(s.shots or 0), s) for s in few if s.of == of]
        points += [(s.labels / classes, s) for s in ends if s.of == of and s.labels]
        points.sort(key=lambda point: point[0])
        low = [np.nan if s.low is None else s.low for _, s in points]
        high = [np.nan if s.high is None else s.high for _, s in points]
        series.append(
            Series(
                of,
                np.array([x for x, _ in points]),
                np.array([s.value for _, s in points]),
                np.array(low),
                np.array(high),
                colour=points[0][1].colour,
            )
        )
    counts = {float(s.shots or 0): f"{s.shots:,}" for s in few}
    if ends:
        counts[max(s.labels for s in ends if s.labels) / classes] = "all"
    return plots.lines(
        "Few labels",
        series,
        unit="% correct",
        x_label="labels for each class",
        log_x=len(counts) > 1 and min(counts) > 0,
        x_ticks=list(counts.items()),
        width=460,
        height=280,
        note="Read sideways: how many labels each way of learning needs for the same accuracy. "
        "Bars are 95 % intervals.",
    )


def score_table(caption: str, found: list[Score]) -> Markup:
    """A line for each measure or number of labels, a column for each subject, and the gain."""
    names = subjects(found)
    on_curve = any(s.shots is not None for s in found)
    lines = []
    for key in dict.fromkeys((s.protocol, s.shots) for s in found):
        mine = {s.of: s for s in found if (s.protocol, s.shots) == key}
        any_of = next(iter(mine.values()))
        first = f"{key[1]:,} label{'s' if key[1] != 1 else ''}" if on_curve else any_of.title
        cells: list[object] = [first]
        cells += [_cell(mine.get(name)) for name in names]
        gain = mine[PRETRAINED].gain if PRETRAINED in mine else None
        if gain is None:
            cells.append(NONE)
        else:
            between = tag("small", f" ({signed(gain.low)} to {signed(gain.high)})")
            cells.append(join([signed(gain.value), between]))
        lines.append(cells)
    head: list[object] = ["measure", *names, "gain over the better control"]
    about = f"{caption} (shares in per cent; 95 % intervals in brackets)"
    return table(head, lines, caption=about, numbers=len(head) - 1)


def _cell(s: Score | None) -> object:
    if s is None:
        return NONE
    digits = 1 if s.percent or s.value >= 10 else 3
    if s.low is None or s.high is None:
        return f"{s.value:.{digits}f}"
    return join(
        [f"{s.value:.{digits}f}", tag("small", f" ({s.low:.{digits}f} to {s.high:.{digits}f})")]
    )
