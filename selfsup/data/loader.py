"""Batches as a pure function of the step.

Sample counter s (step * batch + row) belongs to epoch s // n and is the sample
order(seed, epoch)[s % n]. Neither the number of workers nor of ranks, nor what was asked for
before, changes a batch; so nothing about the data has to be saved to continue a run.
"""

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np

from ..errors import SelfsupError
from ..randomness import mix, order
from .batch import Batch
from .store import Store

__all__ = ["Batch", "Loader"]

REDRAWS = 64  # if this many in a row are bad, then so is practically everything
_REDRAW = 0x7265647261770A  # keeps these draws apart from all others made of the same seed


class Loader:
    """`loader.batch(step)`, prepared in the background while the step before is computed.

    `batch` is the number of samples of a step over all ranks; with less data than that it is
    made smaller, which `notes` says.
    """

    def __init__(
        self,
        store: Store,
        batch: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 2,
        ahead: int = 2,
    ):
        if batch < 1 or not 0 <= rank < world:
            raise ValueError(f"batch {batch}, rank {rank} of {world}")
        self.store, self.seed, self.rank, self.world = store, seed, rank, world
        self.n = len(store)
        self.notes: list[str] = []
        self.batch_size = min(batch, self.n)
        if self.batch_size < batch:
            self.notes.append(f"batch is {self.n} instead of {batch}: there are no more samples")
        if self.batch_size < world:
            raise SelfsupError(
                "E102",
                f"{self.n} samples for {world} processes",
                why="each process needs at least one sample in every step",
                do="use fewer processes",
            )
        self.ahead = ahead if workers > 0 else 0
        self._thread = ThreadPoolExecutor(1, "batches") if self.ahead else None
        self._coming: OrderedDict[tuple[int, int, int], Future] = OrderedDict()
        self._orders: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock, self._lock_orders = threading.Lock(), threading.Lock()

    def epoch(self, step: int) -> int:
        """The epoch in which a step begins."""
        return step * self.batch_size // self.n

    def counters(self, step: int, part: int = 0, parts: int = 1) -> np.ndarray:
        """Global sample counters of this rank's `part` of a step: (b,) int64, consecutive."""
        low, high = _share(0, self.batch_size, self.rank, self.world)
        low, high = _share(low, high, part, parts)
        return np.arange(low, high, dtype=np.int64) + step * self.batch_size

    def indices(self, counters: np.ndarray) -> np.ndarray:
        """Places in the source of sample counters, before bad samples are replaced."""
        epochs = counters // self.n
        found = np.empty_like(counters)
        for epoch in np.unique(epochs).tolist():
            rows = epochs == epoch
            found[rows] = self._order(epoch)[counters[rows] % self.n]
        return found

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """One part of a step of this rank; parts are consecutive shares of the rank's share.

        A sample that cannot be read is replaced by another one drawn from (seed, counter), so the
        replacement is the same whenever and wherever the fault is found.
        Raises SelfsupError E103 when too many samples cannot be read.
        """
        if step < 0 or not 0 <= part < parts:
            raise ValueError(f"step {step}, part {part} of {parts}")
        if self._thread is None:
            return self._make(step, part, parts)
        key = (step, part, parts)
        with self._lock:
            if key not in self._coming:  # the first, or a jump back: what was prepared is of no use
                for future in self._coming.values():
                    future.cancel()
                self._coming.clear()
            wanted = [key]
            for _ in range(self.ahead):
                step, part = (step, part + 1) if part + 1 < parts else (step + 1, 0)
                wanted.append((step, part, parts))
            for other in wanted:
                if other not in self._coming:
                    self._coming[other] = self._thread.submit(self._make, *other)
            future = self._coming.pop(key)
        return future.result()

    def close(self) -> None:
        """Stop preparing batches. The store stays open: it may serve others."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def _make(self, step: int, part: int, parts: int) -> Batch:
        counters = self.counters(step, part, parts)

        def replace(rows: np.ndarray, attempt: int) -> np.ndarray:
            if attempt >= REDRAWS:
                raise SelfsupError(
                    "E103",
                    f"no readable sample found in {REDRAWS} draws from {self.store.source.place}",
                    where=str(self.store.ledger.path or ""),
                    why=f"skipped so far: {self.store.ledger.counts()}",
                    do="look at the data with `selfsup scan`",
                )
            draws = (mix(self.seed, _REDRAW, s, attempt) for s in counters[rows].tolist())
            return np.fromiter((draw % self.n for draw in draws), np.int64, len(rows))

        return self.store.batch(self.indices(counters), counters, replace)

    def _order(self, epoch: int) -> np.ndarray:
        with self._lock_orders:
            if epoch not in self._orders:
                self._orders[epoch] = order(self.seed, epoch, self.n)
                while len(self._orders) > 2:  # a batch may span the end of an epoch
                    self._orders.popitem(last=False)
            return self._orders[epoch]


def _share(low: int, high: int, part: int, parts: int) -> tuple[int, int]:
    """The part-th of `parts` consecutive shares of [low, high), as equal as can be."""
    size = high - low
    return low + size * part // parts, low + size * (part + 1) // parts
