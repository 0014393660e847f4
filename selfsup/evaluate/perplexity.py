"""How well an encoder foretells text that it has not seen: perplexity and bits per byte.

Bits per byte can be compared between vocabularies, and with models that have none. Beside the
encoder stand the same network untrained and what the bytes of the training text tell by themselves.
An encoder that sees both sides names hidden tokens (see masked.py); where these are some of the
text, how often each token occurs stands beside it in place of the bytes.

A run that started from another (--from) is also put beside that one: on this text, which is what
was to be gained, and on the text of before, which is what may have been forgotten.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import cross_entropy

from .. import machine
from .. import settings as schema
from ..console import Console, columns
from ..data import Source, open_source, open_store
from ..data.outcome import BadSample
from ..data.texts import Cut
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..ragged import Ragged
from ..randomness import mix
from ..stems import END, SPECIAL
from ..stop import stop
from . import masked
from .adapted import start_of
from .controls import PRETRAINED, UNTRAINED, data_of
from .interval import Interval, over_samples
from .ngram import ORDER, Ngrams
from .result import Told, keep

WINDOWS = 64  # at a time
TAUGHT = 2 << 20  # characters of training text that n-grams are counted in
MOST = 8 << 20  # characters of the text that tests
OLD = 1 << 19  # tokens of the text of before
LINE = 40  # characters: equal lines of that length are no accident
UNIGRAM, NGRAM = "single bytes", f"{ORDER + 1}-grams of bytes"
SINGLE = "single tokens"


class Perplexity(Told):
    """Scores beside their controls, and the verdict."""

    def __str__(self) -> str:
        rows = [("", "bits per byte", "interval", "loss a token", "perplexity")]
        for row in self._told["scores"]:
            cells = [f"{row['bits_per_byte']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}"]
            known = "loss" in row
            cells += [f"{row['loss']:.4f}", f"{row['perplexity']:.2f}"] if known else ["", ""]
            rows.append((row["of"], *cells))
        told = [self.verdict, "", columns(rows, width=100)]
        if changes := self._told.get("adapted", {}).get("texts"):
            rows = [("bits per byte", "before", "now", "change", "interval")]
            for row in changes:
                rows.append((
                    f"{row['text']} text", f"{row['before']:.3f}", f"{row['now']:.3f}",
                    f"{row['change']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}",
                ))  # fmt: skip
            told += ["", columns(rows, width=100)]
        return "\n".join([*told, "", *self._told["notes"]])


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Text without labels can only be foretold."""
    if modality != "text" or labels is not None:
        return False
    found = source.labels()
    return found is None or not (found[0] >= 0).any()


def foretells(run: Any, encoder: LoadedEncoder) -> bool:
    """The next token of a text, or hidden ones."""
    causal = getattr(encoder.encoder, "causal", False)
    return encoder.modality.name == "text" and (causal or masked.names(run, encoder))


