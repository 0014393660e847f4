"""Graphs and nodes through all verbs: pretrain, embed, export, report, and both protocols."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import selfsup
import selfsup.data
from selfsup.errors import SelfsupError
from selfsup.evaluate import folds, nodes, rounds, shots, tasks
from selfsup.evaluate.interval import Interval


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
    with pytest.raises(SelfsupError, match="no task 'fold'"):
        run.evaluate(rings, task="fold")
    result = run.evaluate(rings)
    rows = {row["of"]: row for row in result.to_json()["scores"]}
    assert len(rows["pretrained"]["values"]) == 2 and len(rows["untrained"]["values"]) == 6
    assert rows["kinds and degrees"]["value"] > 0.9  # a line has two ends
    few = result.to_json()["curve"]
    assert [row["shots"] for row in few] == [1] * 3 + [5] * 3 + [10] * 3
    assert [row["labels"] for row in few[::3]] == [2, 10, 20]
    assert few[0]["gain"]["control"] in rows and "10 labels per class" in str(result)
    assert result.verdict in str(result)
    assert json.loads((run.path / "evaluation-folds.json").read_text())["task"] == "folds"
    further = selfsup.pretrain(rings, steps=2, batch=16, out="further", from_run=run, quiet=True)
    monkeypatch.setattr(folds, "FEW", ())
    told = further.evaluate(rings, old=rings, seeds=2).to_json()
    again = {row["of"]: row["values"] for row in told["scores"]}
    assert again["started from"] == rows["pretrained"]["values"]
    gain = 100 * (np.mean(again["pretrained"]) - np.mean(again["started from"]))
    since = told["scores"][0]["since"]
    assert since["control"] == "started from" and 100 * since["value"] == pytest.approx(gain)
    assert told["forgot"]["low"] <= told["forgot"]["value"] <= told["forgot"]["high"]
    kept = json.loads((further.path / "evaluation-folds.json").read_text())
    assert (kept["scores"][0]["since"], kept["forgot"]) == (since, told["forgot"])
    assert f"The linear probe: {gain:+.1f} points beside run, from which" in told["notes"][-2]
    assert "on the old data" in told["notes"][-1]
    assert told["verdict"]["control"] in ("untrained", "kinds and degrees")
    found = selfsup.embed(run, rings, tmp_path / "v.npy")
    assert (found.used, found.dim) == (60, np.load(tmp_path / "v.npy").shape[1])
    assert "<img" in run.report().read_text()


def test_intervals_of_folds_are_corrected_and_hold_the_networks():
    one, several = np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 2, 3], [2, 3, 4], [3, 4, 5]])
    t, plain = 4.302653, 1 / 3**0.5  # two degrees; standard error of the mean
    corrected = t * plain * (1 + 3 / 2) ** 0.5  # three folds: one tests, two teach
    assert folds.over_folds(one, 1 / 2).half == pytest.approx(corrected, rel=1e-6)
    found = folds.over_folds(several, 1 / 2)
    assert found.value == 3 and found.half == pytest.approx(np.hypot(corrected, t * plain))


def test_few_labels_of_a_fold_are_drawn_anew_and_read_by_another_hand():
    from sklearn.linear_model import LogisticRegression

    random, y = np.random.default_rng(0), np.arange(60) % 3
    x = random.normal(size=(60, 5)) + 2 * np.eye(5)[y]
    test = np.isin(np.arange(60), np.arange(0, 60, 4))
    teach, asked = x[~test], x[test]
    to = folds.torch.from_numpy
    both = to(teach).float(), to(asked).float()
    found = folds._accuracies(both, to(y), to(test), [1], 7, 2, np.arange(60))
    mean, deviation, right = teach.mean(0), teach.std(0), []
    for i in range(3):
        rows = shots.draw(y[~test], 1, folds.mix(7, 2, i))
        probe = LogisticRegression(C=1 / (0.1 * len(rows)), tol=1e-8)  # the strength of one label
        probe.fit(((teach - mean) / deviation)[rows], y[~test][rows])
        right.append((probe.predict((asked - mean) / deviation) == y[test]).mean())
    assert found[1] == pytest.approx(np.mean(right)) and len(set(right)) > 1
    assert found[0] >= found[1]
    assert folds._accuracies(both, to(y), to(test), [1], 7, 3, np.arange(60))[1] != found[1]


def test_few_labels_speak_where_all_of_them_say_nothing():
    def over(values):
        return Interval(values.mean(), values.mean() - 0.02, values.mean() + 0.02, "given")

    encoder = SimpleNamespace(card=SimpleNamespace(to_json=dict))

    def sentence(all_labels, few):
        one = {of: np.array([[v]]) for of, v in all_labels.items()}
        curve = [
            row
            for count, ours in few.items()
            for row in rounds.point(count, 3 * count, {
                "pretrained": np.array([[ours]]), "untrained": np.array([[0.3]]),
                "MFCC": np.array([[0.2]]),
            }, over)
        ]  # fmt: skip
        shown = {of: over(v) for of, v in one.items()}
        gain = lambda of: over(one["pretrained"] - one[of])  # noqa: E731
        return rounds.conclude("folds", {of: [0.5] for of in one}, shown, gain, "", [], encoder,
                               "here", 0.0, curve)  # fmt: skip

    level = {"pretrained": 0.8, "untrained": 0.5, "MFCC": 0.81}
    found = sentence(level, {1: 0.31, 5: 0.4, 10: 0.35})
    assert found.gain and "with 5 labels per class (+8.0 to +12.0); with all labels" in str(found)
    assert "helps where labels are few: +10.0 points over the untrained network" in found.verdict
    assert "1 label per class" in str(found) and "+1.0 ± 2.0 (untrained)" in str(found)
    assert not sentence(level, {1: 0.31}).gain
    assert "over the start" not in str(found)
    values = {of: np.array([[v]]) for of, v in {**level, "started from": 0.7}.items()}
    row = rounds.point(5, 15, values, over)[0]
    assert row["gain"]["control"] == "MFCC" and row["since"]["value"] == pytest.approx(0.1)
    sure = sentence(level | {"pretrained": 0.9}, {5: 0.4})
    assert sure.verdict.startswith("Pretraining helped: 90.0 %")


def test_drawn_folds_keep_equal_samples_together():
    class Place:
        place = "here"

        def groups(self):
            return None

    y = np.arange(200) % 2
    single, kind, notes = folds._folds(Place(), np.arange(200), y, np.arange(200), 0)
    assert sorted(np.concatenate(single)) == list(range(200)) and "drawn" in kind and not notes
    assert all(len(fold) == 20 and y[fold].sum() == 10 for fold in single)
    groups = np.arange(200) // 4 * 2 + y  # each sample twice
    pairs = folds._folds(Place(), np.arange(200), y, groups, 0)[0]
    assert sorted(np.concatenate(pairs)) == list(range(200))
    assert all(not set(groups[fold]) & set(np.delete(groups, fold)) for fold in pairs)
    assert all(len(fold) == 20 and y[fold].sum() == 10 for fold in pairs)
    with pytest.raises(SelfsupError, match="2 different samples"):
        folds._folds(Place(), np.arange(200), y, np.arange(200) % 4, 0)
    pairs, groups = [np.array([0, 1]), np.array([2, 3])], np.array([0, 0, 0, 1])
    assert folds._twins(pairs, groups, np.array([0, 1, 2, 3])) == [
        "3 samples are tested while an equal one teaches"
    ]
    assert folds._twins(pairs, groups, groups * 0) == [
        "3 samples are tested while an equal one teaches",
        "1 samples are tested while another of their recording or group teaches",
    ]


def test_classical_features_of_a_fold_know_only_what_teaches(rings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = selfsup.pretrain(rings, steps=1, batch=16, out="run", quiet=True)
    encoder, seen = selfsup.load(run.path), []

    def fitted(batches):
        seen.append(np.concatenate([batch.indices.numpy() for batch in batches]))
        return type(encoder.modality).baseline.__get__(encoder.modality)

    monkeypatch.setattr(encoder.modality, "fitted", fitted)
    monkeypatch.setattr(folds, "FEW", ())
    result = folds.evaluate_task(encoder, rings, seeds=2)
    expected = [[*range(20, 60)], [*range(20), *range(40, 60)]]
    assert [rows.tolist() for rows in seen] == expected
    told = result.to_json()
    assert "corrected t over 2 folds and t over 2 networks" in told["scores"][1]["interval"]
    assert told["notes"] and "an equal one teaches" in told["notes"][0]  # seven sizes of rings


def test_noise_is_not_certain_of_nodes(town, tmp_path, monkeypatch):
    """Networks that are right half of the time, by chance: twenty probes of each say no more."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    run = selfsup.pretrain(town, steps=1, out="run", quiet=True)
    encoder = selfsup.load(run.path)

    def drawn(network, *_):
        x = random.normal(size=(60, 12)) if network is encoder else alike + random.normal() / 10
        return nodes.torch.from_numpy(x)

    def right(x, y, rows, seed):
        found = (x[rows[2], 0] > x[:, 0].median()).double().numpy()
        found[seed % len(found)] = 1  # hardly another answer with another seed
        return found

    monkeypatch.setattr(nodes, "extract", drawn)
    monkeypatch.setattr(nodes, "probed", right)
    told = []
    for _ in range(20):
        alike = random.normal(size=(60, 12))
        told.append(nodes.evaluate_task(encoder, town).to_json())
    claims = sum(t["gain"]["low"] > 0 or t["gain"]["high"] < 0 for t in told)
    assert claims <= 3
    assert "test samples" in told[0]["gain"]["kind"]
    assert "test samples" in told[0]["scores"][0]["interval"]


def test_nodes(town, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = selfsup.pretrain(town, steps=4, out="run", quiet=True)
    assert tasks.suggested("network", town, None) == tasks.CLASSIFY
    assert run.read_json("data/manifest.json")["judged_by"] == str(town)
    result = nodes.evaluate_task(run.path, town, probes=4)
    rows = {row["of"]: row["values"] for row in result.to_json()["scores"]}
    assert set(rows) == {"pretrained", "untrained", "raw node features"}
    assert all(len(values) == 4 for values in rows.values())
    told = run.evaluate(town, finetune=False, shots=(1,), seeds=2)
    assert told.score("linear")["labels"] == 16
    monkeypatch.setattr("selfsup.transfer.model.compare", lambda here, *rest: (len(here), 0))
    made = run.finetune(town, tmp_path / "m", controls=False)
    assert made.to_json()["max_abs_error"] == 3  # nodes of a ring: no graph goes with a model
    kept = run.read_json("evaluation-finetune-classify.json")  # for the report
    assert kept["verdict"] == made.to_json()["verdict"] and kept["text"] == str(made)
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
