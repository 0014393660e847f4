"""What a run gained over the one that it started from (--from), and what it forgot.

The encoder of before is no control: it goes through the same probes on the same samples, and the
gain is one of pairs, but the verdict stays one on pretraining at all.
"""

from pathlib import Path
from typing import Any

from ..console import Console
from ..data import open_source, open_store
from ..data.seen import seen_as
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from .controls import settings_of


def start_of(run: Any, old: Any = None) -> Path | None:
    """The run whose weights were the start of this one. Raises E201 where `old` asks in vain."""
    settings = settings_of(run)
    found = None if settings is None else settings["start_from"]
    if found is None and old is not None:
        raise SelfsupError(
            "E201",
            "--old is for a run that started from another",
            where=str(run),
            why="its resolved.toml has no start_from",
            do="pretrain NEW --from RUN first",
        )
    return None if found is None else Path(found)


def before(
    run: Any, encoder: LoadedEncoder, content: str, old: Any = None
) -> tuple[LoadedEncoder | None, list[str]]:
    """The encoder that a run started from, or a note on why `encoder` is not put beside it."""
    path = start_of(run, old)
    if path is None:
        return None, []
    try:
        start = load(path).seeing(content, shared=False)
    except SelfsupError as error:
        return None, [f"The run that this one started from cannot be loaded: {error.what}."]
    if start.size > encoder.size:  # a store has samples of one size: it would see them enlarged
        return None, [
            f"No comparison with {path.name}, from which it started: samples are read at size "
            f"{encoder.size}, and that one sees them at {start.size}."
        ]
    return start, []


def sentence(start: LoadedEncoder, row: dict[str, Any], data: str = "") -> str:
    """A gain of linear probes over the encoder of before, or a loss, as a note."""
    value, low, high = (100 * row[key] for key in ("value", "low", "high"))
    return (
        f"The linear probe{data}: {value:+.1f} points beside {Path(start.source).name}, from "
        f"which it started ({low:+.1f} to {high:+.1f})."
    )


def forgotten(
    encoder: LoadedEncoder,
    start: LoadedEncoder,
    old: Any,
    *,
    drop_leaks: bool = False,
    seed: int = 0,
    cache: Any = None,
    follow_links: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """The gain of linear probes on labelled data of before, a loss where it is below zero.

    Raises SelfsupError: E501 no labels, E502 a sample in both parts (unless `drop_leaks`), E503 too
    few.
    """
    from .judge import Judge  # which tells sentences of this file

    source = seen_as(open_source(old, follow_links=follow_links), encoder.modality)
    found = source.labels()
    if found is None or not (found[0] >= 0).any():
        raise SelfsupError("E501", f"no labels in {source.place}", where=source.place)
    with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
        judge = Judge(encoder, store, *found, 2, seed, console or Console(), start)
        judge.prepare(drop_leaks)
        return judge.forgotten()
