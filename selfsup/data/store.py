"""Decode once: every sample is decoded and made small at its first use and kept on disk.

A store is a folder in the user's cache directory, never in the data; see disk.py.
"""

import hashlib
import os
import secrets
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from .arrays import ArraySource
from .base import Source, evenly
from .batch import Batch, Pool
from .cache import InUse, cache_folder, cache_limit, make_room, throw_out
from .disk import BAD, FORMAT, FULL, IN_BLOCK, READY, RECORD, UNKNOWN, Disk, Shape, create
from .outcome import TRANSIENT, BadSample, Ledger

PROBE = 32

Sample = np.ndarray | BadSample


def open_store(
    source: Source,
    modality: Any,
    size: int,
    *,
    cache: str | Path | None = None,
    ledger: Ledger | None = None,
    workers: int = 2,
    max_skipped: float = 0.5,
) -> "Store":
    """The store of `source` as `modality` reads it, with the shorter side of a sample at `size`.

    Stored samples are uint8 (h, w, c): aspect ratio kept, never enlarged. An array of uint8 that
    needs no change is used where it lies. Where the disk is short or cannot be written, samples
    are decoded each time (`store.mode == "stream"`, or "disk" with a note when a part fits).
    Raises SelfsupError E103 when more than `max_skipped` of the samples cannot be read.
    """
    ledger = Ledger() if ledger is None else ledger
    for problem in source.problems:
        ledger.skip(**problem)
    modality.meet(source)
    return Store(source, modality, size, cache_folder(cache), ledger, workers, max_skipped)


