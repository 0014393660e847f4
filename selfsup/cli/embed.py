"""selfsup embed: a vector for each sample."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import (
    AsJson,
    AtATime,
    DataArgument,
    Debug,
    FollowLinks,
    Overwrite,
    Quiet,
    RunArgument,
)


def embed(
    run: RunArgument,
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="file to write: .parquet, .npy or .csv")] = Path(
        "vectors.parquet"
    ),
    batch: AtATime = 128,
    overwrite: Overwrite = False,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """One vector per sample, with its id and path."""
    from ..embed import embed as write

    result = write(
        run,
        data,
        out,
        batch=batch,
        overwrite=overwrite,
        console=Console(quiet=quiet),
        follow_links=bool(follow_links),
    )
    return Answer.of(result)
