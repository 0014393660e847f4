"""selfsup pretrain: an encoder from unlabelled data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..console import Console
from ..errors import SelfsupError
from .answer import Answer
from .options import DATA, AsJson, Cache, Debug, FollowLinks, Quiet


def pretrain(
    data: Annotated[str | None, DATA] = None,
    method: Annotated[
        str | None, typer.Option(help="self-supervised method: selfsup list methods")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="network to train: selfsup list encoders")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="length in minutes; all else is chosen to fit")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="length in passes over the data")] = None,
    steps: Annotated[int | None, typer.Option(help="length in optimizer steps")] = None,
    batch: Annotated[int | None, typer.Option(help="samples per step, over all processes")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="size of a view: pixels a side, tokens, time steps")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="what the samples are: selfsup list modalities")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="all random numbers follow from it")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the run; an existing run is continued")
    ] = None,
    start_from: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="start from this run's weights; TOWER=RUN: that tower", metavar="RUN"
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="labelled folder or CSV to watch progress by; never in the loss"),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="any setting, e.g. --set optim.lr=1e-3", metavar="KEY=VALUE"),
    ] = None,
    shard: Annotated[
        bool | None, typer.Option("--shard", help="spread the weights over processes (FSDP2)")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="threads that prepare batches")] = None,
    cache: Cache = None,
    follow_links: FollowLinks = None,
    drop_copies: Annotated[
        bool | None,
        typer.Option("--drop-copies", help="leave out files that are copies, byte for byte"),
    ] = None,
    keep_truncated: Annotated[
        bool | None,
        typer.Option("--keep-truncated", help="use what can be read of files cut short"),
    ] = None,
    allow_change: Annotated[
        bool,
        typer.Option("--allow-change", help="continue a run although its settings or data changed"),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="20 real steps, then time, memory, disk, GO or NO-GO"),
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="print each setting, its source and reason; stop"),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Train an encoder on unlabelled data.

    Whatever is not given is chosen, and each choice is printed with its reason.
    The same command with the same --out continues an interrupted run; a finished run says so.
    Ctrl-C saves and stops.
    """
    from ..pretrain import start
    from ..settings import Given, gather

    whole, towers = _starts(start_from or ())
    options = {
        "data.path": (data, "DATA"),
        "modality.name": (modality, "--modality"),
        "method.name": (method, "--method"),
        "encoder.name": (encoder, "--encoder"),
        "train.minutes": (minutes, "--minutes"),
        "train.epochs": (epochs, "--epochs"),
        "train.steps": (steps, "--steps"),
        "train.batch": (batch, "--batch"),
        "data.resolution": (resolution, "--resolution"),
        "train.seed": (seed, "--seed"),
        "start_from": (whole, "--from"),
        "start_towers": (towers, "--from"),
        "data.labels": (labels, "--labels"),
        "train.shard": (shard, "--shard"),
        "data.workers": (workers, "--workers"),
        "data.cache": (cache, "--cache"),
        "data.follow_links": (follow_links, "--follow-links"),
        "data.drop_copies": (drop_copies, "--drop-copies"),
        "modality.keep_truncated": (keep_truncated, "--keep-truncated"),
    }
    given = gather(
        file=config,
        options={k: Given(v, flag) for k, (v, flag) in options.items() if v is not None},
        sets=sets or (),
    )
    done = start(
        given,
        out=out,
        dry_run=dry_run,
        print_config=print_config,
        allow_change=allow_change,
        console=Console(quiet=quiet),
    )
    return Answer(done.result, done.text, done.exit_code)


def _starts(places: Sequence[str]) -> tuple[str | None, list[str] | None]:
    """The run to start from as a whole, and those of towers, TOWER=RUN."""
    towers = [p for p in places if p.partition("=")[1] and p.partition("=")[0].isidentifier()]
    whole = [p for p in places if p not in towers]
    if len(whole) > 1 or (whole and towers):
        raise SelfsupError(
            "E201",
            f"--from is given {len(places)} times",
            why="a whole run is one start; several are of towers",
            do="--from image=RUN --from text=RUN",
        )
    return next(iter(whole), None), towers or None
