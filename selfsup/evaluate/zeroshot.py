"""Classes named in words: which name lies nearest to a sample, without one label to learn from.

Each name is put into a few sentences, whose vectors are averaged (arXiv 2103.00020, section 3.1.4).
Beside the towers stand the same untrained, the classical maps learned from the run's own pairs, and
guessing.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..console import Console, columns
from ..data import Source, open_source, open_store
from ..data.batch import Batch, stacked
from ..data.pairs import PairSource
from ..errors import SelfsupError
from ..inference import Fast
from ..load import LoadedEncoder, load
from ..randomness import mix
from ..stop import stop
from .controls import PRETRAINED, UNTRAINED, data_of, fresh
from .interval import difference, over_samples
from .pairing import BATCH, CLASSICAL, NETWORKS, Classical
from .result import Told, keep
from .split import TEST

# By what the samples are; {} stands for the name of a class
TEMPLATES = {
    "image": ("{}", "a photo of a {}", "a picture of a {}"),
    "audio": ("{}", "the sound of {}", "a recording of {}"),
}
PLAIN = ("{}",)


class ZeroShot(Told):
    """Accuracies beside their controls, and the verdict."""

    def __str__(self) -> str:
        rows = [("", "accuracy", "interval")]
        for row in self._told["scores"]:
            interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}" if "low" in row else ""
            rows.append((row["of"], f"{100 * row['value']:.1f}", interval))
        return "\n".join([self.verdict, "", columns(rows, width=100), "", *self._told["notes"]])


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Labelled samples that are no pairs, for an encoder of such."""
    if modality != "pairs" or source.content == "pairs":
        return False
    return labels is not None or source.labels() is not None


def evaluate_task(
    run: Any,
    data: Any,
    *,
    labels: str | Path | None = None,
    templates: Sequence[str] = (),
    seeds: int = NETWORKS,
    seed: int = 0,
    cache: str | Path | None = None,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **_: Any,
) -> ZeroShot:
    """Which class each sample of `data` is of, by the names of the classes alone.

    All labelled samples count, or those of the part that tests. Raises SelfsupError E202 for an
    encoder without a tower for texts and one for the data, E501 without labels.
    """
    console, began = console or Console(), time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = open_source(data, follow_links=follow_links, labels=labels)
        part, words = _towers(encoder, source)
        truth, names = _labels(source)
        wanted = tuple(templates) or TEMPLATES.get(source.content, PLAIN)
        prompts = [[t.replace("{}", readable(name)) for t in wanted] for name in names]
        modality: Any = encoder.modality
        tower = encoder.tower(part)
        outcomes: dict[str, list[np.ndarray]] = {}
        notes = [f"Prompts: {', '.join(repr(t) for t in wanted)}."]
        with open_store(source, tower.modality, tower.size, cache=cache) as store:
            rows = np.flatnonzero(truth >= 0)
            usable: list[int] = []

            def batches() -> Iterator[Batch]:
                usable.clear()
                for low in range(0, len(rows), BATCH):
                    stop.check()
                    batch = store.batch(rows[low : low + BATCH])
                    usable.extend(batch.indices.tolist())
                    yield batch

            def judge(see: Callable[[str, Batch], Tensor]) -> np.ndarray:
                """Whether the nearest name is right, for each sample."""
                named = [see(words, _texts(modality.sides[words].modality, p)) for p in prompts]
                classes = torch.stack([normalize(x, dim=-1).mean(0) for x in named])
                found = torch.cat([see(part, batch) for batch in batches()])
                guess = (normalize(found, dim=-1) @ normalize(classes, dim=-1).T).argmax(1)
                return (guess.numpy() == truth[usable]).astype(float)

            console.progress("zero-shot: the towers")
            outcomes[PRETRAINED] = [judge(seeing(encoder, part, words))]
            for i in range(min(max(seeds, 2), NETWORKS)):
                console.progress(f"zero-shot: untrained towers {i + 1}")
                towers = fresh(encoder, mix(seed, i))
                outcomes.setdefault(UNTRAINED, []).append(judge(seeing(towers, part, words)))
            console.progress("zero-shot: canonical correlation of the run's own pairs")
            control = _classical(run, encoder, (part, words), seed, cache)
            if control is None:
                notes.append("The pairs of the run are not at hand: no classical control.")
            else:
                outcomes[CLASSICAL] = [judge(control.see)]
                notes += control.notes
        told = _told(outcomes, truth[usable], names, notes, seed)
        told["data"] = {"place": source.place, "fingerprint": source.fingerprint(),
                        "classes": names, "samples": len(usable)}  # fmt: skip
        told["templates"] = list(wanted)
        told["seconds"] = round(time.monotonic() - began, 1)
    result = ZeroShot(told)
    keep(run if write else None, "zeroshot", result)
    return result


