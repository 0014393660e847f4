"""Cross-validation: every fold tests once, the others teach, as graph benchmarks are published.

The folds that the data name, else ten stratified ones. One exact linear probe a fold on frozen
features, its strength chosen on the labels that teach.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..console import Console
from ..data import open_source, open_store
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..randomness import mix, order
from ..stop import stop
from . import controls, linear
from .controls import PRETRAINED, UNTRAINED
from .features import extract, readable
from .result import keep
from .rounds import Rounds, conclude

FOLDS, NETWORKS = 10, 3


def suits(modality: str, data: Any, labels: Any) -> bool:
    """The data name folds, and no other parts."""
    try:
        source = open_source(data, labels=labels)
        return source.splits() is None and bool(getattr(source, "folds", list)())
    except SelfsupError:
        return False  # what is wrong is said when the data are read for the task


def evaluate_task(
    run: Any,
    data: Any,
    *,
    labels: str | Path | None = None,
    seeds: int = NETWORKS,
    seed: int = 0,
    cache: str | Path | None = None,
    follow_links: bool = False,
    console: Console | None = None,
    **_: Any,
) -> Rounds:
    """Mean accuracy over the folds, beside `seeds` untrained networks and the classical features.

    Raises SelfsupError: E501 no labels, E503 fewer samples of a class than folds.
    """
    console = console or Console()
    began = time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = open_source(data, follow_links=follow_links, labels=labels)
        classes = source.labels()
        if classes is None:
            raise SelfsupError("E501", f"no labels in {source.place}", where=source.place)
        with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
            usable, _prints = readable(store, console.progress)
            usable = usable[classes[0][usable] >= 0]
            y = torch.from_numpy(classes[0][usable])
            folds, kind = _folds(source, usable, y.numpy(), seed)
            features: dict[str, list[Tensor]] = {
                PRETRAINED: [extract(encoder, store, usable)],
                UNTRAINED: [],
            }
            for i in range(max(2, min(seeds, NETWORKS))):
                console.progress(f"evaluate: untrained network {i + 1}")
                fresh = controls.fresh(encoder, mix(seed, i))
                features[UNTRAINED].append(extract(fresh, store, usable))
            baseline = encoder.modality.baseline_name
            parts = [
                encoder.modality.baseline(store.batch(usable[low : low + 256])).float()
                for low in range(0, len(usable), 256)
            ]
            features[baseline] = [torch.cat(parts)]
        found: dict[str, list[list[float]]] = {}
        for of, several in features.items():
            for x in several:
                console.progress(f"evaluate: linear probes, {of}")
                found.setdefault(of, []).append([_accuracy(x, y, test, seed) for test in folds])
    result = conclude(
        "folds",
        {of: [v for values in rounds for v in values] for of, rounds in found.items()},
        {of: np.mean(rounds, 0).tolist() for of, rounds in found.items()},
        f"{len(usable)} samples, {len(classes[1])} classes, {len(folds)} folds {kind}; the gain is "
        "over folds, in pairs.",
        [],
        encoder,
        source.place,
        began,
    )
    keep(run, "folds", result)
    return result


def _folds(source: Any, usable: np.ndarray, y: np.ndarray, seed: int) -> tuple[list, str]:
    """Places in `usable` that test, fold by fold, and where the folds are from."""
    published = getattr(source, "folds", None)
    given: list[np.ndarray] = published() if published is not None else []
    if given:
        return [np.flatnonzero(np.isin(usable, fold)) for fold in given], "of the data"
    fold = np.empty(len(y), np.int64)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        if len(rows) < FOLDS:
            raise SelfsupError(
                "E503", f"{len(rows)} samples of class {label}, for {FOLDS} folds",
                where=source.place, do="take such classes out",
            )  # fmt: skip
        fold[rows[order(mix(seed, int(label)), 0, len(rows))]] = np.arange(len(rows)) % FOLDS
    return [np.flatnonzero(fold == k) for k in range(FOLDS)], f"drawn with seed {seed}"


def _accuracy(x: Tensor, y: Tensor, test: np.ndarray, seed: int) -> float:
    stop.check()
    teach = torch.ones(len(y), dtype=torch.bool)
    teach[torch.from_numpy(test)] = False
    classes = int(y.max()) + 1
    plane, scale = linear.probe(x[teach], y[teach], classes, seed=seed)
    return float((plane(scale(x[~teach])).argmax(1) == y[~teach]).double().mean())
