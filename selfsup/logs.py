"""What a run writes down while it runs: metrics.jsonl, events.jsonl, log.txt, and sinks for others.

One JSON object a line. JSON has no NaN: it is written as the string "NaN", so that every reader can
read the file and a number that is not one stays visible.
"""

import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from . import faults
from .errors import SelfsupError

Row = dict[str, Any]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the disk takes no more


class Lines:
    """A file of JSON objects, one a line, appended to while the run goes on.

    A killed writer may leave half a line; `Lines` reads past it and `keep_until` removes it.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def write(self, row: Row) -> None:
        """Append one line. Raises SelfsupError E303 when the disk is full."""
        line = (json.dumps(spell(row), allow_nan=False) + "\n").encode()
        try:
            with self.path.open("a+b", buffering=0) as file:
                end_line(file)
                half = len(line) // 2
                if os.environ.get("SELFSUP_FAULT", "").startswith("metrics.line"):
                    write_all(file, line[:half])
                    faults.at("metrics.line")
                    line = line[half:]
                write_all(file, line)
        except OSError as error:
            raise disk_error(error, self.path, len(line)) from error

    def read(self) -> Iterator[Row]:
        """Every whole line."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                if (row := parse(line)) is not None:
                    yield row

    def keep_until(self, step: int) -> None:
        """Drop half lines and the rows of steps after `step`, which are about to be run again."""
        if not self.path.exists():
            return
        whole: list[bytes] = []
        with self.path.open("rb") as file:
            for line in file:
                row = parse(line)
                if row is not None and row.get("step", 0) <= step:
                    whole.append(line)
        text = b"".join(whole)
        if len(text) == self.path.stat().st_size:
            return
        replace(self.path, text)


def end_line(file: FileIO) -> None:
    """End the half line that a killed writer has left; the file is open as "a+b"."""
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def write_all(file: FileIO, content: bytes) -> None:
    while content:  # a nearly full disk takes a part of it
        content = content[file.write(content) :]


def spell(value: Any) -> Any:
    """JSON's numbers are finite: "NaN", "Infinity" and "-Infinity" are spelled out."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: spell(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [spell(part) for part in value]
    return value


def parse(line: bytes) -> Row | None:
    """One whole line as an object, or None."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file, all of it or nothing.

    Raises SelfsupError E303 when the disk is full; the old file is then still there.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise disk_error(error, path, len(content)) from error
    finally:
        temporary.unlink(missing_ok=True)


def disk_error(error: OSError, path: Path, needed: int) -> SelfsupError:
    """What to tell somebody whose disk took no more (E303), or did not let us write (E205)."""
    why = error.strerror or str(error)
    if error.errno not in FULL:
        do = "mend that, and repeat the command: it continues"
        return SelfsupError("E205", f"cannot write {path.name}", where=str(path), why=why, do=do)
    free = free_bytes(path)
    return SelfsupError(
        "E303",
        f"cannot write {path.name}: needed {needed} bytes, free {free} bytes",
        where=str(path),
        why=why,
        do="free some space, or allow larger files, and repeat the command: it continues",
    )


def free_bytes(path: Path) -> int:
    """Free bytes for this user on the disk that holds `path` or the nearest folder above it."""
    import shutil

    for folder in [path, *path.parents]:
        if folder.exists():
            return shutil.disk_usage(folder).free
    return 0


class Events:
    """events.jsonl and log.txt: what happened, in words, with cause and advice."""

    def __init__(self, folder: Path | None, tell: Callable[[Row], None] | None = None):
        self.lines = None if folder is None else Lines(folder / "events.jsonl")
        self.log = None if folder is None else folder / "log.txt"
        self.tell = tell
        self.seen: list[Row] = []

    def write(
        self,
        kind: str,
        step: int,
        message: str,
        *,
        verdict: str = "",
        cause: str = "",
        do: str = "",
    ) -> Row:
        row = {"time": time.time(), "step": step, "kind": kind, "verdict": verdict}
        row |= {"message": message, "cause": cause, "do": do}
        self.seen.append(row)
        if self.lines is not None:
            self.lines.write(row)
        if self.log is not None:
            clock = time.strftime("%Y-%m-%d %H:%M:%S")
            words = " ".join(part for part in (message, cause, do) if part)
            try:
                with self.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(f"{clock} step {step}: {words}\n")
            except OSError as error:
                raise disk_error(error, self.log, len(words)) from error
        if self.tell is not None:
            self.tell(row)
        return row


class TensorBoard:
    """A sink for TensorBoard: `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing("tensorboard") from error
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def __call__(self, row: Row) -> None:
        for name, value in _numbers(row):
            self.writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A sink for W&B, which needs an account unless WANDB_MODE=offline."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None):
        try:
            import wandb
        except ImportError as error:
            raise missing("wandb") from error
        self.run = wandb.init(
            dir=str(folder), name=folder.name, id=folder.name, resume="allow", config=settings or {}
        )

    def __call__(self, row: Row) -> None:
        self.run.log(dict(_numbers(row)), step=row["step"])

    def close(self) -> None:
        self.run.finish()


SINKS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def open_sink(name: str, folder: Path) -> Any:
    """The sink `name`: call it with each row, close it at the end. SelfsupError E204 if missing."""
    if name not in SINKS:
        raise ValueError(f"the sink is {name!r}; it can be {' or '.join(SINKS)}")
    return SINKS[name](folder)


def missing(package: str) -> SelfsupError:
    return SelfsupError(
        "E204",
        f"{package} is not installed",
        do=f"pip install selfsup[track], or leave {package} out",
    )


def _numbers(row: Row) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if "/" in name and isinstance(value, (int, float)):
            yield name, float(value)
