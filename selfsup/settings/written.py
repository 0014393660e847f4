"""Settings as TOML, which is read again, and as the tables of docs/settings.md."""

import json
import math
import re
import typing
from typing import Any

from ..errors import SelfsupError
from .schema import MODELS, NONE, optional


def toml_value(value: Any) -> str:
    """One value in TOML, which has no null: None is the word "none"."""
    match value:
        case None:
            return json.dumps(NONE)
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            assert math.isfinite(value), "nan and inf are refused on the way in"
            return repr(value)
        case str():
            return _toml_text(value)
        case list() | tuple():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise TypeError(f"{value!r} has no place in a settings file")


def _toml_text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SelfsupError(
            "E201",
            "a name that is not Unicode cannot be written to a settings file",
            where=text.encode("utf-8", "backslashreplace").decode(),
            do="rename the folder, or make a link to it",
        ) from error
    # JSON's escapes are TOML's, except that TOML also wants DEL escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def comment(text: str) -> str:
    """Text that stays on one line and cannot end it."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text).strip()


def reference() -> str:
    """The tables of docs/settings.md: every key, what it may be, its default, what it means."""
    parts = []
    for section, model in MODELS.items():
        lines = [f"### [{section}]" if section else "### At the top", ""]
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        for name, item in model.model_fields.items():
            kind = str(getattr(item.annotation, "__name__", item.annotation))
            if typing.get_args(item.annotation):
                kind = str(item.annotation).replace("typing.", "").replace(" | None", ' or "none"')
            kind = kind.replace("|", "or")
            limits = [
                f"{sign} {getattr(rule, word)}"
                for rule in item.metadata
                for word, sign in (("ge", "at least"), ("gt", "above"), ("le", "at most"))
                if getattr(rule, word, None) is not None
            ]
            default = "chosen" if item.default is None else f"`{toml_value(item.default)}`"
            if item.default is None and optional(item):
                default = "none"
            value = ", ".join([kind, *limits])
            lines.append(f"| `{name}` | {value} | {default} | {item.description} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
