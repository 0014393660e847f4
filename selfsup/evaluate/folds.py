"""Cross-validation: every fold tests once, the others teach, as graph benchmarks are published.

The folds that the data name, else ten stratified ones that keep equal samples together. One exact
linear probe a fold on frozen features, its strength chosen on the labels that teach; and probes
with few of these labels. What teaches is nearly the same in all folds: intervals are by the
corrected resampled t of Nadeau and Bengio (Inference for the Generalization Error, Machine Learning
52, 2003), the less corrected the fewer labels folds have in common.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..console import Console
from ..data import Source, open_source, open_store
from ..data.seen import seen_as
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..randomness import mix, order
from ..stop import stop
from ..transfer.tasks import Part
from . import adapted, controls, linear, shots
from .controls import BEFORE, PRETRAINED, UNTRAINED
from .features import extract, readable
from .interval import Interval, over_seeds
from .result import keep
from .rounds import Rounds, conclude, point
from .split import groups_of, together

FOLDS, NETWORKS = 10, 3
FEW, DRAWS = (1, 5, 10), 3  # labels per class, each drawn so often in every fold


def suits(modality: str, source: Source, labels: Any) -> bool:
    """The data name folds, and no other parts."""
    source = open_source(source, labels=labels)
    return source.splits() is None and bool(getattr(source, "folds", list)())


def evaluate_task(
    run: Any,
    data: Any,
    *,
    labels: str | Path | None = None,
    seeds: int = NETWORKS,
    seed: int = 0,
    old: str | Path | None = None,
    drop_leaks: bool = False,
    cache: str | Path | None = None,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **_: Any,
) -> Rounds:
    """Mean accuracy over the folds, beside `seeds` untrained networks and the classical features.

    With all labels, and with few. `drop_leaks` is for the data of before, `old`.

    Raises SelfsupError: E501 no labels, E503 fewer samples of a class than folds; and of `old` what
    `adapted.forgotten` raises.
    """
    console = console or Console()
    began = time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = open_source(data, follow_links=follow_links, labels=labels)
        source = seen_as(source, encoder.modality)
        encoder = encoder.seeing(source.content, shared=False)
        start, started = adapted.before(run, encoder, source.content, old)
        classes = source.labels()
        if classes is None:
            raise SelfsupError("E501", f"no labels in {source.place}", where=source.place)
        with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
            usable, prints = readable(store, console.progress)
            known = classes[0][usable] >= 0
            usable = usable[known]
            groups = groups_of([p for p, k in zip(prints, known, strict=True) if k])
            y = torch.from_numpy(classes[0][usable])
            own = Part(store, usable, None).groups()
            folds, kind, notes = _folds(source, usable, y.numpy(), groups, seed)
            forgot: dict[str, Any] | None = None
            if start is not None and old is not None:  # first: what is wrong there is told soon
                forgot = adapted.forgotten(
                    encoder, start, old, drop_leaks=drop_leaks, seed=seed, cache=cache,
                    follow_links=follow_links, console=console,
                )  # fmt: skip
            tests = [torch.from_numpy(np.isin(np.arange(len(y)), fold)) for fold in folds]
            features: dict[str, list[Tensor]] = {
                PRETRAINED: [extract(encoder, store, usable)],
                UNTRAINED: [],
            }
            if start is not None:
                features[BEFORE] = [extract(start, store, usable)]
            for i in range(max(2, min(seeds, NETWORKS))):
                console.progress(f"evaluate: untrained network {i + 1}")
                fresh = controls.fresh(encoder, mix(seed, i))
                features[UNTRAINED].append(extract(fresh, store, usable))
            few = [shots.possible(y[~test].numpy(), FEW)[0] for test in tests]
            counts = [count for count in FEW if all(count in fitting for fitting in few)]
            found: dict[str, list[list[list[float]]]] = {}
            for of, several in features.items():
                for x in several:
                    console.progress(f"evaluate: linear probes, {of}")
                    found.setdefault(of, []).append([
                        _accuracies((x[~test], x[test]), y, test, counts, seed, k, own)
                        for k, test in enumerate(tests)
                    ])  # fmt: skip
            name, values = encoder.modality.baseline_name, []
            for k, test in enumerate(tests):
                console.progress(f"evaluate: linear probes, {name}, fold {k + 1}")
                both = controls.classical(encoder, store, usable[~test], usable[test])
                values.append(_accuracies(both, y, test, counts, seed, k, own, common=True))
            found[name] = [values]
    tested = sum(int(test.sum()) for test in tests)
    teach = len(y) - tested / len(tests)
    share = tested / len(tests) / teach
    every = {of: np.array(rounds) for of, rounds in found.items()}  # (networks, folds, points)
    accuracies = {of: values[..., 0] for of, values in every.items()}
    notes += started
    if start is not None:
        since = over_folds(accuracies[PRETRAINED] - accuracies[BEFORE], share)
        notes.append(adapted.sentence(start, since._asdict()))
    if start is not None and forgot is not None:
        notes.append(adapted.sentence(start, forgot, " on the old data"))
    curve = []
    for i, count in enumerate(counts):
        drawn = len(shots.draw(y[~tests[0]].numpy(), count, 0))
        common = min(1.0, DRAWS * drawn / teach)  # share of what teaches, at most
        curve += point(
            count,
            drawn,
            {of: values[..., i + 1] for of, values in every.items()},
            partial(over_folds, share=share * common),
        )
    result = conclude(
        "folds",
        {of: rounds.ravel().tolist() for of, rounds in accuracies.items()},
        {of: over_folds(rounds, share) for of, rounds in accuracies.items()},
        lambda control: over_folds(accuracies[PRETRAINED] - accuracies[control], share),
        f"{len(usable)} samples, {len(classes[1])} classes, {len(folds)} folds {kind}; the gain is "
        "over folds, in pairs. ± is half of a 95 % interval, corrected for training parts that "
        "overlap." + (f" Few labels are drawn {DRAWS} times in every fold." if curve else ""),
        notes,
        encoder,
        source.place,
        began,
        curve,
        forgot,
    )
    keep(run if write else None, "folds", result)
    return result


def over_folds(values: Float[np.ndarray, "networks folds"], share: float) -> Interval:
    """Mean of values of folds with `share` samples that test for each one that teaches.

    Folds share what teaches, so their spread is too small for the mean: half widths grow by
    sqrt(1 + folds * share), which is the corrected resampled t of Nadeau and Bengio (2003). The
    spread of several networks is added in quadrature.
    """
    folds = values.shape[1]
    found = over_seeds(values.mean(0).tolist())
    half, kind = found.half * np.sqrt(1 + folds * share), f"corrected t over {folds} folds"
    if len(values) > 1:
        half = np.hypot(half, over_seeds(values.mean(1).tolist()).half)
        kind += f" and t over {len(values)} networks"
    return Interval(found.value, found.value - float(half), found.value + float(half), kind)


def _folds(
    source: Any, usable: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[list[np.ndarray], str, list[str]]:
    """Places in `usable` that test, fold by fold, where the folds are from, and notes on them.

    Drawn folds hold whole `groups` of equal samples, and of those that belong together by the
    source, each in the class of its first.
    """
    published = getattr(source, "folds", None)
    given: list[np.ndarray] = published() if published is not None else []
    own = source.groups()
    if given:
        places = [np.flatnonzero(np.isin(usable, fold)) for fold in given]
        return places, "of the data", _twins(places, groups, groups if own is None else own[usable])
    _, first, group, sizes = np.unique(
        together(groups, own, usable), return_index=True, return_inverse=True, return_counts=True
    )
    fold = np.empty(len(first), np.int64)
    for label in np.unique(y):
        members = np.flatnonzero(y[first] == label)
        if len(members) < FOLDS:
            raise SelfsupError(
                "E503", f"{len(members)} different samples of class {label}, for {FOLDS} folds",
                where=source.place, do="take such classes out",
            )  # fmt: skip
        drawn = members[order(mix(seed, int(label)), 0, len(members))]
        drawn = drawn[np.argsort(-sizes[drawn], kind="stable")]  # folds of nearly the same size
        fold[drawn] = np.arange(len(drawn)) % FOLDS
    kind = f"drawn with seed {seed}, equal samples stay together"
    kind += "" if own is None else ", and those of one recording or group"
    return [np.flatnonzero(fold[group] == k) for k in range(FOLDS)], kind, []


def _twins(folds: list[np.ndarray], groups: np.ndarray, own: np.ndarray) -> list[str]:
    """What is to know of published folds that test samples whose equals, or kin, teach."""
    equal = kin = 0
    for fold in folds:
        same, near = (np.isin(of[fold], np.delete(of, fold)) for of in (groups, own))
        equal, kin = equal + int(same.sum()), kin + int((near & ~same).sum())
    told = {"an equal one": equal, "another of their recording or group": kin}
    return [f"{n} samples are tested while {which} teaches" for which, n in told.items() if n]


def _accuracies(
    both: controls.Pair,
    y: Tensor,
    test: Tensor,
    counts: list[int],
    seed: int,
    fold: int,
    own: np.ndarray,
    *,
    common: bool = False,
) -> list[float]:
    """Of probes with all labels and with `counts` per class; `common` is for components.

    What is drawn depends on the fold alone, so that encoder and controls have the same labels.
    `own` are groups of all samples, which stay whole where strengths are chosen.
    """
    stop.check()
    teach, asked = both
    classes = int(y.max()) + 1
    scale = linear.scale_of(teach, common=common)
    labels, truth, own = y[~test], y[test], own[~test]
    plane, scale = linear.probe(teach, labels, classes, scale=scale, seed=seed, groups=own)
    found = [float((plane(scale(asked)).argmax(1) == truth).double().mean())]
    for count in counts:
        stop.check()
        drawn = [
            shots.few_labels(
                teach, labels, asked, truth, classes, count, mix(seed, fold, i), scale, groups=own
            ).mean()
            for i in range(DRAWS)
        ]
        found.append(float(np.mean(drawn)))
    return found
