"""selfsup plan: act by a world model."""

from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import AsJson, Debug, Quiet, RunArgument


def plan(
    run: RunArgument,
    environment: Annotated[str, typer.Option(help="world to act in: rooms")] = "rooms",
    episodes: Annotated[int, typer.Option(help="goals to try", min=1)] = 100,
    planner: Annotated[str, typer.Option(help="mppi or cem")] = "mppi",
    seed: Annotated[int, typer.Option(help="of starts, goals and draws")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Act by a world model: how many goals are reached, beside controls.

    The goal is a picture; plans are made in the space of the encoder's vectors. Beside it: random
    actions, walking straight with the true places known, and behaviour cloning of the run's data.
    """
    from ..evaluate.control import control

    told = control(
        run,
        environment=environment,
        episodes=episodes,
        planner=planner,
        seed=seed,
        console=Console(quiet=quiet),
    )
    return Answer.of(told)
