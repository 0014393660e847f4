"""What an encoder can be judged by, beside classes: `selfsup evaluate RUN DATA --task NAME`.

A task is a file here with `evaluate_task(run, data, **options)`, which gives something with
`verdict`, `to_json()` and a text, and `suits(modality, data, labels)`: whether it is what the
data are made for.
"""

from importlib import import_module
from typing import Any

from ..console import did_you_mean
from ..errors import SelfsupError
from ..load import LoadedEncoder

CLASSIFY = "classify"
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


def chosen(run: Any, encoder: LoadedEncoder, data: Any, labels: Any) -> str:
    """What is suggested, or what this encoder can do in its place."""
    name = suggested(encoder.modality.name, data, labels)
    foretold = name != "perplexity" or find(name).foretells(run, encoder)
    return name if foretold else "documents"


def suggested(modality: str, data: Any, labels: Any) -> str:
    """The task that the data are made for, as the tasks themselves say."""
    for name in TASKS:
        if find(name).suits(modality, data, labels):
            return name
    return CLASSIFY
