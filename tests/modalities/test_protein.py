"""Proteins as a modality: letters by rule, crops, controls; and a whole run with what follows."""

import json
import random

import numpy as np
import pytest
import torch

import selfsup
from selfsup.data import open_source
from selfsup.data.outcome import BadSample
from selfsup.data.proteins import RESIDUES
from selfsup.evaluate.tasks import suggested
from selfsup.inference import assemble
from selfsup.method import Views
from selfsup.modalities import of_content
from selfsup.modalities.protein import Protein
from selfsup.randomness import Draws
from selfsup.stems import END, SPECIAL, UNKNOWN


def batch(*letters: str):
    return assemble([Protein().read(t) for t in letters])


@pytest.mark.parametrize(
    ("raw", "letters"),
    [
        ("acd ef\nGH", "ACDEFGH"),
        (b"ACDE*", "ACDE"),
        ("AC-D.E", "ACDE"),
        ("AC*DE", "AC*DE"),
        (np.array("ACDX"), "ACDX"),
    ],
)
def test_letters(raw, letters):
    assert Protein().letters(raw) == letters


@pytest.mark.parametrize(
    ("raw", "code"),
    [("", "empty"), (" \n", "empty"), ("*", "empty"), ("--", "empty"), ("ACD1", "not_protein"),
     ("Ä", "not_protein"), (b"\xff\x00", "not_protein"), (7, "not_protein"),
     ("XXXBZA", "unclear")],
)  # fmt: skip
def test_faults(raw, code):
    with pytest.raises(BadSample) as found:
        Protein().read(raw)
    assert found.value.code == code


def test_unclear_letters_are_unknown_and_never_asked_for():
    (row,) = Protein().rows(batch("AUXBOACD"))
    assert row[[0, -1]].tolist() == [END, END]
    assert (row[1:-1] == UNKNOWN).tolist() == [False, False, True, True] + [False] * 4
    from selfsup.masks import choose
    from selfsup.ragged import Ragged

    x = Ragged.of([torch.from_numpy(row)])
    chosen = choose(x, 1.0, torch.rand(1, len(row)))
    assert chosen[0].tolist() == (row >= SPECIAL).tolist()


def test_long_sequences_are_cropped_anywhere():
    made = batch("".join(random.Random(0).choices(RESIDUES, k=40_000)), "ACDEF")
    whole = Protein().rows(made)[0]
    starts = set()
    for seed in range(20):
        (view,) = Protein().views(made, Views(light=1), Draws(seed, made.samples), 64)
        assert view.lengths.tolist() == [64, 7]
        window = view.values[0].numpy()
        places = np.flatnonzero(
            (np.lib.stride_tricks.sliding_window_view(whole, 64) == window).all(1)
        )
        starts |= set(places.tolist())
    assert len(starts) == 20 and max(starts) > 20_000


def test_the_control_counts_residues_and_pairs():
    p = Protein()
    found = p.baseline(batch("AAC", "CXA"))
    code = {letter: int(p.codec.encode(letter)[0]) - SPECIAL for letter in "AC"}
    count = p.codec.count - SPECIAL
    assert found[0, code["A"]] == pytest.approx(2 / 3) and found.shape[1] == count + count**2
    pairs = found[:, count:].view(2, count, count)
    assert pairs[0, code["A"], code["A"]] == pytest.approx(1 / 3)
    assert pairs[0, code["A"], code["C"]] == pytest.approx(1 / 3)
    assert pairs[1].sum() == 0  # an unclear residue is no neighbour


def test_variants_of_one_protein_are_told_by_their_sites():
    p = Protein()
    features = p.fitted([batch("ACDEFG", "ACDEFK", "ACDEFR")])
    x = features(batch("ACDEFG", "ACDEFK", "WWWWWK"))
    assert torch.equal(x[1], x[2]) and not torch.equal(x[0], x[1]) and x.sum() == 3
    assert p.fitted([batch("ACDEFG", "ACDEF")])(batch("ACD")).shape[1] == 22 + 22**2


def test_no_option_is_needed(tmp_path, monkeypatch):
    """One FASTA file through all verbs."""
    monkeypatch.chdir(tmp_path)
    draws = random.Random(1)
    with open("a.fasta", "w") as file:
        for i in range(48):
            file.write(f">p{i}\n{''.join(draws.choices(RESIDUES, k=draws.randint(20, 60)))}\n")
        file.write(">bad\nAC1\n")
    assert of_content(open_source("a.fasta").content) == "protein"
    run = selfsup.pretrain(
        "a.fasta", encoder={"name": "bert_micro", "dim": 32, "depth": 1, "heads": 2}, steps=3,
        batch=8, out="run", quiet=True,
    )  # fmt: skip
    card = json.loads((run.path / "encoder.json").read_text())
    assert (card["modality"], card["method"], run.done["step"]) == ("protein", "mlm", 3)
    assert "ratio = 0.15  # plan: of residues ESM-2" in (run.path / "resolved.toml").read_text()
    found = selfsup.embed(run, "a.fasta", "v.npy")
    assert (found.used, found.dim) == (48, 32)
    selfsup.export(run.path)
    assert "<img" in run.report().read_text()
    assert suggested("protein", "a.fasta", None) == "classify"
