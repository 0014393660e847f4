"""A class for each token: pieces, masks, parts, and a class that the control cannot see."""

import json
import random

import numpy as np
import pytest
import torch

import selfsup
from selfsup.data.proteins import RESIDUES
from selfsup.errors import SelfsupError
from selfsup.evaluate import tasks, tokens
from selfsup.evaluate.interval import Interval, over_both
from selfsup.evaluate.scored import conclude, curve_of
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities.protein import Protein
from selfsup.stems import END


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    """Sixty chains; the class of a residue tells whether its neighbour to the right is a K."""
    home, draws = tmp_path_factory.mktemp("chains"), random.Random(0)
    files = {"a.fasta": "", "classes.fasta": "", "mask.fasta": ""}
    for i in range(60):
        chain = "".join(draws.choices(RESIDUES + "KKKK", k=draws.randint(12, 40)))
        classes = "".join("H" if c == "K" else "C" for c in chain[1:]) + "C"
        part = "train" if i % 3 else "test"
        files["a.fasta"] += f">p{i}\n{chain}\n"
        files["classes.fasta"] += f">p{i} SET={part} VALIDATION=False\n{classes}\n"
        files["mask.fasta"] += f">p{i}\n{'0' + '1' * (len(chain) - 1)}\n"
    files["classes.fasta"] = files["classes.fasta"].replace(">p59", ">other")
    for name, content in files.items():
        (home / name).write_text(content)
    return home


def small(size: int = 16) -> LoadedEncoder:
    card = Card("protein", "bert_micro", size, {"dim": 16, "depth": 1, "heads": 2}, (0.0,), (1.0,))
    return LoadedEncoder(rebuild(card, Protein(), 0), card, Protein())


