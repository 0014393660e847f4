"""From data to a pretrained encoder: settings, source, store, loader, views, method, training.

`start` is the whole of `selfsup pretrain`, read from top to bottom; the parts are beside it.
"""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from .. import distributed, modalities
from .. import settings as schema
from ..checkpoint import newest_whole
from ..console import Console, columns
from ..data import Ledger, Source
from ..data.sources import keep_apart
from ..errors import SelfsupError
from ..load import CARD, Card
from ..logs import Row, open_sink
from ..run import Run
from ..settings import Given, Settings
from ..stop import stop
from ..train import train
from .choose import absolute, choose, source_of, stored
from .ended import Done, account, already
from .job import Job, modality_of
from .online import online
from .progress import Progress
from .starts import known_state, place_of, take_weights

__all__ = ["Done", "Job", "pretrain", "start"]


def pretrain(
    data: Any = None,
    *,
    method: str | Mapping[str, Any] | None = None,
    encoder: str | Mapping[str, Any] | None = None,
    modality: str | Mapping[str, Any] | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    resolution: int | None = None,
    out: str | os.PathLike | None = None,
    seed: int | None = None,
    from_run: str | os.PathLike | Run | Mapping[str, str | os.PathLike | Run] | None = None,
    labels: str | os.PathLike | None = None,
    config: str | os.PathLike | None = None,
    allow_change: bool = False,
    quiet: bool = False,
    **sections: Mapping[str, Any],
) -> Run:
    """Train an encoder on unlabelled data and return the run.

    `data` is a folder, shards, a table, an array file, a NumPy array or a map-style dataset. What
    is not given is chosen. `method`, `encoder` and `modality` are names, or dictionaries of a
    name and its settings; other settings come by section: `optim={"lr": 1e-3}`. With an `out`
    that exists the run in there is continued. `from_run` is a run to start from, or one for each
    tower: {"image": "runs/a"}. `labels` are only watched by, never learned from.
    Raises SelfsupError for what a user can mend, and KeyboardInterrupt after Ctrl-C, once the run
    is saved. A run that collapses returns, and its status says so.
    """
    tables: dict[str, dict[str, Any]] = {name: dict(table) for name, table in sections.items()}
    named = (("method", method), ("encoder", encoder), ("modality", modality))
    for name, value in named:
        if value is not None:
            tables[name] = {"name": value} if isinstance(value, str) else dict(value)
    arguments: dict[str, Any] = {
        "data.path": os.fspath(data) if isinstance(data, str | os.PathLike) else None,
        "data.labels": labels,
        "data.resolution": resolution,
        "train.minutes": minutes,
        "train.epochs": epochs,
        "train.steps": steps,
        "train.batch": batch,
        "train.seed": seed,
    }
    if isinstance(from_run, Mapping):
        arguments["start_towers"] = [f"{k}={place_of(v)}" for k, v in from_run.items()]
    elif from_run is not None:
        arguments["start_from"] = place_of(from_run)
    options = schema.flatten(tables, "argument")
    options |= {k: Given(v, "argument") for k, v in arguments.items() if v is not None}
    given = schema.gather(file=config, options=options)
    done = start(
        given,
        data=None if isinstance(data, str | os.PathLike) else data,
        out=Path(out) if out is not None else None,
        allow_change=allow_change,
        console=Console(quiet=quiet),
    )
    assert done.run is not None
    if stop.requested:  # the run is saved; what comes after this call must not go on
        print(done.text, file=sys.stderr)
        if stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(stop.exit_code)
    return done.run


def start(
    given: Mapping[str, Given],
    *,
    data: Any = None,
    out: Path | None = None,
    dry_run: bool = False,
    print_config: bool = False,
    allow_change: bool = False,
    until: float = 1.0,
    console: Console | None = None,
) -> Done:
    """Begin a run, continue it, or say that it is finished.

    `given` is what settings.gather found; `data` is an object that has no path, if any. The run
    stops, to be continued, once its progress has come to `until`.
    """
    console = console or Console()
    stop.signal = None  # a run that was stopped before, in the same process, is over
    with stop.installed(), distributed.process_group():
        console.quiet = console.quiet or distributed.rank() > 0
        given = absolute(given)
        before, text = stored(out, given)
        if out and before and not allow_change and not (dry_run or print_config):
            run = Run(out)
            if run.done:
                if text != (out / "resolved.toml").read_text("utf-8"):
                    run.settle(text)  # raises, and names what is different
                return already(run)
        schema.check(given, partial=True)
        source = source_of(given, before, data)
        settings = before or choose(given, source, console)
        _check_divisible(settings["modality.name"])
        text = text or settings.to_toml()
        if print_config:
            rows = [(k, v, s if not why else f"{s}: {why}") for k, v, s, why in settings.rows()]
            return Done(settings.to_json(), columns(rows, width=100), 0)
        _show(settings, source, before is not None, console)
        if dry_run:
            from ..rehearse import forecast

            console.progress("taking 20 real steps, or as many as fit into a minute ...")
            with closing(Job(settings, source, ahead=False)) as job:
                seen = forecast(job, out or Path("runs"))
            code = 0 if seen.go else 74
            return Done(seen.to_json(), seen.text(), code)

        out = out or _new_folder(settings, source)
        keep_apart(out, settings["data.path"])
        run = Run(out)
        with run.lock() if distributed.rank() == 0 else nullcontext():
            return _train(run, settings, text, source, allow_change, until, console)


