"""Graphs and nodes through all verbs: pretrain, embed, export, report, and both protocols."""

import json

import numpy as np
import pytest

import selfsup
import selfsup.data
from selfsup.errors import SelfsupError
from selfsup.evaluate import folds, nodes, tasks


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """Sixty graphs in the TU layout: rings are one class, lines the other; two published folds."""
    home = tmp_path_factory.mktemp("rings")
    edges, owner = [], []
    for graph in range(60):
        n, first = 5 + graph % 7, len(owner) + 1
        owner += [graph + 1] * n
        edges += [f"{first + i}, {first + (i + 1) % n}" for i in range(n if graph % 2 else n - 1)]
    (home / "R_A.txt").write_text("\n".join(edges) + "\n")
    (home / "R_graph_indicator.txt").write_text("\n".join(map(str, owner)) + "\n")
    (home / "R_graph_labels.txt").write_text("\n".join(str(g % 2) for g in range(60)) + "\n")
    (home / "10fold_idx").mkdir()
    for k in (1, 2):
        test = range(20 * (k - 1), 20 * k)
        (home / "10fold_idx" / f"test_idx-{k}.txt").write_text("\n".join(map(str, test)) + "\n")
    return home


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """Two groups of thirty nodes, with more edges and words within than between."""
    home, random = tmp_path_factory.mktemp("town"), np.random.default_rng(0)
    group = np.arange(60) % 2
    chance = np.where(group[:, None] == group, 0.15, 0.02)
    pairs = np.argwhere(np.triu(random.random((60, 60)) < chance, 1))
    (home / "edges.csv").write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in pairs) + "\n")
    words = random.random((60, 12)) < np.where((np.arange(12) % 2) == group[:, None], 0.3, 0.15)
    np.save(home / "features.npy", words.astype(np.float32))
    parts = ["train", "val", "test", "test"]
    rows = [f"{i},{group[i]},{parts[i // 2 % 4]}" for i in range(60)]
    (home / "nodes.csv").write_text("node,label,split\n" + "\n".join(rows) + "\n")
    return home


def test_graphs(rings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = selfsup.pretrain(rings, steps=4, batch=16, out="run", quiet=True)
    assert run.done["step"] == 4
    assert tasks.suggested("graph", rings, None) == "folds"
    result = folds.evaluate_task(run.path, rings)
    rows = {row["of"]: row for row in result.to_json()["scores"]}
    assert len(rows["pretrained"]["values"]) == 2 and len(rows["untrained"]["values"]) == 6
    assert rows["kinds and degrees"]["value"] > 0.9  # a line has two ends
    assert result.verdict in str(result)
    assert json.loads((run.path / "evaluation-folds.json").read_text())["task"] == "folds"
    found = selfsup.embed(run, rings, tmp_path / "v.npy")
    assert (found.used, found.dim) == (60, np.load(tmp_path / "v.npy").shape[1])
    assert "<img" in run.report().read_text()


def test_nodes(town, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = selfsup.pretrain(town, steps=4, out="run", quiet=True)
    assert tasks.suggested("network", town, None) == tasks.CLASSIFY
    result = nodes.evaluate_task(run.path, town, probes=4)
    rows = {row["of"]: row["values"] for row in result.to_json()["scores"]}
    assert set(rows) == {"pretrained", "untrained", "raw node features"}
    assert all(len(values) == 4 for values in rows.values())
    told = run.evaluate(town, finetune=False, shots=(1,), seeds=2)
    assert told.score("linear")["labels"] == 16
    monkeypatch.setattr("selfsup.transfer.model.compare", lambda here, *rest: (len(here), 0))
    made = run.finetune(town, tmp_path / "m", controls=False)
    assert made.to_json()["max_abs_error"] == 3  # nodes of a ring: no graph goes with a model
    source = selfsup.data.open_source(town)
    (codes, names), (parts, kinds) = source.labels(), source.splits()
    said, test = made.model.predict(town)["label"], parts == kinds.index("test")
    right = said[test] == np.array(names)[codes[test]]
    assert len(said) == 60 and made.score("frozen linear probe") == right.mean()
    vectors = selfsup.load(run.path).embed(town)
    assert vectors.shape[0] == 60 and np.isfinite(vectors).all()
    with pytest.raises(SelfsupError, match="E503"):
        nodes._parts(None, nodes.torch.zeros(3), "here")
    with pytest.raises(SelfsupError, match="E201"):
        tasks.find("nods")
    assert "<img" in run.report().read_text()
