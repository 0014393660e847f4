"""selfsup search: the nearest samples."""

from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import AsJson, DataArgument, Debug, FollowLinks, Quiet, RunArgument


def search(
    run: RunArgument,
    query: Annotated[str, typer.Argument(help="a text, or a file that is there", metavar="QUERY")],
    data: DataArgument,
    top: Annotated[int, typer.Option(help="samples to show", min=1)] = 10,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """The samples nearest to a text or a file, with their cosines.

    A text as the query needs a run on pairs; a file works with any run.
    """
    from ..search import search as look

    found = look(
        run, query, data, top=top, console=Console(quiet=quiet), follow_links=bool(follow_links)
    )
    return Answer.of(found)
