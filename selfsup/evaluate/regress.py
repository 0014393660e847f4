"""Numbers foretold from frozen features: solubility, fitness, age.

Ridge regression, exact; its strength is chosen on the validation part of the data, else on folds of
the training part. Beside the encoder stand the same network untrained and the classical features,
through the same probe on the same split.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..console import Console
from ..data import Source, open_source, open_store
from ..data.seen import seen_as
from ..data.tables import FEW, TRAIN, as_numbers
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..randomness import mix, order
from ..stop import stop
from . import controls, linear
from .controls import PRETRAINED, UNTRAINED
from .features import extract, readable
from .interval import FEWEST, Interval, resampled
from .result import keep
from .ridge import solutions
from .scored import Fewer, Scored, best_control, conclude, curve_of
from .split import groups_of, shared, split, together

NETWORKS = 3
COUNTS = (10, 100, 1000)  # labels of the curve
STRENGTHS = tuple(10.0 ** (power / 2) for power in range(6, -13, -1))  # on the mean squared error
VALIDATION = {"val", "valid", "validation", "dev"}
FEWEST_HELD = 20  # samples of a validation part that can choose
FOLDS = 5
RESAMPLES = 1000
HEADS = {"spearman": 3, "r2": 3, "rmse": 3}

Parts = list[tuple[Int64[np.ndarray, " a"], Int64[np.ndarray, " b"]]]


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Labels are many different numbers: with fractions, or hardly one like another."""
    found = numbers_of(open_source(source, labels=labels))
    if found is None:
        return False
    values = found[0][np.isfinite(found[0])]
    different = np.unique(values)
    whole = bool((different == np.round(different)).all())
    return len(different) > FEW and (not whole or len(different) > len(values) / 2)


def numbers_of(source: Source) -> tuple[Float[np.ndarray, " n"], str] | None:
    """A number for each sample, NaN for none, and what it is called: a column, or the labels."""
    found = source.targets()
    if found is not None:
        return found
    classes = source.labels()
    values = None if classes is None else as_numbers(classes[1])
    if classes is None or values is None:
        return None
    return np.append(values, np.nan)[classes[0]], "label"


def evaluate_task(
    run: Any,
    data: Any,
    *,
    labels: str | Path | None = None,
    seeds: int = NETWORKS,
    seed: int = 0,
    cache: str | Path | None = None,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **_: Any,
) -> Scored:
    """Spearman's correlation, R2 and root mean squared error on the test part.

    Raises SelfsupError: E501 no numbers, E503 too few of them.
    """
    console, began = console or Console(), time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = open_source(data, follow_links=follow_links, labels=labels)
        source = seen_as(source, encoder.modality)
        found = numbers_of(source)
        if found is None:
            raise SelfsupError(
                "E501", f"no numbers in {source.place}", where=source.place,
                why="neither a column of numbers nor labels that are numbers are there",
                do="name the column `target`, or give --labels with a CSV (columns path,label)",
            )  # fmt: skip
        values, name = found
        with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
            usable, prints = readable(store, console.progress)
            train, held, test, notes = parts_of(source, values, usable, prints, seed)
            taught = np.concatenate([train, held])
            number = dict(zip(usable.tolist(), groups_of(prints).tolist(), strict=True))
            equal = np.array([number[i] for i in taught.tolist()])
            groups = together(equal, source.groups(), taught)
            several = {PRETRAINED: [_pair(encoder, store, taught, test)], UNTRAINED: []}
            for i in range(max(2, min(seeds, NETWORKS))):
                console.progress(f"evaluate: untrained network {i + 1}")
                several[UNTRAINED].append(
                    controls.untrained(encoder, store, taught, test, mix(seed, i), console.progress)
                )
            baseline = encoder.modality.baseline_name
            several[baseline] = [controls.classical(encoder, store, taught, test)]
        y, y_test = (torch.from_numpy(values[rows]).double() for rows in (taught, test))
        parts = _parts(groups, len(held), seed)
        scores: dict[str, list[dict[str, float]]] = {}
        found_ranks: dict[str, np.ndarray] = {}
        fewer: Fewer = {}  # ranks
        for of, pairs in several.items():
            console.progress(f"evaluate: ridge regression on {of}")
            guesses = [foretold(x, y, x_test, parts, of == baseline) for x, x_test in pairs]
            scores[of] = [measures(guess, y_test) for guess in guesses]
            found_ranks[of] = np.stack([ranks(guess.numpy()) for guess in guesses])
            fewer[of] = {}
            for count in (c for c in COUNTS if c < len(y)):
                drawn = []
                for k in range(max(2, seeds)):
                    x, x_test = pairs[k % len(pairs)]
                    some = order(mix(seed, count, k), 0, len(y))[:count]
                    chosen = _parts(groups[some], 0, mix(seed, k))
                    few = foretold(x[some], y[some], x_test, chosen, of == baseline)
                    drawn.append(ranks(few.numpy()))
                fewer[of][count] = np.stack(drawn)
    y_ranks = ranks(y_test.numpy())
    control = best_control(scores, "spearman")
    gain = gained(found_ranks[PRETRAINED][0], found_ranks[control], y_ranks, seed)
    spread = gained(found_ranks[PRETRAINED][0], None, y_ranks, seed)
    curve = curve_of(
        fewer,
        lambda outcomes: (outcomes * y_ranks).mean(1),
        lambda ours, theirs, among: gained(ours, theirs, y_ranks, seed, among),
    )
    notes = [
        f"{name!r}: {len(taught)} numbers teach, {len(test)} test. Spearman of the encoder "
        f"{spread.low:.3f} to {spread.high:.3f} (95 %, over test samples).",
        f"Few labels are drawn {max(2, seeds)} times; the intervals of their gains "
        "hold all at once.",
        *notes,
    ]  # fmt: skip
    result = conclude(
        "regress", "Spearman", HEADS, scores, control, gain, notes, encoder, source.place, began,
        curve,
    )  # fmt: skip
    keep(run if write else None, "regress", result)
    return result


