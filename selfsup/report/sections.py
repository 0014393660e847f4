"""The parts of the page, each a function from what was read to markup."""

import shlex
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..console import duration, size
from ..data.base import REASONS
from ..energy import Energy, estimate
from . import plots
from .page import Markup, clean, facts, join, missing, section, table, tag
from .plots import Interval, Series, number
from .reading import Folder
from .scores import PRETRAINED, SCRATCH, Score, scores, subjects
from .scores import number as value_of
from .scores import rows as rows_of

NONE = "—"
COUNTS = ("samples", "format", "found", "used", "skipped", "unseen")  # told in the equation
MARKS = {"good": "✓ ", "warn": "! ", "bad": "✕ ", "open": "… "}
TONES = {
    "healthy": "good", "ok": "good", "info": "open", "note": "open",
    "warning": "warn", "warn": "warn",
    "collapsed": "bad", "diverged": "bad", "error": "bad", "failed": "bad",
}  # fmt: skip


def command(folder: Folder, verb: str, *rest: str) -> str:
    """A command for this run that can be pasted into a shell."""
    return " ".join(["selfsup", verb, shlex.quote(clean(folder.path, 300)), *rest])


# ---- the verdict -----------------------------------------------------------------------------


def health(folder: Folder) -> tuple[str, str, dict[str, Any]]:
    """The tone, the word and what was said of the state of the run."""
    seen = [e for e in folder.events if str(e.get("verdict", "")).lower() in TONES]
    last = seen[-1] if seen else {}
    ended = folder.done or folder.failed or last
    word = str(ended.get("verdict", "")).lower()
    # the event tells the cause and what to do, where it is about what ended the run
    said = last if last.get("verdict") == ended.get("verdict") else ended
    if word in ("collapsed", "diverged"):
        return "bad", word, said
    if folder.failed is not None:
        return "bad", "failed", said
    if folder.done is None:
        return "open", "not finished", last
    if word == "warning":
        return "warn", "finished with a warning", said
    return "good", "finished", {}


DRAWN = ("plan", "retrieve")  # tasks that have sections of their own


def verdict(folder: Folder) -> Markup:
    """The first thing on the page: one sentence, a few numbers, and what to do next."""
    tone, word, said = health(folder)
    told = _told(folder.evaluation)
    others = [_told(found) for found in folder.tasks.values()]
    told = told or next((other for other in others if other.get("gain")), {}) or (others or [{}])[0]
    sentence = told.get("sentence")
    more: list[object] = []
    if tone == "bad":
        headline = str(said.get("message") or f"The run {word}.")
        headline = headline[:1].upper() + headline[1:]
        more += _advice(said)
        if sentence:
            more.append(tag("p", tag("strong", "Its evaluation: "), str(sentence)))
    elif sentence:
        headline = str(sentence)
        if folder.done is not None:
            some = bool(told.get("gain"))
            clear = some if "low" not in told else (value_of(told["low"]) or 0) > 0
            tone = "good" if clear and some else "warn"
            word = "it helped" if clear else "it helps when fine-tuned"
            word = word if some else "no gain shown"
        more += _advice({"cause": told.get("cause"), "do": told.get("advice")})
        if said:
            more.append(tag("p", tag("strong", "During training: "), str(said.get("message", ""))))
    elif folder.done is not None:
        headline = "Trained to the end. Whether it helped is not known yet."
        if tone == "good":
            tone, word = "open", "finished, not judged"
        more += _advice(said)
    elif folder.metrics.rows:
        headline = "Training has not finished; this is how far it came."
    else:
        headline = "Nothing has been trained in this folder yet."
    if not folder.evaluation and not folder.tasks:
        more.append(
            missing(
                "a comparison with the untrained encoder and with raw pixels, on labelled data.",
                command(folder, "evaluate", "LABELLED_FOLDER"),
            )
        )
    if folder.done is None and folder.failed is None and (path := folder.setting("data.path")):
        resume = f"selfsup pretrain {_quoted(path)} --out {_quoted(folder.path)}"
        more.append(tag("p", "Continue it with ", tag("code", resume), "."))
    numbers = _numbers(folder, told)
    return tag(
        "section",
        tag("h2", "Verdict", id="verdict-title"),
        tag("span", MARKS[tone] + word.capitalize(), class_=f"badge {tone}"),
        tag("p", clean(headline, 600), class_="sentence"),
        more,
        tag("dl", numbers, class_="headline") if numbers else None,
        id="verdict",
        class_=f"verdict {tone}",
        aria_labelledby="verdict-title",
    )


