"""Speech recognition from few transcribed minutes: does pretraining spare transcription?

The encoder is trained with CTC and decoded greedily, as in `selfsup.transfer.transcribe`. Beside
each number stands the same network from scratch, with the same recordings and steps.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from .. import machine
from ..console import Console, columns
from ..data import Source, open_source, open_store
from ..data.listed import Labelled
from ..data.seen import seen_as
from ..data.store import Store
from ..data.tables import LABEL_COLUMNS, Table, encode
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..randomness import mix, order
from ..stop import stop
from ..transfer import tasks
from ..transfer.tasks import Choice, Network, Part
from ..transfer.transcribe import (
    LEAST_STEPS,
    MOST_STEPS,
    RATES,
    RECORDINGS,
    Transcribe,
    errors,
    fitting,
    lengths,
    size_for,
)
from .controls import PRETRAINED, SCRATCH
from .features import readable
from .result import Told, keep
from .split import TEST, groups_of, shared, split

TEXT_COLUMNS = ("text", "transcript", "transcription", "sentence")

AMOUNTS = (1.0, 5.0, 20.0)  # minutes that are transcribed
RESAMPLES = 1000
HEARD = 8  # recordings whose texts are kept


@dataclass(frozen=True)
class Rate:
    """Errors over what was said; an interval of 95 % over the recordings that test."""

    value: float
    low: float
    high: float


class Transcription(Told):
    """The label curve, and what it means in a sentence."""

    def __str__(self) -> str:
        rows = [("transcribed", "network", "characters wrong", "words wrong")]
        for row in self._told["curve"]:
            rates = [
                f"{100 * row[key]['value']:.1f} % ({100 * row[key]['low']:.1f} to "
                f"{100 * row[key]['high']:.1f})"
                for key in ("cer", "wer")
            ]
            rows.append((f"{row['minutes']:g} min", row["of"], *rates))
        heard = [f"  said   {a}\n  heard  {b}" for a, b in self._told["heard"][:3]]
        notes = [self._told["statement"], *self._told["notes"]]
        table = columns(rows, width=100)
        return "\n".join([self.verdict, "", table, "", *heard, "", *notes])


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Transcribed recordings are to be transcribed."""
    table = Path(labels if labels is not None else source.place)
    if modality != "audio" or table.suffix.lower() not in (".csv", ".tsv"):
        return False
    header = {name.strip().lower() for name in Table(table).header} if table.is_file() else set()
    return bool(header & set(TEXT_COLUMNS)) and not header & set(LABEL_COLUMNS)


def evaluate_task(
    run: Any,
    data: Any,
    *,
    labels: str | Path | None = None,
    amounts: Sequence[float] = AMOUNTS,
    seeds: int = 2,
    minutes: float = 10.0,
    seed: int = 0,
    cache: str | Path | None = None,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **_: Any,
) -> Transcription:
    """Character and word error rates at several amounts of transcribed speech.

    `labels` (or `data` itself) is a table with columns file, text and, where there is one, split.
    `minutes` is the time for all trainings. No copy of a recording that tests or chooses teaches.
    Raises SelfsupError: E501 no transcripts, E503 too few, E202 an encoder whose steps are too long
    for letters.
    """
    console = console or Console()
    began = time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = open_source(data, follow_links=follow_links, labels=labels)
        source = seen_as(source, encoder.modality, whole=True)  # a text is of its whole file
        texts, parts = transcripts(source, Path(labels if labels is not None else source.place))
        with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
            job = Recogniser(encoder, store, texts, parts, console, seed)
            told = job.curve(amounts, max(1, seeds), 60 * minutes)
    told["seconds"] = round(time.monotonic() - began, 1)
    result = Transcription(told)
    keep(run if write else None, "transcribe", result)
    return result


def transcripts(source: Any, path: Path) -> tuple[list[str | None], list[str]]:
    """What is said in each sample, or None, and the part that it belongs to ("" for none)."""
    known = {name.strip().lower() for name in Table(path).header} if path.is_file() else set()
    column = next((name for name in TEXT_COLUMNS if name in known), None)
    beside = None if column is None else Labelled(source, path, column)
    texts = None if beside is None else beside.labels()
    if beside is None or texts is None:
        raise SelfsupError(
            "E501",
            f"no transcripts for {source.place}",
            where=str(path),
            why=f"a table with the columns file and {' or '.join(TEXT_COLUMNS)} is needed",
            do="give it with --labels; of other data that test, as --test itself",
        )
    codes, names = texts
    said = [" ".join(names[code].lower().split()) if code >= 0 else None for code in codes]
    parts = beside.splits()
    if parts is None:
        return said, [""] * len(said)
    return said, [parts[1][code].lower() if code >= 0 else "" for code in parts[0]]


