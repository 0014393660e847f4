"""The text format of the UCR/UEA archive: a head of @ lines, then a case a line."""

from pathlib import Path

import numpy as np

from ...errors import SelfsupError
from .cells import absent, word
from .found import Found, side_by_side


def read_ts(path: str, found: Found) -> None:
    """Add the cases of a file. Raises E104 (with time stamps), E105 (not of this format)."""
    head: dict[str, str] = {}
    begun, labelled = False, False
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if not begun:
                if not line.startswith("@"):
                    raise _broken(path, number, "a line before @data that does not begin with @")
                key, _, value = line[1:].partition(" ")
                head[key.lower()] = value.strip().lower()
                begun = key.lower() == "data"
                labelled = any(
                    head.get(k, "").startswith("true") for k in ("classlabel", "targetlabel")
                )
                if begun and head.get("timestamps", "").startswith("true"):
                    raise SelfsupError(
                        "E104", f"{path} has time stamps in its cases", where=path,
                        do="write the series as a table with an id and a time column",
                    )  # fmt: skip
                continue
            fields = line.split(":")
            label = word(fields.pop()) if labelled else None
            try:
                channels = [_cells(cells) for cells in fields]
            except ValueError as error:
                raise _broken(path, number, str(error)) from None
            if not channels:
                raise _broken(path, number, "no values")
            name = f"{Path(path).name}#{len(found.values)}"
            found.add(side_by_side(channels), name, None, label)
    if not begun:
        raise _broken(path, 0, "there is no @data")


def _cells(text: str) -> list[float]:
    return [np.nan if absent(cell) else float(cell) for cell in text.split(",")]


def _broken(path: str, line: int, why: str) -> SelfsupError:
    return SelfsupError(
        "E105", f"{path} is not a readable .ts file", where=f"{path}:{line}", why=why
    )
