"""What a verb found, and how it is printed: for a program, for a person."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ..console import printable


class Answer(NamedTuple):
    """What a verb found: for a program, for a person, and the exit code of the command."""

    result: dict[str, Any]
    text: str
    exit_code: int = 0

    @classmethod
    def of(cls, found: Any) -> "Answer":
        return cls(found.to_json(), str(found))

    def show(self, as_json: bool) -> None:
        text = json.dumps(_finite(self.result)) if as_json else self.text
        others = int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"
        if not text or others:  # under torchrun the first process speaks for all
            return
        try:
            sys.stdout.write(printable(text, sys.stdout) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has seen enough: `selfsup list methods | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _finite(value: Any) -> Any:
    """JSON knows no nan and no inf: they are written as text."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Path):
        return str(value)
    return value
