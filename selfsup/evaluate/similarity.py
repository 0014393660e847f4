"""Do sentences that people call alike lie close together? STS-B and its kind: two texts, a score.

Spearman's correlation of the score with the cosine of the two frozen vectors; nothing is trained.
Beside the encoder stand the same network untrained and the cosine of TF-IDF.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.functional import cosine_similarity

from ..console import Console
from ..data import Source, open_source, open_store
from ..data.pairs import PairTable, Part, as_pairs, sentences
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..randomness import mix
from ..stop import stop
from .controls import PRETRAINED, UNTRAINED, fresh
from .features import extract, readable
from .regress import gained, ranks
from .result import keep
from .scored import Scored, best_control, conclude
from .split import TEST
from .words import by_words

NETWORKS = 3
CLASSICAL = "TF-IDF"
WORDS = r"(?u)\b\w+\b"
SCORES = ("score", "similarity", "similarity_score")
COLUMNS = ({"sentence1", "sentence2"}, {"sentence_1", "sentence_2"}, {"text1", "text2"})
ALIKE = 3.0  # times as many words in one column as in the other: else they are title and text
FEWEST = 10  # rows


def suits(modality: str, source: Source, labels: Any) -> bool:
    """A table has two columns of text, of like length, and one of many different numbers.

    By its name a score of the two, or they are called sentences: else it is one of a property.
    """
    if modality not in ("text", "pairs") or labels is not None:
        return False
    found = _scored(source)
    if found is None or found[0].scores is None:
        return False
    named = found[0].scores[1].strip().lower() in SCORES
    if not named and {part.lower() for part in found[1]} not in COLUMNS:
        return False
    rows = [found[0].read(i) for i in range(min(len(found[0]), 200))]
    words = [sum(len(row[part][0].split()) for row in rows) for part in found[1]]
    return max(words) <= ALIKE * min(words)


def _scored(data: Any, follow_links: bool = False) -> tuple[PairTable, tuple[str, str]] | None:
    """The rows, and what its two texts are called."""
    source = open_source(data, follow_links=follow_links)
    columns = sentences(source) if source.content == "text" else ()
    found = as_pairs(source, columns) if columns else None
    if not isinstance(found, PairTable):
        return None
    first, then = found.parts
    return found, (first, then)


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
) -> Scored:
    """Of the part that tests where the table names one, else of all rows.

    Raises SelfsupError: E501 where there are not two columns of text and a score, E503 too few.
    """
    console, began = console or Console(), time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        seer, found = encoder.seeing("text"), _scored(data, follow_links)
        known = "text" in seer.modality.contents
        if found is None or found[0].scores is None or not known:
            raise SelfsupError(
                "E501", "no sentences with a score, or no encoder of texts", where=str(data)[:200],
                do="give a table with two columns of text and one called score, and a run on text",
            )  # fmt: skip
        (source, parts), (values, name) = found, found[0].scores
        rows = np.flatnonzero(np.isfinite(values))
        numbers, names = source._splits() or (np.zeros(len(source)), [])
        lower = [part.lower() for part in names]
        tested = next((part for part in TEST if part in lower), None)
        if tested is not None:
            rows = rows[numbers[rows] == lower.index(tested)]
        modality: Any = seer.modality
        several: dict[str, list[np.ndarray]] = {}
        with (
            open_store(Part(source, parts[0]), modality, seer.size, cache=cache) as one,
            open_store(Part(source, parts[1]), modality, seer.size, cache=cache) as other,
        ):
            for store in (one, other):
                rows = np.intersect1d(rows, readable(store, console.progress)[0])
            if len(rows) < FEWEST:
                raise SelfsupError("E503", f"{len(rows)} rows are too few: {FEWEST} at least")

            def cosines(seer: LoadedEncoder) -> np.ndarray:
                x, y = (extract(seer, store, rows) for store in (one, other))
                return cosine_similarity(x, y).double().numpy()

            several[PRETRAINED] = [cosines(seer)]
            several[UNTRAINED] = []
            for i in range(max(2, min(seeds, NETWORKS))):
                console.progress(f"evaluate: untrained network {i + 1}")
                several[UNTRAINED].append(cosines(fresh(encoder, mix(seed, i)).seeing("text")))
        texts = [modality.text(source.read(i)[part][0]) for part in parts for i in rows.tolist()]
        words = by_words(texts, WORDS)
        cosine = words[: len(rows)].multiply(words[len(rows) :]).sum(1)
        several[CLASSICAL] = [np.asarray(cosine).ravel()]
    y = ranks(values[rows])
    placed = {of: np.stack([ranks(x) for x in each]) for of, each in several.items()}
    scores = {of: [{"spearman": float((x * y).mean())} for x in each]
              for of, each in placed.items()}  # fmt: skip
    control = best_control(scores, "spearman")
    gain = gained(placed[PRETRAINED][0], placed[control], y, seed)
    spread = gained(placed[PRETRAINED][0], None, y, seed)
    which = f"the part {names[lower.index(tested)]!r}" if tested is not None else "all rows"
    notes = [
        f"{name!r} and the cosine of {parts[0]} and {parts[1]}: {len(rows)} rows, {which}. Nothing "
        f"is trained. Spearman of the encoder {spread.low:.3f} to {spread.high:.3f} (95 %, over "
        "rows)."
    ]
    result = conclude(
        "similarity", "Spearman", {"spearman": 3}, scores, control, gain, notes, encoder,
        source.place, began,
    )  # fmt: skip
    keep(run if write else None, "similarity", result)
    return result
