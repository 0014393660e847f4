"""From data to a pretrained encoder: settings, source, store, loader, views, method, training.

`start` is the whole of `selfsup pretrain`, read from top to bottom; the parts are elsewhere.
"""

import json
import math
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import distributed, faults, listing, modalities, released
from . import settings as schema
from .console import Console, columns, duration
from .data import Batch, Ledger, Loader, Source, open_source, open_store
from .data.copies import LOOKED_AT, count_copies, without_copies
from .data.pairs import seen_as
from .errors import SelfsupError
from .logs import Row
from .optim import Optim
from .plan import Choice, Facts, plan
from .randomness import Draws, mix, order
from .run import Run
from .settings import Given, Settings, method_class
from .stop import stop
from .train import Outcome, train

# Pictures are stored this much larger than a view is, so that crops of them are still sharp
STORED = 1.5
LABELLED = 2000  # samples of --labels that the online kNN looks at, at most
PATHS = ("data.path", "data.labels", "data.cache", "start_from")
SHOWN = ("method", "encoder", "data.resolution", "train.batch", "optim.lr", "train")


class Done(NamedTuple):
    """How `start` ended: for a program, for a person, the exit code, and the run, if any."""

    result: dict[str, Any]
    text: str
    exit_code: int
    run: Run | None = None


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
        arguments["start_towers"] = [f"{k}={_place(v)}" for k, v in from_run.items()]
    elif from_run is not None:
        arguments["start_from"] = _place(from_run)
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
        given = _absolute(given)
        stored = _stored(out, given)
        if out and stored and not allow_change and not (dry_run or print_config):
            run = Run(out)
            if run.done:
                if stored[1] != (out / "resolved.toml").read_text("utf-8"):
                    run.settle(stored[1])  # raises, and names what is different
                return _already(run, stored[0])
        schema.check(given, partial=True)
        source = _source(given, stored[0] if stored else None, data)
        settings = stored[0] if stored else _choose(given, source, console)
        text = stored[1] if stored else settings.to_toml()
        if print_config:
            rows = [(k, v, s if not why else f"{s}: {why}") for k, v, s, why in settings.rows()]
            return Done(settings.to_json(), columns(rows, width=100), 0)
        _show(settings, source, stored is not None, console)
        if dry_run:
            from .rehearse import forecast

            console.progress("taking 20 real steps, or as many as fit into a minute ...")
            seen = forecast(Job(settings, source, ahead=False), out or Path("runs"))
            code = 0 if seen.go else 74
            return Done(seen.to_json(), seen.text(), code)

        out = out or _new_folder(settings, source)
        _keep_apart(out, settings)
        run = Run(out)
        with run.lock() if distributed.rank() == 0 else nullcontext():
            return _train(run, settings, text, source, allow_change, until, console)


# ---- one job: everything that a step needs ---------------------------------------------------


