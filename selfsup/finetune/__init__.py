"""From a pretrained encoder and labels to a model, with a number beside its controls.

What is asked for is seen from the labels, how much of the network moves from how many there are;
both are printed with the reason. The last epoch is taken, never the best on what tests, and beside
it stand a linear layer on the frozen encoder, the same network from scratch, and the classical
features. `shots` asks how few labels would have been enough.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..console import Console
from ..data import open_source, open_store
from ..data.outcome import Ledger, reconciled
from ..data.sources import keep_apart
from ..errors import SelfsupError
from ..evaluate.result import home_of, keep
from ..export import refuse
from ..load import LoadedEncoder, load
from ..stop import stop
from ..transfer.model import save
from ..transfer.segment import keep_masks_apart
from ..transfer.tasks import HOW
from .asked import ask, with_test
from .controls import COLOUR
from .curve import SHARE, Curve
from .intervals import difference, interval
from .job import Job
from .lesson import FEW, SOME, how_much
from .result import PROBE, TUNED, Finetuned

__all__ = [
    "COLOUR",
    "FEW",
    "PROBE",
    "SOME",
    "TUNED",
    "Finetuned",
    "difference",
    "finetune",
    "how_much",
    "interval",
]


def finetune(
    run: Any,
    data: Any,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    test: Any = None,
    task: str | None = None,
    train: str | None = None,
    horizon: int | None = None,
    minutes: float = 10.0,
    controls: bool = True,
    shots: Sequence[int] = (),
    seeds: int = 3,
    drop_leaks: bool = False,
    seed: int = 0,
    cache: str | Path | None = None,
    follow_links: bool = False,
    console: Console | None = None,
) -> Finetuned:
    """Teach an encoder what the labels say, and keep the model in the folder `out`.

    `labels` is a table (columns path and label, a number, or a text) or a folder of masks; without
    it sub-folders, tables and arrays have their own. `test` are labelled data for the final number;
    else test/ folders, a split column, or a fifth that is held out. `train` is "head", "lora" or
    "full", `minutes` the time for all trainings, `horizon` the steps of a forecast: 24, or of
    many series 60 % of theirs. `shots` are labels per class (in all, where there are no classes) of
    a curve beside the same network from scratch, each drawn `seeds` times; half of the time is for
    it.

    What was found is kept in the run as well, for its report, where it can be written to.

    Raises SelfsupError: E501 no labels, E502 a sample in both parts, E503 too few, E605 when `out`
    is something else, and what `load` and `open_source` raise.
    """
    console, out = console or Console(), Path(out)
    refuse(out, model=True)
    for place in (data, test, labels):
        keep_apart(out, place)
    if train is not None and train not in HOW:
        raise SelfsupError("E201", f"train is {train!r}", why=f"known: {', '.join(HOW)}")
    if min(shots, default=1) < 1 or seeds < 1:
        raise SelfsupError("E201", f"shots is {tuple(shots)}, seeds {seeds}", do="count from 1")
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        if hasattr(encoder.modality, "of_content"):  # towers, of which one may be for these data
            content = open_source(data, follow_links=follow_links).content
            encoder = encoder.seeing(content, shared=False)
        asked = ask(encoder, data, labels, task, follow_links)
        if test is not None:
            own = labels if asked.task == "segment" else None  # one folder has all masks
            other = ask(encoder, test, own, asked.task, follow_links)
            if own is not None:
                keep_masks_apart(asked.source, other.source, Path(own))
            asked = with_test(asked, other)
        if horizon is not None and asked.task != "forecast":
            raise SelfsupError(
                "E201", f"--horizon {horizon} is for forecasts", why=f"the task is {asked.task}",
                do="leave it out, or --task forecast",
            )  # fmt: skip
        console.say(f"task: {asked.task} ({asked.reason})")
        ledger = Ledger()
        with open_store(
            asked.source, encoder.modality, encoder.size, cache=cache, ledger=ledger
        ) as store:
            share = 1 - SHARE if shots else 1
            job = Job(encoder, store, asked, console, seed, 60 * minutes * share)
            if asked.task == "forecast":
                job.series(horizon, run)
            else:
                job.divide(drop_leaks)
            network = job.run(train, controls)
            few = None
            if shots:
                few = Curve(job, train, seeds, controls).found(shots, job.began + 60 * minutes)
            shown = job.task.shown(network, encoder, job.test)
            told = job.told(few)
            counts, reasons = store.counts(), ledger.counts()
            if reasons:
                told["notes"].append(reconciled(**counts, reasons=reasons) + ".")
            told |= counts | {"skipped_reasons": reasons}
    error = save(network, encoder, {"found": told}, out, shown)
    found = Finetuned(told | {"model": str(out), "max_abs_error": error})
    home = home_of(run)
    if home is not None and os.access(home, os.W_OK):
        keep(home, f"finetune-{asked.task}", found)
    return found
