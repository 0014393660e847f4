"""What the labels ask for: seen from them, or named."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data import Source, open_source
from ..data.joined import Joined
from ..data.seen import seen_as
from ..data.series import Recordings, SeriesSource
from ..data.tables import encode
from ..errors import SelfsupError
from ..evaluate import forecast, tokens, transcribe
from ..evaluate.tasks import TASKS as JUDGED
from ..load import LoadedEncoder
from ..transfer.find import TASKS, task_class
from ..transfer.segment import grid_of, masks

DIFFERENT = 20  # whole numbers, up to which they are names of classes


class Asked(NamedTuple):
    """What the labels ask for. `values[i]` belongs to sample i; `known` where there is one."""

    task: str
    reason: str
    source: Source
    values: Any
    known: np.ndarray
    classes: list[str] | None = None
    notes: tuple[str, ...] = ()
    given: tuple[np.ndarray, list[str]] | None = None  # parts that the labels name


def ask(
    encoder: LoadedEncoder,
    data: Any,
    labels: str | Path | None,
    task: str | None,
    follow_links: bool,
) -> Asked:
    """The task, named or seen from the labels, with its reason and the labels themselves."""
    name = encoder.modality.name
    source = open_source(data, follow_links=follow_links)
    if task is None and tokens.suits(name, source, labels):
        task = "tokens"
    if task in JUDGED and task not in TASKS:
        given = "" if labels is None else f" --labels {shlex.quote(str(labels))}"
        raise SelfsupError(
            "E201", f"no model is taught for the task {task!r}", why=f"known: {', '.join(TASKS)}",
            do=f"selfsup evaluate RUN DATA{given} --task {task} says what the encoder knows of it",
        )  # fmt: skip
    if task is not None:
        task_class(task)  # E201 for an unknown one
    if task == "segment" or (task is None and labels is not None and Path(labels).is_dir()):
        folder = Path(labels if labels is not None else "")
        if labels is None or not folder.is_dir():
            raise _no_labels(source, "no folder of masks is given")
        grid_of(encoder.encoder)  # E202 where there is none
        source = seen_as(source, encoder.modality)
        drawn, known, notes = masks(source, folder, encoder.size)
        if not known.any():
            raise _no_labels(source, f"no mask in {folder} has the name of a picture")
        return Asked("segment", "the labels are masks", source, drawn, known, notes=tuple(notes))
    if task == "transcribe" or (task is None and transcribe.suits(name, source, labels)):
        if name != "audio":
            raise SelfsupError("E202", f"an encoder of {name} transcribes nothing",
                               do="give a run on sound")  # fmt: skip
        source = seen_as(open_source(source, labels=labels), encoder.modality, whole=True)
        place = Path(labels if labels is not None else source.place)
        texts, parts = transcribe.transcripts(source, place)
        known = np.array([bool(text) for text in texts])
        return Asked("transcribe", "the labels are texts", source, texts, known,
                     given=encode(part or None for part in parts))  # fmt: skip
    if task == "forecast" or (task is None and forecast.suits(name, source, labels)):
        if name != "series" or not isinstance(source, SeriesSource):
            raise _no_labels(source, "only an encoder of series learns from series alone")
        what = "a recording" if isinstance(source, Recordings) else "series"
        reason = f"{what} without labels: what comes next"
        return Asked("forecast", reason, source, None, np.ones(len(source), bool))
    source = seen_as(open_source(source, labels=labels), encoder.modality)
    found = source.labels()
    numbers = _numbers(source, found)
    reason = "asked for"
    if task is None and numbers is not None and _continuous(numbers[0], found):
        task, reason = "regress", f"the labels are numbers ({numbers[1]})"
    elif task is None:
        task, reason = "classify", "the labels are classes"
    if task == "regress":
        if numbers is None:
            raise _no_labels(source, "they are no numbers" if found else "none were found")
        return Asked(task, reason, source, numbers[0], np.isfinite(numbers[0]))
    if found is None or not (found[0] >= 0).any():
        raise _no_labels(source, "none were found")
    return Asked(task, reason, source, found[0], found[0] >= 0, found[1])


def _numbers(source: Source, found: Any) -> tuple[np.ndarray, str] | None:
    """A number for each sample, NaN for none, and where they come from."""
    if found is not None:
        try:
            each = np.array([*(float(name) for name in found[1]), np.nan])
        except ValueError:
            each = np.array([])
        if len(each):
            return each[found[0]], f"{len(found[1])} different ones"
    targets = getattr(source, "targets", None)
    told = targets() if targets is not None else None
    return None if told is None else (told[0], f"the column {told[1]}")


def _continuous(numbers: np.ndarray, found: Any) -> bool:
    known = numbers[np.isfinite(numbers)]
    different = np.unique(known)
    whole = bool((different == np.round(different)).all())
    if len(different) < 2 or (found is not None and whole and len(different) <= DIFFERENT):
        return False
    return not whole or len(different) > max(DIFFERENT, len(known) // 10)


def _no_labels(source: Source, why: str) -> SelfsupError:
    return SelfsupError(
        "E501", f"no labels in {source.place}", why=why,
        do="sort the files into one folder per class, or give --labels with a table "
        "(columns path,label) or a folder of masks; --test takes such a table itself",
    )  # fmt: skip


def with_test(asked: Asked, other: Asked) -> Asked:
    """Both as one: what was asked first teaches, the other tests."""
    if asked.task == "forecast":
        raise SelfsupError(
            "E201",
            "--test is not for forecasts",
            why="the last part of a recording tests, of many series those in a folder test/",
        )
    source = Joined(asked.source, other.source)
    known = np.concatenate([asked.known, other.known])
    if asked.classes is None:
        values: Any = [*asked.values, *other.values]
        if isinstance(asked.values, np.ndarray):
            values = np.array(values)
        return asked._replace(source=source, values=values, known=known, given=source.splits())
    codes, names = source.labels()  # type: ignore[misc]
    return asked._replace(
        source=source, values=codes, known=known, classes=names, given=source.splits()
    )
