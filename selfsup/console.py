"""Words for the person at the terminal: results on stdout, everything else on stderr.

On a terminal a progress line is rewritten in place; in a log file or a pipe there is one plain line
every thirty seconds. Colour never carries meaning alone, and is off where NO_COLOR asks for it;
FORCE_COLOR turns it on. Where the stream cannot print a character, ASCII stands in for it.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

LOG_SECONDS = 30.0
TERMINAL_SECONDS = 0.1

COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
ASCII = str.maketrans(
    {"\u2013": "-", "\u2014": "-", "\u00d7": "x", "±": "+-", "→": "->", "…": "...", "·": "|"}
    | {"µ": "u", "≈": "~", "█": "#", "▏": "|", "░": "."}
)


class Console:
    """Writes to `stream`, by default the standard error stream of the moment."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False):
        self.stream = stream if stream is not None else sys.stderr
        self.quiet = quiet
        self.terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = wants_colour(self.stream)
        self._shown = 0  # length of the progress line now on the terminal
        self._last = -float("inf")

    @property
    def width(self) -> int:
        return shutil.get_terminal_size((80, 24)).columns if self.terminal else 80

    def say(self, text: str = "", style: str = "") -> None:
        """A line that stays. Nothing with `quiet`."""
        if not self.quiet:
            self.tell(text, style)

    def tell(self, text: str, style: str = "") -> None:
        """A line that stays even with `quiet`: warnings and errors."""
        self._clear()
        self._write(self.paint(text, style) + "\n")

    def progress(self, text: str, *, now: float | None = None) -> None:
        """The state of a long job, rewritten in place or repeated every thirty seconds."""
        now = time.monotonic() if now is None else now
        if self.quiet or now - self._last < (TERMINAL_SECONDS if self.terminal else LOG_SECONDS):
            return
        self._last = now
        if not self.terminal:
            self._write(text + "\n")
            return
        text = text[: self.width - 1]
        self._write("\r" + text + " " * max(0, self._shown - len(text)))
        self._shown = len(text)

    def paint(self, text: str, style: str) -> str:
        return f"\x1b[{COLOURS[style]}m{text}\x1b[0m" if style and self.colour else text

    def _clear(self) -> None:
        if self._shown:
            self._write("\r" + " " * self._shown + "\r")
            self._shown = 0

    def _write(self, text: str) -> None:
        self.stream.write(printable(text, self.stream))
        self.stream.flush()


def wants_colour(stream: TextIO) -> bool:
    """https://no-color.org: a non-empty NO_COLOR wins over everything."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str, stream: TextIO) -> str:
    """`text` as far as the encoding of `stream` goes; names of files may hold any bytes."""
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.translate(ASCII)
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text


def columns(rows: Iterable[Sequence[str]], *, gap: int = 2, width: int | None = None) -> str:
    """Rows as aligned text; the last column is wrapped to `width` under itself.

    Where a long cell, such as a path, would leave it little room, that row alone is out of line.
    """
    rows = [tuple(str(cell) for cell in row) for row in rows]
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    margin = sum(widths) + gap * len(widths)
    if width and width - margin < width // 3:
        short = [[len(r[i]) for r in rows if len(r[i]) <= width // 3] for i in range(len(widths))]
        widths = [max(lengths, default=0) for lengths in short]
        margin = sum(widths) + gap * len(widths)
    lines = []
    for row in rows:
        head = "".join(c.ljust(w) + " " * gap for c, w in zip(row[:-1], widths, strict=True))
        room = max(20, width - margin) if width else 0
        for i, part in enumerate(_wrap(row[-1], room)):
            lines.append(((head if i == 0 else " " * margin) + part).rstrip())
    return "\n".join(lines)


def _wrap(text: str, room: int) -> list[str]:
    if not room or len(text) <= room:
        return [text]
    import textwrap  # 3 ms that most calls do not need

    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def duration(seconds: float) -> str:
    """12 s, 14 min, 2 h 05 min, 3 d 04 h."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d} h"


def size(count: float, unit: str = "B") -> str:
    """1.5 GB, 12 k: three digits and a decimal prefix."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(count) < 999.5 or prefix == "P":
            text = f"{count:.0f}" if not prefix or abs(count) >= 99.5 else f"{count:.3g}"
            return f"{text} {prefix}{unit}".rstrip()
        count /= 1000
    raise AssertionError("unreachable")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, or an empty string."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0.6)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    guess = nearest(name, known)
    return f"did you mean {guess}?" if guess else ""