def evaluate_task(
    run: Any,
    data: Any,
    *,
    seeds: int = 2,
    seed: int = 0,
    old: str | Path | None = None,
    cache: str | Path | None = None,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **_: Any,
) -> Perplexity:
    """The encoder of `run` on the text in `data`, which should not have been trained on.

    Windows as long as those of training, one after another: a token knows what came before it in
    its window alone. Raises SelfsupError E202 for an encoder that foretells nothing.
    """
    console, began = console or Console(), time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        if not foretells(run, encoder):
            raise SelfsupError(
                "E202",
                "this encoder does not foretell text",
                why=f"it is {encoder.card.name} for {encoder.modality.name}, made by "
                f"{encoder.card.method or 'another method'}",
                do="pretrain one on text with --method clm; or judge this one by the halves of "
                "documents (--task documents) or with labels",
            )
        source = open_source(data, follow_links=follow_links)
        documents, count = texts(source, encoder.modality, MOST)
        scores: list[dict[str, Any]] = []
        with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
            streams = list(tokens(store, encoder.modality, count))
            if sum(len(stream) > 1 for stream in streams) == 0:
                raise SelfsupError("E503", f"no text to foretell in {source.place}")
            console.progress("perplexity: the encoder")
            measured = _measured(run, encoder, streams)
            scores.append(_of_network(PRETRAINED, *_bits(encoder, measured)))
            for i in range(min(seeds, 2)):
                console.progress("perplexity: an untrained network")
                fresh = _measured(run, encoder, streams, mix(seed, i))
                found = _of_network(UNTRAINED, *_bits(encoder, fresh))
                if i == 0 or found["bits_per_byte"] < scores[-1]["bits_per_byte"]:
                    scores = [*scores[:1], found]
        told: dict[str, Any] = {"format": 1, "task": "perplexity", "time": time.time()}
        notes = []
        if count < len(source):
            notes.append(
                f"The first {MOST:,} characters test, {_share(count, source)} of this text."
            )
        training = data_of(run)
        taught: list[bytes] = []
        mlm = encoder.card.method == masked.MLM
        counted = "counts" if mlm else "n-grams"
        if training is None:
            notes.append(f"the training text is not at hand: no {counted} of it to compare with")
        else:
            taught, read = texts(training, encoder.modality, TAUGHT)
            if read < len(training):
                notes.append(
                    f"The {counted} learn from the first {TAUGHT:,} characters of the training "
                    f"text, {_share(read, training)} of it; the encoder could see all. With more "
                    "they would foretell better."
                )
            notes += _overlap(taught, documents)
        if mlm:
            notes.append(
                f"Of {100 * masked.SHARE:.0f} in a hundred tokens, hidden while all others are "
                "seen: not to be compared with encoders that see one side."
            )
            scores.append(_of_tokens(encoder, taught, streams, measured[1]))
        elif training is not None:
            console.progress("perplexity: n-grams of the training text")
            for of, order in ((UNIGRAM, 0), (NGRAM, ORDER)):
                scores.append(_of_ngrams(of, Ngrams(taught, order), documents))
        if encoder.card.method == masked.MDLM:
            notes.append("The encoder's bits are an upper bound: it foretells at least so well.")
        told["verdict"] = _verdict(scores, " of hidden tokens" if mlm else "")
        if (start := start_of(run, old)) is not None:
            console.progress("perplexity: the run it started from")
            changes, more = _adapted(start, old, run, encoder, streams, measured, cache)
            notes += more
            told["adapted"] = {"from": str(start), "texts": changes}
            said = ", ".join(f"{row['change']:+.3f} on the {row['text']} text" for row in changes)
            if changes:
                told["verdict"]["sentence"] += (
                    f". Bits per byte beside {start.name}, from which it started: {said}"
                )
    told["scores"], told["notes"] = scores, notes
    told["data"] = {"place": source.place, "fingerprint": source.fingerprint()}
    told["seconds"] = round(time.monotonic() - began, 1)
    result = Perplexity(told)
    keep(run if write else None, "perplexity", result)
    return result


def texts(source: Source, modality: Any, most: int) -> tuple[list[bytes], int]:
    """Whole documents, and of how many samples: pieces of one file are put together again.

    From the first sample to the one with which there are more than `most` characters.
    """
    documents: list[list[str]] = []
    last, seen = "", 0
    for i in range(len(source)):
        stop.check()
        try:
            raw = source.read(i)
            text = modality.text(raw)
        except BadSample:
            continue
        name = source.name(i).rpartition("#")[0] if isinstance(raw, Cut) else f"{i}"
        if name != last or not documents:
            documents.append([])
        last = name
        documents[-1].append(text)
        seen += len(text)
        if seen > most:
            return ["".join(parts).encode() for parts in documents], i + 1
    return ["".join(parts).encode() for parts in documents], len(source)


