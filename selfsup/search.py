"""Search by a text or by a file: what lies nearest in the space of an encoder."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from .console import Console, columns
from .data import Source, open_source
from .data.outcome import BadSample, reconciled
from .data.seen import seen_as
from .errors import SelfsupError
from .inference import Fast, assemble, decoded
from .load import LoadedEncoder, load
from .stop import stop

BATCH = 128


class Hit(NamedTuple):
    """A sample that was found; `text` is its beginning, where it is one."""

    name: str
    score: float
    text: str = ""


@dataclass(frozen=True)
class Hits:
    """The nearest samples, nearest first, with the cosine of each. found = used + skipped."""

    query: str
    place: str
    hits: list[Hit]
    found: int
    used: int
    skipped: int
    reasons: dict[str, int]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        told = dict(vars(self))
        return told | {"hits": [hit._asdict() for hit in self.hits]}

    def __str__(self) -> str:
        rows = [(f"{hit.score:.3f}", hit.name, hit.text) for hit in self.hits]
        counts = reconciled(self.found, self.used, self.skipped, self.reasons)
        return f"{columns(rows, width=100)}\n{counts}"


def search(
    run: Any,
    query: str | os.PathLike,
    data: Any,
    *,
    top: int = 10,
    workers: int = 2,
    follow_links: bool = False,
    console: Console | None = None,
) -> Hits:
    """The `top` samples of `data` that are nearest to `query`: a file that is there, or a text.

    Each is seen by the tower for its kind. Raises SelfsupError E104 where there is none.
    """
    began, console = time.monotonic(), console or Console()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = seen_as(open_source(data, follow_links=follow_links), encoder.modality)
        wanted = _vector(encoder, query, console)
        seer = _seer(encoder, source.content)
        source = seen_as(source, seer.modality)
        fast, scores, places = Fast(seer.encoder), [], []
        reasons = Counter(source.problems.counts())
        for part, bad in decoded(source, seer.modality, seer.size, batch=BATCH, workers=workers):
            reasons.update(sample.code for sample in bad)
            if part is None:
                continue
            vectors = fast(seer.modality.plain(part.to(fast.device), seer.size)).cpu()
            scores.append(normalize(vectors, dim=-1) @ wanted)
            places.append(part.indices)
            console.progress(f"search {int(part.indices[-1]) + 1}/{len(source)}")
        if not scores:
            raise SelfsupError(
                "E103", f"no sample of {source.place} can be read", why=f"counts: {dict(reasons)}",
                do="look at them with `selfsup scan`",
            )  # fmt: skip
        score, place = torch.cat(scores), torch.cat(places)
        order = score.argsort(descending=True, stable=True)[:top]
        hits = [
            Hit(source.name(int(place[i])), round(float(score[i]), 4),
                _beginning(source, int(place[i])))
            for i in order
        ]  # fmt: skip
    used = len(score)
    return Hits(
        os.fspath(query), source.place, hits, source.found, used, source.found - used,
        dict(reasons.most_common()), round(time.monotonic() - began, 2),
    )  # fmt: skip


def _vector(encoder: LoadedEncoder, query: str | os.PathLike, console: Console) -> torch.Tensor:
    """The query as its own tower sees it, of length one. Raises SelfsupError E103."""
    try:
        return _seen(encoder, query, console)
    except BadSample as bad:
        raise SelfsupError("E103", "the query cannot be read", why=bad.reason) from None


def _seen(encoder: LoadedEncoder, query: str | os.PathLike, console: Console) -> torch.Tensor:
    if os.path.isfile(query):
        source = open_source(query)
        seer = _seer(encoder, source.content)
        source = seen_as(source, seer.modality, whole=True)  # one vector, not that of a first clip
        if len(source) > 1:
            console.say(f"note: of {len(source)} samples in the query the first: {source.name(0)}")
        raw = source.read(0)
    else:
        seer, raw = _seer(encoder, "text"), os.fspath(query)
    array = seer.modality.shrink(seer.modality.read(raw, seer.size), seer.size)
    batch = assemble([np.asarray(array)])
    assert batch is not None
    x = seer.modality.plain(batch.to(seer.device), seer.size)
    return normalize(Fast(seer.encoder)(x)[0].cpu(), dim=-1)


def _seer(encoder: LoadedEncoder, content: str) -> LoadedEncoder:
    """What sees such data, in the space in which they are compared."""
    seer = encoder.seeing(content)
    if content not in seer.modality.contents:
        sides = getattr(encoder.modality, "sides", {})
        known = [c for s in sides.values() for c in s.modality.contents]
        raise SelfsupError(
            "E104",
            f"this encoder does not see {content}",
            why=f"it sees {', '.join(known or encoder.modality.contents)}",
            do="a text as the query needs a run on pairs: selfsup pretrain captions.csv",
        )
    return seer


def _beginning(source: Source, i: int) -> str:
    if source.content != "text":
        return ""
    raw = source.read(i)
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    return " ".join(text.split())[:80]
