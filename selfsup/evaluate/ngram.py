"""What text says of itself without a network: frequencies of bytes after the bytes before.

Interpolated by Witten and Bell, 1991, https://doi.org/10.1109/18.87000 (method C): a context that
was followed by many different bytes trusts its own counts less.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

ORDER = 4  # bytes before, at most: the best for a megabyte of English
END = 256  # of a document
SYMBOLS = 257
BITS = 9


class Ngrams:
    """Learned from documents as byte strings; `bits` scores others."""

    def __init__(self, documents: Sequence[bytes], order: int = ORDER):
        assert 0 <= order <= 6  # seven symbols fit in 63 bits
        self.order = order
        self.levels = []
        for length in range(order + 1):
            whole, counts = np.unique(_windows(documents, length), return_counts=True)
            contexts, first, kinds = np.unique(whole >> BITS, return_index=True, return_counts=True)
            totals = np.add.reduceat(counts, first) if len(first) else counts
            self.levels.append((whole, counts, contexts, totals, kinds))

    def bits(self, document: bytes) -> Float[np.ndarray, " n"]:
        """Of each byte and of the end."""
        chance = np.full(len(document) + 1, 1 / SYMBOLS)
        for length, (whole, counts, contexts, totals, kinds) in enumerate(self.levels):
            keys = _windows([document], length)
            seen, place = _found(contexts, keys >> BITS)
            total, kind = totals[place], kinds[place]
            known, where = _found(whole, keys)
            count = np.where(known, counts[where], 0)
            mixed = (count + kind * chance) / (total + kind)
            chance = np.where(seen, mixed, chance)
        return -np.log2(chance)


def _windows(documents: Sequence[bytes], length: int) -> Int64[np.ndarray, " n"]:
    """Each byte (and end) with the `length` before it, as one number; before a document is END."""
    parts = []
    for document in documents:
        symbols = np.append(np.frombuffer(document, np.uint8).astype(np.int64), END)
        padded = np.concatenate([np.full(length, END), symbols])
        key = np.zeros(len(symbols), np.int64)
        for i in range(length + 1):
            key = key << BITS | padded[i : i + len(symbols)]
        parts.append(key)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _found(table: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each key is in a sorted table, and where (anywhere if not)."""
    if not len(table):
        return np.zeros(len(keys), bool), np.zeros(len(keys), np.int64)
    place = np.searchsorted(table, keys).clip(max=len(table) - 1)
    return table[place] == keys, place