class Job:
    """The parts of a run, built from its settings.

    `batches(step)` is a pure function; `method` is on `device`; `optim` is its recipe.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        modality: Any = None,
        *,
        ledger: Ledger | None = None,
        ahead: bool = True,
    ):
        self.settings, self.size = settings, settings["data.resolution"]
        self.device = device()
        self.modality = modality or modality_of(settings, source)
        self.store = open_store(
            source,
            self.modality,
            round(STORED * self.size),
            cache=settings["data.cache"],
            ledger=ledger,
            workers=max(1, settings["data.workers"]) if ahead else 2,
        )
        parts = distributed.world() * settings["train.accumulate"]
        batch = min(settings["train.batch"], len(self.store))
        self.loader = Loader(
            self.store,
            max(parts, batch // parts * parts),
            settings["train.seed"],
            rank=distributed.rank(),
            world=distributed.world(),
            workers=settings["data.workers"] if ahead else 0,
        )
        self.batch = self.loader.batch_size
        self.held: Batch | None = None  # the last one that was asked for
        self.asked = 0  # samples that were ever asked for, bad ones among them
        self.seed = settings["train.seed"]
        self.optim = Optim(**settings.section("optim"))
        self.method = build_method(settings, self.modality).to(self.device)
        self.local_size = local_size(self.modality, self.method.encoder, self.size)

    @property
    def steps(self) -> int | None:
        """The length in steps; None where it is given in minutes."""
        values = self.settings.values
        if "train.steps" in values:
            return values["train.steps"].value
        if "train.epochs" in values:
            epochs = values["train.epochs"].value
            return max(1, math.ceil(epochs * len(self.store) / self.batch))
        return None

    def batches(self, step: int, part: int = 0, parts: int = 1) -> list[Tensor]:
        """The views of a step, or of one part of it."""
        self.asked = max(self.asked, (step + 1) * self.batch)
        batch = self.held = self.loader.batch(step, part, parts).to(self.device)
        draws = Draws(self.seed, batch.samples)
        return self.modality.views(batch, self.method.views, draws, self.size, self.local_size)

    def alike(self) -> bool:
        """Whether the samples of the last batch, as they are stored, are all the same."""
        return self.held is not None and self.held.alike()

    def copies(self) -> tuple[int, int]:
        """How many copies of others there are among the first samples to be used, and of how many.

        They are decoded here because they are needed next; where nothing is stored, fewer are.
        """
        some = order(self.seed, 0, len(self.store))
        some = some[: LOOKED_AT if self.store.mode != "stream" else LOOKED_AT // 8]
        return count_copies(self.store, some), len(some)

    def names(self, step: int) -> list[str]:
        """Which samples a step holds."""
        source = self.store.source
        return [source.name(i) for i in self.loader.batch(step).indices.tolist()]

    def close(self) -> None:
        self.loader.close()
        self.store.close()


def device() -> torch.device:
    """Where a run computes: this process's graphics card, or the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def local_size(modality: Any, encoder: nn.Module, size: int) -> int | None:
    """The size of local views: the modality's own, or the nearest that the encoder's patches tile.

    None leaves it to the modality.
    """
    usual = getattr(modality, "local_size", None)
    patch: tuple[int, ...] = getattr(getattr(encoder, "stem", None), "patch", ())
    if usual is None or len(set(patch)) != 1:
        return None
    side, wanted = patch[0], usual(size)
    return wanted if wanted % side == 0 else max(side, round(wanted / side) * side)


def modality_of(settings: Settings, source: Source, state: Mapping[str, Any] | None = None) -> Any:
    """The modality, with what it knows of the data: `state`, or learned from them now."""
    keywords = settings.section("modality")
    modality = modalities.find(keywords.pop("name"))(**keywords)
    if state is None:
        modality.learn(source)
        _adopt(modality, settings["start_towers"])
    else:
        modality.restore(dict(state))
    return modality


def build_method(settings: Settings, modality: Any) -> Any:
    """The untrained method; its weights follow from the seed. Raises E201 for odd settings."""
    torch.manual_seed(mix(settings["train.seed"], 0x77656967687473))
    names = settings.section("encoder")
    keywords = settings.section("method")
    try:
        keywords = released.taught(keywords, modality, settings["data.resolution"])
        encoder = modality.encoder(names.pop("name"), settings["data.resolution"], **names)
        return method_class(keywords.pop("name"))(encoder, **keywords)
    except (ValueError, TypeError, AssertionError, ZeroDivisionError, RuntimeError) as error:
        shown = {**settings.section("encoder"), **settings.section("method")}
        raise SelfsupError(
            "E201",
            f"the encoder and the method cannot be built: {error or type(error).__name__}",
            where=", ".join(f"{key}={value}" for key, value in shown.items()),
            do="check the settings of [encoder] and [method]: selfsup list methods",
        ) from error


# ---- the steps of `start` --------------------------------------------------------------------


def _absolute(given: Mapping[str, Given]) -> dict[str, Given]:
    """Paths that mean the same from any folder, so that resolved.toml does."""
    made = dict(given)
    for key in PATHS:
        item = made.get(key)
        if item is not None and isinstance(item.value, str | os.PathLike) and item.value != "none":
            made[key] = Given(os.path.abspath(os.path.expanduser(item.value)), item.source)
    teacher = made.get("method.teacher")
    if teacher is not None and os.path.isdir(str(teacher.value)):  # and no timm:NAME
        made["method.teacher"] = Given(os.path.abspath(teacher.value), teacher.source)
    towers = made.get("start_towers")
    if towers is not None:
        starts = _starts(towers.value).items()
        paths = [f"{k}={os.path.abspath(os.path.expanduser(v))}" for k, v in starts]
        made["start_towers"] = Given(paths, towers.source)
    return made


def _place(run: str | os.PathLike | Run) -> str:
    return os.fspath(run.path if isinstance(run, Run) else run)


