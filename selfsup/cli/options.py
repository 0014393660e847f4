"""Options that several verbs share."""

from typing import Annotated

import typer

from ..errors import SelfsupError

AsJson = Annotated[
    bool, typer.Option("--json", help="print one JSON object on stdout, nothing else")
]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")]
Cache = Annotated[
    str | None, typer.Option("--cache", help="folder for decoded samples (also SELFSUP_CACHE)")
]
FollowLinks = Annotated[
    bool | None, typer.Option("--follow-links", help="follow links that lead out of the folder")
]
DATA = typer.Argument(
    help="folder, text file, tar shards, .parquet, .csv, .jsonl, .npy", metavar="DATA"
)
DataArgument = Annotated[str, DATA]
RunArgument = Annotated[str, typer.Argument(help="folder of a run", metavar="RUN")]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", help="CSV with the columns path,label; CSV:COLUMN for another", metavar="CSV"
    ),
]
DropLeaks = Annotated[
    bool, typer.Option("--drop-leaks", help="take test samples out of the training part")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace a file made from other data")]
AtATime = Annotated[int, typer.Option(help="samples at a time", min=1)]


def counts(text: str) -> tuple[int, ...]:
    """Of --shots: 1,10,100."""
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise SelfsupError(
            "E201", f"--shots {text!r} is not a list of counts", do="like: --shots 1,10,100"
        )
    return numbers
