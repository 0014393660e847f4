"""The settings of a run: what is given, what its folder already holds, and what is chosen."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import distributed, faults, listing, machine, modalities
from .. import settings as schema
from ..console import Console
from ..data import Source, open_source
from ..data.copies import without_copies
from ..data.seen import seen_as
from ..errors import SelfsupError
from ..plan import Choice, Facts, plan
from ..run import Run
from ..settings import Given, Settings, method_class
from ..stop import stop
from .job import Job, device, learned
from .starts import by_tower

PATHS = ("data.path", "data.labels", "data.cache", "start_from")


def absolute(given: Mapping[str, Given]) -> dict[str, Given]:
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
        starts = by_tower(towers.value).items()
        paths = [f"{k}={os.path.abspath(os.path.expanduser(v))}" for k, v in starts]
        made["start_towers"] = Given(paths, towers.source)
    return made


def stored(out: Path | None, given: Mapping[str, Given]) -> tuple[Settings | None, str]:
    """The settings of the run that is in `out` already, changed by what is given now; its text."""
    if out is None:
        return None, ""
    path = out / "resolved.toml"
    if not path.exists():
        if out.exists() and not _empty(out):
            raise SelfsupError(
                "E201",
                "--out is a folder with other things in it",
                where=str(out),
                do="give a new folder, or that of a run to continue it",
            )
        return None, ""
    if not Run(out).begun:  # what a start that failed has left
        return None, ""
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


def source_of(given: Mapping[str, Given], stored: Settings | None, data: Any) -> Source:
    """The data as the modality of the run will read them, without what it is not to see."""
    if stored is None:
        seen = [choice for choice in _as_in(given) if choice.key.startswith("modality.")]
        given = {**_planned(seen), **given}

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
    usual = "pairs" if "modality.columns" in given else source.content
    kind = value("modality.name", usual)
    if kind in listing.modalities():
        known: Mapping[str, Any] = stored.plain() if stored else {}
        known = known or schema.check({**given, "modality.name": Given(kind, "plan")}, partial=True)
        shelf = "modality."
        keywords = {k.removeprefix(shelf): v for k, v in known.items() if k.startswith(shelf)}
        source = seen_as(source, modalities.find(keywords.pop("name"))(**keywords))
        if (wanted := keywords.get("columns")) and source.content != "pairs":
            raise SelfsupError(
                "E105",
                f"{source.place} does not have all of the columns {', '.join(wanted)}",
                why="modality.columns names columns of one table, which become parts of a sample",
                do="give names as they stand in the head of the table",
            )
    source = source.for_training()
    return without_copies(source) if value("data.drop_copies", False) is True else source


def choose(given: Mapping[str, Given], source: Source, console: Console) -> Settings:
    """Everything that was not given. All ranks measure together and choose the same."""
    before = _as_in(given)
    known = schema.check({**_planned(before), **given}, partial=True)
    if "modality.name" not in known:
        found = modalities.of_content(source.content)
        before.append(Choice("modality.name", found, "what the data hold"))
        known["modality.name"] = found
        named = {**given, "modality.name": Given(found, "plan")}
        known |= schema.check(named, partial=True)  # its settings wait for its name
    keywords = {k.removeprefix("modality."): v for k, v in known.items() if "modality." in k}
    modality = learned(keywords, source, known.get("start_towers", ()))

    def rate(candidate: Mapping[str, Any]) -> float:
        from ..rehearse import samples_per_second

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
    machine.give_back_memory()  # the largest encoder tried may be far larger than the one chosen
    optim = method_class({**known, **{c.key: c.value for c in choices}}["method.name"]).optim
    if not any(choice.key == "optim.lr" for choice in choices):
        reason = f"the method's own for {optim.per} samples; scaled to a batch"
        choices.append(Choice("optim.lr", optim.lr, reason))
    return schema.resolve(given, [*before, *choices])


def _planned(choices: list[Choice]) -> dict[str, Given]:
    return {choice.key: Given(choice.value, "plan") for choice in choices}


def _as_in(given: Mapping[str, Given]) -> list[Choice]:
    """The encoder, the size and the modality of the run whose weights are the start, if any is."""
    known = schema.check(given, partial=True)
    run = known.get("start_from")
    if not run:
        return []
    other = schema.load(Run.open(run).path / "resolved.toml")
    if known.get("encoder.name", other["encoder.name"]) != other["encoder.name"]:
        raise SelfsupError(
            "E201",
            f"--from is a run with {other['encoder.name']}, but the encoder is to be "
            f"{known['encoder.name']}",
            where=run,
            do="leave --encoder out",
        )
    same = known.get("modality.name", other["modality.name"]) == other["modality.name"]
    taken = ("encoder.", "modality.") if same else ("encoder.",)
    keys = [key for key in other.values if key.startswith(taken)]
    keys.append("data.resolution")
    return [
        Choice(key, other[key], f"as in {Path(run).name}")
        for key in keys
        if key not in given and other[key] is not None
    ]


def _facts(source: Source, modality: Any) -> Facts:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    extent = modality.extent(source)
    size, reason = modality.usual_size(extent, device().type)
    return Facts(
        len(source),
        size,
        reason,
        modality.name,
        modality.unit,
        device().type,
        distributed.share(cores or 1),
        distributed.world(),
        modality.encoders,
        modality.larger_sizes(extent, size),
    )
