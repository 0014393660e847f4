"""A class for each token, from the vectors that a frozen encoder gives for them.

Secondary structure of proteins, for one. The labels are one letter for each token, in a FASTA file
with the names of the samples. A linear probe on a vector at a time; beside the encoder stand the
same network untrained and one-hot letters of the tokens around.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from ..console import Console
from ..data import Source, open_source, open_store
from ..data.proteins import Fasta, marks
from ..data.store import Store
from ..data.tables import TRAIN
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..ragged import Ragged
from ..randomness import mix, order
from ..stems import END
from ..stop import stop
from . import controls, linear
from .controls import PRETRAINED, UNTRAINED
from .interval import difference, over_both
from .result import keep
from .scored import Fewer, Scored, best_control, conclude, curve_of
from .split import TEST, TEST_SHARE

NETWORKS = 3
COUNTS, DRAWS = (10, 100), 3  # labelled samples of the curve, and how often so many are drawn
SAMPLES, TAUGHT = 1000, 50_000  # that teach, at most: samples, and tokens of them
NEIGHBOURS = 7  # on each side, that the control sees
BATCH = 64
MASK = "mask.fasta"  # beside the labels: 1 where a token counts
BASELINE = f"one-hot letters, {2 * NEIGHBOURS + 1} of them"
ENDINGS = (".fasta", ".fa", ".faa")


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Labels in FASTA."""
    return labels is not None and _is_fasta(labels)


def _is_fasta(labels: Any) -> bool:
    return str(labels).lower().endswith(ENDINGS)


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
    """Accuracy over tokens, and with every class counted the same.

    Samples longer than training showed are encoded in pieces of that length. Raises SelfsupError:
    E501 no labels, E202 an encoder without a vector for each token, E503 a part without samples.
    """
    console, began = console or Console(), time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        if not hasattr(encoder.encoder, "logits"):
            raise SelfsupError("E202", f"{encoder.card.name} has no vector for each token")
        if labels is None or not _is_fasta(labels):
            raise SelfsupError(
                "E501", "no labels of tokens", why="they are in a FASTA file with the same names",
                do="give --labels classes.fasta",
            )  # fmt: skip
        source = open_source(data, follow_links=follow_links)
        with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
            console.progress("evaluate: reading")
            samples, classes, notes = _labelled(source, store, encoder.modality, Path(labels))
            train, test, told = _split(
                Fasta([os.fspath(labels)], str(labels)), source, samples, seed
            )
            lengths = {i: int((samples[i][1] >= 0).sum()) for i in samples}
            drawn = _drawn(train, lengths, seed)
            several: dict[str, list[LoadedEncoder | None]] = {PRETRAINED: [encoder], UNTRAINED: []}
            for i in range(max(2, min(seeds, NETWORKS))):
                fresh = controls.fresh(encoder, mix(seed, i))
                several[UNTRAINED].append(fresh)
            several[BASELINE] = [None]
            y_test = torch.cat([torch.from_numpy(_counted(samples[i])) for i in test])
            network: Any = encoder.encoder
            count = network.stem.count
            few = {n: _few(train, lengths, n, seed) for n in COUNTS if n < len(train)}
            scores: dict[str, list[dict[str, float]]] = {}
            outcomes: dict[str, np.ndarray] = {}
            fewer: Fewer = {}
            for of, networks in several.items():
                console.progress(f"evaluate: {of}")
                tests = [_vectors(subject, samples, test, count) for subject in networks]

                def right(chosen: Drawn, k: int, networks=networks, tests=tests) -> Tensor:
                    """Which test tokens the k-th network tells, taught by those chosen."""
                    k = k % len(networks)
                    taught = _vectors(networks[k], samples, [i for i, _ in chosen], count)
                    x = torch.cat([v[at] for (_, at), v in zip(chosen, taught, strict=True)])
                    y = torch.cat([torch.from_numpy(_counted(samples[i])[at]) for i, at in chosen])
                    plane, scale = linear.probe(x, y, len(classes), seed=seed)
                    return torch.cat([plane(scale(v)).argmax(1) for v in tests[k]]) == y_test

                rows = [right(drawn, k) for k in range(len(networks))]
                scores[of] = [_measures(row, y_test) for row in rows]
                each = [lengths[i] for i in test]
                outcomes[of] = np.stack([_by_sample(row, each) for row in rows])
                fewer[of] = {
                    n: np.stack([_by_sample(right(some, k), each) for k, some in enumerate(draws)])
                    for n, draws in few.items()
                }
    taught = sum(len(at) for _, at in drawn)
    notes = [
        f"{taught} tokens of {len(drawn)} samples teach (of {len(train)}); {len(y_test)} tokens of "
        f"{len(test)} test: {told}. Classes {', '.join(classes)}.",
        f"Few labels: those of so many samples, drawn {DRAWS} times; the "
        "intervals of their gains hold all at once.",
        *notes,
    ]  # fmt: skip
    control = best_control(scores, "accuracy")
    gain = difference(outcomes[PRETRAINED][0], outcomes[control], seed)
    curve = curve_of(
        fewer,
        lambda outcomes: outcomes.mean(1),
        lambda ours, theirs, among: over_both(ours - theirs, seed, signed=True, among=among),
    )
    result = conclude(
        "tokens", "accuracy", {"accuracy": 3, "classes equal": 3}, scores, control, gain, notes,
        encoder, source.place, began, curve,
    )  # fmt: skip
    keep(run if write else None, "tokens", result)
    return result


