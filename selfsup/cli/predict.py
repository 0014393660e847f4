"""selfsup predict: what a model says of each sample."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import AsJson, AtATime, DataArgument, Debug, FollowLinks, Overwrite, Quiet


def predict(
    model: Annotated[str, typer.Argument(help="folder of a model", metavar="MODEL")],
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="file to write: .parquet or .csv")] = Path(
        "predictions.parquet"
    ),
    batch: AtATime = 128,
    overwrite: Overwrite = False,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """What a fine-tuned model says of each sample."""
    from ..predict import predict as write

    result = write(
        model,
        data,
        out,
        batch=batch,
        overwrite=overwrite,
        console=Console(quiet=quiet),
        follow_links=bool(follow_links),
    )
    return Answer.of(result)
