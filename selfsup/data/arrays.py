"""Samples that are in memory already, or that a Python object hands out."""

import hashlib
import os
import threading
import zipfile
from typing import Any

import numpy as np

from ..errors import SelfsupError
from . import graphs
from .base import UNREADABLE, Source, evenly, first_line
from .files import read_file
from .outcome import BadSample
from .tables import encode


class ArraySource(Source):
    """Samples along the first axis of an array, which is used where it lies and never copied.

    (n, h, w), (n, h, w, c), or (n, c, h, w) where c is 1 or 3 and the last axis is not a channel;
    clips (n, t, h, w, c).
    """

    kind = "array"

    def __init__(
        self,
        samples: np.ndarray,
        labels: np.ndarray | None = None,
        names: list[str] | None = None,
        place: str = "array",
    ):
        super().__init__(place)
        if samples.dtype.hasobject or samples.ndim < 3 or samples.dtype.kind not in "buif":
            raise SelfsupError(
                "E104",
                f"an array of shape {samples.shape} and type {samples.dtype} is not read",
                where=place,
                do="pass numbers of shape (samples, height, width) or (samples, height, width, 3)",
            )
        if samples.ndim == 4 and samples.shape[1] in (1, 3) and samples.shape[-1] not in (1, 3, 4):
            samples = samples.transpose(0, 2, 3, 1)  # (n, c, h, w) -> (n, h, w, c), a view
        if samples.ndim == 5:
            self.content = "video"
        if labels is not None and len(labels) != len(samples):
            raise SelfsupError(
                "E105", f"{len(labels)} labels for {len(samples)} samples", where=place
            )
        self.samples, self._labels, self._class_names = samples, labels, names

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, i: int) -> str:
        return str(i)

    def read(self, i: int) -> np.ndarray:
        return self.samples[i]

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(
            str((self.samples.shape, self.samples.dtype)).encode(), digest_size=16
        )
        for start in range(0, len(self), 1024):
            digest.update(np.ascontiguousarray(self.samples[start : start + 1024]))
        return digest.hexdigest()

    def stamps(self) -> np.ndarray:
        def stamp(i: int) -> int:
            content = np.ascontiguousarray(self.samples[i])
            return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")

        return np.fromiter((stamp(i) for i in range(len(self))), np.uint64, len(self))

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        if self._labels is None:
            return None
        names = self._class_names
        if names is not None:
            return np.asarray(self._labels, np.int64), list(names)
        return encode(None if str(v) == "-1" else str(v) for v in np.asarray(self._labels).tolist())


def open_array(path: str) -> Source:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return ArraySource(found, place=path)
        with found as archive:
            _check_size(archive.zip, path)
            arrays = {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise SelfsupError(
            "E106",
            f"{path} cannot be read as an array",
            why=first_line(error),
            do="save it with numpy.save or numpy.savez, as numbers and not as objects",
        ) from None
    return graphs.open_arrays(arrays, path) or from_dict(arrays, path)


def _check_size(archive: zipfile.ZipFile, path: str) -> None:
    """Raises SelfsupError E104 where the arrays of an archive do not fit into memory."""
    from ..machine import free_memory

    announced = sum(member.file_size for member in archive.infolist())
    free = free_memory()
    if announced > free:
        raise SelfsupError(
            "E104", f"{path} announces more than can be read", where=path,
            why=f"{announced >> 20} MiB of arrays, and {free >> 20} MiB of memory are free",
            do="save the samples with numpy.save: a .npy file is read where it lies",
        )  # fmt: skip


def from_dict(arrays: dict[str, np.ndarray], place: str) -> Source:
    """Samples and labels among named arrays: by the usual names, else the first with images."""
    lower = {str(name).lower(): np.asarray(value) for name, value in arrays.items()}
    usual = (
        "x",
        "images",
        "image",
        "data",
        "x_train",
        "train_images",
        "samples",
        "arr_0",
    )
    key = next((k for k in usual if k in lower and lower[k].ndim >= 3), None)
    key = key or next((k for k, v in lower.items() if v.ndim >= 3), None)
    if key is None:
        raise SelfsupError(
            "E104",
            f"no array with samples in {place}",
            why=f"it has {', '.join(f'{k} {v.shape}' for k, v in lower.items()) or 'nothing'}",
            do="give one named 'images' of shape (samples, height, width, channels)",
        )
    marks = (
        "y",
        "labels",
        "label",
        "targets",
        "target",
        "y_train",
        "train_labels",
        "arr_1",
    )
    samples = lower[key]
    same = (lower[k] for k in marks if k in lower and lower[k].shape == (len(samples),))
    return ArraySource(samples, next(same, None), place=place)


class DatasetSource(Source):
    """Any object with `len` and items: an item is a sample, (sample, label ...) or a dictionary.

    A sample may be a PIL image, bytes, a path, an array or a tensor (channels first or last).
    """

    kind = "dataset"
    lasting = False

    def __init__(self, dataset: Any):
        super().__init__(type(dataset).__name__)
        self.dataset = dataset
        # Items may come from a file handle that is not made for several threads at once.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, i: int) -> str:
        return str(i)

    def read(self, i: int) -> Any:
        with self._lock:
            sample, _ = _parts(self.dataset[i])
        if isinstance(sample, dict) and "bytes" in sample:
            sample = sample["bytes"] if sample["bytes"] is not None else sample["path"]
        if isinstance(sample, str | os.PathLike):
            path = os.fsencode(sample)
            try:
                status = os.stat(path)
            except OSError:
                raise BadSample(
                    "unreadable", "the dataset names a file that is not there"
                ) from None
            return read_file(path, status.st_size, status.st_mtime_ns)
        if hasattr(sample, "numpy") and not isinstance(sample, np.ndarray):
            sample = sample.detach().cpu().numpy()
        if isinstance(sample, np.ndarray) and sample.ndim == 3:
            first, last = sample.shape[0] in (1, 3), sample.shape[-1] in (1, 3, 4)
            return sample.transpose(1, 2, 0) if first and not last else sample
        return sample

    def fingerprint(self) -> str:
        """Of the type, the length and up to 32 samples spread over the whole."""
        digest = hashlib.blake2b(f"{type(self.dataset)} {len(self)}".encode(), digest_size=16)
        for i in evenly(len(self), 32):
            try:
                sample = self.read(i)
            except BadSample as bad:
                sample = bad.code.encode()
            digest.update(sample if isinstance(sample, bytes) else np.asarray(sample).tobytes())
        return digest.hexdigest()

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        names = getattr(self.dataset, "classes", None)
        targets = getattr(self.dataset, "targets", None)
        if targets is None or len(targets) != len(self):
            with self._lock:
                targets = [_parts(self.dataset[i])[1] for i in range(len(self))]
        if all(target is None for target in targets):
            return None
        values = [t.item() if hasattr(t, "item") else t for t in targets]
        if names is not None and all(isinstance(v, int) for v in values):
            return np.asarray(values, np.int64), [str(name) for name in names]
        return encode(None if v is None or v == -1 else str(v) for v in values)


def _parts(item: Any) -> tuple[Any, Any]:
    """The sample and the label (or None) in an item of a dataset."""
    if isinstance(item, dict):
        sample = next((item[k] for k in ("image", "img", "pixel_values", "x") if k in item), None)
        if sample is None:
            sample = next(iter(item.values()))
        label = next(
            (item[k] for k in ("label", "labels", "target", "class", "y") if k in item),
            None,
        )
        return sample, label
    if isinstance(item, tuple | list):
        return item[0], item[1] if len(item) > 1 else None
    return item, None
