"""selfsup export: the encoder, for use elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from .answer import Answer
from .options import AsJson, Debug, Quiet, RunArgument


def export(
    run: RunArgument,
    to: Annotated[str, typer.Option(help="format: safetensors, or timm")] = "safetensors",
    tower: Annotated[
        str | None, typer.Option(help="one of several towers alone: image, text ...")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder to write; default RUN/exports")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Write the encoder for use elsewhere, and prove it.

    It is written with its preprocessing, reloaded in a clean process and compared.
    """
    from ..export import export as write

    result = write(run, to=to, out=out, tower=tower)
    return Answer.of(result)
