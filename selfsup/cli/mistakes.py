"""Any exception, told so that a person can act on it."""

import os
import sys
from typing import Any

import typer

from ..console import Console, nearest
from ..errors import SelfsupError
from ..logs import FULL
from ..stop import Stopped, stop
from .answer import Answer


def told(error: BaseException) -> Answer | int:
    """Tell an error on stderr; with --json its parts are the result."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt | Stopped) or type(error).__name__ == "Abort":
        print("\nstopped; nothing is half written, the same command begins again", file=sys.stderr)
        code = stop.exit_code or 130
        return Answer({"interrupted": True, "exit_code": code}, "", code)
    mistake = translate(error)
    head, _, rest = str(mistake).partition("\n")
    console = Console()
    console.tell(head, "red")
    if rest:
        console.tell(rest)
    code = mistake.exit_code
    return Answer({"error": mistake.to_json(), "exit_code": code}, "", code)


def translate(error: BaseException) -> SelfsupError:
    """Any exception as one that a person can act on."""
    if isinstance(error, SelfsupError):
        return error
    usage: Any = typer.BadParameter.__mro__[1]  # the base of all mistakes on the command line
    if isinstance(error, usage):
        command = error.ctx.command_path if error.ctx else "selfsup"
        what = " ".join(error.format_message().split())
        what, found, hint = what.partition(" Did you mean ")
        hint = hint.replace("'", "")
        option = getattr(error, "option_name", None)
        if option and error.ctx:
            params = error.ctx.command.params
            options = [name for p in params for name in (*p.opts, *p.secondary_opts)]
            close = nearest(option, options)
            what, found, hint = f"there is no option {option}", close, f"{close}?"
        do = f"did you mean {hint}" if found else f"see: {command} --help"
        return SelfsupError("E201", what[:1].lower() + what[1:].rstrip("."), do=do)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("selfsup"):
        return SelfsupError(
            "E204",
            f"the package {error.name} is not installed",
            do=f"pip install {error.name}, or see what is there: selfsup doctor",
        )
    if isinstance(error, OSError):
        where = os.fsdecode(error.filename) if error.filename is not None else ""
        full = error.errno in FULL
        what = "the disk is full" if full else (error.strerror or str(error)).lower()
        do = "free some space and give the same command again" if full else ""
        return SelfsupError("E205", what, where=where, do=do)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return SelfsupError(
            "E206", "out of memory", why=str(error), do="give a smaller --batch or --encoder"
        )
    return SelfsupError(
        "E299",
        f"{type(error).__name__}: {error}",
        why="this is a fault of selfsup, not of your data or settings",
        do="give the same command with --debug and report what it prints",
    )
