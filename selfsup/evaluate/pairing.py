"""Do the parts of a sample find each other? Recall at 1, 5 and 10 on held-out samples, both ways.

Beside the encoder stand the same towers untrained, what guessing gives, and the classical way: the
features that each kind of data had before there were encoders, and the linear maps that make those
of the training pairs agree best (canonical correlation, Hotelling 1936).
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ..console import Console, columns
from ..data import Source, open_source, open_store
from ..data.batch import Batch
from ..data.copies import content_print
from ..data.pairs import HELD_OUT, PairSource, tables
from ..data.seen import seen_as
from ..data.store import Store
from ..data.tables import TRAIN
from ..errors import SelfsupError
from ..inference import Fast
from ..load import LoadedEncoder, load
from ..randomness import mix, order
from ..stop import stop
from ..tokens import SHOWN as MARKS
from .controls import PRETRAINED, UNTRAINED, behind, fresh
from .interval import Interval, difference, over_samples
from .result import Told, keep
from .split import TEST

DEPTHS = (1, 5, 10)
CLASSICAL = "canonical correlation"
BATCH = 128
MOST = 5000  # samples that test; more are as good as these
TAUGHT = 20_000  # samples that teach the classical control
RIDGES = (1e-2, 1e-1, 1.0, 10.0)  # beside the mean variance of a feature
NETWORKS = 3  # untrained ones
CASES, SHOWN = 6, 5  # of each kind in the report, and what was found for each


class Items(NamedTuple):
    """What there is of one part, each different thing once.

    vectors: (m, d); owner: pairs of (thing, sample), (p, 2); place: sample and number of a thing.
    """

    vectors: Float[Tensor, "m d"]
    owner: Int64[Tensor, "p 2"]
    place: list[tuple[int, int]]


class Pairing(Told):
    """Recalls beside their controls, and the verdict."""

    def __str__(self) -> str:
        rows = [("", "", *(f"recall@{k}" for k in DEPTHS))]
        for row in self._told["scores"]:
            cells = []
            for k in DEPTHS:
                found = row[f"recall_{k}"]
                half = 50 * (found["high"] - found["low"])
                cells.append(f"{100 * found['value']:.1f}" + (f" ± {half:.1f}" if half else ""))
            rows.append((row["direction"], row["of"], *cells))
        pairs = self._told.get("pairs", ())
        each = [f"{' and '.join(pair['parts'])}: {pair['sentence']}" for pair in pairs]
        told = [self.verdict, *each, "", columns(rows, width=100), "", *self._told["notes"]]
        return "\n".join(told)

    def recall(self, direction: str, depth: int, of: str = PRETRAINED) -> float:
        """One figure, as recall("image to text", 5)."""
        rows = {(r["direction"], r["of"]): r for r in self._told["scores"]}
        return rows[direction, of][f"recall_{depth}"]["value"]


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Pairs are to find each other, also in the columns of a table that nobody labelled."""
    if modality != "pairs" or labels is not None:
        return False
    return source.content == "pairs" or bool(tables(source) and source.labels() is None)


