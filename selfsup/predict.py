"""What a fine-tuned model says of each sample, in a file, however often it is killed."""

import hashlib
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from . import machine
from .console import Console
from .data import open_source
from .data.seen import seen_as
from .data.sources import keep_apart
from .embed import BLOCK, FORMAT, Work, Written
from .errors import SelfsupError
from .stop import stop
from .transfer.model import Model, load_model

SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True, kw_only=True)
class Predicted(Written):
    """What `predict` wrote."""

    task: str

    def rows(self) -> str:
        return f"{self.used} answers ({self.task})"


def predict(
    model: Any,
    data: Any,
    out: str | Path = "predictions.parquet",
    *,
    batch: int = 128,
    workers: int = 2,
    precision: str = "auto",
    follow_links: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Predicted:
    """Write one answer for each sample of `data` that can be read.

    `model` is a model or its folder. Columns are id (the sample's number in the sorted data), path,
    and what docs/transfer.md says of the task. Beside `out` (.parquet or .csv) lie
    NAME.skipped.jsonl and NAME.json, which says where the answers come from.

    Raises SelfsupError: E608 no model, E605 when `out` exists and comes from something else, E606
    while another process writes it, E607 for another ending, E103 when more than half cannot be
    read, E303 when the disk is full; the same command goes on from there.
    """
    started = time.monotonic()
    console, out = console or Console(), Path(out)
    model = model if isinstance(model, Model) else load_model(model)
    suffixes = SUFFIXES if model.task.table else SUFFIXES[:1]
    if out.suffix.lower() not in suffixes:
        raise SelfsupError(
            "E607",
            f"{out.name} names no format for answers of {model.task.name}",
            do=f"end it in {' or '.join(suffixes)}",
        )
    keep_apart(out, data)
    source = open_source(data, follow_links=follow_links)
    source = seen_as(source, model.encoder.modality, whole=model.task.whole)
    source = model.task.samples(source)
    batch = max(1, batch)
    work = Work(
        out,
        {
            "format": FORMAT,
            "model": fingerprint(model),
            "data": source.fingerprint(),
            "samples": len(source),
            "precision": machine.choose_precision(precision, model.encoder.device.type),
            "batch": batch,
        },
        block=max(1, BLOCK // batch) * batch,
    )
    with stop.installed(), work.writing(console, len(source) * 64):
        ready = None if overwrite else work.finished()
        if ready is not None:
            console.say(f"{out} is already complete")
            return Predicted(**ready | {"seconds": 0.0, "samples_per_second": 0.0})
        resumed, notes = work.begin(), model.encoder.modality.notes
        before = notes.copy()
        for number in list(work.missing()):
            _block(work, number, model, source, batch, workers, precision, console)
        for note, count in (notes - before).items():
            console.say(f"note: {count} samples {note}")
        return work.finish(source, started, resumed, partial(Predicted, task=model.task.name))


def _block(
    work: Work, number: int, model: Model, source: Any, batch: int, workers: int, precision: str,
    console: Console,
) -> None:  # fmt: skip
    low, high = work.range_of(number)
    ids, skipped = [], []
    found: dict[str, list[pa.Array]] = {}
    for rows, columns, bad in model.answers(
        source, batch=batch, workers=workers, precision=precision, start=low, end=high
    ):
        ids.append(rows)
        skipped += bad
        for key, values in columns.items():
            found.setdefault(key, []).append(pa.array(values))
        console.progress(f"predict {low + sum(map(len, ids)) + len(skipped)}/{len(source)}")
    joined = {key: pa.concat_arrays(parts) for key, parts in found.items()}
    work.put(number, source, np.concatenate(ids), joined, skipped)


def fingerprint(model: Model) -> str:
    """Changes with any weight and with what an answer means."""
    digest = hashlib.blake2b(model.encoder.fingerprint().encode(), digest_size=16)
    digest.update(json.dumps(model.told, sort_keys=True).encode())
    for tensor in model.network.head.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
