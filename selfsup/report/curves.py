"""The curves of training: losses, monitors, speed."""

from typing import Any

import numpy as np

from . import plots, scores
from .helped import object_of
from .page import Markup, clean, missing, quoted, section, tag
from .plots import Series, number
from .reading import Folder

ABOUT = {
    "monitor/rank": (
        "Effective rank",
        "How many directions the embeddings use. A fall towards 1 is collapse.",
    ),
    "monitor/std": (
        "Spread of the embeddings",
        "Standard deviation over samples, averaged over dimensions. Zero is collapse.",
    ),
    "monitor/perplexity": ("Prototypes in use", "Perplexity of the assignments."),
    "eval/knn_top1": (
        "kNN accuracy during training",
        "Nearest neighbours on the labelled data; labels never reach the loss.",
    ),
    "train/lr": ("Learning rate", None),
    "train/grad_norm": ("Gradient norm", "Before clipping."),
    "speed/samples_per_second": ("Throughput", "Samples a second, from file to optimizer step."),
    "speed/data_wait": (
        "Waiting for data",
        "Share of the time in which the step waited for its batch.",
    ),
}
ORDER = list(ABOUT)
MOST_CURVES = 60
AXES = {"epoch", "time", "samples", "step", "steps"}


def curves(folder: Folder) -> Markup:
    found = dict(list(folder.metrics.curves.items())[:MOST_CURVES])
    if not folder.metrics.rows:
        path = folder.setting("data.path")
        start = f"selfsup pretrain {quoted(path or 'DATA')} --out {quoted(folder.path)}"
        return section("curves", "Training", missing("curves; metrics.jsonl has no rows.", start))
    figures = []
    terms = [n for n in found if n.startswith("train/") and n not in (*ORDER, "train/loss")]
    # a method with a single term would show the same curve twice
    losses = (["train/loss"] if "train/loss" in found else []) + terms
    if len(terms) == 1 and "train/loss" in found and _same(found["train/loss"], found[terms[0]]):
        losses = terms
    for name in losses:
        label = (
            "Loss"
            if name == "train/loss"
            else f"Loss: {clean(name.removeprefix('train/').replace('_', ' '), 60)}"
        )
        figures.append(curve(folder, name, label, None, smoothed=True))
    rest = [
        n
        for n in found
        if n not in (*losses, "train/loss") and n not in AXES and not n.startswith("energy/")
    ]
    for name in sorted(rest, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        title, note = _about(name)
        figures.append(
            curve(
                folder,
                name,
                title,
                note,
                smoothed=name in ("train/grad_norm", "speed/samples_per_second"),
            )
        )
    bad = sorted({step for c in found.values() for step in c.bad})
    remarks: list[object] = []
    if bad:
        steps = ", ".join(number(b) for b in bad[:8]) + (" …" if len(bad) > 8 else "")
        remarks.append(
            tag(
                "p",
                f"Dotted lines mark steps whose value was not a finite number: {steps}.",
                class_="note",
            )
        )
    if folder.metrics.broken:
        n = folder.metrics.broken
        remarks.append(
            tag(
                "p",
                f"{n} line{'s' if n > 1 else ''} of metrics.jsonl could not be read, as a killed "
                "run leaves behind; the rest is shown.",
                class_="note",
            )
        )
    return section(
        "curves", "Training", tag("div", [f for f in figures if f], class_="charts"), remarks
    )


def _same(a: Any, b: Any) -> bool:
    return len(a.y) == len(b.y) and bool(np.allclose(a.y, b.y))


def _about(name: str) -> tuple[str, str | None]:
    """What a curve is called, and what it tells; monitor/rank_image is the rank of a part."""
    whole, _, part = name.partition("_")
    if name not in ABOUT and part and whole in ABOUT:
        title, note = ABOUT[whole]
        return f"{title}: {clean(part, 40)}", note
    return ABOUT.get(name, (clean(name, 60), None))


def curve(folder: Folder, name: str, title: str, note: str | None, *, smoothed: bool) -> Markup:
    found = folder.metrics.curves[name]
    if not len(found.x):
        return Markup("")
    percent = name in ("eval/knn_top1", "speed/data_wait")
    series = [Series(name, found.x, found.y, colour=0)]
    if smoothed and len(found.x) > 80:
        mean = plots.smooth(found.y, max(5, len(found.y) // 40))
        series = [
            Series("each step", found.x, found.y, colour=0, faint=True),
            Series(name, found.x, mean, colour=0),
        ]
    guessing = object_of(object_of(folder.state.get("monitor")).get("guessing"))
    level = scores.number(guessing.get(name.removeprefix("train/")))
    return plots.lines(
        title,
        series,
        note=note,
        reference=None if level is None else (level, "nothing learned"),
        stops=found.bad,
        percent=percent,
        from_zero=name.startswith(("monitor/", "speed/")),
    )
