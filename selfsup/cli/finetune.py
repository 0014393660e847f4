"""selfsup finetune: a model, taught by labels."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import AsJson, Cache, Debug, DropLeaks, FollowLinks, Quiet, RunArgument, counts


def finetune(
    run: RunArgument,
    data: Annotated[str, typer.Argument(help="labelled folder, table or array", metavar="DATA")],
    out: Annotated[Path, typer.Option(help="folder of the model")] = Path("models/finetuned"),
    labels: Annotated[
        str | None,
        typer.Option(
            help="table with the columns path,label (a class, a number or a text), or a folder of "
            "masks",
            metavar="LABELS",
        ),
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="labelled data for the final number", metavar="DATA")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="classify, regress, transcribe, forecast, segment; default: by labels"),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="what moves: head, lora, full; default: by their number")
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(help="steps that a forecast tells; default: 24, of short series 60 %", min=1),
    ] = None,
    minutes: Annotated[float, typer.Option(help="for all trainings", min=0.01)] = 10.0,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="also train from scratch (slower)")
    ] = True,
    shots: Annotated[
        str | None,
        typer.Option(
            help="also a curve of few labels, per class or in all: 1,10,100", metavar="COUNTS"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="draws of each point of the curve", min=1)] = 3,
    drop_leaks: DropLeaks = False,
    seed: Annotated[int, typer.Option(help="of the split and the trainings")] = 0,
    cache: Cache = None,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Teach an encoder what labels say, and keep the model.

    What is asked for is seen from the labels, how much is trained from their number, and both are
    printed. The final number stands beside a frozen probe and the same network from scratch.
    """
    from ..finetune import finetune as teach

    found = teach(
        run,
        data,
        out,
        horizon=horizon,
        minutes=minutes,
        controls=controls,
        shots=counts(shots) if shots else (),
        seeds=seeds,
        drop_leaks=drop_leaks,
        seed=seed,
        console=Console(quiet=quiet),
        labels=labels,
        test=test,
        task=task,
        train=train,
        cache=cache,
        follow_links=bool(follow_links),
    )
    return Answer.of(found)