Sample = tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]  # tokens, and classes or -1
Drawn = list[tuple[int, np.ndarray]]  # samples, and which of their tokens that count


def _labelled(
    source: Any, store: Store, modality: Any, labels: Path
) -> tuple[dict[int, Sample], list[str], list[str]]:
    """Tokens and classes of the samples that have both; the classes; notes."""
    classes_of = marks(os.fspath(labels))
    beside = labels.with_name(MASK)
    counts = marks(os.fspath(beside)) if beside.is_file() and beside != labels else {}
    classes = sorted({letter for row in classes_of.values() for letter in row})
    number = {letter: k for k, letter in enumerate(classes)}
    samples, without, other = {}, 0, 0
    for low in range(0, len(store), BATCH):
        stop.check()
        batch = store.batch(np.arange(low, min(low + BATCH, len(store))))
        for i, row in zip(batch.indices.tolist(), modality.rows(batch), strict=True):
            name = source.name(i)
            tokens = row[int(row[0] == END) : len(row) - int(row[-1] == END)]
            if name not in classes_of:
                without += 1
                continue
            wanted = np.array([number[letter] for letter in classes_of[name]], np.int64)
            kept = np.array([letter != "0" for letter in counts.get(name, "1" * len(wanted))])
            if not len(wanted) == len(kept) == len(tokens):
                other += 1
                continue
            if kept.any():
                samples[i] = tokens, np.where(kept, wanted, -1)
    notes = [f"{without} samples have no labels."] * bool(without)
    notes += [f"{other} samples have another number of labels than tokens: left out."] * bool(other)
    notes += [f"Tokens that {beside.name} marks with 0 do not count."] * bool(counts)
    if not samples:
        raise SelfsupError(
            "E501", f"no sample of {source.place} has a label for each token", where=str(labels),
            why="names or lengths differ",
        )  # fmt: skip
    return samples, classes, notes


def _split(
    labels: Fasta, source: Any, samples: dict[int, Sample], seed: int
) -> tuple[list[int], list[int], str]:
    """Samples that teach and that test: as the labels or the data say, else a fifth tests."""
    part: dict[str, str] = {}
    for of in (labels, source):
        found = of.splits()
        if found is not None:
            part |= {of.name(i): found[1][c].lower() for i, c in enumerate(found[0]) if c >= 0}
            break
    if part:
        testing = next((name for name in TEST if name in part.values()), None)
        if testing is None:
            raise SelfsupError(
                "E503", "none of the parts tests", where=source.place,
                why=f"the parts are {', '.join(sorted(set(part.values())))}",
                do="name one of them test (as SET=test in the headers of the labels), or none",
            )  # fmt: skip
        rows = {i: part.get(source.name(i), "") for i in samples}
        train = [i for i in samples if rows[i] in TRAIN]
        test = [i for i in samples if rows[i] == testing]
        told = f"the parts 'train' and {testing!r} of the data"
    else:
        every = np.array(list(samples))[order(seed, 0, len(samples))].tolist()
        cut = round(TEST_SHARE * len(every))
        train, test, told = sorted(every[cut:]), sorted(every[:cut]), f"drawn with seed {seed}"
    if not train or not test:
        raise SelfsupError("E503", f"{len(train)} samples teach and {len(test)} test: too few")
    return train, test, told


