"""selfsup compare: several methods under one budget."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import AsJson, Cache, DataArgument, Debug, Quiet


def compare(
    data: DataArgument,
    methods: Annotated[
        str, typer.Option(help="methods to compare, parted by commas: selfsup list methods")
    ] = "",
    vary: Annotated[
        str | None,
        typer.Option(help="views: one method, each operation of its views left out in turn"),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="for all training together; 30 where no length is given")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="length of one full run instead")] = None,
    labels: Annotated[
        str | None, typer.Option(help="labelled folder or CSV to rank by; never in a loss")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of the comparison")] = Path("runs/compare"),
    seed: Annotated[int, typer.Option(help="all random numbers follow from it")] = 0,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="a setting of all runs, as of pretrain", metavar="KEY=VALUE"),
    ] = None,
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Which method suits these data: the same budget for all, one leaderboard.

    The worse half stops at a quarter of a full run, and of the others at a half. The same command
    goes on where it was.
    """
    from ..compare import compare as run_all
    from ..settings import gather

    given = {key: item.value for key, item in gather(sets=sets or ()).items()}
    found = run_all(
        data,
        methods=[name.strip() for name in methods.split(",") if name.strip()],
        vary=vary,
        minutes=minutes,
        steps=steps,
        labels=labels,
        out=out,
        seed=seed,
        settings=given | ({"data.cache": cache} if cache else {}),
        console=Console(quiet=quiet),
    )
    return Answer(found.to_json(), f"{found}\n\nreport: {out / 'report.html'}")