def _starts(texts: Sequence[str]) -> dict[str, str]:
    """["image=runs/a"] as {"image": "runs/a"}."""
    return {tower: run for tower, _, run in (str(text).partition("=") for text in texts)}


def _adopt(modality: Any, texts: Sequence[str]) -> None:
    """Towers that start from other runs see what those runs saw, and as they did."""
    from .load import CARD, Card
    from .load import modality_of as as_carded

    for tower, place in _starts(texts).items():
        if not hasattr(modality, "adopt"):
            raise SelfsupError(
                "E201",
                f"--from {tower}=... names a tower, and {modality.name} data have none",
                do="--from RUN",
            )
        path = Run.open(place).path / CARD
        card = Card.read(path)
        modality.adopt(tower, card, as_carded(card, path))


def _stored(out: Path | None, given: Mapping[str, Given]) -> tuple[Settings, str] | None:
    """The settings of the run that is in `out` already, changed by what is given now; its text."""
    path = out / "resolved.toml" if out is not None else None
    if path is None or not path.exists():
        if out is not None and out.exists() and not _empty(out):
            raise SelfsupError(
                "E201",
                "--out is a folder with other things in it",
                where=str(out),
                do="give a new folder, or that of a run to continue it",
            )
        return None
    before = schema.from_file(path)
    layers = dict(before)
    if any(key in given for key in schema.LENGTHS):
        layers = {key: value for key, value in layers.items() if key not in schema.LENGTHS}
    for shelf in schema.SHELVES:  # another method has other settings
        name = given.get(f"{shelf}.name")
        if name is not None and name.value != before[f"{shelf}.name"].value:
            layers = {k: v for k, v in layers.items() if not k.startswith(f"{shelf}.")}
    settings = schema.resolve({**layers, **given}, ())
    same = not settings.differences(schema.resolve(before, ()))
    return settings, path.read_text("utf-8") if same else settings.to_toml()


def _empty(folder: Path) -> bool:
    """Whether nothing is in the way of a run there. What a start that failed left is not."""
    own = {"data", "checkpoints", "lock", "owner.json"}
    return folder.is_dir() and all(entry.name in own for entry in folder.iterdir())


def _source(given: Mapping[str, Given], stored: Settings | None, data: Any) -> Source:
    def value(key: str, default: Any) -> Any:
        if key in given:
            return given[key].value
        return stored[key] if stored else default

    if data is None:
        data = value("data.path", None)
        data = None if data == schema.NONE else data
    if data is None:
        raise SelfsupError(
            "E201",
            "no data are given",
            do="selfsup pretrain photos/ - or data.path in the file of --config",
        )
    source = open_source(data, follow_links=bool(value("data.follow_links", False)))
    kind = value("modality.name", None)
    if kind in listing.modalities():
        source = seen_as(source, modalities.find(kind).contents)
    source = source.for_training()
    return without_copies(source) if value("data.drop_copies", False) is True else source


def _choose(given: Mapping[str, Given], source: Source, console: Console) -> Settings:
    """Everything that was not given. All ranks measure together and choose the same."""
    known = schema.check(given, partial=True)
    before: list[Choice] = []
    if start_from := known.get("start_from"):
        before = _as_in(start_from, known)
        known |= {key: value for key, value, _ in before}
    if "modality.name" not in known:
        found = modalities.of_content(source.content)
        before.append(Choice("modality.name", found, "what the data hold"))
        known["modality.name"] = found
        named = {**given, "modality.name": Given(found, "plan")}
        known |= schema.check(named, partial=True)  # its settings wait for its name
    keywords = {k.removeprefix("modality."): v for k, v in known.items() if "modality." in k}
    modality = modalities.find(keywords.pop("name"))(**keywords)
    modality.learn(source)
    _adopt(modality, known.get("start_towers", ()))

    def rate(candidate: Mapping[str, Any]) -> float:
        from .rehearse import samples_per_second

        stop.check()
        faults.at("plan.measure")
        words = [
            f"{key.removeprefix('encoder.')} {value}"
            for key, value in candidate.items()
            if key.startswith("encoder.") and key != "encoder.name"
        ]
        console.progress(" ".join(["measuring", candidate["encoder.name"], *words, "..."]))
        trial = [Choice(key, value, "") for key, value in candidate.items()]
        trial = [*before, *trial, Choice("train.steps", 1, "")]
        job = Job(schema.resolve(given, trial), source, modality, ahead=False)
        try:
            speed = samples_per_second(job)
        finally:
            job.close()
        return distributed.share(round(1000 * speed)) / 1000

    choices = plan(
        known, _facts(source, modality), rate, modality.method_for(known.get("encoder.name"))
    )
    optim = method_class({**known, **{c.key: c.value for c in choices}}["method.name"]).optim
    if not any(choice.key == "optim.lr" for choice in choices):
        reason = f"the method's own for {optim.per} samples; scaled to a batch"
        choices.append(Choice("optim.lr", optim.lr, reason))
    return schema.resolve(given, [*before, *choices])