class Store:
    """Decoded samples by number. `mode` is "array", "disk" or "stream"; `notes` says why."""

    def __init__(
        self,
        source: Source,
        modality: Any,
        size: int,
        cache: Path,
        ledger: Ledger,
        workers: int,
        max_skipped: float,
    ):
        self.source, self.modality, self.size = source, modality, size
        self.ledger, self.workers, self.max_skipped = ledger, workers, max_skipped
        self.notes: list[str] = list(source.notes)
        self.mode, self.path = "stream", None
        self.shape: Shape | None = None
        self._pool = Pool()
        self._threads = ThreadPoolExecutor(workers, "decode") if workers > 0 else None
        self._lock = threading.Lock()
        self._array: np.ndarray | None = None
        self._disk: Disk | None = None
        self._budget, self._full, self._depth = 0, False, 3
        self._records = np.zeros(len(source), RECORD)

        try:
            self._begin(cache)
        except BaseException:
            self.close()
            raise

    def _begin(self, cache: Path) -> None:
        """Look at a few samples, find or make the folder, and fill it where order matters."""
        first, source = self._probe(), self.source
        self._array = _as_it_lies(source, first)
        if self._array is not None:
            self.mode, self.shape = "array", self._array.shape[1:]
            self._records["state"], self._records["file"] = READY, IN_BLOCK
            self._records["height"], self._records["width"] = self.shape[:2]
        else:
            try:
                self._open(cache, first)
            except OSError as error:
                self._stream(f"{cache} cannot be used ({error.strerror or error})")
        for i, sample in first.items():
            self._keep(i, sample)
        self._check_skipped()
        if source.sequential and self.mode == "disk" and not self._full:
            self.fill()

    # ------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        return len(self.source)

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        samples: np.ndarray | None = None,
        replace: Callable[[np.ndarray, int], np.ndarray] | None = None,
    ) -> Batch:
        """The samples at these indices, decoded now if they never were.

        Samples that cannot be read are left out: `Batch.indices` tells which are there. With
        `replace(rows, attempt) -> indices` others are asked for in their place instead.
        """
        indices = np.array(indices, np.int64)
        samples = indices.copy() if samples is None else np.asarray(samples, np.int64)
        held: dict[int, np.ndarray] = {}
        rows, attempt = np.arange(len(indices)), 0
        while True:
            lost = rows[~self._ensure(indices[rows], held)]
            if len(lost) == 0:
                break
            if replace is None:
                good = np.setdiff1d(np.arange(len(indices)), lost)
                indices, samples = indices[good], samples[good]
                break
            indices[lost] = replace(lost, attempt)
            rows, attempt = lost, attempt + 1
        return self._assemble(indices, samples, held)

    def fill(self, progress: Callable[[int, int], None] | None = None) -> "Store":
        """Decode everything that was not decoded yet, in the order of the source."""
        from ..stop import stop

        todo = np.flatnonzero(self._states(np.arange(len(self))) == UNKNOWN)
        step = 256
        for start in range(0, len(todo), step):
            stop.check()
            if self._full:  # nothing more can be kept, so there is no point in decoding it now
                break
            self._ensure(todo[start : start + step], None)
            if progress is not None:
                progress(min(start + step, len(todo)), len(todo))
        self.commit()
        return self

    def commit(self) -> None:
        """Make what was decoded so far lasting, and known to other processes."""
        if self.mode != "disk":
            return
        try:
            self._disk.commit()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._stop_storing("the disk is full")

    def counts(self) -> dict[str, int]:
        """found = used + skipped, of everything that was looked at so far.

        A sample that no batch has asked for yet counts as used. One that another process of the
        run has skipped, as its ledger says, counts as skipped.
        """
        skipped = len(self.source.problems) + int((self._records["state"] == BAD).sum())
        skipped += self.ledger.elsewhere
        found = self.source.found
        return {"found": found, "used": found - skipped, "skipped": skipped}

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
        try:
            self.commit()
        finally:
            if self._disk is not None:
                self._disk.close(remove=not self.source.lasting)
        self.mode = self.mode if self.mode == "array" else "closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape)) if self.shape else "mixed sizes"
        return f"Store({len(self)} samples, {shape}, {self.mode})"

    # ------------------------------------------------------------------------------ decoding

    def _decode(self, i: int) -> Sample:
        try:
            array = self.modality.read(self.source.read(i), self.size)
            array = self.modality.shrink(array, self.size)
        except BadSample as bad:
            return bad
        assert array.dtype == np.uint8 and array.ndim == 3, (array.dtype, array.shape)
        return array

    def _probe(self) -> dict[int, Sample]:
        """A few samples spread over the source: they tell the size of a slot."""
        return {i: self._decode(i) for i in evenly(len(self), PROBE)}

    def _states(self, indices: np.ndarray) -> np.ndarray:
        """State of each, with what other processes have finished in the meantime."""
        states = self._records["state"][indices]
        if self._disk is not None and (states == UNKNOWN).any():
            self._disk.refresh(indices[states == UNKNOWN])
            states = self._records["state"][indices]
        return states

    def _ensure(self, indices: np.ndarray, held: dict[int, np.ndarray] | None) -> np.ndarray:
        """Decode what is missing; True for each sample that is usable.

        What could not be stored is put into `held`, or dropped when that is None.
        """
        states = self._states(indices)
        missing = np.unique(indices[states == UNKNOWN])
        if held:
            missing = np.array([i for i in missing.tolist() if i not in held], np.int64)
        if len(missing):
            workers = min(self.workers, len(missing))
            if self._threads is None or workers < 2:
                self._work(missing, held)
            else:
                # interleaved, so that neighbours in a compressed archive are read in turn
                parts = [missing[part::workers] for part in range(workers)]
                list(self._threads.map(lambda part: self._work(part, held), parts))
            if self._disk is not None and self._disk.due():
                self.commit()
            states = self._records["state"][indices]
            self._check_skipped()
        return states != BAD

    def _work(self, indices: np.ndarray, held: dict[int, np.ndarray] | None) -> None:
        for i in indices.tolist():
            sample = self._decode(i)
            kept = self._keep(i, sample)
            if not kept and held is not None:
                held[i] = sample

    def _keep(self, i: int, sample: Sample) -> bool:
        """Store a sample or note that it is bad. False if it is good and could not be stored."""
        if isinstance(sample, BadSample):
            self._note_bad(i, sample)
            return True
        if self._array is not None:
            return True
        if self.mode != "disk":
            return False
        if self._records["state"][i] == READY:
            return True
        if self._full:
            return False
        try:
            self._disk.write(i, sample)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._stop_storing("the disk is full")
            return False
        with self._lock:
            self._budget -= sample.nbytes
        if self._budget <= 0:
            self._stop_storing("the cache may not grow further")
        return True

    def _note_bad(self, i: int, bad: BadSample) -> None:
        with self._lock:
            if self._records["state"][i] == BAD:
                return
            self._records["state"][i] = BAD
        name = self.source.name(i)
        self.ledger.skip(name, bad.code, bad.reason)
        if self.mode == "disk" and bad.code not in TRANSIENT and not self._full:
            self._disk.note_bad(i, bad)

    def _check_skipped(self) -> None:
        bad = int((self._records["state"] == BAD).sum())
        if bad > self.max_skipped * len(self):
            raise self.ledger.too_many(bad, len(self), self.source.place)

    # ---------------------------------------------------------------------------- assembling

    def _assemble(self, indices: np.ndarray, samples: np.ndarray, held: dict) -> Batch:
        records = self._records[indices]
        stored = records["state"] == READY
        in_block = stored & (records["file"] == IN_BLOCK)
        extents = None
        if in_block.all() and len(indices):
            pixels = self._pool.take((len(indices), *self.shape))
            self._read_block(indices, pixels)
        else:
            arrays = [
                held[i] if i in held and not stored[row] else None
                for row, i in enumerate(indices.tolist())
            ]
            sides = [
                array.shape[:2]
                if array is not None
                else (records[row]["height"], records[row]["width"])
                for row, array in enumerate(arrays)
            ]
            sides = np.array(sides, np.int64).reshape(-1, 2)
            channels = self._channels(arrays)
            height, width = sides.max(0) if len(sides) else (self.size, self.size)
            pixels = self._pool.take((len(indices), int(height), int(width), channels))
            for row, array in enumerate(arrays):
                h, w = sides[row].tolist()
                if array is None:
                    array = self._read_one(records[row], (h, w, channels))
                pixels[row, :h, :w] = array
                pixels[row, h:] = 0
                pixels[row, :h, w:] = 0
            if len(sides) and (sides != sides[0]).any():
                extents = torch.from_numpy(sides)
        return Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            extents,
            torch.from_numpy(samples),
            torch.from_numpy(indices),
        )

    def _channels(self, arrays: list[np.ndarray | None]) -> int:
        if self.shape is not None:
            return self.shape[2]
        return next((array.shape[2] for array in arrays if array is not None), self._depth)

    def _read_block(self, indices: np.ndarray, pixels: np.ndarray) -> None:
        block = self._disk.block() if self._array is None else self._array
        if block is not None:
            # "clip" because numpy takes "raise" through a second buffer; indices are in range
            np.take(block, indices, axis=0, out=pixels, mode="clip")
            return
        for row, i in enumerate(indices.tolist()):
            self._disk.read(IN_BLOCK, i * pixels[row].nbytes, pixels[row])

    def _read_one(self, record: np.void, shape: Shape) -> np.ndarray:
        array = np.empty(shape, np.uint8)
        self._disk.read(int(record["file"]), int(record["offset"]), array)
        return array

    # ------------------------------------------------------------------------------- on disk

    def _open(self, cache: Path, first: dict[int, Sample]) -> None:
        """Find or make the folder of this store and read its index."""
        if sys.platform == "win32":
            raise OSError("stores need POSIX locks")
        good = [sample for sample in first.values() if isinstance(sample, np.ndarray)]
        if not good:
            self._stream("no sample of the first few could be decoded")
            return
        self._depth = good[0].shape[2]
        stores = cache / "stores"
        stores.mkdir(parents=True, exist_ok=True)
        if not self.source.lasting:
            # Nobody can tell whether a Python object gives the same samples tomorrow.
            key = f"private-{os.getpid()}-{secrets.token_hex(8)}"
        else:
            key = _key(self.source, self.modality, self.size)
        mean = sum(sample.nbytes for sample in good) / len(good)
        need = int(len(self) * (mean + RECORD.itemsize) * 1.02)
        folder = stores / key
        while True:
            if not (folder / "meta.json").exists():
                budget = make_room(stores, need, cache_limit(stores))
                if budget < min(need, 64 << 20) and budget < need / 8:
                    self._stream(
                        f"it needs {_mib(need)} in {cache}, where {_mib(budget)} may be used"
                    )
                    return
                facts = {"channels": self._depth, "place": self.source.place, "size": self.size}
                create(folder, len(self), _slot(good), facts)
            try:
                in_use = InUse(folder)
            except FileNotFoundError:
                continue  # thrown out a moment ago: make it anew
            if in_use.still_there() and (folder / "meta.json").exists():
                break
            in_use.close()
            broken = folder.exists() and not (folder / "meta.json").exists()
            if broken and not throw_out(folder):
                self._stream(f"{folder} is damaged and in use; remove it")
                return
        try:
            self._disk = Disk(folder, in_use, self._records, self._lock)
        except OSError:
            in_use.close()
            raise
        self.mode, self.path = "disk", folder
        self.shape, self._depth = self._disk.shape, self._disk.channels
        for i, bad in self._disk.bad():
            if 0 <= i < len(self) and self._records["state"][i] == UNKNOWN:
                self._records["state"][i] = BAD
                self.ledger.skip(self.source.name(i), bad.code, bad.reason)
        done = int((self._records["state"] != UNKNOWN).sum())
        left = int(need * (1 - done / max(len(self), 1)))
        self._budget = make_room(stores, left, cache_limit(stores)) if left else 0
        if done < len(self) and self._budget <= 0:
            self._stop_storing("the cache may not grow further")
        elif self._budget < left * 0.98:
            self.notes.append(
                f"the cache has room for {_mib(self._budget)} of {_mib(left)}; "
                "the rest is decoded each time"
            )

    def _stop_storing(self, why: str) -> None:
        if not self._full:
            self._full = True
            self.notes.append(f"{why}: samples that are not stored yet are decoded each time")

    def _stream(self, why: str) -> None:
        self.mode = "stream"
        self.notes.append(f"nothing is stored, samples are decoded each time: {why}")


def _as_it_lies(source: Source, first: dict[int, Sample]) -> np.ndarray | None:
    """The whole array as (n, h, w, c), if reading leaves its samples as they are; no copy."""
    source = getattr(source, "source", source)
    if not isinstance(source, ArraySource) or source.samples.dtype != np.uint8:
        return None
    for i, sample in first.items():
        if not isinstance(sample, np.ndarray):
            return None
        raw = source.samples[i]
        if raw.size != sample.size or not np.array_equal(raw.reshape(sample.shape), sample):
            return None
    return source.samples.reshape(len(source), *sample.shape)


def _slot(good: list[np.ndarray]) -> Shape | None:
    """A block has a slot for every sample; worth it where most samples fit into one."""
    shapes = [sample.shape for sample in good]
    common = max(set(shapes), key=shapes.count)
    return common if shapes.count(common) * 2 > len(shapes) else None


def _key(source: Source, modality: Any, size: int) -> str:
    """Names a store: the data, the rules it was read by and the size it was stored at."""
    rules = getattr(modality, "rules", "")  # settings that change what `read` and `shrink` give
    parts = [str(FORMAT), source.fingerprint(), modality.name, str(rules), str(size)]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
