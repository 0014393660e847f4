"""Which method for my data: the same budget for all, losers stopped early, one leaderboard.

Successive halving (Jamieson and Talwalkar, 2015, https://arxiv.org/abs/1502.07943): all contenders
train a quarter of a full run, the better half goes on to a half of it, the better half of those to
its end. Each is an ordinary run, paused and continued exactly, so that none is trained twice.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import settings as schema
from .console import Console
from .data import open_source, open_store
from .data.base import Source
from .data.seen import seen_as
from .data.sources import keep_apart
from .errors import SelfsupError
from .evaluate import controls, linear
from .evaluate.features import extract, readable
from .evaluate.interval import difference, over_samples
from .evaluate.measure import measure_for
from .evaluate.quality import quality
from .evaluate.split import fifth, groups_of, split, together
from .leaderboard import (
    BY_PROBE,
    BY_QUALITY,
    WITHOUT,
    Comparison,
    full_minutes,
    kept,
    length,
    ranked,
)
from .listing import find
from .load import LoadedEncoder, load
from .logs import replace
from .randomness import order
from .report.compared import compared
from .run import Run
from .settings import Given, Settings
from .stop import Stopped, stop
from .transfer.tasks import Part

FORMAT = 2
WHOLE = "all-views"
OUTCOMES = "outcomes.npy"  # in the folder of a contender: of each sample that tests the probe
LOOKED_AT = 256  # samples whose views tell which operations they are made of
RUNGS = (0.25, 0.5, 1.0)  # of a full run, at which the worse half is stopped


def compare(
    data: str | Path,
    *,
    methods: Sequence[str] = (),
    vary: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    labels: str | Path | None = None,
    out: str | Path,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Comparison:
    """Train several contenders on the same unlabelled data and rank them.

    Contenders are `methods`, or with `vary="views"` the views of one method, whole and with one of
    their operations left out each. `minutes` is for all training together, 30 where nothing is
    given; `steps` is the length of one full run instead. `labels` are labelled data, of which only
    the training part is looked at: a linear probe on a held-out fifth of it ranks. Without them
    effective rank, stability under augmentation and agreement of neighbours do. What an operation
    contributes is the score of all views minus that without it, sample by sample. `settings` are
    those of `pretrain`, by dotted key, for all. The same call with the same `out` goes on where it
    was.

    Raises SelfsupError: E201 what is asked for makes no sense, E202 a method that cannot learn from
    the data, before any is trained, E304 `out` holds another comparison, and what `pretrain` and
    `evaluate` raise.
    """
    console, out = console or Console(), Path(out)
    for place in (data, labels):
        keep_apart(out, place)
    lengths = [length for length in (minutes, steps) if length is not None]
    if len(lengths) > 1 or min(lengths, default=1) <= 0:
        raise SelfsupError(
            "E201", f"minutes is {minutes}, steps {steps}",
            do="give one of --minutes, for all, and --steps, of a full run",
        )  # fmt: skip
    common = {"data.path": str(Path(data).absolute()), "train.seed": seed} | dict(settings or {})
    contenders = _contenders(tuple(methods), vary, common, console)
    rungs = RUNGS if vary is None else RUNGS[-1:]  # each operation is to get its number
    budget = {"steps": steps} if steps else {"minutes": minutes or 30.0}
    told = _begin(out, common, contenders, budget, rungs, labels)
    whole = {"train.steps": steps} if steps else {"train.minutes": full_minutes(told)}
    if not told["scores"]:
        _check(common, contenders if vary is None else {}, console)
    alive = list(contenders)
    for rung in rungs:
        for name in alive:
            if _score(told, name, rung) is None:
                given = common | whole | contenders[name]
                console.say(f"{name}: training to {rung:.0%} of {length(told)}")
                row = {"name": name, "rung": rung, **_train(out / name, given, rung, console)}
                # all are looked at alike: what is left out of views makes them easier to tell
                views = out / (WHOLE if vary else name)
                row |= _judge(out / name, labels, seed, console, views)
                if vary and labels is not None and name != WHOLE:
                    ours, theirs = (np.load(out / of / OUTCOMES) for of in (WHOLE, name))
                    row["contribution"] = difference(ours, theirs, seed)._asdict()
                told["scores"].append(row)
                replace(out / "compare.json", (json.dumps(told, indent=1) + "\n").encode())
        alive = _better_half(told, alive, rung) if rung < 1 else alive
    compared(out, Comparison(told).to_json())
    return Comparison(told)


# ---- who takes part --------------------------------------------------------------------------


def _contenders(
    methods: tuple[str, ...], vary: str | None, common: dict[str, Any], console: Console
) -> dict[str, dict[str, Any]]:
    """Name -> the settings in which it differs from the others."""
    if vary not in (None, "views"):
        raise SelfsupError("E201", f"--vary {vary} is not known", do="--vary views")
    if vary is None:
        if len(set(methods)) < 2:
            raise SelfsupError(
                "E201",
                "fewer than two methods to compare",
                do="--methods simclr,dino,mae: see selfsup list methods",
            )
        return {find("methods", name).name: {"method.name": name} for name in methods}
    if len(methods) > 1:
        raise SelfsupError("E201", "--vary views compares the views of one method", do="name one")
    method = {"method.name": methods[0]} if methods else {}
    console.progress("what are the views made of?")
    parts = _operations(common | method, console).items()
    return {WHOLE: method} | {
        f"{WITHOUT}{name}": {**method, "modality.without": without} for name, without in parts
    }


def _operations(given: Mapping[str, Any], console: Console) -> dict[str, str]:
    """Operations without which the views of the first samples are others, and the setting that
    leaves them out. Raises E201 where there are none."""
    from . import modalities
    from .pretrain.job import Job

    settings, source = _chosen(given, None)
    with closing(Job(settings, source, ahead=False)) as job:
        whole, keywords = job.modality, settings.section("modality")
        kind, before = modalities.find(keywords.pop("name")), keywords["without"]
        known = {name: f"{before},{name}".lstrip(",") for name in whole.operations}
        absent = {}  # as far as is known: the modality without an operation
        for name, without in known.items():
            absent[name] = kind(**keywords | {"without": without})
            absent[name].restore(whole.state)
            absent[name].meet(source)
        for step in range(math.ceil(LOOKED_AT / job.batch)):
            job.modality = whole
            views = _tensors(job.batches(step))
            for name in list(absent):
                job.modality = absent[name]
                if not all(map(torch.equal, views, _tensors(job.batches(step)))):
                    del absent[name]
    method = settings["method.name"]
    if len(absent) == len(known):
        raise SelfsupError(
            "E201",
            f"there is nothing to leave out of the views that {method} has here",
            why=f"operations on {whole.name} data are {', '.join(known)}; none changes these views",
            do="name a method whose views are disturbed, such as --methods simclr, or compare "
            f"methods: --methods {method},simclr",
        )
    if absent:
        console.say(f"not in the views that {method} has here: {', '.join(absent)}")
    return {name: without for name, without in known.items() if name not in absent}


def _tensors(x: Any) -> list[Tensor]:
    """All that views hold, whatever they are made of."""
    if isinstance(x, Tensor):
        return [x]
    if is_dataclass(x):  # not what it keeps of what it worked out
        x = [getattr(x, field.name) for field in fields(x)]
    parts = x.values() if isinstance(x, Mapping) else x
    return [t for part in parts if not isinstance(part, int | None) for t in _tensors(part)]


def _check(
    common: dict[str, Any], contenders: Mapping[str, dict[str, Any]], console: Console
) -> None:
    """Raises SelfsupError where one of them could not begin, before any of them trains."""
    from .pretrain.job import build_method, modality_of

    source = modality = None
    for name, own in contenders.items():
        console.progress(f"{name}: can it learn from these data?")
        settings, source = _chosen(common | own, source)
        modality = modality or modality_of(settings, source)
        build_method(settings, modality)


def _chosen(given: Mapping[str, Any], source: Source | None) -> tuple[Settings, Source]:
    """The settings of a run as `pretrain` would choose them, and its data."""
    from .pretrain.choose import absolute, choose, source_of

    given = {**given, "train.steps": 1}  # of a length in minutes speed is measured
    made = absolute({key: Given(value, "compare") for key, value in given.items()})
    source = source or source_of(made, None, None)
    return choose(made, source, Console(quiet=True)), source


def _begin(
    out: Path,
    common: dict[str, Any],
    contenders: Mapping[str, Any],
    budget: dict[str, Any],
    rungs: tuple[float, ...],
    labels: Any,
) -> dict[str, Any]:
    """What is known so far: of an earlier call, or nothing."""
    asked = {
        "format": FORMAT,
        "common": {key: str(value) for key, value in common.items()},
        "contenders": dict(contenders),
        "labels": None if labels is None else str(Path(labels).absolute()),
        "budget": budget,
        "rungs": list(rungs),
        "by": BY_QUALITY if labels is None else BY_PROBE,
    }
    path = out / "compare.json"
    if not path.exists():
        return asked | {"scores": []}
    told = json.loads(path.read_text("utf-8"))
    if {key: told.get(key) for key in asked} != asked:
        raise SelfsupError(
            "E304",
            "--out holds a comparison of other things",
            where=str(path),
            why="data, settings, contenders, budget or labels differ from what it was begun with",
            do="give the same command to go on with it, or another --out",
        )
    return told


# ---- one contender ---------------------------------------------------------------------------


def _train(path: Path, given: dict[str, Any], rung: float, console: Console) -> dict[str, Any]:
    from .pretrain import start

    quiet = Console(quiet=True)
    made = {key: Given(value, "compare") for key, value in given.items()}
    done = start(made, out=path, until=rung, console=quiet)
    if stop.requested:
        raise Stopped("the run is saved")
    run = Run(path)
    *_, last = run.metrics.read()
    encoder = done.result["settings"]["encoder.name"] if "settings" in done.result else ""
    console.say(f"  {done.result.get('step')} steps, {done.result.get('verdict')}")
    return {
        "encoder": encoder,
        "step": done.result.get("step"),
        "seconds": last.get("time"),
        "samples_per_second": last.get("speed/samples_per_second"),
        "health": done.result.get("verdict"),
    }


def _judge(path: Path, labels: Any, seed: int, console: Console, views: Path) -> dict[str, Any]:
    """Label-free quality under the views of another run, and a probe beside its controls where
    there are labels."""
    encoder = load(path)
    settings = schema.load(path / "resolved.toml")
    cache = settings["data.cache"]
    links = settings["data.follow_links"]
    source = open_source(settings["data.path"], follow_links=links)
    source = seen_as(source, encoder.modality).for_training()
    with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
        some = order(seed, 0, len(store))[:1000]
        some = store.batch(some).indices.numpy()  # those that can be read
        console.progress("quality without labels ...")
        modality = load(views).modality
        modality.meet(source)
        told = quality(encoder, store, some, modality, seed)
        found: dict[str, Any] = {"quality": told._asdict()}
    if labels is not None:
        console.progress("linear probe ...")
        found["probe"], outcomes = _probe(encoder, labels, seed, cache, links)
        np.save(path / OUTCOMES, outcomes)
    return found


def _probe(
    encoder: LoadedEncoder, labels: Any, seed: int, cache: str | None, links: bool = False
) -> tuple[dict[str, Any], np.ndarray]:
    """A linear probe on four fifths of the labels' training part, judged on the rest of it; and
    what each sample of that adds to the encoder's score."""
    source = seen_as(open_source(labels, follow_links=links), encoder.modality)
    known = source.labels()
    if known is None or not (known[0] >= 0).any():
        raise SelfsupError(
            "E501",
            f"no labels in {source.place}",
            do="sort the files into one folder per class, or give a CSV (columns path,label)",
        )
    with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
        usable, prints = readable(store, lambda text: None)
        teaching = split(source, known[0], usable, prints, drop_leaks=True, seed=seed).train
        teaching = teaching[order(seed, 1, len(teaching))]
        names, y = np.unique(known[0][teaching], return_inverse=True)
        number = dict(zip(usable.tolist(), groups_of(prints).tolist(), strict=True))
        equal = np.array([number[i] for i in teaching.tolist()])
        # no copy of what teaches judges, nor a clip of the same recording
        held = fifth(together(equal, source.groups(), teaching), y)
        train, test = teaching[~held], teaching[held]
        target, asked = torch.from_numpy(y[~held]), torch.from_numpy(y[held])
        own = Part(store, train, target).groups()
        pairs = {
            controls.PRETRAINED: (extract(encoder, store, train), extract(encoder, store, test)),
            controls.UNTRAINED: controls.untrained(
                encoder, store, train, test, seed, lambda text: None
            ),
            encoder.modality.baseline_name: controls.classical(encoder, store, train, test),
        }
        measure = measure_for(asked, len(names))
        found: dict[str, Any] = {"train": len(train), "test": len(test), "measure": measure.title}
        outcomes = {}
        for of, (a, b) in pairs.items():
            scale = linear.scale_of(a, common=of == encoder.modality.baseline_name)
            plane, _ = linear.probe(a, target, len(names), scale=scale, seed=seed, groups=own)
            outcomes[of] = measure(plane(scale(b)), asked)
            found[of] = over_samples(outcomes[of])._asdict()
    return found, outcomes[controls.PRETRAINED]


def _score(told: dict[str, Any], name: str, rung: float) -> dict[str, Any] | None:
    found = (row for row in told["scores"] if (row["name"], row["rung"]) == (name, rung))
    return next(found, None)


def _better_half(told: dict[str, Any], alive: list[str], rung: float) -> list[str]:
    scores = [row for row in told["scores"] if row["rung"] == rung and row["name"] in alive]
    return [row["name"] for row in ranked(told, scores)[: kept(len(alive))]]