def _counted(sample: Sample) -> Int64[np.ndarray, " m"]:
    return sample[1][sample[1] >= 0]


def _few(train: list[int], lengths: dict[int, int], count: int, seed: int) -> list[Drawn]:
    return [_drawn(train, lengths, mix(seed, count, k), count) for k in range(DRAWS)]


def _drawn(train: list[int], lengths: dict[int, int], seed: int, most: int = SAMPLES) -> Drawn:
    """Tokens that teach: an even share of each of so many samples."""
    some = [train[i] for i in order(seed, 0, len(train))[:most]]
    share = min(1.0, TAUGHT / sum(lengths[i] for i in some))
    drawn = []
    for i in some:
        count = max(1, round(share * lengths[i]))
        drawn.append((i, np.sort(order(mix(seed, i), 0, lengths[i])[:count])))
    return drawn


def _vectors(
    encoder: LoadedEncoder | None, samples: dict[int, Sample], wanted: list[int], count: int
) -> list[Float[Tensor, "m d"]]:
    """The vectors of the tokens that count, sample by sample; None stands for the control."""
    made = []
    for low in range(0, len(wanted), BATCH):
        stop.check()
        some = [samples[i] for i in wanted[low : low + BATCH]]
        if encoder is None:
            every = [_around(tokens, count) for tokens, _ in some]
        else:
            every = _encoded(encoder, [tokens for tokens, _ in some])
        made += [
            v[torch.from_numpy(classes >= 0)] for (_, classes), v in zip(some, every, strict=True)
        ]
    return made


def _encoded(encoder: LoadedEncoder, rows: list[np.ndarray]) -> list[Float[Tensor, "n d"]]:
    """One vector for each token. Both ends of a sample are marked, as in training."""
    network: Any = encoder
    pieces, owner = [], []
    for k, row in enumerate(rows):
        row = np.concatenate([[END], row, [END]])
        for start in range(0, len(row), encoder.size):
            pieces.append(torch.from_numpy(row[start : start + encoder.size]))
            owner.append(k)
    x = Ragged.of(pieces).to(encoder.device)
    with torch.inference_mode():
        states = network.features(x).float().cpu()
    parts: list[list[Tensor]] = [[] for _ in rows]
    for k, piece, found in zip(owner, pieces, states, strict=True):
        parts[k].append(found[: len(piece)])
    return [torch.cat(several)[1:-1] for several in parts]


def _around(row: np.ndarray, count: int) -> Float[Tensor, "n k"]:
    """One-hot letters of each token and of its neighbours; beyond the ends there is END."""
    wide = np.pad(row, NEIGHBOURS, constant_values=END)
    letters = np.lib.stride_tricks.sliding_window_view(wide, 2 * NEIGHBOURS + 1)
    return one_hot(torch.from_numpy(letters.copy()), count).flatten(1).float()


def _measures(right: Tensor, y: Tensor) -> dict[str, float]:
    each = [right[y == c].double().mean().item() for c in y.unique()]
    return {"accuracy": right.double().mean().item(), "classes equal": float(np.mean(each))}


def _by_sample(right: Tensor, lengths: list[int]) -> Float[np.ndarray, " n"]:
    """One number a sample, whose mean is the accuracy over all tokens.

    Tokens of one sample depend on each other: what is drawn anew for the interval are samples.
    """
    sums = np.array([part.sum().item() for part in right.double().split(lengths)])
    return sums / np.mean(lengths)
