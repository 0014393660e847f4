"""Speech recognition from few transcribed minutes: does pretraining spare transcription?

The encoder gets a linear layer and is trained with CTC (Graves et al., 2006,
https://doi.org/10.1145/1143844.1143891), as wav2vec 2.0 is; decoding is greedy, without a language
model. Beside each number stands the same network from scratch, with the same recordings and steps.
"""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import ctc_loss, log_softmax

from .. import machine, sound
from ..console import Console, columns
from ..data import fields, open_source, open_store
from ..data.pairs import seen_as
from ..data.store import Store
from ..data.tables import LABEL_COLUMNS, Table
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..randomness import mix, order
from ..stop import stop
from .controls import PRETRAINED, SCRATCH
from .result import Told
from .split import TEST, TRAIN

TEXT_COLUMNS = ("text", "transcript", "transcription", "sentence")

AMOUNTS = (1.0, 5.0, 20.0)  # minutes that are transcribed
BATCH = 16  # recordings
RATES = (3e-4, 1e-3)  # tried on held-out recordings, for each network
WARMUP, WEIGHT_DECAY, CLIP = 0.1, 0.01, 1.0
LEAST_STEPS, MOST_STEPS = 30, 3000
RESAMPLES = 1000
BLANK = 0


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
        heard = [f"  said   {a}\n  heard  {b}" for a, b in self._told["heard"]]
        notes = [self._told["statement"], *self._told["notes"]]
        table = columns(rows, width=100)
        return "\n".join([self.verdict, "", table, "", *heard, "", *notes])


def suits(modality: str, data: Any, labels: Any) -> bool:
    """Transcribed recordings are to be transcribed."""
    given = labels if labels is not None else data
    table = Path(given) if isinstance(given, str | Path) else None
    if modality != "audio" or table is None or table.suffix.lower() not in (".csv", ".tsv"):
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
    console: Console | None = None,
) -> Transcription:
    """Character and word error rates at several amounts of transcribed speech.

    `labels` (or `data` itself) is a table with columns file, text and, where there is one, split.
    `minutes` is the time for all trainings. Raises SelfsupError: E501 no transcripts, E503 too few,
    E202 an encoder whose steps are too long for letters.
    """
    console = console or Console()
    began = time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = seen_as(open_source(data, follow_links=follow_links), encoder.modality.contents)
        texts, parts = transcripts(source, Path(labels if labels is not None else data))
        with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
            job = Recogniser(encoder, store, texts, parts, console, seed)
            told = job.curve(amounts, max(1, seeds), 60 * minutes)
    told["seconds"] = round(time.monotonic() - began, 1)
    result = Transcription(told)
    home = None if isinstance(run, LoadedEncoder) else Path(getattr(run, "path", run))
    if home is not None and (home / "checkpoints").is_dir():
        from ..run import Run

        Run.open(home).write_json("transcription.json", told)
    return result


def transcripts(source: Any, path: Path) -> tuple[list[str | None], list[str]]:
    """What is said in each sample, or None, and the part that it belongs to ("" for none)."""
    texts: dict[str, tuple[str | None, str]] = {}
    if path.is_file():
        table = Table(path)
        known = [name.strip().lower() for name in table.header]
        column = next((known.index(name) for name in TEXT_COLUMNS if name in known), None)
        if column is not None:
            table.label_column = column
            texts = {
                name.decode("utf-8", "surrogateescape"): (text, (part or "").lower())
                for name, text, part in table.rows()
            }
    names = [source.name(i) for i in range(len(source))]
    found = [texts.get(name) or texts.get(name.rpartition("/")[2], (None, "")) for name in names]
    if not any(text for text, _ in found):
        raise SelfsupError(
            "E501",
            f"no transcripts for {source.place}",
            where=str(path),
            why=f"a table with the columns file and {' or '.join(TEXT_COLUMNS)} is needed",
            do="give it with --labels",
        )
    return [" ".join(text.lower().split()) if text else None for text, _ in found], [
        part for _, part in found
    ]


