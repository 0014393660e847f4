"""The state of a run, and what happened on the way."""

from datetime import UTC, datetime
from typing import Any

from .page import Markup, clean, section, tag
from .reading import Folder

MARKS = {"good": "✓ ", "warn": "! ", "bad": "✕ ", "open": "… "}
TONES = {"healthy": "good", "warning": "warn", "collapsed": "bad", "diverged": "bad"}


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
                advice(event),
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


def advice(said: dict[str, Any]) -> list[Markup]:
    parts = []
    if said.get("cause"):
        parts.append(tag("p", tag("strong", "Likely cause: "), str(said["cause"])))
    if said.get("do"):
        parts.append(tag("p", tag("strong", "Try: "), str(said["do"])))
    return parts


def clock(value: Any) -> str | None:
    """A time as it was written, or the UTC time of seconds since 1970."""
    if isinstance(value, str):
        return clean(value, 40)
    if isinstance(value, int | float) and not isinstance(value, bool) and 1e9 < value < 4e9:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return None