def _told(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The verdict of an evaluation, if it has one."""
    told = evaluation.get("verdict")
    return told if isinstance(told, dict) else {"sentence": told} if isinstance(told, str) else {}


def tasks(folder: Folder) -> list[tuple[str, str, Markup]]:
    """What evaluations of other tasks found, as they printed it."""
    parts = []
    for name, found in folder.tasks.items():
        if isinstance(text := found.get("text"), str) and name not in DRAWN:
            parts += [tag("h3", clean(name, 40)), tag("pre", clean(text, 8000), class_="scroll")]
    if not parts:
        return []
    return [("tasks", "Other tasks", section("tasks", "Other tasks", *parts))]


def _advice(said: dict[str, Any]) -> list[Markup]:
    parts = []
    if said.get("cause"):
        parts.append(tag("p", tag("strong", "Likely cause: "), str(said["cause"])))
    if said.get("do"):
        parts.append(tag("p", tag("strong", "Try: "), str(said["do"])))
    return parts


def _quoted(value: object) -> str:
    return shlex.quote(clean(value, 300))


def _numbers(folder: Folder, told: dict[str, Any]) -> list[Markup]:
    """What somebody with half a minute should see."""
    shown: list[tuple[str, str, str]] = []
    whole = {(s.protocol, s.of): s for s in scores(folder.evaluation)}
    mine = [whole[p, PRETRAINED] for p in ("linear", "finetune", "knn") if (p, PRETRAINED) in whole]
    if mine:
        # what the verdict is about: the probe, unless only fine-tuning shows a gain
        own = next((s for s in mine if s.gain is not None and s.gain.low > 0), mine[0])
        shown.append((f"{own.title}, pretrained", f"{own.value:.1f} %", _spread(own.low, own.high)))
        if own.gain is not None:
            control = whole.get((own.protocol, own.gain.control))
            if control is not None:
                name = f"{own.title}, {control.of}"
                shown.append((name, f"{control.value:.1f} %", _spread(control.low, control.high)))
            shown.append(
                (
                    "gain over the better control",
                    signed(own.gain.value),
                    "points; " + _spread(own.gain.low, own.gain.high, sign=True),
                )
            )
        worth = value_of(told.get("labels_worth"))
        if worth is not None and told.get("gain"):
            least = "at least " if told.get("at_least") else ""
            shown.append(("a label is worth", f"{least}{worth:.2g}", "labels without pretraining"))
    last = folder.metrics.last
    if "eval/knn_top1" in last and not whole:
        percent = f"{100 * last['eval/knn_top1']:.1f} %"
        shown.append(("kNN during training", percent, "no control beside it"))
    if not whole and _finite(last.get("monitor/rank")):
        shown.append(("effective rank", f"{last['monitor/rank']:.1f}", "dimensions in use"))
    if folder.metrics.rows and "step" in last:
        passes = f"{last['epoch']:.3g} passes over the data" if _finite(last.get("epoch")) else ""
        shown.append(("steps", f"{last['step']:,.0f}", passes))
    if (seconds := trained_seconds(folder)) is not None:
        samples = last.get("samples", np.nan)
        rate = f"{samples / seconds:,.0f} samples/s" if _finite(samples) and seconds > 0 else ""
        shown.append(("training time", duration(seconds), rate))
    return [
        tag("div", tag("dt", name), tag("dd", value, tag("small", below) if below else None))
        for name, value, below in shown
    ]


def _finite(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


def _spread(low: float | None, high: float | None, sign: bool = False) -> str:
    if low is None or high is None:
        return "no interval"
    if sign:
        return f"95 % interval {signed(low)} to {signed(high)}"
    return f"95 % interval {low:.1f} to {high:.1f}"


def signed(value: float) -> str:
    """With its sign, and a minus that is as wide as the plus."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


# ---- did it help -----------------------------------------------------------------------------

COMPARED = ("knn", "linear", "finetune", "retrieval_recall_1")


def evaluation(folder: Folder) -> Markup:
    """Every number beside its controls."""
    whole, few = scores(folder.evaluation), scores(folder.evaluation, "curve")
    title = "Did pretraining help?"
    if not whole and not few:
        why = "Labels are used for this alone, never for training."
        if folder.evaluation:
            why = "evaluation.json is there, but holds no scores that this version reads."
        what = "scores on labelled data, each beside its controls."
        return section(
            "evaluation", title, missing(what, command(folder, "evaluate", "LABELLED_FOLDER"), why)
        )
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
        for row in rows_of(folder.evaluation.get("labels_worth"))[:20]
        if (labels := value_of(row.get("labels"))) and (factor := value_of(row.get("factor")))
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
    ends = [s for s in whole if s.protocol == ("finetune" if s.of == SCRATCH else "linear")]
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


# ---- curves ----------------------------------------------------------------------------------

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
MOST_SETTINGS = 300
AXES = {"epoch", "time", "samples", "step", "steps"}


def curves(folder: Folder) -> Markup:
    found = dict(list(folder.metrics.curves.items())[:MOST_CURVES])
    if not folder.metrics.rows:
        path = folder.setting("data.path")
        start = f"selfsup pretrain {_quoted(path or 'DATA')} --out {_quoted(folder.path)}"
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
        title, note = ABOUT.get(name, (clean(name, 60), None))
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
    chance = folder.state.get("chance")
    level = chance.get(name.removeprefix("train/")) if isinstance(chance, dict) else None
    reference = (float(level), "nothing learned") if isinstance(level, int | float) else None
    return plots.lines(
        title,
        series,
        note=note,
        reference=reference,
        stops=found.bad,
        percent=percent,
        from_zero=name.startswith(("monitor/", "speed/")),
    )


# ---- health ----------------------------------------------------------------------------------


def events(folder: Folder) -> Markup:
    if not folder.metrics.rows and not folder.events:
        return section("health", "Health", tag("p", "Nothing ran yet, so nothing happened."))
    good = (folder.done or {}).get("verdict") == "healthy"
    summary = "The monitor found nothing wrong at the end of the run." if good else None
    if not folder.events:
        return section("health", "Health", tag("p", summary or "No event was recorded."))
    items = []
    for event in folder.events[-60:]:
        word = str(event.get("verdict") or event.get("kind") or "note")
        tone = TONES.get(word.lower(), "open")
        step = event.get("step")
        when = [f"step {step:,}" if isinstance(step, int) else None, clock(event.get("time"))]
        if event.get("times"):
            when.append(f"{event['times']} times since step {clean(event.get('from'), 30)}")
        items.append(
            tag(
                "li",
                tag(
                    "p",
                    tag("span", MARKS[tone] + clean(word, 40), class_=f"badge {tone}"),
                    " ",
                    tag("span", " · ".join(w for w in when if w), class_="when"),
                ),
                tag("p", str(event.get("message", ""))),
                tag("p", tag("strong", "Likely cause: "), str(event["cause"]))
                if event.get("cause")
                else None,
                tag("p", tag("strong", "Try: "), str(event["do"])) if event.get("do") else None,
                class_=tone,
            )
        )
    hidden = len(folder.events) - len(items)
    before = (
        tag("p", f"{hidden} earlier events are in events.jsonl.", class_="note") if hidden else None
    )
    return section(
        "health",
        "Health",
        tag("p", summary) if summary else None,
        before,
        tag("ul", items, class_="events"),
    )


def clock(value: Any) -> str | None:
    """A time as it was written, or the UTC time of seconds since 1970."""
    if isinstance(value, str):
        return clean(value, 40)
    if isinstance(value, int | float) and not isinstance(value, bool) and 1e9 < value < 4e9:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return None


# ---- data ------------------------------------------------------------------------------------


def _positive(value: object) -> bool:
    return isinstance(value, int) and value > 0


def data(folder: Folder) -> Markup:
    skipped = sum(folder.skipped.counts.values())
    listed = folder.manifest.get("samples")
    parts: list[object] = []
    counts = [folder.manifest.get(name) for name in ("found", "used", "skipped")]
    if all(isinstance(count, int) for count in counts):  # written when a run ends or stops
        found, used, gone = counts
        equation = f"{found:,} found = {used:,} used + {gone:,} skipped"
        unseen = folder.manifest.get("unseen")
        rest = f" ({unseen:,} of the used were not reached)" if _positive(unseen) else ""
        parts.append(tag("p", tag("strong", equation), f"{rest}."))
    elif isinstance(listed, int):
        # what listing the data set aside never became a sample; all else was one that failed
        found = listed + sum(folder.skipped.counts[code] for code in REASONS)
        equation = f"{found:,} found = {found - skipped:,} used + {skipped:,} skipped"
        parts.append(tag("p", tag("strong", equation), "."))
    else:
        what = "what was found; data/manifest.json is written when training starts."
        parts.append(missing(what))
    if folder.skipped.counts:
        rows = []
        for code, count in folder.skipped.counts.most_common(30):
            examples = folder.skipped.examples[code]
            names = join([[tag("code", n), tag("br")] for n, _ in examples[:3]])
            rows.append([clean(code, 40), examples[0][1], names, f"{count:,}"])
        parts.append(
            table(
                ["reason", "what it means", "for example", "files"],
                rows,
                caption="Skipped files; all of them are in data/skipped.jsonl",
                numbers=1,
            )
        )
    else:
        parts.append(tag("p", "No file was skipped."))
    shown = [
        (
            clean(k.replace("_", " "), 40),
            f"{v:,}" if isinstance(v, int) and not isinstance(v, bool) else clean(v, 160),
        )
        for k, v in folder.manifest.items()
        if isinstance(v, str | int | float) and k not in COUNTS
    ]
    return section(
        "data",
        "Data",
        parts,
        facts(shown[:20]) if shown else None,
        tag(
            "p",
            "Damage that still decodes, such as changed bytes inside a picture, is not found by "
            "reading files and is not counted here.",
            class_="note",
        ),
    )


# ---- settings, machine -----------------------------------------------------------------------


def settings(folder: Folder) -> Markup:
    if not folder.settings:
        return section("settings", "Settings", missing("the settings; resolved.toml is not there."))
    shown = folder.settings[:MOST_SETTINGS]
    chosen = [s for s in shown if s.source not in ("default", "")]
    rest = [s for s in shown if s.source in ("default", "")]

    def rows(some: list[Any]) -> list[list[object]]:
        return [
            [
                tag("code", clean(s.key, 80)),
                tag("code", clean(s.value, 200)),
                _source(s.source),
                clean(s.reason, 300),
            ]
            for s in some
        ]

    head: list[object] = ["setting", "value", "from", "why"]
    parts: list[object] = [table(head, rows(chosen), caption="Given or chosen")] if chosen else []
    if rest:
        whole = table(head[:3], [r[:3] for r in rows(rest)], caption="Left at their defaults")
        parts.append(
            tag("details", tag("summary", f"{len(rest)} settings at their defaults"), whole)
            if chosen
            else whole
        )
    again = f"selfsup pretrain --config {_quoted(folder.path / 'resolved.toml')} --out runs/again"
    parts.append(tag("p", "The same run again: ", tag("code", again), class_="note"))
    return section("settings", "Settings", parts)


def _source(source: str) -> str:
    """Where a value came from: the settings file names the option or the file itself."""
    known = {"plan": "chosen", "default": "default", "": ""}
    return known.get(source, f"given: {clean(source, 120)}")


def trained_seconds(folder: Folder) -> float | None:
    """Seconds of training, from the last row's own clock."""
    value = folder.metrics.last.get("time")
    if value is None or not np.isfinite(value):
        return None
    if value > 1e9:  # seconds since 1970
        return max(0.0, value - folder.metrics.first.get("time", value))
    return float(value)


def energy(folder: Folder) -> Energy | None:
    """Measured where the rows count joules to the end, estimated from the time elsewhere."""
    joules = folder.metrics.last.get("energy/joules")
    counted = folder.metrics.curves.get("energy/joules")
    # a run that went on where nothing counts has rows without: those before are not the whole
    whole = counted is not None and counted.x[-1:] == folder.metrics.last.get("step")
    if joules is not None and np.isfinite(joules) and whole:
        return Energy(
            float(joules),
            True,
            "read from the processor's own counters (RAPL), which count all programs on the "
            "machine, but neither graphics processors nor, mostly, memory",
        )
    seconds = trained_seconds(folder)
    if seconds is None:
        return None
    env = flat(folder.env)
    cores = (
        _integer(env, ("cores", "cpu_count", "cpus", "threads", "machine.cores", "cpu.cores")) or 1
    )
    memory = env.get("memory_gb", env.get("machine.memory_gb", 0))
    gpus = _integer(env, ("gpus", "gpu_count", "cuda_devices")) or (
        1 if "cuda" in str(env.get("device", "")) else 0
    )
    return estimate(seconds, cores, float(memory) if isinstance(memory, int | float) else 0.0, gpus)


def _integer(env: dict[str, Any], names: tuple[str, ...]) -> int | None:
    found = next((env[n] for n in names if isinstance(env.get(n), int)), None)
    return found if found and 0 < found < 10_000 else None


def flat(tree: dict[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Nested objects as dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and depth < 4:
            found |= flat(value, f"{prefix}{key}.", depth + 1)
        else:
            found[prefix + str(key)] = value
    return found


def machine(folder: Folder, version: str) -> Markup:
    env = flat(folder.env)
    parts: list[object] = []
    used: list[tuple[object, object]] = []
    if (seconds := trained_seconds(folder)) is not None:
        used.append(("training time", duration(seconds)))
    if (spent := energy(folder)) is not None:
        word = "measured" if spent.measured else "estimated"
        amount = (
            f"{spent.kilowatt_hours:.2g} kWh"
            if spent.joules >= 3600
            else f"{number(spent.joules)} J"
        )
        used.append((f"energy, {word}", amount))
    samples = folder.metrics.last.get("samples")
    if samples is not None and np.isfinite(samples):
        used.append(("samples seen", f"{samples:,.0f}"))
    if (weights := _weights(folder)) is not None:
        used.append(("encoder on disk", size(weights)))
    if folder.checkpoints:
        used.append(
            (
                "checkpoints",
                f"{len(folder.checkpoints)}, newest {clean(folder.checkpoints[-1], 40)}",
            )
        )
    if used:
        parts.append(facts(used))
    if spent is not None:
        parts.append(
            tag(
                "p",
                f"Energy: {'' if spent.measured else 'an estimate that '}{spent.how}.",
                class_="note",
            )
        )
    if not folder.checkpoints:
        parts.append(missing("a checkpoint; one is written every few minutes and at the end."))
    if env:
        rows = [[clean(k, 80), clean(v, 300)] for k, v in list(env.items())[:60]]
        parts.append(
            table(["what", "value"], rows, caption="Machine and versions at the time of training")
        )
    else:
        parts.append(
            missing("the machine and the versions; env.json is written when training starts.")
        )
    parts.append(tag("p", f"Report written by selfsup {version}.", class_="note"))
    return section("machine", "Time, energy, versions", parts)


def _weights(folder: Folder) -> int | None:
    if not folder.checkpoints:
        return None
    path = folder.path / "checkpoints" / folder.checkpoints[-1] / "encoder.safetensors"
    return path.stat().st_size if path.is_file() else None
