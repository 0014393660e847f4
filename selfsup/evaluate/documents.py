"""Do the halves of a document find each other? For encoders of text that foretell nothing.

The first half of every document looks for its second half among those of all documents: recall at
1, 5 and 10, beside the same network untrained and TF-IDF of the same words. Cosines are of vectors
less their mean, without which an untrained network hardly tells one text from another.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..console import Console
from ..data import Source, open_source, open_store
from ..data.store import Store
from ..errors import SelfsupError
from ..inference import Fast
from ..load import LoadedEncoder, load
from ..ragged import Ragged
from ..randomness import mix, order
from ..stems import END
from ..stop import stop
from .controls import PRETRAINED, UNTRAINED, data_of, fresh
from .pairing import DEPTHS, NETWORKS, Pairing, chance_row, judged, ranked, scored
from .result import keep
from .words import by_words

MOST, FEWEST = 2000, 2 * max(DEPTHS)  # documents
SHORTEST = 8  # tokens of a half
BATCH = 128
DIRECTION = "first half to second"
CLASSICAL = "TF-IDF"
WORDS = r"(?u)\b\w+\b|[^\w\s]"

Halves = list[np.ndarray]  # tokens


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Only where nothing is foretold, as `tasks.chosen` finds out, or on request."""
    return False


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
    """The encoder of `run` on the documents in `data`, which should not have been trained on.

    A half has no more tokens than the encoder sees. Raises SelfsupError: E202 for an encoder of
    anything but text, E503 for too few documents.
    """
    console, began = console or Console(), time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        if encoder.modality.name != "text":
            raise SelfsupError("E202", f"no documents for an encoder of {encoder.modality.name}")
        modality: Any = encoder.modality
        source = open_source(data, follow_links=follow_links)
        with open_store(source, modality, encoder.size, cache=cache) as store:
            first, then = halves(encoder, store, seed)
        if len(first) < FEWEST:
            raise SelfsupError(
                "E503", f"{len(first)} documents of {2 * SHORTEST} tokens or more are too few",
                where=source.place, do=f"give {FEWEST} or more",
            )  # fmt: skip
        console.progress("documents: the encoder")
        found = {PRETRAINED: [alike(encoder, first, then)], UNTRAINED: []}
        for i in range(min(max(seeds, 2), NETWORKS)):
            console.progress(f"documents: untrained network {i + 1}")
            found[UNTRAINED].append(alike(fresh(encoder, mix(seed, i)), first, then))
        console.progress("documents: TF-IDF")
        x = by_words([modality.decode(half) for half in first + then], WORDS, 2)
        cosine = x[: len(first)] @ x[len(first) :].T
        found[CLASSICAL] = [torch.from_numpy(cosine.toarray())]
        wanted = torch.eye(len(first), dtype=torch.bool)
        scores: list[dict[str, Any]] = []
        outcomes: dict[str, np.ndarray] = {}
        for of, networks in found.items():
            recalls = [ranked(one, wanted) for one in networks]
            hits = np.stack([hits for hits, _, _ in recalls])
            outcomes[of] = hits.mean(1)
            scores.append(scored(DIRECTION, of, hits, list(range(len(first)))))
        scores.append(chance_row(DIRECTION, recalls[0][1]))
        notes = [
            f"{len(first)} documents, halves of up to {encoder.size} tokens, cosines of vectors "
            "less their mean."
        ]
        training = data_of(run)
        if training is not None and training.place == source.place:
            notes.append("These documents were trained on: held-out ones are a fairer measure.")
        told: dict[str, Any] = {
            "format": 1, "task": "documents", "time": time.time(), "scores": scores,
            "notes": notes, "verdict": judged(outcomes, scores, seed),
            "data": {"place": source.place, "fingerprint": source.fingerprint()},
            "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
    result = Pairing(told)
    keep(run if write else None, "documents", result)
    return result


def halves(encoder: LoadedEncoder, store: Store, seed: int) -> tuple[Halves, Halves]:
    """First and second halves of documents as long as twice what the encoder sees, at most.

    A document of which another has a half as well is left out: it could be found in two places.
    """
    modality: Any = encoder.modality
    first: Halves = []
    then: Halves = []
    known: set[bytes] = set()
    rows = order(mix(seed, 0x68616C66), 0, len(store))
    for low in range(0, len(rows), BATCH):
        stop.check()
        for row in modality.rows(store.batch(rows[low : low + BATCH])):
            tokens = row[row != END][: 2 * encoder.size]
            a, b = np.split(tokens[: len(tokens) // 2 * 2], 2)
            content = {a.tobytes(), b.tobytes()}
            if len(a) >= SHORTEST and not content & known and len(first) < MOST:
                first.append(a)
                then.append(b)
            known |= content
        if len(first) == MOST:
            break
    return first, then


def alike(network: LoadedEncoder, first: Halves, then: Halves) -> Float[Tensor, "n n"]:
    """Cosine of each first half with each second one."""
    fast, parts = Fast(network.encoder, "fp32"), []
    rows = [torch.from_numpy(half) for half in first + then]
    for low in range(0, len(rows), BATCH):
        stop.check()
        some: Any = Ragged.of(rows[low : low + BATCH])
        parts.append(fast(some.to(fast.device)).cpu())
    x = torch.cat(parts).double()
    x = normalize(x - x.mean(0), dim=-1)
    return x[: len(first)] @ x[len(first) :].T
