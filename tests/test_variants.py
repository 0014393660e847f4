"""Masked marginals against a slow reading; tables in every form, and what is wrong with some."""

import csv

import numpy as np
import pytest
import torch

import selfsup
from selfsup.cli import main
from selfsup.data.proteins import RESIDUES
from selfsup.errors import SelfsupError
from selfsup.load import load, load_method
from selfsup.ragged import Ragged
from selfsup.stems import END, MASK
from selfsup.variants import TABLE, _exchanges, variants

WILD = "MKVLAGHTRSWYEDNQPCFIMKVLAG"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("run")
    lines = [f">p{i}\n{(RESIDUES * 3)[i : i + 24]}\n" for i in range(16)]
    (home / "a.fasta").write_text("".join(lines))
    return selfsup.pretrain(
        home / "a.fasta", encoder={"name": "bert_micro", "dim": 16, "depth": 1, "heads": 2,
        "rescale": True}, resolution=16, steps=3, batch=8, out=home / "run", quiet=True,
    )  # fmt: skip


def table(path, head: str, rows) -> str:
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


def test_against_a_slow_reading(run, tmp_path):
    data = table(tmp_path / "a.csv", "mutant", ["M1A", "Q16K:G26W", "WT", "A5C"])
    found = variants(run.path, data, wild_type=WILD)
    encoder = load(run.path)
    method, trained = load_method(run.path, encoder.card, encoder.modality)
    assert trained
    codec = encoder.modality.codec

    def one(site, new):
        tokens = [END, *codec.encode(WILD).tolist(), END]
        old = tokens[site]
        tokens[site] = MASK
        first = min(max(0, site - 8), len(tokens) - 16)
        piece = torch.tensor(tokens[first : first + 16])
        states = method.encoder.features(Ragged.of([piece]))[0, site - first]
        likely = method.name(states[None])[0].log_softmax(-1)
        return float(likely[int(codec.encode(new)[0])] - likely[old])

    with torch.no_grad():
        wanted = [one(1, "A"), one(16, "K") + one(26, "W"), 0.0, one(5, "C")]
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4, atol=1e-5)


def test_sequences_mutants_and_columns_say_the_same(run, tmp_path):
    changed = [WILD[:2] + c + WILD[3:] for c in "ACDEF"]
    mutants = [f"V3{c}" for c in "ACDEF"]
    (tmp_path / "wt.fasta").write_text(f">wt\n{WILD}\n")
    forms = [
        ("sequence", changed, str(tmp_path / "wt.fasta")),
        ("mutant", mutants, WILD),
        ("mutant,sequence", [f"{m},{s}" for m, s in zip(mutants, changed, strict=True)], None),
        ("sequence,wild_type", [f"{s},{WILD}" for s in changed], None),
    ]
    scores = [
        variants(run.path, table(tmp_path / f"{i}.csv", head, rows), wild_type=wild).scores
        for i, (head, rows, wild) in enumerate(forms)
    ]
    assert all(np.array_equal(scores[0], other) for other in scores[1:])


def test_rows_that_cannot_be_scored_are_counted(run, tmp_path):
    rows = ["V3A,-0.5,=A1", "V4A,1,-", "V300A,2,-x", "three,3,@x", "V3X,4,+x", "V3C,5,x"]
    data = table(tmp_path / "a.csv", "mutant,score,=note", rows)
    found = variants(run.path, data, wild_type=WILD, out=tmp_path / "out.csv")
    assert np.isfinite(found.scores).tolist() == [True, False, False, False, False, True]
    assert "4 rows" in str(found) or "2 rows: another residue" in str(found)
    with (tmp_path / "out.csv").open() as file:
        written = list(csv.DictReader(file))
    assert written[1]["variant_score"] == "" and written[1]["mutant"] == "V4A"
    assert float(written[0]["variant_score"]) == pytest.approx(found.scores[0], rel=1e-4)
    assert [row["score"] for row in written] == ["-0.5", "1", "2", "3", "4", "5"]
    assert [row["'=note"] for row in written] == ["'=A1", "'-", "'-x", "'@x", "'+x", "x"]


def test_measured_values_and_controls(run, tmp_path, capsys):
    pairs = [(i, WILD[i], c) for i in range(4) for c in RESIDUES if c != WILD[i]]
    rows = [f"{a}{i + 1}{c},{TABLE[a, c] + 0.01 * i}" for i, a, c in pairs]
    data = table(tmp_path / "a.csv", "mutant,DMS_score", rows)
    assert main(["variants", str(run.path), data, "--wild-type", WILD, "-q"]) == 0
    said = capsys.readouterr().out
    assert "BLOSUM62" in said and "untrained" in said
    found = {r["of"]: r for r in variants(run.path, data, wild_type=WILD).to_json()["scores"]}
    assert found["BLOSUM62"]["spearman"] > 0.7


def test_faults(run, tmp_path):
    for head, rows, wild, code in [
        ("a,b", ["1,2"], WILD, "E105"),
        ("mutant", ["V3A"], None, "E105"),
        ("mutant", [], WILD, "E102"),
        ("mutant", ["nothing"], WILD, "E503"),
    ]:
        with pytest.raises(SelfsupError, match=code):
            variants(run.path, table(tmp_path / "a.csv", head, rows), wild_type=wild)
    with pytest.raises(SelfsupError, match="E101"):
        variants(run.path, tmp_path / "nothing.csv")
    exported = selfsup.export(run.path, out=tmp_path / "export")
    assert exported is not None
    with pytest.raises(SelfsupError, match="E601"):
        variants(tmp_path / "export", tmp_path / "a.csv")


def test_notations_and_the_matrix():
    assert _exchanges("a24g, L30F") == _exchanges("A24G:L30F") == _exchanges("p.A24G/L30F")
    assert _exchanges("_wt") == []
    assert len(TABLE) == 400 and all(TABLE[a, b] == TABLE[b, a] for a, b in TABLE)
    assert [TABLE[c, c] for c in "ACWKP"] == [4, 9, 11, 5, 7] and TABLE["I", "V"] == 3


def test_long_wild_types_and_the_table_itself(run, tmp_path):
    data = table(tmp_path / "a.csv", "mutant", ["M1A", "K262A"])
    found = variants(run.path, data, wild_type=WILD * 12)  # longer than a file name may be
    assert np.isfinite(found.scores).tolist() == [True, WILD[261 % 26] == "K"]
    with pytest.raises(SelfsupError, match="the table itself"):
        variants(run.path, data, wild_type=WILD, out=data)
