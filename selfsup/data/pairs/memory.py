"""Samples of several parts that are in memory."""

from hashlib import blake2b
from typing import Any

from ..base import Pair
from ..copies import raw_print
from ..kinds import sniff
from .base import PairSource
from .columns import strings

LOOKED_AT = 32  # samples, to find what each part holds


class PairList(PairSource):
    """A list of `Pair`: each part a raw form, or a list of several.

    A part holds what it is called after, or what its first raw form looks like, in the first of
    some samples that has one.
    """

    kind, lasting = "dataset", False

    def __init__(self, samples: list[Pair]):
        super().__init__("list")
        self.samples = samples
        self.parts = {}
        for i in range(min(len(self), LOOKED_AT)):
            for part, forms in self.read(i).items():
                if forms and part not in self.parts:
                    self.parts[part] = _held(part, forms[0])

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, i: int) -> str:
        return str(i)

    def read(self, i: int) -> Pair:
        forms = self.samples[i].items()
        return Pair({part: one if isinstance(one, list) else [one] for part, one in forms})

    def fingerprint(self) -> str:
        digest = blake2b(repr((len(self), sorted(self.parts.items()))).encode(), digest_size=16)
        for i in range(len(self)):
            digest.update(raw_print(self.read(i)))
        return digest.hexdigest()


def _held(part: str, raw: Any) -> str:
    if part in ("image", "audio", "video", "text", "proteins", "graphs"):
        return part
    if isinstance(raw, str):
        return strings(part, [raw])
    if isinstance(raw, bytes):
        return sniff(raw[:512]) or "text"
    return {1: "audio", 2: "audio", 4: "video"}.get(getattr(raw, "ndim", 3), "image")
