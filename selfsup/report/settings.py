"""What was set, by whom and why."""

from typing import Any

from .page import Markup, clean, missing, quoted, section, table, tag
from .reading import Folder

MOST_SETTINGS = 300


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
    again = f"selfsup pretrain --config {quoted(folder.path / 'resolved.toml')} --out runs/again"
    parts.append(tag("p", "The same run again: ", tag("code", again), class_="note"))
    return section("settings", "Settings", parts)


def _source(source: str) -> str:
    """Where a value came from: the settings file names the option or the file itself."""
    known = {"plan": "chosen", "default": "default", "": ""}
    return known.get(source, f"given: {clean(source, 120)}")
