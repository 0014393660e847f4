"""The first thing on the page: did it help, in one sentence and a few numbers."""

from math import isfinite, nan
from typing import Any

from ..console import duration
from .health import MARKS, advice, health
from .machine import trained_seconds
from .page import Markup, clean, missing, quoted, tag
from .reading import Folder
from .scores import PRETRAINED, number, scores, signed

TOLD = ("linear_auroc", "linear", "finetune_auroc", "finetune", "knn")  # the first that is there


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
        more += advice(said)
        if sentence:
            more.append(tag("p", tag("strong", "Its evaluation: "), str(sentence)))
    elif sentence:
        headline = str(sentence)
        if folder.done is not None:
            some = bool(told.get("gain"))
            clear = some if "low" not in told else (number(told["low"]) or 0) > 0
            tone = "good" if clear and some else "warn"
            word = "it helped" if clear else "it helps when fine-tuned"
            word = word if some else "no gain shown"
        more += advice({"cause": told.get("cause"), "do": told.get("advice")})
        if said:
            more.append(tag("p", tag("strong", "During training: "), str(said.get("message", ""))))
    elif folder.done is not None:
        headline = "Trained to the end. Whether it helped is not known yet."
        if tone == "good":
            tone, word = "open", "finished, not judged"
        more += advice(said)
    elif folder.metrics.rows:
        headline = "Training has not finished; this is how far it came."
    else:
        headline = "Nothing has been trained in this folder yet."
    if not folder.evaluation and not folder.tasks:
        more.append(
            missing(
                "a comparison with the untrained encoder and with classical features.",
                folder.evaluate,
            )
        )
    if folder.done is None and folder.failed is None and (path := folder.setting("data.path")):
        resume = f"selfsup pretrain {quoted(path)} --out {quoted(folder.path)}"
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


def _numbers(folder: Folder, told: dict[str, Any]) -> list[Markup]:
    """What somebody with half a minute should see."""
    shown: list[tuple[str, str, str]] = []
    whole = {(s.protocol, s.of): s for s in scores(folder.evaluation)}
    mine = [whole[p, PRETRAINED] for p in TOLD if (p, PRETRAINED) in whole]
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
        worth = number(told.get("labels_worth"))
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
        samples = last.get("samples", nan)
        rate = f"{samples / seconds:,.0f} samples/s" if _finite(samples) and seconds > 0 else ""
        shown.append(("training time", duration(seconds), rate))
    return [
        tag("div", tag("dt", name), tag("dd", value, tag("small", below) if below else None))
        for name, value, below in shown
    ]


def _finite(value: float | None) -> bool:
    return value is not None and isfinite(value)


def _spread(low: float | None, high: float | None, sign: bool = False) -> str:
    if low is None or high is None:
        return "no interval"
    if sign:
        return f"95 % interval {signed(low)} to {signed(high)}"
    return f"95 % interval {low:.1f} to {high:.1f}"