def tokens(store: Any, modality: Any, count: int, most: float = math.inf) -> Iterator[np.ndarray]:
    """The tokens of whole documents, in the first `count` samples; up to `most` tokens.

    Pieces that follow one another are one.
    """
    stream: list[np.ndarray] = []
    seen = 0
    for low in range(0, count, WINDOWS):
        stop.check()
        batch = store.batch(np.arange(low, min(low + WINDOWS, count)))
        for row in modality.rows(batch):
            if (len(row) and row[0] == END) and stream:
                yield np.concatenate(stream)
                stream = []
            stream.append(row)
            seen += len(row)
        if seen > most:
            break
    if stream:
        yield np.concatenate(stream)


def losses(
    encoder: LoadedEncoder, streams: list[np.ndarray], context: int
) -> tuple[Float[np.ndarray, " t"], np.ndarray]:
    """Nats and number of each token but the first of every document, in order."""
    rows = []
    for stream in streams:
        for start in range(0, len(stream) - 1, context):
            rows.append(torch.from_numpy(stream[start : start + context + 1]))
    network: Any = encoder.encoder
    targets = np.concatenate([stream[1:] for stream in streams])
    # One block: small ones that stay would lie between large ones, which then are never used again
    device, found, end = encoder.device, torch.empty(len(targets)), 0
    precise = machine.choose_precision("auto", device.type) == "fp32"
    half = torch.autocast(device.type, torch.bfloat16, enabled=not precise)
    for low in range(0, len(rows), WINDOWS):
        stop.check()
        x = Ragged.of(rows[low : low + WINDOWS]).to(device)
        followed = x.valid[:, 1:]
        with torch.inference_mode(), half:
            states = network.features(Ragged(x.values[:, :-1], followed))
            logits = network.logits(states[followed])
        wanted = x.values[:, 1:][followed]
        start, end = end, end + len(wanted)
        found[start:end] = cross_entropy(logits.float(), wanted, reduction="none")
    return found.double().numpy(), targets


Measured = tuple[Float[np.ndarray, " t"], np.ndarray]  # nats and number of each token


def _measured(
    run: Any, encoder: LoadedEncoder, streams: list[np.ndarray], seed: int | None = None
) -> Measured:
    """Of the encoder, or of the same network with weights drawn from `seed`."""
    if getattr(encoder.encoder, "causal", False):
        one = encoder if seed is None else encoder.untrained(seed).to(encoder.device)
        return losses(one, streams, max(1, encoder.size - 1))
    by = masked.namer(run, encoder, seed)
    return masked.losses(by, streams, encoder.size, encoder.card.method == masked.MDLM)


def _bits(encoder: LoadedEncoder, measured: Measured) -> Measured:
    """Nats and bytes of each token."""
    nats, targets = measured
    modality: Any = encoder.modality
    lengths = modality.codec.lengths()[targets]
    lengths[(targets < SPECIAL) & (targets != END)] = 1  # of unknown characters: one byte at least
    return nats, lengths


