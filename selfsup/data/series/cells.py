"""What a cell of text says: nothing, a number, a moment or a word."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

MISSING = ("", "nan", "na", "n/a", "null", "none", "?", "-", "inf", "-inf", "+inf")


def absent(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return not absent(cell)


def numbers(cells: Sequence[str | None], decimal: str = ".") -> tuple[np.ndarray, int]:
    """Their values, NaN where there is none, and how many are neither numbers nor missing."""
    out, bad = np.full(len(cells), np.nan), 0
    for i, cell in enumerate(cells):
        if cell is not None and not absent(cell):
            text = cell.replace(",", ".") if decimal == "," else cell
            if is_number(text):
                out[i] = float(text)
            else:
                bad += 1
    return out, bad


def moments(cells: Sequence[str]) -> np.ndarray | None:
    """Seconds since 1970 of ISO dates; None where one is something else."""
    try:
        found = np.array([c.strip().replace("Z", "") for c in cells], "datetime64[us]")
    except ValueError:
        return None
    return np.where(np.isnat(found), np.nan, found.astype(np.int64) / 1e6)


def word(cell: Any) -> str:
    """A class that is written as a number is the same whether 1, 1.0 or "1.0000"."""
    text = str(cell).strip()
    return str(int(float(text))) if re.fullmatch(r"-?\d+\.0*", text) else text
