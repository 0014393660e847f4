"""selfsup simulate: episodes of a simulated world."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import AsJson, Debug, Quiet


def simulate(
    environment: Annotated[str, typer.Argument(help="rooms", metavar="ENVIRONMENT")],
    out: Annotated[Path, typer.Option(help="new folder for the episodes")],
    episodes: Annotated[int, typer.Option(help="how many", min=1)] = 500,
    steps: Annotated[int, typer.Option(help="steps of each", min=2)] = 64,
    seed: Annotated[int, typer.Option(help="the same seed makes the same episodes")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Make data: episodes of a policy without aim in a simulated world."""
    from ..simulate import simulate as make

    made = make(
        environment, out, episodes=episodes, steps=steps, seed=seed, console=Console(quiet=quiet)
    )
    return Answer.of(made)
