"""Labels enter only here. A number never stands alone.

`evaluate` judges an encoder by what the data are made for (see tasks.py). By classes, it measures
a frozen encoder (neighbours, linear probe, few labels, structure, retrieval) and a trained one
(fine-tuning), each beside the same network untrained, the modality's classical features and the
network trained from scratch: same probe, same split, with intervals.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..console import Console
from ..data import open_source, open_store
from ..data.outcome import Ledger, reconciled
from ..data.seen import seen_as
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..stop import stop
from . import adapted, knn, tasks
from .judge import Judge
from .result import Evaluation, home_of

__all__ = ["Evaluation", "evaluate"]


def evaluate(
    run: Any,
    data: Any,
    *,
    task: str | None = None,
    shots: tuple[int, ...] = (1, 10, 100),
    seeds: int = 5,
    finetune: bool = True,
    attentive: bool = False,
    minutes: float = 10.0,
    neighbours: int = knn.NEIGHBOURS,
    temperature: float = knn.TEMPERATURE,
    labels: str | Path | None = None,
    templates: Sequence[str] = (),
    old: str | Path | None = None,
    drop_leaks: bool = False,
    seed: int = 0,
    cache: str | Path | None = None,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
) -> Any:
    """Judge an encoder; a run's folder keeps the result, evaluation.json or evaluation-TASK.json.

    `run` is a run, its folder, an export or a loaded encoder; `data` anything with labels:
    sub-folders, a table (`labels`), arrays. train/ and test/ (or val/) folders are the split.
    `task` is `classify` or a name in `tasks.TASKS`; by itself, what the data are made for. The
    result is the task's own; each has `verdict`, `gain`, `to_json()` and a text.

    By classes: `shots` are labels per class of the few-label curve, drawn `seeds` times.
    `attentive` adds a probe that learns which places of a sample to look at. `finetune` also
    trains networks on the labels, pretrained and from scratch, for about `minutes` in all.
    `templates` are for `zeroshot`. A run that started from another (--from) is also put beside
    that one; on data of before too, `old`, which have labels unless they are text to foretell.

    Raises SelfsupError: E201 no such task, E501 no labels, E502 a sample in both parts
    (`drop_leaks` takes it out of training), E503 too few, and what `load` and `open_source` raise.
    """
    if labels is not None and Path(labels).is_dir():
        raise SelfsupError(
            "E501", "masks are not for evaluate", where=str(labels), why="they teach a layer",
            do=f"selfsup finetune RUN DATA --labels {shlex.quote(str(labels))} --shots 10,100 "
            "--out MODEL puts it beside its controls",
        )  # fmt: skip
    console = console or Console()
    encoder = run if isinstance(run, LoadedEncoder) else load(run)
    task = task or tasks.chosen(run, encoder, data, labels, follow_links)
    if task != tasks.CLASSIFY:
        # each for few tasks
        given = {"templates": templates, "old": old, "drop_leaks": drop_leaks}
        own = {key: value for key, value in given.items() if value}
        return tasks.find(task).evaluate_task(
            run, data, labels=labels, seeds=seeds, minutes=minutes, seed=seed, cache=cache,
            follow_links=follow_links, write=write, console=console, **own,
        )  # fmt: skip
    with stop.installed():
        source = open_source(data, follow_links=follow_links, labels=labels)
        source = seen_as(source, encoder.modality)
        encoder = encoder.seeing(source.content, shared=False)
        start, notes = adapted.before(run, encoder, source.content, old)
        found = source.labels()
        if found is None or not (found[0] >= 0).any():
            raise SelfsupError(
                "E501",
                f"no labels in {source.place}",
                why="there are neither sub-folders named after classes nor a table of labels",
                do="sort the files into one folder per class, or give --labels with a CSV "
                "(columns path,label)",
            )
        ledger = Ledger()
        with open_store(
            source, encoder.modality, encoder.size, cache=cache, ledger=ledger
        ) as store:
            judge = Judge(encoder, store, found[0], found[1], seeds, seed, console, start)
            judge.notes += notes
            judge.prepare(drop_leaks)
            if start is not None and old is not None:  # first: what is wrong there is told soon
                judge.forgot = adapted.forgotten(
                    encoder, start, old, drop_leaks=drop_leaks, seed=seed, cache=cache,
                    follow_links=follow_links, console=console,
                )  # fmt: skip
                judge.took("old data")
            judge.frozen(neighbours, temperature)
            judge.few(tuple(shots))
            if attentive:
                judge.attentive()
            if finetune:
                judge.trained(minutes)
            home = home_of(run)
            told = judge.conclude(home)
            counts, reasons = store.counts(), ledger.counts()
        if reasons:
            told["notes"].append(reconciled(**counts, reasons=reasons))
        told["data"] |= counts | {"skipped_reasons": reasons}
        told["settings"] = {
            "shots": list(shots),
            "seeds": seeds,
            "seed": seed,
            "finetune": finetune,
            "attentive": attentive,
            "minutes": minutes,
            "neighbours": neighbours,
            "temperature": temperature,
            "drop_leaks": drop_leaks,
        }
        result = Evaluation(told)
        if write and home is not None:
            judge.keep(home, told)
        return result
