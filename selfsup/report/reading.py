"""What a run folder holds, read in whatever state it is: running, killed, collapsed, half written.

Nothing here raises for what it finds. What cannot be read is left out and named in `problems`, and
the page says so. No line of a file is trusted to be whole, short, or of the right type.
"""

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from ..run import LABELLED
from .page import clean, quoted
from .plots import POINTS, thin

LARGEST = 64 << 20  # bytes of a JSON file that is read whole
TASKS = 20  # whose evaluations are read, at most
BLOCK = 32 << 20  # bytes of metrics that are read at once
MOST_EVENTS = 2000
EXAMPLES = 4
# Stands for "NaN" while Arrow reads, which wants one type in a column. No metric has this value.
NOT_FINITE = -1.2345678e300


@dataclass
class Curve:
    """One metric over the steps, thinned; `bad` are steps at which it was not finite."""

    x: np.ndarray
    y: np.ndarray
    bad: list[float] = field(default_factory=list)


@dataclass
class Metrics:
    curves: dict[str, Curve] = field(default_factory=dict)
    rows: int = 0
    broken: int = 0
    last: dict[str, float] = field(default_factory=dict)


@dataclass
class Skipped:
    counts: Counter = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    broken: int = 0


@dataclass
class Setting:
    key: str
    value: str
    source: str
    reason: str


@dataclass
class Folder:
    path: Path
    settings: list[Setting]
    env: dict[str, Any]
    encoder: dict[str, Any]
    manifest: dict[str, Any]
    skipped: Skipped
    metrics: Metrics
    events: list[dict[str, Any]]
    evaluation: dict[str, Any]
    tasks: dict[str, dict[str, Any]]  # what evaluations of other tasks found, by task
    state: dict[str, Any]
    checkpoints: list[str]
    done: dict[str, Any] | None
    failed: dict[str, Any] | None
    problems: list[str]

    def setting(self, key: str) -> str | None:
        """A setting as text, or None where there is none."""
        found = next((s.value for s in self.settings if s.key == key), None)
        if found is None:
            return None
        try:
            return str(tomllib.loads(f"value = {found}")["value"])
        except ValueError:
            return found

    def command(self, verb: str, *rest: str) -> str:
        """A command for this run that can be pasted into a shell."""
        return " ".join(["selfsup", verb, quoted(self.path), *rest])

    @property
    def evaluate(self) -> str:
        """The command that judges it, on data that can as far as the run knows of any."""
        data = quoted(self.manifest.get("judged_by") or LABELLED)
        links = ["--follow-links"] * (self.setting("data.follow_links") == "True")
        return self.command("evaluate", data, *links)


def read(path: Path) -> Folder:
    problems: list[str] = []
    checkpoints = sorted(
        p.name for p in path.glob("checkpoints/step-*") if (p / "MANIFEST.json").is_file()
    )
    state = {}
    if checkpoints:
        state = _object(path / "checkpoints" / checkpoints[-1] / "state.json", problems, path)
    ends = {
        name: _object(path / name, problems, path) if (path / name).exists() else None
        for name in ("DONE", "FAILED")
    }
    return Folder(
        path=path,
        settings=_settings(path / "resolved.toml", problems),
        env=_object(path / "env.json", problems, path),
        encoder=_object(path / "encoder.json", problems, path),
        manifest=_object(path / "data" / "manifest.json", problems, path),
        skipped=_skipped(path / "data" / "skipped.jsonl"),
        metrics=_metrics(path / "metrics.jsonl"),
        events=_events(path / "events.jsonl"),
        evaluation=_object(path / "evaluation.json", problems, path),
        tasks={
            file.stem.removeprefix("evaluation-"): _object(file, problems, path)
            for file in sorted(path.glob("evaluation-*.json"))[:TASKS]
        },
        state=state,
        checkpoints=checkpoints,
        done=ends["DONE"],
        failed=ends["FAILED"],
        problems=problems,
    )


def _text(path: Path, most: int) -> str:
    with path.open("rb") as file:
        return file.read(most).decode("utf-8", "backslashreplace")


def _object(path: Path, problems: list[str], root: Path) -> dict[str, Any]:
    """A JSON object, or an empty one with a problem noted."""
    name = str(path.relative_to(root))
    try:
        if path.stat().st_size > LARGEST:
            problems.append(f"{name} is larger than {LARGEST >> 20} MB and was not read")
            return {}
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{name} cannot be read: {error}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{name} holds no JSON object")
        return {}
    return found


# ---- settings --------------------------------------------------------------------------------

_LINE = re.compile(
    r"""^\s*([A-Za-z0-9_.-]+)\s*=\s*           # key =
        ((?:"(?:\\.|[^"\\])*"|'[^']*'|[^#"'])*?)  # value; a # within quotes belongs to it
        \s*(?:\#\s*(.*))?$""",
    re.VERBOSE,
)


def _settings(path: Path, problems: list[str]) -> list[Setting]:
    """Values with the comments beside them, which hold each one's source and reason."""
    try:
        content = _text(path, 1 << 20)
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"resolved.toml cannot be read: {error}")
        return []
    try:
        tomllib.loads(content)
    except ValueError as error:
        problems.append(f"resolved.toml is not valid: {error}")
    found, table = [], ""
    for line in content.splitlines():
        if heading := re.match(r"\s*\[([^\]]+)\]", line):
            table = heading[1] + "."
        elif match := _LINE.match(line):
            source, _, reason = (match[3] or "").partition(": ")
            found.append(Setting(table + match[1], match[2], source, reason))
    return found


