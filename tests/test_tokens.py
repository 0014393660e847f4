"""Vocabularies: text there and back, learned the same each time, restored from what was written."""

import json

import numpy as np
import pytest

from selfsup.stems import UNKNOWN
from selfsup.tokens import Bytes, Characters, Pairs, restored

TEXT = "the cat and the hat, naïve \U0001f600 <|end|>  0 \t\n" * 20


@pytest.mark.parametrize(
    "codec", [Bytes(), Characters(TEXT), Pairs.learn([TEXT], 300)], ids=lambda c: c.name
)
def test_there_and_back_and_restored(codec):
    tokens = codec.encode(TEXT)
    assert codec.decode(tokens) == TEXT and tokens.min() >= 3 and tokens.max() < codec.count
    assert (
        codec.lengths()[tokens].sum() == len(TEXT.encode()) and len(codec.lengths()) == codec.count
    )
    again = restored(json.loads(json.dumps(codec.state)))
    assert again.count == codec.count and np.array_equal(again.encode(TEXT), tokens)


def test_the_same_text_gives_the_same_vocabulary():
    one, two = (Pairs.learn([TEXT, TEXT[::-1]], 400) for _ in range(2))
    assert one.merges == two.merges and one.count > 259


def test_what_was_never_seen():
    assert Characters("abc").encode("abx").tolist() == [3, 4, UNKNOWN]
    assert (
        Pairs.learn(["abc abc"], 300).decode(Pairs.learn(["abc abc"], 300).encode("日本")) == "日本"
    )
    assert Bytes().decode([0, 3 + 65, 1]) == "‖A□"


@pytest.mark.parametrize(
    "state",
    [{}, {"kind": "pickle"}, {"kind": "bytes", "x": 1}, {"kind": "characters"},
     {"kind": "bpe", "merges": [["no such", "token"]]}, {"kind": "bpe", "merges": "ab"}],
)  # fmt: skip
def test_states_that_are_none(state):
    with pytest.raises(ValueError):
        restored(state)
