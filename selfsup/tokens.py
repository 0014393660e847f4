"""From text to numbers and back: byte-level BPE, plain bytes, plain characters.

A vocabulary begins with END, MASK and UNKNOWN (`selfsup.stems`). BPE and bytes can write any text
and give the same text back; characters know those of the data they were learned from.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int64
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .stems import SPECIAL, UNKNOWN

MOST = 1 << 16  # tokens: a store keeps two bytes of each
SHOWN = ("\u2016", "\u25a1", "\ufffd")  # of special tokens: end, hidden, unknown


class Codec(Protocol):
    """`count` tokens; `state` is JSON."""

    name: str
    count: int

    def encode(self, text: str) -> Int64[np.ndarray, " n"]: ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Special tokens are shown as signs of their own."""
        ...

    def lengths(self) -> Int64[np.ndarray, " v"]:
        """Bytes of UTF-8 that each token stands for; special ones 0."""
        ...

    def starts(self) -> Bool[np.ndarray, " v"]:
        """Which tokens begin a word: those whose first sign is neither a letter nor a digit.

        A word carries the blank before it, and a mark of punctuation begins anew.
        """
        ...

    @property
    def state(self) -> dict[str, Any]: ...


class Bytes:
    """The bytes of UTF-8, each a token."""

    name, count = "bytes", SPECIAL + 256

    def encode(self, text: str) -> Int64[np.ndarray, " n"]:
        return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(int) + SPECIAL

    def decode(self, tokens: Iterable[int]) -> str:
        return _runs(tokens, lambda run: bytes(t - SPECIAL for t in run).decode("utf-8", "replace"))

    def lengths(self) -> Int64[np.ndarray, " v"]:
        return np.array([0] * SPECIAL + [1] * 256)

    def starts(self) -> Bool[np.ndarray, " v"]:
        return np.array([True] * SPECIAL + [not _in_word(byte) for byte in range(256)])

    @property
    def state(self) -> dict[str, Any]:
        return {"kind": self.name}


class Characters:
    """The characters of the data it was learned from; others are UNKNOWN."""

    name = "characters"

    def __init__(self, characters: str):
        self.characters = "".join(sorted(set(characters)))[: MOST - SPECIAL]
        self.count = SPECIAL + len(self.characters)
        self._codes = _codes(self.characters)

    def encode(self, text: str) -> Int64[np.ndarray, " n"]:
        codes = _codes(text)
        if not len(self._codes):
            return np.full(len(codes), UNKNOWN)
        place = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        return np.where(self._codes[place] == codes, place + SPECIAL, UNKNOWN)

    def decode(self, tokens: Iterable[int]) -> str:
        return _runs(tokens, lambda run: "".join(self.characters[t - SPECIAL] for t in run))

    def lengths(self) -> Int64[np.ndarray, " v"]:
        return np.array([0] * SPECIAL + [len(c.encode()) for c in self.characters])

    def starts(self) -> Bool[np.ndarray, " v"]:
        return np.array([True] * SPECIAL + [not c.isalnum() for c in self.characters])

    @property
    def state(self) -> dict[str, Any]:
        return {"kind": self.name, "characters": self.characters}


class Pairs:
    """Byte-level byte pair encoding (GPT-2): frequent neighbours become one token."""

    name = "bpe"

    def __init__(self, merges: list[tuple[str, str]]):
        self.merges = [(str(a), str(b)) for a, b in merges]
        # signs that no byte is written as, so that no text can spell a special token
        names = [f" {number}" for number in range(SPECIAL)] + sorted(ALPHABET)
        names += [a + b for a, b in self.merges]
        vocabulary = {token: number for number, token in enumerate(dict.fromkeys(names))}
        self.count = len(vocabulary)
        self._names = list(vocabulary)
        self._tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=self.merges))
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = decoders.ByteLevel()

    @classmethod
    def learn(cls, texts: Iterable[str], count: int) -> "Pairs":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=min(count, MOST) - SPECIAL,
            min_frequency=2,
            initial_alphabet=ALPHABET,
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(_merges(tokenizer))

    def encode(self, text: str) -> Int64[np.ndarray, " n"]:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        return _runs(tokens, self._tokenizer.decode)

    def lengths(self) -> Int64[np.ndarray, " v"]:
        return np.array([0] * SPECIAL + [len(name) for name in self._names[SPECIAL:]])

    def starts(self) -> Bool[np.ndarray, " v"]:
        # bytes below 33 are written as signs from U+0100 on, among them the blank
        first = [ord(name[0]) for name in self._names[SPECIAL:]]
        return np.array([True] * SPECIAL + [0x100 <= c <= 0x121 or not _in_word(c) for c in first])

    @property
    def state(self) -> dict[str, Any]:
        return {"kind": self.name, "merges": [list(pair) for pair in self.merges]}


ALPHABET = pre_tokenizers.ByteLevel.alphabet()  # how byte-level BPE writes the 256 bytes


def _in_word(byte: int) -> bool:
    """Letters, digits, and the bytes that letters beyond ASCII are written with."""
    return byte > 127 or chr(byte).isalnum()


def restored(state: dict[str, Any]) -> Codec:
    """The codec of a `state`. Raises ValueError where it is none."""
    kind, rest = state.get("kind"), {k: v for k, v in state.items() if k != "kind"}
    if kind == "bytes" and not rest:
        return Bytes()
    if kind == "characters" and isinstance(rest.get("characters"), str) and len(rest) == 1:
        return Characters(rest["characters"])
    merges = rest.get("merges")
    if kind == "bpe" and len(rest) == 1 and isinstance(merges, list) and len(merges) < MOST:
        known = set(ALPHABET)
        for pair in merges:
            if not (isinstance(pair, list) and len(pair) == 2 and known.issuperset(pair)):
                raise ValueError(f"{str(pair)[:80]} is no pair of tokens")
            known.add(pair[0] + pair[1])
        return Pairs([(a, b) for a, b in merges])
    raise ValueError(f"{str(state)[:80]} describes no vocabulary")


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    import json

    found = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in found]


def _codes(text: str) -> Int64[np.ndarray, " n"]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)


def _runs(tokens: Iterable[int], decode: Any) -> str:
    """Special tokens by their signs, what is between them by `decode`."""
    parts, run = [], []
    for token in [*map(int, tokens), -1]:
        if token >= SPECIAL:
            run.append(token)
            continue
        if run:
            parts.append(decode(run))
            run = []
        if token >= 0:
            parts.append(SHOWN[token])
    return "".join(parts)