# ---- lines -----------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """The objects of a file of JSON lines; None for a line that is none."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        yield from _rows(file)


def _rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any] | None]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield row if isinstance(row, dict) else None


def _skipped(path: Path) -> Skipped:
    found = Skipped()
    for row in _lines(path):
        if row is None:
            found.broken += 1
            continue
        code = str(row.get("code", "unknown"))[:60]
        found.counts[code] += 1
        shown = found.examples.setdefault(code, [])
        if len(shown) < EXAMPLES:
            shown.append((clean(row.get("name", ""), 160), clean(row.get("reason", ""), 240)))
    return found


def _events(path: Path) -> list[dict[str, Any]]:
    """Events; of those that repeat the one before, the last one is kept with their number."""
    found: list[dict[str, Any]] = []
    for row in _lines(path):
        if row is None:
            continue
        same = ("kind", "verdict", "cause", "do")
        if found and all(found[-1].get(k) == row.get(k) for k in same):
            first = found[-1].get("from", found[-1].get("step"))
            found[-1] = {**row, "times": found[-1].get("times", 1) + 1, "from": first}
        elif len(found) < MOST_EVENTS:
            found.append(row)
    return found


# ---- metrics ---------------------------------------------------------------------------------


def _metrics(path: Path) -> Metrics:
    """All rows, a block at a time, so that memory does not grow with the length of the run."""
    found = Metrics()
    kept: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for block in _blocks(path):
        columns, rows, broken = _columns(block)
        found.rows += rows
        found.broken += broken
        steps = columns.get("step")
        if steps is None:
            continue
        for name, values in columns.items():
            there = np.isfinite(steps) & (values != _ABSENT)
            if not there.any():
                continue
            x, y = steps[there], values[there]
            found.last[name] = float(y[-1])
            if name == "step":
                continue
            kept.setdefault(name, []).append(_keep(x, y))
    for name, pieces in kept.items():
        x, y = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        # a run that was continued may have written rows again: the later ones count
        ahead = np.minimum.accumulate(x[::-1])[::-1]
        last = np.append(x[:-1] < ahead[1:], True) if len(x) else np.zeros(0, bool)
        x, y = x[last], y[last]
        bad = x[~np.isfinite(y)]
        found.curves[name] = Curve(*thin(x, y), bad=bad[:50].tolist())
    return found


_ABSENT = -math.inf  # a metric that a row does not have; -inf in the file reads as NaN


def _keep(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A block thinned, with its first places that are not finite."""
    if len(x) <= POINTS:
        return x, y
    bad = np.flatnonzero(~np.isfinite(y))[:50]
    thin_x, thin_y = thin(x, y)
    x, y = np.concatenate([thin_x, x[bad]]), np.concatenate([thin_y, y[bad]])
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def _blocks(path: Path) -> Iterator[bytes]:
    """Whole lines, about BLOCK bytes at a time; a last line without its end is left out."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        rest = b""
        while piece := file.read(BLOCK):
            piece = rest + piece
            end = piece.rfind(b"\n") + 1
            rest = piece[end:]
            if len(rest) > LARGEST:  # no newline in sight: this is not a metrics file
                return
            if end:
                yield piece[:end]
        if rest.strip():
            yield rest + b"\n"  # whole or half: the parser finds out


def _columns(block: bytes) -> tuple[dict[str, np.ndarray], int, int]:
    """Numbers by name, each (rows,) float64 with _ABSENT where a row has none and NaN where it is
    not finite, then how many rows and how many broken lines."""
    try:
        return _columns_fast(block)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _columns_slowly(block)


def _columns_fast(block: bytes) -> tuple[dict[str, np.ndarray], int, int]:
    for word in (b'"NaN"', b'"Infinity"', b'"-Infinity"', b'"inf"', b'"-inf"'):
        if word in block:
            block = block.replace(word, repr(NOT_FINITE).encode())
    options = pa.json.ReadOptions(block_size=max(1 << 20, len(block) // 4))
    rows = pa.json.read_json(pa.BufferReader(block), read_options=options)
    found = {}
    for name in rows.column_names:
        column = rows[name]
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            continue
        values = column.cast(pa.float64()).to_numpy().copy()
        values[~np.isfinite(values) | (values == NOT_FINITE)] = np.nan
        values[column.is_null().to_numpy()] = _ABSENT
        found[name] = values
    return found, rows.num_rows, 0


def _columns_slowly(block: bytes) -> tuple[dict[str, np.ndarray], int, int]:
    """For blocks with broken lines, or with types that change from row to row."""
    told = list(_rows(block.splitlines()))
    rows = [row for row in told if row is not None]
    broken = len(told) - len(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: np.full(len(rows), _ABSENT) for name in names}
    for i, row in enumerate(rows):
        for name, value in row.items():
            found[name][i] = _value(value)
    return {n: v for n, v in found.items() if (v != _ABSENT).any()}, len(rows), broken


def _value(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return _ABSENT
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _ABSENT
    return number if math.isfinite(number) else math.nan