class Network(nn.Module):
    """An encoder and a layer for letters."""

    def __init__(self, encoder: nn.Module, letters: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(sound.width(encoder), letters + 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Float[Tensor, "b 1 ..."]) -> Float[Tensor, "b t letters"]:
        return log_softmax(self.head(sound.over_time(self.encoder, x)).float(), -1)


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
        rows = np.array([i for i, text in enumerate(texts) if text])
        self._divide(self._readable(rows), parts)
        self.letters = sorted({c for i in self.train for c in texts[i] or ""})
        self.number = {c: n + 1 for n, c in enumerate(self.letters)}
        with torch.no_grad():
            t = sound.over_time(encoder.encoder, self._views(self.train[:1])).shape[1]
        most = max(len(texts[i] or "") for i in self.train)
        if t < most:
            raise SelfsupError(
                "E202",
                f"{encoder.card.name} hears {t} moments where up to {most} letters are said",
                why="CTC gives at most one letter a moment",
                do="pretrain an encoder of tokens: --method mae, or --encoder mel_tiny",
            )

    def _readable(self, rows: np.ndarray) -> np.ndarray:
        """Samples that can be read; and how long they are."""
        self.seconds: dict[int, float] = {}
        modality = self.encoder.modality
        for low in range(0, len(rows), 256):
            stop.check()
            batch = self.store.batch(rows[low : low + 256])
            for i, sample in zip(batch.indices.tolist(), fields.unpack(batch), strict=True):
                self.seconds[i] = len(sample["wave"]) / modality.rate  # type: ignore[attr-defined]
        frames = 1000 * max(self.seconds.values(), default=0.0) / modality.hop  # type: ignore[attr-defined]
        self.size = max(self.encoder.size, int(-(-frames // 16) * 16))
        if self.size > self.encoder.size:
            self.notes.append(
                f"recordings of up to {frames:.0f} frames are heard whole, though pretraining saw "
                f"{self.encoder.size}"
            )
        return np.array(sorted(self.seconds))

    def _divide(self, rows: np.ndarray, parts: list[str]) -> None:
        teach = np.array([i for i in rows if parts[i] in TRAIN], int)
        tests = [name for name in TEST if any(parts[i] == name for i in rows)]
        if len(teach) and tests:
            self.test = np.array([i for i in rows if parts[i] == tests[0]])
            held = [i for i in rows if parts[i] in tests[1:]]
            self.statement = f"the parts of the table: {len(teach)} to train, "
        else:
            mixed = rows[order(self.seed, 0, len(rows))]
            fifth = len(rows) // 5
            self.test, teach, held = np.sort(mixed[:fifth]), np.sort(mixed[fifth:]), []
            self.statement = f"a fifth tests, drawn with seed {self.seed}: {len(teach)} to train, "
        if len(held) < 8:
            mixed = teach[order(self.seed, 1, len(teach))]
            tenth = max(1, len(teach) // 10)
            held, teach = mixed[:tenth].tolist(), np.sort(mixed[tenth:])
        if len(teach) < 4 or len(self.test) < 2:
            raise SelfsupError(
                "E503", f"{len(teach)} transcribed recordings to train, {len(self.test)} to test",
                do="give a table with more rows",
            )  # fmt: skip
        self.train, self.held = teach, np.array(held)[:100]
        self.statement += f"{len(self.test)} to test, {len(self.held)} to choose the learning rate"

    def _views(self, rows: np.ndarray) -> Tensor:
        batch = self.store.batch(rows)
        return self.encoder.modality.plain(batch.to(self.encoder.device), self.size)

    # ---- one training ------------------------------------------------------------------------

    def fresh(self, pretrained: bool, seed: int) -> Network:
        inner = deepcopy(self.encoder.encoder)
        if not pretrained:
            inner = self.encoder.untrained(seed).encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, 0x637463))
            network = Network(inner.requires_grad_(True), len(self.letters))
        return network.to(self.encoder.device)

    def fit(self, network: Network, rows: np.ndarray, steps: int, rate: float, seed: int) -> None:
        device = self.encoder.device
        bf16 = machine.choose_precision("auto", device.type) == "bf16"
        decayed = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": WEIGHT_DECAY},
             {"params": plain, "weight_decay": 0.0}], lr=rate, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        network.train()
        size = min(BATCH, len(rows))
        for step in range(steps):
            stop.check()
            # up, level, and down in the last half
            scale = min(1.0, (step + 1) / max(1, WARMUP * steps), 2 * (1 - step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            epoch, at = divmod(step, max(1, len(rows) // size))
            picks = rows[order(seed, epoch, len(rows))[at * size : (at + 1) * size]]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                scores = network(self._views(picks))
            loss = self.ctc(scores, [self.texts[i] or "" for i in picks])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
        network.eval()

    def ctc(self, scores: Float[Tensor, "b t c"], texts: list[str]) -> Tensor:
        targets = [self.number[c] for text in texts for c in text]
        return ctc_loss(
            scores.transpose(0, 1),
            torch.tensor(targets, device=scores.device),
            torch.full((len(texts),), scores.shape[1]),
            torch.tensor([len(text) for text in texts]),
            blank=BLANK,
            zero_infinity=True,
        )

    @torch.no_grad()
    def hear(self, network: Network, rows: np.ndarray) -> list[str]:
        bf16 = machine.choose_precision("auto", self.encoder.device.type) == "bf16"
        heard: list[str] = []
        for low in range(0, len(rows), 64):
            stop.check()
            with torch.autocast(self.encoder.device.type, torch.bfloat16, enabled=bf16):
                scores = network(self._views(rows[low : low + 64]))
            heard += [collapse(path, self.letters) for path in scores.argmax(-1).tolist()]
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
                errors = []
                for i in range(seeds):
                    own = mix(self.seed, i)
                    self._tell(f"{amount:g} min transcribed, {of}, {i + 1} of {seeds}")
                    network = self.fresh(pretrained, own)
                    self.fit(network, self.some(amount, own), steps, rate, own)
                    found = self.hear(network, self.test)
                    errors.append(
                        np.array([_errors(a, b) for a, b in zip(said, found, strict=True)])
                    )
                    if pretrained and amount == amounts[-1]:
                        heard = list(zip(said, found, strict=True))[:3]
                counts[of, amount] = np.mean(errors, 0)  # (test, 4): errors, letters, errors, words
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
        network, some = self.fresh(False, 0), self.train[:BATCH]
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
            found[rate] = sum(_errors(a, b)[0] for a, b in pairs)
        return min(found, key=found.__getitem__)

    def _tell(self, what: str) -> None:
        stop.check()
        self.console.progress(f"transcribe: {what}")


# ---- equations -------------------------------------------------------------------------------


def collapse(path: Sequence[int], letters: Sequence[str]) -> str:
    """Greedy decoding: one of each run of equals, and no blanks."""
    text = "".join(letters[n - 1] for n, _ in groupby(path) if n != BLANK)
    return " ".join(text.split())


def distance(a: Sequence, b: Sequence) -> int:
    """Fewest insertions, deletions and changes from a to b (Levenshtein)."""
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        differs = np.array([x != y for y in b], int)
        new = np.minimum(row[1:] + 1, row[:-1] + differs)
        new = np.concatenate([[i], new])
        # an insertion leads from any place to the left
        row = np.minimum.accumulate(new - np.arange(len(new))) + np.arange(len(new))
    return int(row[-1])


def _errors(said: str, heard: str) -> tuple[int, int, int, int]:
    words, others = said.split(), heard.split()
    return distance(said, heard), len(said), distance(words, others), len(words)


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
    best = max(amounts, key=lambda a: gains[a].low)
    gain = gains[best]
    helps = gain.low > 0
    said = "spares transcription" if helps else "does not spare transcription"
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