def test_the_task(chains, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = selfsup.pretrain(
        chains / "a.fasta", encoder={"name": "bert_micro", "dim": 16, "depth": 1, "heads": 2},
        resolution=32, steps=2, batch=8, out="run", quiet=True,
    )  # fmt: skip
    labels = chains / "classes.fasta"
    assert tasks.suggested("protein", chains / "a.fasta", labels) == "tokens"
    result = tokens.evaluate_task(run.path, chains / "a.fasta", labels=labels)
    rows = {row["of"]: row for row in result.to_json()["scores"]}
    assert rows[tokens.BASELINE]["accuracy"] > 0.99  # the window shows the neighbour
    assert rows["untrained"]["networks"] == 3 and "accuracy" in str(result)
    few = {row["of"]: row for row in result.to_json()["curve"] if row["labels"] == 10}
    assert few[tokens.BASELINE]["value"] > few["untrained"]["value"]  # it shows the neighbour
    assert all(len(row["values"]) == tokens.DRAWS for row in few.values())
    gain = few["pretrained"]["gain"]  # 40 samples teach: there is no point at 100
    assert gain["control"] == tokens.BASELINE and gain["value"] < 0
    assert f"{gain['value']:+.3f} ± " in str(result)
    notes = " ".join(result.to_json()["notes"])
    assert "1 samples have no labels" in notes and "20 test" in notes and "mask.fasta" in notes
    assert json.loads((run.path / "evaluation-tokens.json").read_text())["task"] == "tokens"
    with pytest.raises(SelfsupError, match="E501"):
        tokens.evaluate_task(run.path, chains / "a.fasta")


def test_vectors_are_of_their_own_tokens_also_in_pieces():
    """Each vector is that of its residue in a piece with the ends marked."""
    encoder = small(16)
    rows = [Protein().codec.encode(c) for c in ("ACDEFG" * 6, "KLM")]
    found = tokens._encoded(encoder, rows)
    assert [len(v) for v in found] == [36, 3]
    whole = np.concatenate([[END], rows[0], [END]])
    from selfsup.ragged import Ragged

    for start in (0, 16, 32):
        piece = torch.from_numpy(whole[start : start + 16])
        states = encoder.encoder.features(Ragged.of([piece]))[0]
        own = found[0][max(0, start - 1) : start + 15]
        inner = states[int(start == 0) : len(piece) - int(start == 32)]
        torch.testing.assert_close(own, inner, atol=1e-5, rtol=1e-4)


def test_the_control_sees_its_neighbours_and_no_further():
    row = Protein().codec.encode("ACDEFGHIKLMNPQRSTVWY")
    x = tokens._around(row, 25).view(20, 15, 25)
    assert (x.sum(-1) == 1).all()
    assert x[10, 7].argmax() == row[10] and x[10, 0].argmax() == row[3]
    assert x[0, 6].argmax() == END and x[0, 8].argmax() == row[1]


def test_marked_tokens_neither_teach_nor_test(chains):
    from selfsup.data import open_source, open_store

    source = open_source(chains / "a.fasta")
    with open_store(source, Protein(), 16) as store:
        samples, classes, _ = tokens._labelled(source, store, Protein(), chains / "classes.fasta")
    assert classes == ["C", "H"] and len(samples) == 59
    assert all(row[0] == -1 and (row[1:] >= 0).all() for _, row in samples.values())
    assert len(tokens._counted(samples[0])) == len(samples[0][0]) - 1


def test_parts_are_known_in_capitals_and_one_must_test(chains, tmp_path):
    from selfsup.data import open_source
    from selfsup.data.proteins import Fasta

    source = open_source(chains / "a.fasta")
    samples = {i: (np.zeros(3, np.int64),) * 2 for i in range(len(source))}
    text = (chains / "classes.fasta").read_text().replace("SET=train", "SET=Train")

    def split(name: str):
        path = tmp_path / f"{name}.fasta"
        path.write_text(text.replace("SET=test", f"SET={name}"))
        return tokens._split(Fasta([str(path)], str(path)), source, samples, 0)

    train, test, told = split("Test")
    assert (len(train), len(test)) == (39, 20) and "'test'" in told  # p59 has no labels
    with pytest.raises(SelfsupError, match="E503") as error:
        split("rest")
    assert "rest, train" in str(error.value) and "SET=test" in str(error.value)


def test_the_share_of_a_long_sample_counts_by_its_tokens():
    right = torch.tensor([True, True, False, True, False, False])
    assert tokens._by_sample(right, [4, 2]).mean() == pytest.approx(0.5)


def test_a_gain_with_few_labels_is_told_where_all_bring_none():
    draws, seen = np.random.default_rng(0), []
    base = draws.uniform(0.3, 0.6, (tokens.DRAWS, 50))
    fewer = {
        of: {10: base + up, 100: base + more}
        for of, up, more in (("pretrained", 0.2, 0.1), ("untrained", 0.0, 0.0), ("x", 0.1, 0.15))
    }

    def over(ours, theirs, among):
        seen.append(among)
        return over_both(ours - theirs, 0, signed=True, among=among)

    curve = curve_of(fewer, lambda outcomes: outcomes.mean(1), over)
    ten, hundred = (row["gain"] for row in curve if "gain" in row)
    assert ten["control"] == "x" and ten["value"] == pytest.approx(0.1) and ten["low"] > 0
    assert hundred["value"] == pytest.approx(-0.05) and hundred["high"] < 0
    assert seen == [2, 2]  # of which the surest speaks
    unsure = [row | {"gain": ten | {"low": -0.01}} if "gain" in row else row for row in curve]

    def told(low, curve):
        scores = {of: [{"accuracy": value}] for of, value in (("pretrained", 0.6), ("x", 0.6))}
        return conclude("tokens", "accuracy", {"accuracy": 3}, scores, "x",
                        Interval(low, low, 0.1, ""), [], small(), "here", 0.0, curve)  # fmt: skip

    found = told(-0.1, curve)
    assert found.gain and found.verdict.startswith(
        f"Pretraining helped where labels are few: with those of 10 samples accuracy "
        f"{base.mean() + 0.2:.3f}, beside {base.mean() + 0.1:.3f} of x (+0.100 ± "
    )
    assert told(0.01, curve).verdict.startswith("Pretraining helped: ")
    none = told(-0.1, unsure)
    assert not none.gain and none.verdict.startswith("No gain that is certain: ")
