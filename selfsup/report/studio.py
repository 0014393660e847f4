"""What pictures of the data are made of: samples, their vectors, the encoder and the method.

What cannot be had says why.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file

from .. import randomness
from ..data import BadSample, Batch, Source, open_source
from ..data.seen import seen_as
from ..errors import SelfsupError
from ..inference import Fast, assemble
from ..load import CARD, Card, LoadedEncoder, load, load_method, modality_of
from ..method import Method
from ..modalities import Modality
from ..stop import stop
from .page import clean
from .pictures import Album
from .reading import Folder

SEED = 0x7265706F7274  # which samples a report shows: the same ones each time


@dataclass
class Samples:
    """Samples of one source: their numbers (n,), and their classes (n,), -1 for none, if known."""

    where: str
    source: Source
    indices: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"] | None
    classes: list[str]
    of: str = "training data"

    def name(self, row: int) -> str:
        return self.source.name(int(self.indices[row]))

    def class_of(self, row: int) -> str:
        if self.labels is None or self.labels[row] < 0:
            return "no label"
        return clean(self.classes[self.labels[row]], 30)


class Studio:
    """What the pictures are made of. `why` tells what is not there: encoder or samples.

    `points` (n, d) are the embeddings of the samples: those that the evaluation kept, where they
    belong to this encoder, or new ones.
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        self.album = Album()
        self.why: dict[str, str] = {}
        self.loaded: LoadedEncoder  # this and the next two only where `why` has no reason against
        self.samples: Samples
        self.points: Float[np.ndarray, "n d"]
        self._read: dict[int, np.ndarray | None] = {}
        try:
            self.card = Card.read(folder.path / CARD)
            self.modality = modality_of(self.card, folder.path / CARD)
        except SelfsupError as error:
            self.why["encoder"] = self.why["samples"] = said(error)
            return
        try:
            self.loaded = load(folder.path)
        except SelfsupError as error:
            self.why["encoder"] = said(error)
        try:
            evaluated = self._evaluated()
            self.samples = self._trained() if evaluated is None else evaluated[0]
        except SelfsupError as error:
            self.why["samples"] = said(error)
            return
        self.modality.meet(self.samples.source)
        if evaluated is not None:
            self.points = evaluated[1]
        elif "encoder" not in self.why:
            self._embed()

    # -- data -----------------------------------------------------------------------------------

    @property
    def most(self) -> int:
        """Samples on the map: what a minute embeds of large pictures, enough of small ones."""
        return int(np.clip(1500 * (64 / self.card.size) ** 2, 300, 1500))

    def _evaluated(self) -> tuple[Samples, np.ndarray] | None:
        """The test samples of the evaluation and their vectors, where they are there."""
        told = self.folder.evaluation
        data, encoder = told.get("data"), told.get("encoder")
        path = self.folder.path / "evaluation.safetensors"
        if not isinstance(data, dict) or not isinstance(encoder, dict) or "encoder" in self.why:
            return None
        if encoder.get("fingerprint") != self.loaded.fingerprint() or not path.is_file():
            return None
        place, classes = data.get("place"), data.get("classes")
        if not isinstance(place, str) or not isinstance(classes, list):
            return None
        try:
            source = seen_as(open_source(place), self.modality)
            kept = load_file(path)
            vectors = kept["vectors"].double().numpy()
            labels, indices = kept["labels"].long().numpy(), kept["samples"].long().numpy()
        except (SelfsupError, SafetensorError, OSError, KeyError, ValueError):
            return None  # moved, or not what was written: the training data will do
        whole = vectors.ndim == 2 and labels.shape == indices.shape == vectors.shape[:1]
        if not whole or source.fingerprint() != data.get("fingerprint") or len(vectors) < 2:
            return None
        chosen = np.sort(randomness.order(SEED, 0, len(vectors))[: self.most])
        names = [clean(c, 60) for c in classes]
        labels = np.where(labels < len(names), labels, -1)
        return Samples(place, source, indices[chosen], labels[chosen], names), vectors[chosen]

    def _trained(self) -> Samples:
        if (other := self._new_text()) is not None:
            return other
        place = self.folder.setting("data.path")
        if not place or place == "none":
            raise SelfsupError("E101", "the run was not made from files that could be opened")
        links = self.folder.setting("data.follow_links") == "true"
        source = seen_as(open_source(place, follow_links=links), self.modality)
        chosen = np.sort(randomness.order(SEED, 0, len(source))[: self.most])
        return Samples(place, source, chosen, None, [])

    def _new_text(self) -> Samples | None:
        """The text whose perplexity was measured, which was not trained on."""
        data = self.folder.tasks.get("perplexity", {}).get("data")
        if not isinstance(data, dict) or not isinstance(place := data.get("place"), str):
            return None
        try:
            source = seen_as(open_source(place), self.modality)
        except SelfsupError:
            return None  # moved: the training data will do
        if source.fingerprint() != data.get("fingerprint") or self._taught(place):
            return None
        chosen = np.sort(randomness.order(SEED, 0, len(source))[: self.most])
        return Samples(place, source, chosen, None, [], "text that was not trained on")

    def _taught(self, place: str) -> bool:
        """Whether the run was trained on what lies there."""
        path = self.folder.setting("data.path")
        if not path or path == "none":
            return False
        inner, outer = Path(os.path.realpath(place)), Path(os.path.realpath(path))
        return inner == outer or outer in inner.parents

    def _decode(self, row: int) -> np.ndarray | None:
        """The middle square of a sample, or None: it is in skipped.jsonl, or has changed since."""
        if row not in self._read:
            if stop.requested:
                return None
            source, size = self.samples.source, self.card.size
            try:
                array = self.modality.read(source.read(int(self.samples.indices[row])), size)
                array = self.modality.shrink(array, size)
                self._read[row] = _middle(array) if array.shape[2] == 3 else array
            except BadSample:
                self._read[row] = None
        return self._read[row]

    def batch(self, rows: Any) -> Batch:
        """Samples by row; one that cannot be read is grey, or any other where that is no sample."""
        with ThreadPoolExecutor(2, "report") as threads:
            arrays = list(threads.map(self._decode, map(int, rows)))
        stop.check()
        grey = np.full((self.card.size, self.card.size, 3), 128, np.uint8)
        blank = next((a for a in arrays if a is not None and a.shape[2] != 3), grey)
        return assemble([blank if array is None else array for array in arrays])

    def pictures(self, rows: Any, side: int = 128) -> np.ndarray:
        """The middle square of samples as the encoder gets it, (n, h, w, 3) uint8."""
        plain = self.modality.plain(self.batch(rows), min(self.card.size, side))
        return as_pictures(self.modality, plain)

    def some(self, count: int, purpose: int) -> np.ndarray:
        """Rows of samples that can be read, the same ones each time."""
        order = randomness.order(SEED, purpose, len(self.samples.indices))
        return np.array(
            [row for row in order[: 4 * count] if self._decode(int(row)) is not None][:count]
        )

    def _embed(self) -> None:
        """Embed the samples, and forget those that cannot be read."""
        fast, found, good = Fast(self.loaded.encoder), [], []
        for start in range(0, len(self.samples.indices), 64):
            stop.check()
            rows = range(start, min(start + 64, len(self.samples.indices)))
            part = self.batch(rows)
            found.append(fast(self.modality.plain(part, self.card.size)))
            good += [row for row in rows if self._read.get(row) is not None]
        if not good:
            self.why["samples"] = "None of the samples that were tried can be read."
            return
        self.points = torch.cat(found).cpu().double().numpy()[good]
        self._read = {new: self._read[old] for new, old in enumerate(good)}
        labels = None if self.samples.labels is None else self.samples.labels[good]
        self.samples = replace(self.samples, indices=self.samples.indices[good], labels=labels)

    # -- method ---------------------------------------------------------------------------------

    def method(self) -> tuple[Method, bool]:
        """The method of the run, and whether it has its trained weights. Raises SelfsupError."""
        return load_method(self.folder.path, self.card, self.modality)


# ---- small things ----------------------------------------------------------------------------


def said(error: SelfsupError) -> str:
    return clean(f"{error.what}{': ' + error.why if error.why else ''}.", 300)


def short(name: str) -> str:
    """The file and the folder it is in."""
    return "/".join(name.rsplit("/", 2)[-2:])


def _middle(array: np.ndarray) -> np.ndarray:
    """The middle square, so that the samples of a report take little memory."""
    h, w = array.shape[:2]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    return array[top : top + side, left : left + side]


def as_pictures(modality: Modality, x: torch.Tensor) -> np.ndarray:
    """Views as (n, h, w, 3) uint8."""
    x = x.float() if x.is_floating_point() else x
    return modality.picture(x).permute(0, 2, 3, 1).cpu().numpy()