class Recogniser:
    """The steps of one evaluation."""

    def __init__(
        self,
        encoder: LoadedEncoder,
        store: Store,
        texts: list[str | None],
        parts: list[str],
        console: Console,
        seed: int,
    ):
        self.encoder, self.store, self.console, self.seed = encoder, store, console, seed
        self.texts = texts
        self.notes: list[str] = []
        usable, prints = readable(store, self._tell)
        said = np.array([bool(texts[i]) for i in usable.tolist()], bool)
        self._measure(usable[said])
        self._divide(usable[said], [p for p, k in zip(prints, said, strict=True) if k], parts)
        self.letters = sorted({c for i in self.train for c in texts[i] or ""})
        self.task = Transcribe(self.letters, self.size)
        fitting(self.task, encoder, store, self._part(self.train))

    def _measure(self, rows: np.ndarray) -> None:
        """How long recordings are, and how much is heard of them."""
        self.seconds = lengths(self.encoder, self.store, rows)
        self.size = size_for(self.encoder, max(self.seconds.values(), default=0.0))
        if self.size > self.encoder.size:
            self.notes.append(
                f"recordings are heard whole, up to {self.size} frames, though pretraining saw "
                f"{self.encoder.size}"
            )

    def _divide(self, rows: np.ndarray, prints: list[bytes], parts: list[str]) -> None:
        source, given = self.store.source, encode(part or None for part in parts)
        known = np.zeros(len(parts), np.int64)
        found = split(
            source, known, rows, prints, drop_leaks=True, seed=self.seed, least=1, given=given
        )
        teach, self.test = found.train, found.test
        self.notes += [note for note in found.notes if "are not used" not in note]
        held = np.array([i for i in np.setdiff1d(rows, self.test) if parts[i] in TEST], np.int64)
        held = held[~shared(source, rows, prints, held, np.concatenate([teach, self.test]))]
        if len(held) < 8:
            copies = groups_of(prints)[np.searchsorted(rows, teach)]
            chosen = choosing(found.groups, self.seed)
            chosen = chosen if chosen.any() else choosing(copies, self.seed)
            held, teach = teach[chosen], teach[~chosen]
        if len(teach) < 4 or len(self.test) < 2 or not len(held):
            raise SelfsupError(
                "E503", f"{len(teach)} transcribed recordings to train, {len(self.test)} to test",
                do="give a table with more rows",
            )  # fmt: skip
        self.train, self.held = teach, held[:100]
        self.statement = (
            f"{found.statement}: {len(teach)} to train, {len(self.test)} to test, "
            f"{len(self.held)} to choose the learning rate"
        )

    def _part(self, rows: np.ndarray) -> Part:
        return Part(self.store, rows, [self.texts[i] or "" for i in rows.tolist()])

    # ---- one training ------------------------------------------------------------------------

    def fresh(self, pretrained: bool, seed: int) -> Network:
        return tasks.fresh(self.task, self.encoder, pretrained=pretrained, seed=seed)

    def fit(self, network: Network, rows: np.ndarray, steps: int, rate: float, seed: int) -> None:
        tasks.train(network, self.encoder, self._part(rows), steps=steps,
                    choice=Choice(rate, False), pretrained=False, seed=seed)  # fmt: skip

    @torch.no_grad()
    def hear(self, network: Network, rows: np.ndarray) -> list[str]:
        bf16 = machine.choose_precision("auto", self.encoder.device.type) == "bf16"
        part, heard = self._part(rows), []
        for low in range(0, len(rows), 64):
            stop.check()
            x, _ = self.task.look(self.encoder, part, np.arange(low, min(low + 64, len(rows))))
            with torch.autocast(self.encoder.device.type, torch.bfloat16, enabled=bf16):
                heard += self.task.heard(network(x))
        return heard

    # ---- the curve ---------------------------------------------------------------------------

    def some(self, minutes: float, seed: int) -> np.ndarray:
        """The first recordings of a random order that are so long in all; smaller ones are parts
        of larger ones."""
        mixed = self.train[order(seed, 2, len(self.train))]
        lengths = np.cumsum([self.seconds[int(i)] for i in mixed])
        return mixed[: max(2, int(np.searchsorted(lengths, 60 * minutes)) + 1)]

    def curve(self, amounts: Sequence[float], seeds: int, budget: float) -> dict[str, Any]:
        there = sum(self.seconds[int(i)] for i in self.train) / 60
        amounts = sorted({min(a, round(there, 1)) for a in amounts})
        subjects = ((PRETRAINED, True), (SCRATCH, False))
        trainings = len(subjects) * (len(RATES) + len(amounts) * seeds)
        steps = self._affordable(budget / trainings)
        said = [self.texts[i] or "" for i in self.test]
        rows, counts, heard = [], {}, []
        for of, pretrained in subjects:
            rate = self._rate(pretrained, steps, amounts)
            for amount in amounts:
                wrong = []
                for i in range(seeds):
                    own = mix(self.seed, i)
                    self._tell(f"{amount:g} min transcribed, {of}, {i + 1} of {seeds}")
                    network = self.fresh(pretrained, own)
                    self.fit(network, self.some(amount, own), steps, rate, own)
                    found = self.hear(network, self.test)
                    wrong.append(np.array([errors(a, b) for a, b in zip(said, found, strict=True)]))
                    if pretrained and amount == amounts[-1]:
                        heard = list(zip(said, found, strict=True))[:HEARD]
                counts[of, amount] = np.mean(wrong, 0)  # (test, 4): errors, letters, errors, words
                cer, wer = (rates(counts[of, amount][:, k : k + 2]) for k in (0, 2))
                rows.append({"minutes": amount, "of": of, "cer": vars(cer), "wer": vars(wer),
                             "seeds": seeds, "steps": steps, "learning_rate": rate})  # fmt: skip
        rows.sort(key=lambda row: (row["minutes"], row["of"] != PRETRAINED))
        return {
            "format": 1,
            "task": "transcribe",
            "verdict": conclude(counts, amounts),
            "curve": rows,
            "heard": heard,
            "letters": "".join(self.letters),
            "statement": self.statement,
            "notes": self.notes,
            "encoder": self.encoder.card.to_json() | {"dim": self.encoder.dim},
        }

    def _affordable(self, seconds: float) -> int:
        network, some = self.fresh(False, 0), self.train[:RECORDINGS]
        for steps in (1, 3):
            started = time.perf_counter()
            self.fit(network, some, steps, RATES[0], 0)
            each = (time.perf_counter() - started) / steps
        return int(np.clip(0.9 * seconds / each, LEAST_STEPS, MOST_STEPS))

    def _rate(self, pretrained: bool, steps: int, amounts: Sequence[float]) -> float:
        """The learning rate that does best on held-out recordings, with the middle amount."""
        rows = self.some(amounts[len(amounts) // 2], self.seed)
        said = [self.texts[i] or "" for i in self.held]
        found = {}
        for rate in RATES:
            self._tell(f"learning rate {rate:g}, {PRETRAINED if pretrained else SCRATCH}")
            network = self.fresh(pretrained, self.seed)
            self.fit(network, rows, steps, rate, self.seed)
            pairs = zip(said, self.hear(network, self.held), strict=True)
            found[rate] = sum(errors(a, b)[0] for a, b in pairs)
        return min(found, key=found.__getitem__)

    def _tell(self, what: str) -> None:
        stop.check()
        self.console.progress(f"transcribe: {what}")


def choosing(groups: np.ndarray, seed: int) -> Bool[np.ndarray, " n"]:
    """Which samples choose: whole groups, drawn until a tenth is there, of no more than a fifth.

    Where groups are few and large none can.
    """
    kinds, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    drawn, count = [], 0
    for kind in order(seed, 1, len(kinds)).tolist():
        if count < max(1, len(groups) // 10) and count + sizes[kind] <= max(1, len(groups) // 5):
            drawn.append(kind)
            count += sizes[kind]
    return np.isin(group, drawn)


# ---- equations -------------------------------------------------------------------------------


def rates(counts: Float[np.ndarray, "n 2"], seed: int = 0) -> Rate:
    """All errors over all that was said, with a bootstrap over recordings."""
    picks = np.random.Generator(np.random.Philox(seed)).integers(
        0, len(counts), (RESAMPLES, len(counts))
    )
    sums = counts[picks].sum(1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return Rate(float(counts[:, 0].sum() / counts[:, 1].sum()), float(low), float(high))


def conclude(counts: dict[tuple[str, float], np.ndarray], amounts: Sequence[float]) -> dict:
    """Whether pretraining spares transcription: the difference with its interval, in words."""

    def rate(of: str, amount: float) -> float:
        found = counts[of, amount]
        return float(found[:, 0].sum() / found[:, 1].sum())

    gains = {}
    for amount in amounts:
        ours, theirs = counts[PRETRAINED, amount], counts[SCRATCH, amount]
        both = rates(np.stack([theirs[:, 0] - ours[:, 0], ours[:, 1]], 1))
        gains[amount] = both
    open_ones = [a for a in amounts if gains[a].high >= 0]  # where it may yet spare some
    best = max(open_ones or amounts, key=lambda a: gains[a].low)
    gain = gains[best]
    helps = gain.low > 0
    said = "does not certainly spare" if open_ones else "does not spare"
    said = f"{'spares' if helps else said} transcription"
    sentence = (
        f"Pretraining {said}: with {best:g} transcribed minutes {100 * rate(PRETRAINED, best):.1f} "
        f"% of characters are wrong, {100 * rate(SCRATCH, best):.1f} % from scratch "
        f"(difference {100 * gain.value:.1f}, 95 % interval {100 * gain.low:.1f} to "
        f"{100 * gain.high:.1f} points)."
    )
    for amount in amounts if helps else ():
        worse = [a for a in amounts if a > amount and rate(SCRATCH, a) >= rate(PRETRAINED, amount)]
        if worse:
            sentence += (
                f" {amount:g} minutes with pretraining do as well as {worse[-1]:g} without or "
                "better."
            )
            break
    return {
        "sentence": sentence,
        "gain": helps,
        "differences": {f"{a:g}": vars(gains[a]) for a in amounts},
    }