def _of_network(of: str, nats: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    row = _score(of, nats / math.log(2), lengths)
    return row | {"loss": float(nats.mean()), "perplexity": float(np.exp(nats.mean()))}


def _of_tokens(
    encoder: LoadedEncoder, taught: list[bytes], streams: list[np.ndarray], targets: np.ndarray
) -> dict[str, Any]:
    """How often each token is in the training text and in what is seen of this one."""
    codec: Any = encoder.modality.codec  # type: ignore[attr-defined]
    learned = [codec.encode(text.decode()) for text in taught]
    counts = np.bincount(np.concatenate([*learned, *streams]), minlength=codec.count)
    counts -= np.bincount(targets, minlength=codec.count)
    return _of_network(SINGLE, *_bits(encoder, (masked.unigram(counts, targets), targets)))


def _of_ngrams(of: str, model: Ngrams, documents: list[bytes]) -> dict[str, Any]:
    bits = [model.bits(document) for document in documents]
    lengths = [np.append(np.ones(len(d), int), 0) for d in documents]
    return _score(of, np.concatenate(bits), np.concatenate(lengths))


def _score(of: str, bits: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    """Bits per byte, with an interval from stretches of the text as the samples."""
    stretch = max(1, len(bits) // 200)
    cuts = np.arange(0, len(bits), stretch)
    bits_of, bytes_of = np.add.reduceat(bits, cuts), np.add.reduceat(lengths, cuts)
    value = float(bits.sum() / max(1, lengths.sum()))
    usual = max(1.0, float(bytes_of.mean()))
    spread: Interval = over_samples((bits_of - value * bytes_of) / usual, signed=True)
    return {
        "of": of,
        "bits_per_byte": value,
        "low": value + spread.low - spread.value,
        "high": value + spread.high - spread.value,
        "tokens": len(bits),
        "bytes": int(lengths.sum()),
    }


def _adapted(
    start: Path,
    old: str | Path | None,
    run: Any,
    encoder: LoadedEncoder,
    streams: list[np.ndarray],
    measured: Measured,
    cache: Any,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Changes on the new text and on the old one, and notes. The tokens are the start run's own."""
    try:
        before = load(start)
    except SelfsupError as error:
        return [], [f"The run that this one started from cannot be loaded: {error.what}."]
    same = before.card.method == encoder.card.method
    if encoder.card.method == masked.MLM:  # what is hidden depends on the windows
        same = same and before.size == encoder.size
    if not (same and foretells(start, before)):
        return [], [f"{start.name} foretells in another way than this run: no comparison."]

    def change(text: str, now: Measured, then: Measured) -> dict[str, Any]:
        return _change(text, _bits(encoder, now), _bits(encoder, then))

    found = [change("new", measured, _measured(start, before, streams))]
    try:
        place = old or schema.load(start / "resolved.toml")["data.path"]
        source = open_source(place)
    except SelfsupError as error:
        if old is not None:
            raise
        return found, [f"The old text is not there ({error.what}): give it with --old."]
    with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
        some = list(tokens(store, encoder.modality, len(store), OLD))
    ours, theirs = _measured(run, encoder, some), _measured(start, before, some)
    found.append(change("old", ours, theirs))
    if old is not None:
        return found, []
    return found, [
        f"The old text is what {start.name} was trained on; text that it has not seen is a fairer "
        "measure of what was forgotten: --old."
    ]


def _change(
    text: str, now: tuple[np.ndarray, np.ndarray], then: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    """Bits per byte now and before, and the difference token by token with its interval."""
    (ours, lengths), (theirs, _) = now, then
    change = _score(text, (ours - theirs) / math.log(2), lengths)
    before, after = (float(n.sum() / math.log(2) / lengths.sum()) for n in (theirs, ours))
    return {
        "text": text,
        "before": before,
        "now": after,
        "change": change["bits_per_byte"],
        "low": change["low"],
        "high": change["high"],
    }


def _share(count: int, source: Source) -> str:
    return f"about {100 * count / len(source):.2g} %"


def _overlap(taught: list[bytes], documents: list[bytes]) -> list[str]:
    known = {line for d in taught for line in d.split(b"\n") if len(line) >= LINE}
    lines = [line for d in documents for line in d.split(b"\n") if len(line) >= LINE]
    share = sum(line in known for line in lines) / max(1, len(lines))
    if share < 0.01:
        return []
    return [f"{100 * share:.0f} % of the lines are in the training text too: these are not new"]


def _verdict(scores: list[dict[str, Any]], hidden: str = "") -> dict[str, Any]:
    ours = scores[0]
    control = min(scores[1:], key=lambda row: row["bits_per_byte"])
    gain = ours["high"] < control["low"]
    saved = 100 * (1 - ours["bits_per_byte"] / control["bits_per_byte"])
    told = (
        f"{ours['bits_per_byte']:.3f} bits per byte{hidden} (perplexity {ours['perplexity']:.2f})"
    )
    beside = f"{control['bits_per_byte']:.3f} of the best control, {control['of']}"
    if gain:
        sentence = f"Pretraining helped: {told} on this text, against {beside}"
    else:
        sure = "" if ours["low"] > control["high"] else " certainly"
        sentence = f"No gain: {told} on this text is not{sure} below {beside}"
    return {"gain": gain, "sentence": sentence, "control": control["of"], "saved_percent": saved}
