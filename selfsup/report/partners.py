"""Which parts of samples found each other: recall, and the best and the worst cases.

Drawn from evaluation-retrieve.json, which `selfsup evaluate` writes, and from the data, if they are
at hand.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..data import BadSample, Source, fields, open_source
from ..data.seen import seen_as
from ..errors import SelfsupError
from ..load import CARD, Card, modality_of
from .page import Markup, clean, missing, section, table, tag
from .pictures import Album, Tile, strip

LARGEST = 1 << 24  # bytes of evaluation-retrieve.json
TITLE = "Partners"
SAID = {
    "best": "Partners that were found first, and surest.",
    "worst": "Partners that came last: the text says something else, or nothing like it was seen.",
}


def partners(path: Path, album: Album) -> Markup | None:
    """The section of a run whose parts were searched for each other; None where none were."""
    file = path / "evaluation-retrieve.json"
    if not file.is_file() or file.stat().st_size > LARGEST:
        return None
    try:
        told = json.loads(file.read_bytes())
        head, rows = _recalls(told)
        lead = clean(told["verdict"]["sentence"], 600)
        pairs = [
            (clean(" and ".join(pair["parts"]), 60), clean(pair["sentence"], 600))
            for pair in told.get("pairs", ())
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{file.name} cannot be used: {clean(error)}"
        return section("partners", TITLE, tag("p", why))
    parts: list[Any] = (
        [table(["parts", "verdict"], pairs, caption="Each two parts")] if pairs else []
    )
    parts.append(table(head, rows, caption="Recall, in percent", numbers=len(head) - 2))
    try:
        parts += _sheets(path, told, album)
    except (SelfsupError, BadSample, ValueError, KeyError, TypeError, IndexError) as error:
        why = error.what if isinstance(error, SelfsupError) else "the data are not as they were"
        parts.append(
            missing("pictures of cases;", f"selfsup report {clean(path, 300)}", clean(why))
        )
    return section("partners", TITLE, *parts, lead=lead)


def _recalls(told: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for row in told["scores"]:
        cells = [clean(row["direction"], 60), clean(row["of"], 60)]
        for depth in (1, 5, 10):
            found = row[f"recall_{depth}"]
            half = 50 * (float(found["high"]) - float(found["low"]))
            cells.append(f"{100 * float(found['value']):.1f}" + (f" ± {half:.1f}" if half else ""))
        rows.append(cells)
    return ["search", "", "recall@1", "recall@5", "recall@10"], rows


def _sheets(path: Path, told: dict[str, Any], album: Album) -> list[Markup]:
    modality: Any = modality_of(Card.read(path / CARD), path / CARD)
    source = seen_as(open_source(str(told["data"]["place"])), modality)
    if source.fingerprint() != told["data"]["fingerprint"]:
        raise SelfsupError("E101", "the data have changed since they were searched")
    made = []
    for direction, kinds in told["cases"].items():
        made.append(tag("h3", clean(direction, 60)))
        for kind, note in SAID.items():
            strips = []
            for case in kinds[kind][:4]:
                shown = [case["query"], *case["found"][:5]]
                tiles = [_tile(modality, source, thing) for thing in shown]
                rank = f"rank {int(case['rank'])}"
                strips.append(tag("p", rank, class_="note"))
                strips.append(strip(album, tiles, label=f"{direction}: {clean(rank)}"))
            made.append(tag("div", tag("h4", kind.capitalize()), tag("p", note), strips))
    return made


def _tile(modality: Any, source: Source, thing: dict[str, Any]) -> Tile:
    """One part of a sample, as its own modality shows it."""
    part, index = str(thing["part"]), int(thing["index"])
    packed = modality.read(source.read(index), None)
    array = fields.unpack_one(packed[:, 0, 0])[f"{part}.{int(thing['number'])}"]
    picture = modality.sides[part].modality.thumbnail(array)[..., :3]
    picture = np.repeat(picture, 3, 2) if picture.shape[2] == 1 else picture
    kind = "query" if "right" not in thing else "same" if thing["right"] is True else "other"
    below = "" if kind == "query" else f"cosine {float(thing['similarity']):.2f}"
    return Tile(picture, clean(thing["name"], 60), below, kind)
