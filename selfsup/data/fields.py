"""Samples that are no pictures, as the store keeps them: named arrays, one after another.

A store holds uint8 (h, w, c). `pack` makes any sample such an array, (bytes, 1, 1); `unpack` gives
the samples of a batch back. Nothing but numbers is ever read from the bytes.
"""

import json
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from .batch import Batch

KINDS = {"|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<i8", "<f2", "<f4", "<f8"}


def pack(fields: Mapping[str, np.ndarray]) -> UInt8[np.ndarray, "n 1 1"]:
    """One sample as bytes: the length of a head, the head, the arrays."""
    arrays = {name: np.asarray(a, order="C") for name, a in fields.items()}
    head = json.dumps([[name, a.dtype.str, a.shape] for name, a in arrays.items()]).encode()
    assert all(a.dtype.str in KINDS for a in arrays.values()), head
    parts = [np.array([len(head)], "<u4").tobytes(), head, *(a.tobytes() for a in arrays.values())]
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 1, 1)


def unpack(batch: Batch) -> list[dict[str, np.ndarray]]:
    """The samples of a batch, as `pack` was given them; the arrays are views of the batch."""
    rows = batch.pixels[:, 0, :, 0].numpy()  # (b, longest)
    return [unpack_one(row) for row in rows]


def unpack_one(row: UInt8[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """What follows the arrays is left alone: padding."""
    row = np.ascontiguousarray(row)
    at = 4 + int(row[:4].view("<u4")[0])
    found = {}
    for name, kind, shape in json.loads(row[4:at].tobytes()):
        dtype = np.dtype(kind)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        found[name] = np.frombuffer(row[at : at + size].data, dtype).reshape(shape)
        at += size
    return found
