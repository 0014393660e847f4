"""selfsup variants: what exchanges of residues do."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import AsJson, Debug, Quiet, RunArgument


def variants(
    run: RunArgument,
    data: Annotated[str, typer.Argument(help="table of exchanges or sequences", metavar="TABLE")],
    wild_type: Annotated[
        str | None, typer.Option("--wild-type", help="its letters, or a FASTA file")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="table to write, with the scores (.csv)")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """What exchanges of residues do to a protein, by an encoder that mlm has trained."""
    from ..variants import variants as score

    found = score(run, data, wild_type=wild_type, out=out, console=Console(quiet=quiet))
    return Answer.of(found)