def _pair(encoder: LoadedEncoder, store: Any, taught: np.ndarray, test: np.ndarray) -> Any:
    both = extract(encoder, store, np.concatenate([taught, test]))
    return both[: len(taught)], both[len(taught) :]


def parts_of(
    source: Source, values: np.ndarray, usable: np.ndarray, prints: list[bytes], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Samples that teach, that choose the strength, that test; and notes.

    Without parts in the data a fifth tests, alike in its numbers.
    """
    known = np.isfinite(values)
    if known[usable].sum() < 10:
        raise SelfsupError("E503", f"{int(known[usable].sum())} numbers are too few: 10 at least")
    tenths = np.quantile(values[known], np.linspace(0, 1, 11)[1:-1])
    classes = np.where(known, np.searchsorted(tenths, values), -1)
    found = split(source, classes, usable, prints, drop_leaks=True, seed=seed)
    held, notes = np.empty(0, np.int64), [n for n in found.notes if "are not used" not in n]
    if found.kind == "given":
        codes, names = source.splits() or (np.empty(0), [])
        choosing = [i for i, part in enumerate(names) if part.lower() in VALIDATION]
        held = usable[np.isin(codes[usable], choosing) & known[usable]]
        held = held[~np.isin(held, found.test)]
        leaks = shared(source, usable, prints, held, found.test)
        held = held[~leaks]
        if leaks.any():
            notes.append(
                f"{int(leaks.sum())} validation samples were dropped: they, or others of their "
                "recording or group, are in test"
            )
        unused = [p for p in names if p.lower() not in {*TRAIN, *VALIDATION, "test", "testing"}]
        notes += [f"the parts {', '.join(unused)} are not used"] * bool(unused)
        notes.append(f"Parts of the data; {len(held)} of those that teach are its validation part.")
    else:
        notes.append(f"A fifth tests, drawn with seed {seed}; equal samples stay together.")
    return found.train, held, found.test, notes


def _parts(groups: np.ndarray, held: int, seed: int) -> Parts:
    """(rows to fit, rows to score) for the choice of the strength: the last `held`, or folds.

    Folds are of whole groups, unless there is only one.
    """
    rows = np.arange(len(groups))
    if held >= FEWEST_HELD:
        return [(rows[:-held], rows[-held:])]
    kinds, group = np.unique(groups, return_inverse=True)
    if len(kinds) == 1:
        kinds, group = rows, rows
    folds = min(FOLDS, len(kinds))
    turn = np.empty(len(kinds), np.int64)
    turn[order(seed, 0, len(kinds))] = np.arange(len(kinds)) % folds
    return [(rows[turn[group] != k], rows[turn[group] == k]) for k in range(folds)]


def foretold(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    x_test: Float[Tensor, "m d"],
    parts: Parts,
    common: bool = False,
) -> Float[Tensor, " m"]:
    """What ridge regression makes of the test samples, its strength chosen on `parts`."""
    stop.check()
    scale = linear.scale_of(x, common=common)
    x, x_test = scale(x).double(), scale(x_test).double()

    errors = torch.zeros(len(STRENGTHS), dtype=torch.float64)
    for fit, held in parts:
        for k, guess in enumerate(fits(x[fit], y[fit], STRENGTHS)):
            errors[k] += (guess(x[held]) - y[held]).square().sum()
    (best,) = fits(x, y, (STRENGTHS[int(errors.argmin())],))
    return best(x_test)


def fits(
    x: Float[Tensor, "n d"], y: Float[Tensor, " n"], strengths: tuple[float, ...]
) -> Iterator[Callable[[Tensor], Tensor]]:
    """What minimises the mean squared error + strength * |weight|^2, for each strength."""
    mean, level = x.mean(0), y.mean()
    sums = [strength * len(y) for strength in strengths]
    for weight, _ in solutions(x - mean, (y - level)[:, None], sums):
        yield partial(_linear, mean, level, weight[:, 0])


def _linear(mean: Tensor, level: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    return level + (x - mean) @ weight


def measures(guess: Float[Tensor, " m"], y: Float[Tensor, " m"]) -> dict[str, float]:
    error = (guess - y).square().mean()
    spread = (y - y.mean()).square().mean()
    return {
        "spearman": float((ranks(guess.numpy()) * ranks(y.numpy())).mean()),
        "r2": float(1 - error / spread),
        "rmse": float(error.sqrt()),
    }


def gained(
    ours: Float[np.ndarray, "*k m"],
    theirs: Float[np.ndarray, "k m"] | None,
    y: Float[np.ndarray, " m"],
    seed: int = 0,
    among: int = 1,
) -> Interval:
    """Spearman's correlation of `ours` less the mean of that of `theirs`; all are ranks.

    The test samples are drawn anew together; with several of theirs, which of them it would have
    been adds to the interval as in `difference`. Several of ours are draws of labels, which taught
    theirs too: what adds is the spread of their gains.
    """
    ours = np.atleast_2d(ours)
    theirs = np.empty((0, len(y))) if theirs is None else theirs

    def told(rows: Any) -> float:
        less = _correlations(theirs[:, rows], y[rows]).mean() if len(theirs) else 0.0
        return float(_correlations(ours[:, rows], y[rows]).mean() - less)

    value, of = told(slice(None)), f"{len(y)} test samples"
    if len(y) < FEWEST:
        reach = 1.0 + bool(len(theirs))
        return Interval(value, -reach, reach, f"all that can be: {of} tell too little")
    generator = np.random.default_rng(mix(seed, 0x72616E6B))
    drawn = [told(generator.integers(0, len(y), len(y))) for _ in range(RESAMPLES)]
    others, beside = _correlations(theirs, y), "untrained networks"
    if len(ours) > 1:
        others, beside = _correlations(ours, y) - others, "draws of labels"
    return resampled(value, drawn, others.tolist(), of, beside, among)


def _correlations(
    a: Float[np.ndarray, "k m"], b: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " k"]:
    a, b = a - a.mean(1, keepdims=True), b - b.mean()
    size = np.sqrt((a * a).sum(1) * (b @ b))
    return np.divide(a @ b, size, out=np.zeros(len(a)), where=size > 0)


def ranks(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Ranks with mean 0 and deviation 1, equal numbers at their mean; zeros where all are equal."""
    from scipy.stats import rankdata  # scikit-learn brings scipy

    found = rankdata(values)
    spread = found.std()
    return (found - found.mean()) / (spread if spread > 0 else 1.0)
