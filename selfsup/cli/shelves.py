"""selfsup list: what there is to choose from."""

from typing import Annotated

import typer

from .. import listing
from ..console import columns, did_you_mean
from ..errors import SelfsupError
from .answer import Answer
from .options import AsJson, Debug, Quiet


def list_shelf(
    shelf: Annotated[
        str, typer.Argument(help="methods, encoders or modalities", metavar="SHELF")
    ] = "methods",
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """What there is: methods, encoders or modalities."""
    shelves = {
        "methods": listing.methods,
        "encoders": listing.encoders,
        "modalities": listing.modalities,
    }
    if shelf not in shelves:
        raise SelfsupError(
            "E201",
            f"there is no shelf {shelf!r}",
            why=f"known: {', '.join(shelves)}",
            do=did_you_mean(shelf, shelves),
        )
    entries = list(shelves[shelf]().values())
    rows = []
    for entry in entries:
        rows.append((entry.name, entry.title + (f"  {entry.link}" if entry.link else "")))
        if entry.idea:
            rows.append(("", entry.idea))
        if entry.settings:
            pairs = ", ".join(f"{key}={value}" for key, value in entry.settings.items())
            rows.append(("", f"settings: {pairs}"))
    result = {shelf: [entry.to_json() for entry in entries]}
    return Answer(result, columns(rows, width=100))