def _train(
    run: Run,
    settings: Settings,
    text: str,
    source: Source,
    allow_change: bool,
    until: float,
    console: Console,
) -> Done:
    lead = distributed.rank() == 0
    if lead:
        run.settle(text, allow_change=allow_change or not run.begun)
        run.settle_data(source, allow_change=allow_change or not run.begun)
        run.write_environment()
        if allow_change:
            run.reopen()
    distributed.share(0)  # wait until the folder is there
    began = time.monotonic()
    ledger = Ledger(run.path / "data" / "skipped.jsonl" if lead else None)
    job = Job(
        settings, source, modality_of(settings, source, known_state(run, settings)), ledger=ledger
    )
    try:
        for note in (*job.store.notes, *job.loader.notes):
            console.say(f"note: {note}")
        fresh = bool(distributed.share(int(lead and newest_whole(run.checkpoints) is None)))
        if fresh:
            take_weights(job.method, settings, console)
        if lead:
            run.write_json(CARD, _card(settings, job.modality).to_json())
            _tell_copies(run, job, console)
        if settings["train.compile"]:
            console.say("compiling: the first steps take a minute")
        told = Progress(console, job, run, fresh)
        console.say(f"run: {run.path}" + ("" if fresh else " (continued)"))
        watch = online(settings, job) if settings["data.labels"] else None
    except BaseException:
        job.close()
        raise
    with stop.polled():  # from here on a signal is heard by the loop, which saves and returns
        try:
            outcome = train(
                job.method,
                job.batches,
                batch=job.batch,
                steps=job.steps,
                minutes=settings.plain().get("train.minutes"),
                until=until,
                optim=job.optim,
                run=run,
                seed=job.seed,
                precision=settings["train.precision"],
                accumulate=settings["train.accumulate"],
                chunk=settings["train.chunk"],
                watch=told,
                stop=stop,
                checkpoint_seconds=60 * settings["checkpoint.every_minutes"],
                keep=settings["checkpoint.keep"],
                online=watch,
                capture=job.names,
                alike=job.alike,
                epoch_samples=len(job.store),
                shard=settings["train.shard"],
                compile=settings["train.compile"],
                allow_change=allow_change,
                sinks=_sinks(settings, run) if lead else (),
            )
            told.events()
        finally:
            job.close()
        return account(run, settings, job, outcome, told, time.monotonic() - began)


def _check_divisible(name: str) -> None:
    """Raises E801 where several processes would all compute the same."""
    if distributed.world() > 1 and not modalities.find(name).divisible:
        raise SelfsupError(
            "E801",
            f"{distributed.world()} processes cannot share {name} data",
            why="each step needs the whole of them: every process would compute the same",
            do="start one process, without torchrun: it uses all cores, or one graphics card",
        )


def _show(settings: Settings, source: Source, again: bool, console: Console) -> None:
    """What was chosen, and why."""
    copies = source.problems.counts().get("copy", 0)
    left_out = f", and {copies} copies that are left out" if copies else ""
    console.say(f"data: {len(source)} samples in {source.place}{left_out}")
    rows = []
    for key, value, where, reason in settings.rows():
        if where == "plan" or (where != "default" and not again):
            why = reason if where == "plan" else f"given by {where}"
            rows.append((f"  {key}", value, why))
    if not again:
        console.say(columns(rows, width=max(80, console.width)))


def _new_folder(settings: Settings, source: Source) -> Path:
    """runs/photos-20260131-1f3a"""
    place = settings["data.path"] or source.kind
    stem = "".join(c if c.isascii() and c.isalnum() else "-" for c in Path(place).name)
    stem = stem[:40].strip("-").lower() or "run"
    day = distributed.share(int(time.strftime("%Y%m%d")))
    return Path("runs") / f"{stem}-{day}-{distributed.share(secrets.randbits(16)):04x}"


def _card(settings: Settings, modality: Any) -> Card:
    """All that is needed beside encoder.safetensors to rebuild the encoder."""
    keywords = settings.section("encoder")
    return Card(
        modality=settings["modality.name"],
        name=keywords.pop("name"),
        size=settings["data.resolution"],
        kwargs={key: value for key, value in keywords.items() if value is not None},
        mean=modality.mean,
        std=modality.std,
        method=settings["method.name"],
        state=modality.state,
        options={k: v for k, v in settings.section("modality").items() if k != "name"},
    )


def _tell_copies(run: Run, job: Job, console: Console) -> None:
    copies, looked = job.copies()
    run.write_counts({"copies": copies, "copies_among": looked})
    if copies:
        one = copies == 1
        what = "sample is an exact copy of another" if one else "samples are exact copies of others"
        console.say(
            f"note: {copies} of {looked} {what}: `selfsup scan` counts such files, --drop-copies "
            "leaves them out"
        )


def _sinks(settings: Settings, run: Run) -> Sequence[Callable[[Row], None]]:
    return [open_sink(name, run.path) for name, on in settings.section("log").items() if on]
