"""selfsup scan: what is in the data."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import AsJson, DataArgument, Debug, FollowLinks, Labels, Quiet


def scan(
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option(help="where to put the sample pictures (.png)")
    ] = None,
    labels: Labels = None,
    skipped: Annotated[
        Path | None, typer.Option(help="where to list the bad files (.jsonl)")
    ] = None,
    hashes: Annotated[
        Path | None, typer.Option(help="remember the files here; the next scan finds changed ones")
    ] = None,
    workers: Annotated[int, typer.Option(help="threads that decode", min=1)] = 2,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """What is in the data: counts, bad files, duplicates.

    Counts, sizes, modes, bad files with reasons, exact duplicates and sample pictures.
    """
    from ..scan import scan as look

    console = Console(quiet=quiet)
    result = look(
        data,
        out=out,
        labels=labels,
        skipped=skipped,
        hashes=hashes,
        workers=workers,
        follow_links=bool(follow_links),
        progress=lambda seen, total: console.progress(f"{seen} of {total} read"),
    )
    return Answer.of(result)
