"""selfsup demo: the main job in under a minute."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import AsJson, Debug, Quiet


def demo(
    out: Annotated[Path, typer.Option(help="folder of the run")] = Path("runs/demo"),
    seconds: Annotated[float, typer.Option(help="time for pretraining", min=1)] = 17.0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """The main job on real digits in under a minute."""
    from ..demo import demo as show

    shown = show(out=out, seconds=seconds, console=Console(quiet=quiet))
    return Answer(shown.result, shown.text, shown.exit_code)
