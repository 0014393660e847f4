"""HTML, written so that nothing from a run can become markup.

`tag` escapes every child that is not itself `Markup`; there is no other way into the page. Text
is clipped, and characters that would hide or reorder what a reader sees are spelled out. The page
holds no script, and its policy forbids any: the one style sheet is allowed by its hash.
"""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

CLIP = 400  # characters of one piece of foreign text; a cell of 10 MB becomes a short line

# Everything below 0x20 but tab and newline, the C1 block, and the characters that reorder a line.
_SPELLED = {
    code: f"\\x{code:02x}" for code in [*range(0x20), *range(0x7F, 0xA0)] if code not in (9, 10)
} | {
    code: f"\\u{code:04x}"
    for code in [0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF]
}
_VOID = {"meta", "img", "br", "link", "hr"}


class Markup(str):
    """Text that is already safe to stand in the page."""

    __slots__ = ()


def clean(text: object, clip: int = CLIP) -> str:
    """Foreign text as it may be shown: short, printable, in its own order, valid UTF-8."""
    whole = str(text)
    short = whole[:clip].translate(_SPELLED)
    short = short.encode("utf-8", "backslashreplace").decode()  # bytes that are not text: \udcff
    return short if len(whole) <= clip else f"{short} … ({len(whole):,} characters)"


def quoted(value: object) -> str:
    """Foreign text as one word of a command that can be pasted into a shell."""
    return shlex.quote(clean(value, 300))


def text(value: object, clip: int = CLIP) -> Markup:
    """Foreign text, escaped for content and for attributes in double quotes."""
    return value if isinstance(value, Markup) else Markup(escape(clean(value, clip)))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element. `class_` and `for_` lose their underscore, `aria_label` becomes aria-label.

    An attribute that is None or False is left out, True stands without a value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{text(value)}"')
    start = f"<{' '.join(parts)}>"
    if name in _VOID:
        return Markup(start)
    return Markup(f"{start}{join(children)}</{name}>")


def join(parts: Any, between: str = "") -> Markup:
    """Parts one after another; None and False vanish, so that a part can depend on a condition."""
    if isinstance(parts, (list, tuple)) or hasattr(parts, "__next__"):
        shown = (join(part, between) for part in parts if part is not None and part is not False)
        return Markup(between.join(part for part in shown if part))
    return text(parts)


def table(
    head: Sequence[object],
    rows: Sequence[Sequence[object]],
    *,
    caption: object,
    numbers: int = 0,
    compact: bool = False,
) -> Markup:
    """A table that scrolls by itself where the window is narrow; the last `numbers` columns are
    set as numbers. A `compact` one is only as wide as it must be."""
    words = len(head) - numbers
    kind = ["" if i < words else "number" for i in range(len(head))]
    header = tag(
        "tr", [tag("th", h, scope="col", class_=k or None) for h, k in zip(head, kind, strict=True)]
    )
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", class_=kind[0] or None),
            [tag("td", c, class_=k or None) for c, k in zip(row[1:], kind[1:], strict=True)],
        )
        for row in rows
    ]
    parts = tag("caption", caption), tag("thead", header), tag("tbody", body)
    inner = tag("table", *parts, class_="compact" if compact else None)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def facts(pairs: Sequence[tuple[object, object]]) -> Markup:
    """Names and values, as a description list."""
    return tag("dl", [tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs], class_="facts")


def section(anchor: str, title: str, *children: object, lead: object = None) -> Markup:
    heading = tag("h2", title, id=f"{anchor}-title")
    intro = tag("p", lead, class_="lead") if lead else None
    return tag("section", heading, intro, children, id=anchor, aria_labelledby=f"{anchor}-title")


def missing(what: str, command: str | None = None, why: str = "") -> Markup:
    """What this report could show and does not, with the command that adds it."""
    return tag(
        "p",
        tag("span", "Not here yet: ", class_="word"),
        what,
        f" {why}" if why else None,
        [" Add it with ", tag("code", command), "."] if command else None,
        class_="missing",
    )


def document(title: str, body: object, *, generator: str) -> str:
    """The whole file. The policy lets in the style sheet by its hash, pictures that are part of the
    page, and nothing else: no script, no network, no frame, no form."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=Markup(escape(policy, False))),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=generator),
        tag("title", title),
        tag("style", Markup(style)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body), lang='en')}\n"


@cache
def _style() -> str:
    return files(__package__).joinpath("style.css").read_text(encoding="utf-8").strip()
