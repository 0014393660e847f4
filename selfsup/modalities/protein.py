"""Proteins: chains of amino acids, one letter each.

The machinery of text with an alphabet that is known: nothing is learned before training. What
becomes of rare and unclear letters is in docs/modalities/protein.md.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from ..data.base import Source
from ..data.batch import Batch
from ..data.outcome import BadSample
from ..data.proteins import LETTERS, RESIDUES
from ..method import Views
from ..ragged import Ragged
from ..randomness import Draws
from ..stems import END, SPECIAL
from ..tokens import Characters
from ..views import tokens as looks
from .base import Modality

RARE = "UO"  # selenocysteine and pyrrolysine
LOOKED_AT = 64  # sequences that tell the usual length
MOST_TOKENS = {"cpu": 256, "cuda": 1024}  # of a crop; ESM: 1024
MOST_UNCLEAR = 0.5  # of the letters of a sequence


class Protein(Modality):
    """Sequences of amino acids, in FASTA or in a column of a table.

    `without` names what views leave out, such as "drop,mask".
    """

    name = "protein"
    contents = ("proteins",)
    unit = "tokens"
    raw_unit = "residues"
    baseline_name = "residue counts or one-hot"
    baseline_components = 512
    default_method = "mlm"
    encoders = ("carp_micro", "carp_small", "carp_base",
                "bert_micro", "bert_mini", "bert_small", "bert_base",
                "gpt_micro", "gpt_mini", "gpt_small", "gpt_base")  # fmt: skip
    mean = (0.0,)
    std = (1.0,)
    rules = "protein 1"
    operations = looks.OPERATIONS

    def __init__(self, *, without: str = ""):
        self.without = self.left_out(without)
        self.codec = Characters(RESIDUES + RARE)

    def method_for(self, encoder: str | None) -> str:
        return "clm" if encoder is not None and encoder.startswith("gpt") else self.default_method

    # -------------------------------------------------------------------------- one sample

    def letters(self, raw: Any) -> str:
        """A sequence in capitals, without gaps and without the stop at its end.

        Raises BadSample: empty, not_protein, unclear.
        """
        if isinstance(raw, np.ndarray | np.generic):
            raw = raw.item() if raw.ndim == 0 else None
        if isinstance(raw, bytes | bytearray | memoryview):
            raw = bytes(raw).decode("latin-1")
        if not isinstance(raw, str):
            raise BadSample("not_protein", f"{type(raw).__name__} is neither bytes nor a string")
        found = "".join(raw.split()).upper()
        wrong = set(found) - LETTERS
        if wrong:
            raise BadSample("not_protein", f"{min(wrong)!r} stands for no amino acid")
        found = found.replace("-", "").replace(".", "").removesuffix("*")
        if not found:
            raise BadSample("empty", "no amino acids")
        unclear = sum(letter not in self.codec.characters for letter in found)
        if unclear > MOST_UNCLEAR * len(found):
            raise BadSample("unclear", f"{unclear} of {len(found)} letters leave it open what is")
        return found

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "n 1 1"]:
        """A token for each residue, END before the first and behind the last."""
        return looks.packed(np.concatenate([[END], self.codec.encode(self.letters(raw)), [END]]))

    def decode(self, tokens: Iterable[int]) -> str:
        return self.codec.decode(tokens)

    def words(self, numbers: Iterable[int]) -> str:
        return self.decode(numbers)

    # -------------------------------------------------------------------------- batches

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Ragged]:
        """Crops of up to `size` residues at any place; what strong and local do is as in text."""
        return looks.views(batch, spec, draws, size, self.without)

    def plain(self, batch: Batch, size: int) -> Ragged:
        """The first `size` tokens."""
        return looks.first(batch, size)

    def rows(self, batch: Batch) -> list[Int64[np.ndarray, " n"]]:
        """The tokens that were stored of each sample."""
        return looks.rows(batch)

    def picture(self, x: Ragged) -> UInt8[Tensor, "b 3 h w"]:
        """The beginning of each sequence, written."""
        return looks.picture(x, self.decode)

    def thumbnail(self, sample: UInt8[np.ndarray, "n 1 1"]) -> UInt8[np.ndarray, "h w 3"]:
        return looks.written(self.decode(sample.reshape(-1).view("<u2")[:1000]))

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]]:
        found = self.letters(raw)
        kind = "plain" if set(found) <= set(RESIDUES) else "with rare or unclear letters"
        return "protein", kind, (len(found), len(found))

    def examples(self) -> list[Any]:
        return [(RESIDUES * 15)[:n].encode() for n in (5, 40, 300)]

    # -------------------------------------------------------------------------- the control

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """How often each residue and each pair of neighbours occurs, as shares of the sequence."""
        count = self.codec.count - SPECIAL
        found = torch.zeros(len(batch), count + count**2)
        for i, row in enumerate(self.rows(batch)):
            letters = torch.from_numpy(row)
            own = letters[letters >= SPECIAL] - SPECIAL
            found[i, :count] = torch.bincount(own, minlength=count) / max(1, len(own))
            a, b = letters[:-1], letters[1:]
            both = (a >= SPECIAL) & (b >= SPECIAL)
            pairs = (a[both] - SPECIAL) * count + (b[both] - SPECIAL)
            found[i, count:] = torch.bincount(pairs, minlength=count**2) / max(1, len(own))
        return found

    def fitted(self, batches: Iterable[Batch]) -> Callable[[Batch], Float[Tensor, "b p"]]:
        """Variants of one protein, all of one length, are told by the sites at which they differ.

        There one-hot letters are the classical features (FLIP); elsewhere `baseline`.
        """
        rows = [row for batch in batches for row in self.rows(batch)]
        if len({len(row) for row in rows}) != 1 or len(rows) < 2:
            return self.baseline
        every = np.stack(rows)
        sites = np.flatnonzero((every != every[0]).any(0))
        if not 0 < len(sites) <= 0.5 * every.shape[1]:
            return self.baseline

        def one_hot(batch: Batch) -> Float[Tensor, "b p"]:
            stored, _ = looks.stored_of(batch)
            last = stored.shape[1] - 1  # of shorter ones what follows is padding
            there = torch.from_numpy(sites).clamp(max=last)
            letters = stored[:, there].long() & 0xFFFF
            return nn.functional.one_hot(letters, self.codec.count).flatten(1).float()

        return one_hot

    # -------------------------------------------------------------------------- sizes

    def extent(self, source: Source) -> int:
        n, lengths = len(source), []
        for i in np.unique(np.linspace(0, n - 1, min(n, LOOKED_AT)).astype(int)).tolist():
            try:
                lengths.append(len(self.letters(source.read(i))) + 2)
            except BadSample:
                continue
        return sorted(lengths)[len(lengths) // 2] if lengths else 0

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        most = MOST_TOKENS[device]
        size = max(16, 16 * math.ceil(1.5 * extent / 16))
        if size <= most:
            return size, f"sequences have about {extent} residues; half as many more, for longer"
        where = "a graphics card" if device == "cuda" else "processor cores"
        return most, f"sequences have about {extent} residues; {most} is what {where} can afford"

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        if name.startswith("carp"):
            from ..carp import carp

            return carp(name, size, self.codec.count, **keywords)
        from ..language import language

        return language(name, size, self.codec.count, **keywords)
