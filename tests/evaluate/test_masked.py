"""Hidden tokens and halves of documents, read again by hand."""

import math

import numpy as np
import pytest
import torch

from selfsup.data import open_source, open_store
from selfsup.errors import SelfsupError
from selfsup.evaluate import documents, masked, pairing, tasks, words
from selfsup.load import Card, LoadedEncoder
from selfsup.methods.mlm import MLM
from selfsup.modalities.text import Text
from selfsup.ragged import Ragged
from selfsup.stems import MASK, SPECIAL

SIZE, TINY = 16, {"dim": 8, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    return MLM(Text().encoder("bert_micro", SIZE, **TINY)).eval()


@pytest.fixture(scope="module")
def streams():
    random = np.random.default_rng(0)
    return [np.r_[0, random.integers(SPECIAL, 200, n), 0] for n in (40, 5, 23)]


def test_hidden_tokens_are_named_from_all_others(method, streams, monkeypatch):
    monkeypatch.setattr(masked.machine, "choose_precision", lambda *_: "fp32")
    by = masked.Namer(method.encoder, method.name)
    nats, tokens = masked.losses(by, streams, SIZE, bound=False)
    again = masked.losses(by, streams, SIZE, bound=False)
    assert np.array_equal(nats, again[0]) and np.array_equal(tokens, again[1])
    rows = [torch.from_numpy(s[i : i + SIZE]) for s in streams for i in range(0, len(s), SIZE)]
    generator = torch.Generator().manual_seed(masked.mix(0x6D61736B))
    ((hidden, _),) = masked._some(Ragged.of(rows), generator)
    wanted, expected = [], []
    for row, holes in zip(rows, hidden, strict=True):
        holes = holes[: len(row)]
        free = int((row >= SPECIAL).sum())
        assert holes.sum() == (max(1, round(0.15 * free)) if free else 0)
        seen = torch.where(holes, MASK, row)[None]  # one window alone
        states = method.encoder.features(Ragged(seen, torch.ones_like(seen, dtype=torch.bool)))
        for place in holes.nonzero()[:, 0].tolist():
            chances = method.name(states[0, place]).softmax(-1)
            expected.append(-math.log(chances[row[place]].item()))
            wanted.append(int(row[place]))
    assert tokens.tolist() == wanted and min(wanted) >= SPECIAL
    assert nats == pytest.approx(expected, abs=1e-5)


def test_the_bound_of_a_guess_is_what_guessing_costs(method, streams):
    """Whatever is hidden: of L tokens k, each worth L / k of the same nats."""
    flat = masked.Namer(method.encoder, lambda states: torch.zeros(len(states), 50))
    nats, tokens = masked.losses(flat, [s % 50 for s in streams], SIZE, bound=True)
    assert len(nats) == sum(map(len, streams)) and tokens.max() < 50
    assert nats.sum() == pytest.approx(len(nats) * math.log(50), rel=1e-5)
    x, counts = Ragged.of([torch.arange(4)]), []
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        counts += [int(hidden.sum()) for hidden, _ in masked._shares(x, generator)]
    assert np.bincount(counts).tolist() == [0, *[300] * 4]  # one of each: even steps
    network = type("N", (), {"logits": lambda self, states: torch.zeros(len(states), 50)})()
    assert masked._without_mask(network, torch.zeros(2, 3)).softmax(-1)[:, MASK].max() == 0


def test_single_tokens_are_counted():
    nats = masked.unigram(np.array([0, 5, 2]), np.array([1, 0]))
    assert nats == pytest.approx([-math.log(6 / 10), -math.log(1 / 10)])


def encoder(method=""):
    text = Text(tokens="bytes")
    torch.manual_seed(0)
    network = text.encoder("bert_micro", SIZE, **TINY)
    return LoadedEncoder(network, Card("text", "bert_micro", SIZE, TINY, (0.0,), (1.0,), method,
                                       text.state, {"tokens": "bytes"}), text)  # fmt: skip


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Thirty documents that repeat a word of their own; one twice, one too short."""
    own = [chr(97 + i % 26) * 2 + chr(97 + i // 26) + "xyz"[i % 3] for i in range(30)]
    rows = [" ".join([word] * 8) for word in own]
    path = tmp_path_factory.mktemp("letters") / "letters.csv"
    path.write_text("\n".join(["text", *rows, rows[3], "short"]) + "\n")
    return path


def test_halves_are_of_different_documents_and_as_long_as_is_seen(letters):
    one = encoder()
    with open_store(open_source(letters), one.modality, SIZE, cache=letters.parent) as store:
        first, then = documents.halves(one, store, 0)
    assert len(first) == len(then) < 31
    assert all(len(a) == len(b) == SIZE for a, b in zip(first, then, strict=True))
    pairs = np.concatenate([np.stack(first), np.stack(then)], 1)
    decoded = {one.modality.decode(row)[:4] for row in pairs}
    assert len(decoded) == len(first)  # none twice


def test_halves_find_each_other_by_their_words(letters):
    one = encoder("simclr")
    assert tasks.suggested("text", letters, None) == "perplexity"
    assert tasks.chosen(one, one, letters, None) == "documents"
    assert tasks.chosen(one, encoder("mdlm"), letters, None) == "perplexity"
    assert tasks.chosen(one, encoder("mlm"), letters, None) == "documents"  # its head is not kept
    found = documents.evaluate_task(one, letters, seeds=2, cache=letters.parent)
    assert found.recall("first half to second", 1, "TF-IDF") > 0.9
    assert "recall@10" in str(found) and found.verdict in str(found)
    told = found.to_json()
    assert {row["of"] for row in told["scores"]} == {"pretrained", "untrained", "TF-IDF", "chance"}
    first = [row["recall_5"]["value"] for row in told["scores"] if row["of"] == "chance"]
    assert first[0] == pytest.approx(5 / told["scores"][0]["queries"])
    (letters.parent / "two.csv").write_text("text\n" + "a b c d e f g h i j\n" * 2)
    with pytest.raises(SelfsupError, match="E503"):
        documents.evaluate_task(one, letters.parent / "two.csv", cache=letters.parent)


def test_halves_without_words_are_nothing_to_words(letters, tmp_path, monkeypatch):
    for texts in ([" \n", "", "  "], []):
        assert not words.by_words(texts, documents.WORDS, 2).toarray().any()
    found = words.by_words(["a b", "b a", "c"], documents.WORDS, 2).toarray()
    assert (found**2).sum(1) == pytest.approx(1) and 0 < found[0] @ found[1] < 1
    monkeypatch.setattr(documents, "WORDS", "nothing like it")
    found = documents.evaluate_task(encoder("simclr"), letters, seeds=2, cache=tmp_path)
    assert found.recall("first half to second", 1, "TF-IDF") < 0.2


def test_cosines_are_of_vectors_less_their_mean():
    one, random = encoder(), np.random.default_rng(0)
    first, then = ([random.integers(SPECIAL, 200, 9) for _ in range(3)] for _ in range(2))
    rows = [Ragged.of([torch.from_numpy(row)]) for row in first + then]
    x = np.stack([one(row).detach()[0] for row in rows])
    x = x - x.mean(0)
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in x[3:]] for a in x[:3]]
    assert documents.alike(one, first, then).numpy() == pytest.approx(np.array(expected), abs=1e-5)
    wanted = torch.eye(3, dtype=torch.bool)
    _, chance, ranks = pairing.ranked(torch.tensor([[3.0, 2, 1], [3, 2, 1], [1, 1, 1]]), wanted)
    assert ranks.tolist() == [0, 1, 2] and chance[0] == pytest.approx(1 / 3)