def readable(name: str) -> str:
    """A folder's name as words.

    >>> readable("chirping_birds")
    'chirping birds'
    """
    return " ".join(name.replace("_", " ").split())


def seeing(encoder: LoadedEncoder, *parts: str) -> Callable[[str, Batch], Float[Tensor, "b d"]]:
    """What maps one part into the common space."""
    towers = {part: encoder.tower(part) for part in parts}
    fast = {part: Fast(tower.encoder, "fp32") for part, tower in towers.items()}

    def see(part: str, batch: Batch) -> Float[Tensor, "b d"]:
        x = towers[part].modality.plain(batch.to(fast[part].device), towers[part].size)
        return fast[part](x).cpu()

    return see


def _texts(modality: Any, texts: list[str]) -> Batch:
    return stacked([modality.read(text) for text in texts], torch.arange(len(texts)))


def _towers(encoder: LoadedEncoder, source: Source) -> tuple[str, str]:
    """The tower that sees the data, and the one that reads."""
    find = getattr(encoder.modality, "of_content", lambda content: None)
    part, words = find(source.content), find("text")
    if part is None or words is None or part == words:
        raise SelfsupError(
            "E202",
            f"this encoder has no towers for {source.content} and for text",
            why="names of classes are compared with samples in the space that towers share",
            do="pretrain one on pairs: selfsup pretrain captions.csv",
        )
    return part, words


def _labels(source: Source) -> tuple[np.ndarray, list[str]]:
    found = source.labels()
    if found is None or not (found[0] >= 0).any():
        raise SelfsupError("E501", f"no labels in {source.place}", do="one folder for each class")
    truth, names = found[0].copy(), found[1]
    parts = source.splits()
    tested = next((p for p in TEST if parts and p in [n.lower() for n in parts[1]]), None)
    if parts is not None and tested is not None:
        truth[parts[0] != [n.lower() for n in parts[1]].index(tested)] = -1
    return truth, names


def _classical(
    run: Any, encoder: LoadedEncoder, parts: tuple[str, str], seed: int, cache: Any
) -> Classical | None:
    """The maps that the run's own pairs teach, if they are at hand."""
    source = data_of(run, encoder.modality)
    if not isinstance(source, PairSource):
        return None
    taught = source.for_training()
    with open_store(taught, encoder.modality, encoder.size, cache=cache) as store:
        return Classical(encoder, store, np.arange(len(taught)), parts, seed)


def _told(
    outcomes: dict[str, list[np.ndarray]],
    truth: np.ndarray,
    names: list[str],
    notes: list[str],
    seed: int,
) -> dict[str, Any]:
    scores: list[dict[str, Any]] = []
    for of, found in outcomes.items():
        interval = over_samples(np.mean(found, 0))
        scores.append({"of": of, "value": interval.value, "low": interval.low,
                       "high": interval.high})  # fmt: skip
    control = max(scores[1:], key=lambda row: row["value"])["of"]
    gain = difference(outcomes[PRETRAINED][0], np.stack(outcomes[control]), seed)
    common = float(np.bincount(truth).max() / len(truth))
    scores.append({"of": "chance", "value": 1 / len(names)})
    scores.append({"of": "always the commonest class", "value": common})
    above = gain.low > 0 and scores[0]["low"] > common
    told = f"{100 * scores[0]['value']:.1f} % of {len(truth)} samples of {len(names)} classes are "
    told += f"named right without a label; {100 * gain.value:+.1f} points against {control} "
    told += f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), {100 / len(names):.1f} % chance"
    word = "Pretraining helps" if above else "No clear gain"
    return {
        "format": 1, "task": "zeroshot", "time": time.time(), "scores": scores, "notes": notes,
        "verdict": {"gain": above, "sentence": f"{word}: {told}.", "control": control,
                    "value": gain.value, "low": gain.low, "high": gain.high},
    }  # fmt: skip
