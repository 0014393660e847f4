"""What an encoder can be judged by, beside classes: `selfsup evaluate RUN DATA --task NAME`.

A task is a file here with `evaluate_task(run, data, **options)`, which gives something with
`verdict`, `to_json()` and a text, and `suits(modality, source, labels)`: whether it is what the
data are made for.
"""

from importlib import import_module
from typing import Any

import numpy as np

from ..console import did_you_mean
from ..data import Source, open_source
from ..errors import SelfsupError
from ..load import LoadedEncoder
from ..run import LABELLED

CLASSIFY = "classify"
UNSEEN = ("perplexity", "documents")  # say little of text that was trained on
# name -> file
TASKS = {
    "anomaly": "anomaly",  # before forecast: marked steps say more than none
    "forecast": "forecast",
    "foretell": "foretell",
    "transcribe": "transcribe",
    "tokens": "tokens",
    "similarity": "similarity",  # before regress: a score of two texts is no number of one
    "regress": "regress",
    "perplexity": "perplexity",
    "documents": "documents",
    "nodes": "nodes",
    "folds": "folds",
    "retrieve": "pairing",
    "zeroshot": "zeroshot",
}


def find(name: str) -> Any:
    """The module of a task. Raises E201 for a name that is not there."""
    if name not in TASKS:
        known = (CLASSIFY, *TASKS)
        raise SelfsupError(
            "E201",
            f"there is no task {name!r}",
            why=f"known: {', '.join(known)}",
            do=did_you_mean(name, known),
        )
    return import_module(f"{__package__}.{TASKS[name]}")


def chosen(
    run: Any, encoder: LoadedEncoder, data: Any, labels: Any, follow_links: bool = False
) -> str:
    """What is suggested, or what this encoder can do in its place."""
    name = suggested(encoder.modality.name, data, labels, follow_links)
    foretold = name != "perplexity" or find(name).foretells(run, encoder)
    return name if foretold else "documents"


def wanted(run: Any, encoder: LoadedEncoder, source: Source, place: str) -> str:
    """What to judge an encoder of these data by: `place`, where they lie, or what they lack."""
    task = chosen(run, encoder, source, None)
    if task in UNSEEN:
        return "NEW_TEXT"
    if task != CLASSIFY:
        return place
    found, own = source.labels(), source.groups()
    codes = np.empty(0, np.int64) if found is None else found[0]
    if own is not None and len(codes):  # clips of a recording count once
        codes = np.unique(np.stack([codes, own]), axis=1)[0]
    several = np.bincount(codes[codes >= 0]) > 1
    return place if several.sum() > 1 else LABELLED


def suggested(modality: str, data: Any, labels: Any, follow_links: bool = False) -> str:
    """The task that the data are made for, as the tasks themselves say.

    What is wrong with the data is said when they are read for the task.
    """
    try:
        source = open_source(data, follow_links=follow_links)
    except SelfsupError:
        return CLASSIFY
    for name in TASKS:
        try:
            if find(name).suits(modality, source, labels):
                return name
        except SelfsupError:
            continue
    return CLASSIFY