def evaluate_task(
    run: Any,
    data: Any,
    *,
    seeds: int = NETWORKS,
    seed: int = 0,
    cache: str | Path | None = None,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **_: Any,
) -> Pairing:
    """The towers of `run` on the part of `data` that tests, which is not trained on.

    A text query is right with any sample that has this very text; a file is with any of its texts.
    Raises SelfsupError E104 for data without pairs, E503 where too few are held out.
    """
    console, began = console or Console(), time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = seen_as(open_source(data, follow_links=follow_links), encoder.modality)
        if not isinstance(source, PairSource) or encoder.modality.name != "pairs":
            raise SelfsupError(
                "E104",
                f"{source.place} and this encoder are not both of pairs",
                do="give a table of files and texts, and a run that was made from such",
            )
        train, test, statement = halves(source)
        notes = [f"{len(train)} samples teach, {len(test)} test: {statement}."]
        with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
            console.progress("retrieval: the towers")
            found = {PRETRAINED: [towers(encoder, store, test)]}
            found[UNTRAINED] = []
            for i in range(min(max(seeds, 2), NETWORKS)):
                console.progress(f"retrieval: untrained towers {i + 1}")
                found[UNTRAINED].append(towers(fresh(encoder, mix(seed, i)), store, test))
            console.progress("retrieval: classical features and canonical correlation")
            scores: list[dict[str, Any]] = []
            outcomes: dict[str, dict[str, np.ndarray]] = {}  # of each search
            owners: dict[str, list[int]] = {}  # of its queries
            cases: dict[str, Any] = {}
            pairs = list(combinations(encoder.modality.sides, 2))  # type: ignore[attr-defined]
            for a, b in pairs:
                control = Classical(encoder, store, train, (a, b), seed)
                found[CLASSICAL] = [control.items(store, test)]
                notes += control.notes
                for first, then in ((a, b), (b, a)):
                    direction = f"{first} to {then}"
                    of_query = [sample for sample, _ in found[PRETRAINED][0][first].place]
                    owners[direction], outcomes[direction] = of_query, {}
                    for of, networks in found.items():
                        hits, chance, ranks = zip(
                            *(recall(n[first], n[then]) for n in networks), strict=True
                        )
                        outcomes[direction][of] = np.stack(hits).mean(1)
                        scores.append(scored(direction, of, np.stack(hits), of_query))
                        if of == PRETRAINED:
                            cases[direction] = _cases(
                                encoder, store, (first, then), networks[0], ranks[0]
                            )
                    scores.append(chance_row(direction, chance[0]))
                found.pop(CLASSICAL)
        order_of = (PRETRAINED, UNTRAINED, CLASSICAL, "chance")
        scores.sort(key=lambda row: order_of.index(row["of"]))
        scores.sort(key=lambda row: list(cases).index(row["direction"]))

        def verdict(*directions: str) -> dict[str, Any]:
            """Over all queries of some searches."""
            asked = [sample for direction in directions for sample in owners[direction]]
            merged = {  # (networks, samples)
                of: by_sample(np.concatenate([outcomes[d][of] for d in directions], 1), asked)
                for of in outcomes[directions[0]]
            }
            return judged(merged, [row for row in scores if row["direction"] in directions], seed)

        told: dict[str, Any] = {
            "format": 1, "task": "retrieve", "time": time.time(), "scores": scores,
            "notes": notes, "cases": cases, "verdict": verdict(*cases),
            "pairs": [{"parts": [a, b]} | verdict(f"{a} to {b}", f"{b} to {a}")
                      for a, b in pairs if len(pairs) > 1],
            "data": {"place": source.place, "fingerprint": source.fingerprint(),
                     "train": len(train), "test": len(test)},
            "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
    result = Pairing(told)
    keep(run if write else None, "retrieve", result)
    return result


def halves(source: PairSource) -> tuple[np.ndarray, np.ndarray, str]:
    """Samples that teach and that test, and how they came about."""
    numbers, names = source.splits()
    lower = [name.lower() for name in names]
    tested = next((name for name in TEST if name in lower), None)
    train = np.flatnonzero(np.isin(numbers, [i for i, n in enumerate(lower) if n in TRAIN]))
    test = np.flatnonzero(numbers == lower.index(tested)) if tested else np.empty(0, np.int64)
    if len(test) < max(DEPTHS) or len(train) < max(DEPTHS):
        raise SelfsupError(
            "E503",
            f"{len(train)} samples that teach and {len(test)} that test are too few",
            where=source.place,
            do="give a column split with train and test, or more samples",
        )
    statement = f"the parts {names[lower.index('train')] if 'train' in lower else 'train'!r} and "
    statement += f"{tested!r} of the data"
    if source._splits() is None:
        statement = f"one in {HELD_OUT} is held out, chosen by a hash of its name"
        statement += "" if source.groups() is None else ", whole groups together"
    if len(test) > MOST:
        test = np.sort(test[order(0, 0, len(test))[:MOST]])
        statement += f"; {MOST} of them"
    return train, test, statement


# ---- vectors ---------------------------------------------------------------------------------


def towers(encoder: LoadedEncoder, store: Store, rows: np.ndarray) -> dict[str, Items]:
    """The vectors of every part, in the space that towers share."""
    alone = {part: encoder.tower(part) for part in encoder.modality.sides}  # type: ignore[attr-defined]
    fast = {part: Fast(tower.encoder, "fp32") for part, tower in alone.items()}

    def see(part: str, batch: Batch) -> Tensor:
        tower = alone[part]
        x = tower.modality.plain(batch.to(fast[part].device), tower.size)
        return fast[part](x).cpu()

    return {part: items(encoder, store, rows, part, see) for part in alone}


def items(
    encoder: LoadedEncoder,
    store: Store,
    rows: np.ndarray,
    part: str,
    see: Callable[[str, Batch], Tensor],
) -> Items:
    """What `see` makes of one part of these samples; the same content is one thing."""
    vectors: list[Tensor] = []
    owner: list[tuple[int, int]] = []
    place: list[tuple[int, int]] = []
    known: dict[bytes, int] = {}
    for batch, sub, of in _parted(encoder, store, rows, part):
        seen = see(part, sub)
        pixels = sub.pixels.permute(0, 2, 3, 1).numpy()
        numbers: dict[int, int] = {}
        for row, (vector, sample) in enumerate(zip(seen, of.tolist(), strict=True)):
            number = numbers[sample] = numbers.get(sample, -1) + 1
            shown = pixels[row]
            if sub.extents is not None:
                height, width = sub.extents[row].tolist()
                shown = shown[:height, :width]
            index = int(batch.indices[sample])
            thing = known.setdefault(content_print(shown), len(known))
            if thing == len(vectors):
                vectors.append(vector)
                place.append((index, number))
            owner.append((thing, index))
    return Items(torch.stack(vectors).float(), torch.tensor(owner), place)


def _parted(
    encoder: LoadedEncoder, store: Store, rows: np.ndarray, part: str
) -> Iterator[tuple[Batch, Batch, Int64[Tensor, " m"]]]:
    modality: Any = encoder.modality
    for low in range(0, len(rows), BATCH):
        stop.check()
        batch = store.batch(rows[low : low + BATCH])
        sub, owner = modality.parts(batch)[part]
        yield batch, sub, owner


def recall(
    queries: Items, gallery: Items
) -> tuple[Float[np.ndarray, "3 q"], Float[np.ndarray, "3 q"], Int64[Tensor, " q"]]:
    """Whether each query has one of its partners among the 1, 5, 10 nearest; what guessing would
    give; and the rank, from 0, of its first partner."""
    return ranked(similarity(queries, gallery), partners(queries, gallery))


def ranked(
    alike: Float[Tensor, "q n"], wanted: Bool[Tensor, "q n"]
) -> tuple[Float[np.ndarray, "3 q"], Float[np.ndarray, "3 q"], Int64[Tensor, " q"]]:
    """The same of similarities and of which are partners; each query has one at least."""
    first = alike.masked_fill(~wanted, -torch.inf).max(1).values
    # ties count against the encoder: all that is as near comes first
    ranks = ((alike >= first[:, None]) & ~wanted).sum(1)
    n, r = alike.shape[1], wanted.sum(1).double()
    hits, chance = [], []
    for depth in DEPTHS:
        hits.append((ranks < depth).double())
        missed = torch.ones(len(alike), dtype=torch.float64)
        for i in range(min(depth, n)):
            missed *= ((n - r - i) / (n - i)).clamp(min=0)
        chance.append(1 - missed)
    return torch.stack(hits).numpy(), torch.stack(chance).numpy(), ranks


def by_sample(
    outcomes: Float[np.ndarray, "k q"], owners: list[int]
) -> Float[np.ndarray, "k samples"]:
    """One number a sample, whose mean is that over all queries.

    The queries of one sample, both ways, depend on each other: what is drawn anew for an interval
    are samples. One with more queries than others counts more, but alone moves no mean.
    """
    _, at = np.unique(owners, return_inverse=True)
    counts, means = np.bincount(at), outcomes.mean(1, keepdims=True)
    off = np.stack([np.bincount(at, row) for row in outcomes - means])
    return means + off / counts.mean()


def similarity(queries: Items, gallery: Items) -> Float[Tensor, "q n"]:
    return normalize(queries.vectors, dim=-1) @ normalize(gallery.vectors, dim=-1).T


def partners(queries: Items, gallery: Items) -> Bool[Tensor, "q n"]:
    """Which things of two parts belong to a common sample."""
    samples, place = np.unique(
        torch.cat([queries.owner[:, 1], gallery.owner[:, 1]]).numpy(), return_inverse=True
    )
    tables = []
    for one, where in zip((queries, gallery), np.split(place, [len(queries.owner)]), strict=True):
        table = torch.zeros(len(one.vectors), len(samples))
        table[one.owner[:, 0], torch.from_numpy(where)] = 1.0
        tables.append(table)
    return tables[0] @ tables[1].T > 0


# ---- the classical control -------------------------------------------------------------------


class Classical:
    """Classical features of two parts, and linear maps into one space, learned from training pairs.

    The strength of the ridge is chosen on a fifth of the training samples.
    """

    def __init__(
        self,
        encoder: LoadedEncoder,
        store: Store,
        train: np.ndarray,
        parts: tuple[str, str],
        seed: int,
    ):
        self.encoder, self.parts = encoder, parts
        train = train[np.sort(order(mix(seed, 1), 0, len(train))[:TAUGHT])]
        modality: Any = encoder.modality
        self.reduced: dict[str, Callable[[Batch], Tensor]] = {}
        taught = []
        for part in parts:
            of = modality.sides[part].modality
            plain = of.fitted(sub for _, sub, _ in _parted(encoder, store, train, part))
            self.reduced[part] = plain
            raw = items(encoder, store, train, part, self._reduce)
            self.reduced[part] = reduced(plain, raw.vectors, of.baseline_components)
            taught.append(items(encoder, store, train, part, self._reduce))
        a, b = taught
        drawn = order(mix(seed, 2), 0, len(train))
        held = np.isin(np.arange(len(train)), drawn[: len(train) // 5])
        inner, outer = set(train[~held].tolist()), set(train[held].tolist())
        scored = []
        for ridge in RIDGES:
            maps = correlate(*_aligned(a, b, inner), ridge)
            x, y = (_only(one, outer, m) for one, m in zip((a, b), maps, strict=True))
            scored.append((recall(x, y)[0].mean() + recall(y, x)[0].mean(), -ridge))
        ridge = -max(scored)[1]
        self.maps = dict(zip(parts, correlate(*_aligned(a, b, inner | outer), ridge), strict=True))
        names = [modality.sides[part].modality.baseline_name for part in parts]
        self.notes = [f"{CLASSICAL}: {names[0]} and {names[1]}, mapped linearly; ridge {ridge:g}."]

    def _reduce(self, part: str, batch: Batch) -> Tensor:
        return self.reduced[part](batch).float().cpu()

    def see(self, part: str, batch: Batch) -> Float[Tensor, "m k"]:
        """A part in the common space."""
        return self.maps[part](self.reduced[part](batch))

    def items(self, store: Store, rows: np.ndarray) -> dict[str, Items]:
        return {part: items(self.encoder, store, rows, part, self.see) for part in self.parts}


def reduced(
    features: Callable[[Batch], Tensor], x: Float[Tensor, "n p"], most: int
) -> Callable[[Batch], Float[Tensor, "m k"]]:
    """Principal components of classical features, as many as carry weight."""
    mean = x.mean(0)
    _, values, axes = torch.linalg.svd(x - mean, full_matrices=False)
    keep = min(most, int((values > 1e-4 * values[0]).sum()))
    axes = axes[:keep].T
    return lambda batch: (features(batch).float().cpu() - mean) @ axes


def _aligned(a: Items, b: Items, samples: set[int]) -> tuple[Tensor, Tensor]:
    """Rows of the two parts that belong together: every combination within a sample."""
    of: dict[int, tuple[list[int], list[int]]] = {}
    for side, one in enumerate((a, b)):
        for thing, sample in one.owner.tolist():
            if sample in samples:
                of.setdefault(sample, ([], []))[side].append(thing)
    rows = [(i, j) for first, then in of.values() for i in first for j in then]
    i, j = torch.tensor(rows).T
    return a.vectors[i], b.vectors[j]


def _only(one: Items, samples: set[int], see: Callable[[Tensor], Tensor]) -> Items:
    """What belongs to these samples, mapped."""
    owner = one.owner[[s in samples for s in one.owner[:, 1].tolist()]]
    things, place = owner[:, 0].unique(return_inverse=True)
    where = [one.place[i] for i in things.tolist()]
    return Items(see(one.vectors[things]), torch.stack([place, owner[:, 1]], 1), where)


def correlate(
    x: Float[Tensor, "n p"], y: Float[Tensor, "n q"], ridge: float
) -> list[Callable[[Tensor], Tensor]]:
    """Canonical correlation with a ridge: two linear maps whose outputs agree as well as can be.

    Each direction counts by its correlation.
    """
    x, y = x.double(), y.double()
    means = x.mean(0), y.mean(0)
    x, y = x - means[0], y - means[1]
    white = []
    for z in (x, y):
        covariance = z.T @ z / len(z)
        covariance += ridge * covariance.diagonal().mean() * torch.eye(len(covariance))
        values, axes = torch.linalg.eigh(covariance)
        white.append(axes @ (values.clamp(min=1e-12).rsqrt()[:, None] * axes.T))
    left, strength, right = torch.linalg.svd(
        white[0] @ (x.T @ y / len(x)) @ white[1], full_matrices=False
    )
    maps = white[0] @ left * strength, white[1] @ right.T * strength
    return [partial(_mapped, mean, axes) for mean, axes in zip(means, maps, strict=True)]


def _mapped(mean: Tensor, axes: Tensor, z: Float[Tensor, "n p"]) -> Float[Tensor, "n k"]:
    return ((z.double() - mean) @ axes).float()


# ---- words -----------------------------------------------------------------------------------


def scored(
    direction: str, of: str, hits: Float[np.ndarray, "k 3 q"], owners: list[int]
) -> dict[str, Any]:
    row: dict[str, Any] = {"direction": direction, "of": of, "queries": hits.shape[2]}
    for depth, each in zip(DEPTHS, by_sample(hits.mean(0), owners), strict=True):
        found = over_samples(each)
        low, high = max(0.0, found.low), min(1.0, found.high)
        row[f"recall_{depth}"] = {"value": found.value, "low": low, "high": high}
    return row


def chance_row(direction: str, chance: Float[np.ndarray, "3 q"]) -> dict[str, Any]:
    row: dict[str, Any] = {"direction": direction, "of": "chance", "queries": chance.shape[1]}
    for depth, value in zip(DEPTHS, chance.mean(1).tolist(), strict=True):
        row[f"recall_{depth}"] = {"value": value, "low": value, "high": value}
    return row


def judged(
    outcomes: dict[str, Float[np.ndarray, "k n"]], scores: list[dict[str, Any]], seed: int
) -> dict[str, Any]:
    """By the mean of all recalls, both ways."""
    means = {of: float(x.mean()) for of, x in outcomes.items()}
    control = max((of for of in means if of != PRETRAINED), key=lambda of: means[of])
    gain: Interval = difference(outcomes[PRETRAINED][0], outcomes[control], seed)
    guess = [r[f"recall_{k}"]["value"] for r in scores if r["of"] == "chance" for k in DEPTHS]
    numbers = ", ".join(f"{100 * value:.1f} {of}" for of, value in means.items())
    told = f"{100 * gain.value:+.1f} points of mean recall against {control} (95 % interval "
    told += f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}; {numbers}, "
    told += f"{100 * float(np.mean(guess)):.1f} chance)"
    if gain.low > 0:
        sentence = f"Pretraining helps: {told}."
    elif gain.high < 0:
        sentence = f"{behind(control)}: {told}."
    else:
        sentence = f"No clear gain: {told}."
    return {"gain": gain.low > 0, "sentence": sentence, "control": control,
            "value": gain.value, "low": gain.low, "high": gain.high}  # fmt: skip


def _cases(
    encoder: LoadedEncoder,
    store: Store,
    parts: tuple[str, str],
    of: dict[str, Items],
    ranks: Int64[Tensor, " q"],
) -> dict[str, list[dict[str, Any]]]:
    """Queries whose partner came first and was nearest, and those whose partner came last."""
    queries, gallery = of[parts[0]], of[parts[1]]
    alike, wanted = similarity(queries, gallery), partners(queries, gallery)
    sure = alike.max(1).values.double()
    best = (ranks.double() - 0.4 * sure).argsort()[:CASES].tolist()
    worst = (-ranks.double() - 0.4 * sure).argsort()[:CASES].tolist()

    def thing(part: str, number: int) -> dict[str, Any]:
        index, place = of[part].place[number]
        told = {"part": part, "index": index, "number": place, "name": store.source.name(index)}
        modality: Any = encoder.modality
        if hasattr(modality.sides[part].modality, "texts"):
            batch = store.batch(np.array([index]))
            texts = modality.sides[part].modality.texts(modality.parts(batch)[part][0])
            told["text"] = texts[place].strip(MARKS[0])
        return told

    def case(query: int) -> dict[str, Any]:
        near = alike[query].argsort(descending=True)[:SHOWN].tolist()
        found = [
            thing(parts[1], i) | {"similarity": round(float(alike[query, i]), 4),
                                  "right": bool(wanted[query, i])}
            for i in near
        ]  # fmt: skip
        return {"query": thing(parts[0], query), "rank": int(ranks[query]) + 1, "found": found}

    return {"best": [case(q) for q in best], "worst": [case(q) for q in worst]}