def _as_in(run: str, known: Mapping[str, Any]) -> list[Choice]:
    """The encoder, the size and the modality of the run whose weights are the start."""
    other = schema.load(Run.open(run).path / "resolved.toml")
    if known.get("encoder.name", other["encoder.name"]) != other["encoder.name"]:
        raise SelfsupError(
            "E201",
            f"--from is a run with {other['encoder.name']}, but the encoder is to be "
            f"{known['encoder.name']}",
            where=run,
            do="leave --encoder out",
        )
    keys = [key for key in other.values if key.startswith(("encoder.", "modality."))]
    keys.append("data.resolution")
    return [
        Choice(key, other[key], f"as in {Path(run).name}")
        for key in keys
        if key not in known and other[key] is not None
    ]


def _facts(source: Source, modality: Any) -> Facts:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    size, reason = modality.usual_size(modality.extent(source), device().type)
    return Facts(
        len(source),
        size,
        reason,
        modality.name,
        modality.unit,
        device().type,
        distributed.share(cores or 1),
        distributed.world(),
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


def _keep_apart(out: Path, settings: Settings) -> None:
    """Nothing is ever written among the user's data."""
    place = settings["data.path"]
    if place is None or not os.path.isdir(place):
        return
    inner, outer = Path(os.path.realpath(out)), Path(os.path.realpath(place))
    if inner == outer or outer in inner.parents:
        raise SelfsupError(
            "E201",
            "the run would be written into the data folder",
            where=str(out),
            why="the next run would find its files among the data",
            do="give a folder elsewhere with --out",
        )


def _already(run: Run, settings: Settings) -> Done:
    facts = run.done or {}
    path = run.path
    text = f"{path} is finished: {facts.get('step')} steps, {facts.get('verdict')}. Nothing to do."
    result = {"run": str(path), "status": "finished", "already_finished": True, **facts}
    return Done(result | {"exit_code": 0}, text, 0, run)


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
        run.settle(text, allow_change=allow_change)
        run.settle_data(source, allow_change=allow_change)
        run.write_environment()
        if allow_change:
            run.reopen()
    distributed.share(0)  # wait until the folder is there
    began = time.monotonic()
    ledger = Ledger(run.path / "data" / "skipped.jsonl" if lead else None)
    job = Job(settings, source, modality_of(settings, source, _known(run, settings)), ledger=ledger)
    for note in (*job.store.notes, *job.loader.notes):
        console.say(f"note: {note}")
    fresh = not any(run.checkpoints.glob("step-*"))
    if settings["start_from"] and fresh:
        _take_weights(job.method, settings["start_from"], console)
    elif fresh:
        _take_towers(job.method, _starts(settings["start_towers"]), console)
    if lead:
        run.write_json("encoder.json", _encoder_facts(settings, job.modality))
    if lead:
        _tell_copies(run, job, console)
    if settings["train.compile"]:
        console.say("compiling: the first steps take a minute")
    told = Progress(console, job, run, fresh)
    console.say(f"run: {run.path}" + ("" if fresh else " (continued)"))
    online = _online(settings, job) if settings["data.labels"] else None
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
                watch=told,
                stop=stop,
                checkpoint_seconds=60 * settings["checkpoint.every_minutes"],
                keep=settings["checkpoint.keep"],
                online=online,
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
        return _account(run, settings, job, outcome, told, time.monotonic() - began, console)


def _account(
    run: Run,
    settings: Settings,
    job: Job,
    outcome: Outcome,
    told: "Progress",
    seconds: float,
    console: Console,
) -> Done:
    """found = used + skipped, predicted against taken, and what to do next."""
    ledger = job.store.ledger
    ledger.take(distributed.collect(ledger.rows))
    counts, reasons = job.store.counts(), ledger.counts()
    assert counts["found"] == counts["used"] + counts["skipped"], counts
    asked = max(job.asked, outcome.step * job.batch)
    counts["unseen"] = max(0, len(job.store) - asked)
    if distributed.rank() == 0:
        run.write_counts({**counts, "reasons": reasons})
    epochs = outcome.step * job.batch / len(job.store)
    status = "finished" if outcome.finished else "stopped"
    if outcome.exit_code in (3, 4):
        status = outcome.verdict
    lines = [f"found {counts['found']} = used {counts['used']} + skipped {counts['skipped']}"]
    if reasons:
        listed = ", ".join(f"{count} {code}" for code, count in reasons.items())
        lines[0] += f" ({listed}; see {run.path / 'data' / 'skipped.jsonl'})"
    if counts["unseen"]:
        lines[0] += f"; {counts['unseen']} of the used were not reached yet"
    if told.predicted and outcome.finished:
        took = duration(outcome.seconds)
        lines.append(f"predicted {duration(told.predicted)}, took {took}")
    said = outcome.message not in ("", outcome.verdict)
    lines.append(f"{outcome.verdict}: {outcome.message}" if said else outcome.verdict)
    lines.append(f"{status} at step {outcome.step} of {outcome.steps} ({epochs:.3g} epochs)")
    if status == "finished":
        lines += ["", "next:", f"  selfsup evaluate {run.path} LABELLED_FOLDER"]
        lines += [f"  selfsup report {run.path}"]
    elif status == "stopped":
        lines += ["", f"saved; to continue: selfsup pretrain --out {run.path}"]
    last = told.last
    result = {
        "run": str(run.path),
        "status": status,
        "exit_code": outcome.exit_code,
        "step": outcome.step,
        "steps": outcome.steps,
        "epochs": epochs,
        "seconds": seconds,
        "predicted_seconds": told.predicted or None,
        "verdict": outcome.verdict,
        "message": outcome.message,
        "loss": last.get("train/loss"),
        "samples_per_second": last.get("speed/samples_per_second"),
        "data": counts,
        "skipped": reasons,
        "knn_top1": told.last.get("eval/knn_top1"),
        "settings": settings.plain(),
    }
    return Done(result, "\n".join(lines), outcome.exit_code, run)


def _known(run: Run, settings: Settings) -> dict[str, Any] | None:
    """What the modality has learned before: in this run, or in the one it starts from."""
    for place in (run.path, settings["start_from"]):
        card = Run(place).read_json("encoder.json") if place else None
        if card is not None:
            return card.get("state", {})
    return None


def _encoder_facts(settings: Settings, modality: Any) -> dict[str, Any]:
    """All that is needed beside encoder.safetensors to rebuild the encoder."""
    keywords = settings.section("encoder")
    return {
        "format": 1,
        "modality": settings["modality.name"],
        "name": keywords.pop("name"),
        "size": settings["data.resolution"],
        "kwargs": {key: value for key, value in keywords.items() if value is not None},
        "mean": list(modality.mean),
        "std": list(modality.std),
        "state": modality.state,
        "options": {k: v for k, v in settings.section("modality").items() if k != "name"},
        "method": settings["method.name"],
    }


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


def _take_weights(method: Any, place: str, console: Console) -> None:
    """All weights of another run where they fit, else those of its encoder."""
    from .checkpoint import read

    checkpoint = Run.open(place).checkpoint
    whole = dict(read(checkpoint, "method"))
    own = method.state_dict()
    if {k: v.shape for k, v in whole.items()} == {k: v.shape for k, v in own.items()}:
        method.load_state_dict(whole)
        console.say(f"weights: all of {place}")
        return
    encoder = dict(read(checkpoint, "encoder"))
    targets: list[nn.Module] = [method.encoder]
    if method.kept is not method.encoder:
        targets.append(method.kept)
    try:
        for target in targets:
            target.load_state_dict(encoder)
    except RuntimeError as error:
        raise SelfsupError(
            "E201",
            "the encoder of --from is not the one to be trained",
            where=place,
            why=str(error).splitlines()[-1].strip(),
            do="give the encoder and the resolution that its resolved.toml has",
        ) from error
    console.say(f"weights: the encoder of {place}; the rest of the method starts anew")


def _take_towers(method: Any, starts: Mapping[str, str], console: Console) -> None:
    """The encoder of a run for each tower that is to start from one."""
    from .checkpoint import read

    for tower, place in starts.items():
        weights = dict(read(Run.open(place).checkpoint, "encoder"))
        method.encoder.towers[tower].encoder.load_state_dict(weights)
        console.say(f"weights: the tower {tower} starts from {place}")


def _online(settings: Settings, job: Job) -> Callable[[nn.Module], dict[str, float]]:
    """kNN on labelled data, each sample against all others: a number to watch, nothing more."""
    import numpy as np

    from .evaluate.knn import nearest, vote

    source = open_source(settings["data.labels"])
    labelled = source.labels()
    if labelled is None:
        raise SelfsupError(
            "E105",
            "the data of --labels have no labels",
            where=str(settings["data.labels"]),
            do="give a folder with one sub-folder for each class, or a CSV with path,label",
        )
    labels, names = labelled
    rows = np.flatnonzero(labels >= 0)
    rows = np.sort(np.random.Generator(np.random.Philox(0)).permutation(rows)[:LABELLED])
    store = open_store(source, job.modality, round(STORED * job.size), cache=settings["data.cache"])

    def knn(encoder: nn.Module) -> dict[str, float]:
        features, truth = [], []
        for low in range(0, len(rows), 256):
            stop.check()
            batch = store.batch(rows[low : low + 256])
            truth.append(torch.from_numpy(labels[batch.indices.numpy()]))
            x = job.modality.plain(batch.to(job.device), job.size)
            features.append(encoder(x).float().cpu())
        z, y = torch.cat(features), torch.cat(truth)
        similarity, near = nearest(z, z, 20, among_themselves=True)
        guess = vote(similarity, y[near], len(names)).argmax(1)
        return {"knn_top1": (guess == y).float().mean().item()}

    return knn


def _sinks(settings: Settings, run: Run) -> Sequence[Callable[[Row], None]]:
    from .logs import open_sink

    return [open_sink(name, run.path) for name, on in settings.section("log").items() if on]


class Progress:
    """The line that a person watches, and the events that a person should hear of."""

    def __init__(self, console: Console, job: Job, run: Run, fresh: bool):
        self.console, self.job, self.run = console, job, run
        self.first: Row | None = None
        minutes = job.settings.plain().get("train.minutes")
        self.minutes = minutes
        self.predicted = 60 * minutes if minutes and fresh else 0.0
        self._events = run.path / "events.jsonl"
        self._read = self._events.stat().st_size if self._events.exists() else 0
        self.last: dict[str, float] = {}

    def __call__(self, row: Row) -> None:
        self.events()
        self.last |= {k: v for k, v in row.items() if isinstance(v, int | float)}
        left = self._left(row)
        parts = [f"step {row['step']}/{row['steps']}"]
        if row.get("epoch") is not None:
            parts.append(f"epoch {row['epoch']:.2f}")
        parts.append(f"{row['speed/samples_per_second']:.0f} samples/s")
        if left is not None:
            parts.append(f"{duration(left)} left")
        parts.append(f"data {100 * row['speed/data_wait']:.0f} %")
        terms = [key for key in row if key.startswith("train/")]
        for key in terms:
            if key not in ("train/loss", "train/lr", "train/grad_norm"):
                parts.append(f"{key.removeprefix('train/')} {row[key]:.3f}")
        if "monitor/rank" in self.last:
            parts.append(f"rank {self.last['monitor/rank']:.1f}")
        if "eval/knn_top1" in self.last:
            parts.append(f"kNN {100 * self.last['eval/knn_top1']:.1f} %")
        self.console.progress("  ".join(parts))

    def _left(self, row: Row) -> float | None:
        """Seconds to go, once five steps were seen."""
        if self.first is None:
            self.first = row
        steps = row["step"] - self.first["step"]
        if self.minutes:
            return max(0.0, 60 * self.minutes - row["time"])
        if steps < 5:
            return None
        pace = (row["time"] - self.first["time"]) / steps
        left = pace * (row["steps"] - row["step"])
        if not self.predicted:
            self.predicted = row["time"] + left
            self.console.say(f"this will take about {duration(self.predicted)}")
        return left

    def events(self) -> None:
        """Say what has been added to events.jsonl since the last look."""
        if not self._events.exists() or self.console.quiet:
            return
        with self._events.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                event = json.loads(line)
                style = "yellow" if event.get("verdict") not in ("", "healthy") else "dim"
                parts = [event["message"], event.get("cause"), event.get("do")]
                self.console.say("  ".join(p for p in parts if p), style)
