"""Ridge regression against scikit-learn's, parts, and what is suggested; molecules at large."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

import selfsup
from selfsup.data import open_source
from selfsup.errors import SelfsupError
from selfsup.evaluate import regress, tasks
from selfsup.evaluate.interval import over_seeds


def some(n: int = 60, d: int = 8, seed: int = 0):
    torch.manual_seed(seed)
    x = torch.randn(n, d, dtype=torch.float64)
    return x, x @ torch.randn(d, dtype=torch.float64) + 0.5 * torch.randn(n, dtype=torch.float64)


@pytest.mark.parametrize("n", [60, 6])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 100.0])
def test_ridge_against_scikit_learn(n, strength):
    x, y = some()
    (guess,) = regress.fits(x[:n], y[:n], (strength,))
    ours = guess(x)
    theirs = Ridge(alpha=strength * n).fit(x[:n].numpy(), y[:n].numpy()).predict(x.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-8)


def test_agreement_is_spearman():
    x, y = some()
    guess = (x[:, 0] * 3).round()  # with equal ones
    assert regress.measures(guess, y)["spearman"] == pytest.approx(spearmanr(guess, y).statistic)
    assert regress.measures(torch.zeros(5), y[:5])["spearman"] == 0
    told = regress.measures(y + 1, y)
    assert told["spearman"] == pytest.approx(1) and told["rmse"] == pytest.approx(1)


def test_the_gain_is_of_pairs():
    x, y = (v.numpy() for v in some(400))
    ours, near, far = (regress.ranks(v) for v in (y + x[:, 0], y + x[:, 1], x[:, 2]))
    wanted = spearmanr(ours, y).statistic - spearmanr(far, y).statistic
    found = regress.gained(ours, far[None], regress.ranks(y))
    assert found.value == pytest.approx(wanted) and found.low > 0
    assert regress.gained(ours, ours[None], regress.ranks(y)).high == 0
    one = regress.gained(ours, near[None], regress.ranks(y))
    two = regress.gained(ours, np.stack([near, far]), regress.ranks(y))
    assert two.half > 5 * one.half  # the two differ by themselves
    alone = regress.gained(near, None, regress.ranks(y))
    assert alone.low < spearmanr(near, y).statistic < alone.high <= 1


def test_the_gain_with_few_labels_is_of_the_same_draws():
    draws = np.random.default_rng(0)
    y, luck = draws.normal(size=300), draws.normal(size=(3, 300))
    theirs, ours = (np.stack([regress.ranks(y * up + x) for x in luck]) for up in (0.5, 1.0))
    found = regress.gained(ours, theirs, regress.ranks(y))
    each = [spearmanr(a, y).statistic - spearmanr(b, y).statistic
            for a, b in zip(ours, theirs, strict=True)]  # fmt: skip
    assert found.value == pytest.approx(np.mean(each)) and found.low > 0
    assert found.half > over_seeds(each).half, "the test samples are another chance"
    assert regress.gained(ours, theirs, regress.ranks(y), among=3).half > 1.2 * found.half
    other = regress.gained(ours, theirs[[1, 2, 0]] * [[1], [1], [-1]], regress.ranks(y))
    assert other.half > 5 * found.half  # one draw of labels taught theirs nothing
    four = regress.gained(ours[0, :4], -ours[:1, :4], regress.ranks(y[:4]))
    assert (four.low, four.high) == (-2, 2)


def test_the_strength_is_chosen_on_what_does_not_teach(monkeypatch):
    """Labels of the test part are never seen, those of the held-out part choose and then teach."""
    x, y = some(200)
    parts = regress._parts(np.arange(150), 50, 0)
    assert [len(p) for p in parts[0]] == [100, 50] and len(parts) == 1
    folds = regress._parts(np.arange(53), 3, 0)
    assert len(folds) == 5 and sorted(np.concatenate([h for _, h in folds])) == list(range(53))
    assert all(not set(a) & set(b) for a, b in folds)
    clips = np.arange(60) // 6
    whole = regress._parts(clips, 0, 0)
    assert len(whole) == 5 and all(len(set(clips[held])) == 2 for _, held in whole)
    assert all(not set(clips[a]) & set(clips[b]) for a, b in whole)
    assert len(regress._parts(np.zeros(10, int), 0, 0)) == 5  # one recording: by clips
    fitted = []
    true = regress.fits
    monkeypatch.setattr(regress, "fits", lambda x, y, *s: fitted.append(len(y)) or true(x, y, *s))
    regress.foretold(x[:150], y[:150], x[150:], parts)
    assert fitted == [100, 150]


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    """Chains of carbons with an oxygen now and then: the number is that of the carbons."""
    path = tmp_path_factory.mktemp("molecules") / "a.csv"
    draws = np.random.default_rng(0)
    rows, parts = [], ["train"] * 7 + ["valid"] * 2 + ["test"]
    for i in range(240):
        chain = "".join(draws.choice(["C", "C", "O"], size=2 + i % 30))
        rows.append(f"{chain},{chain.count('C') + 0.01 * draws.random():.4f},{parts[i % 10]}")
    path.write_text("\n".join(["smiles,logS,split", *dict.fromkeys(rows)]) + "\n")
    return path


def test_molecules(molecules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = selfsup.pretrain(molecules, steps=3, batch=16, out="run", quiet=True)
    assert tasks.suggested("graph", molecules, None) == "regress"
    result = regress.evaluate_task(run.path, molecules)
    told = result.to_json()
    rows = {row["of"]: row for row in told["scores"]}
    assert set(rows) == {"pretrained", "untrained", "kinds and degrees"}
    assert rows["kinds and degrees"]["spearman"] > 0.9  # it counts carbons
    assert {row["labels"] for row in told["curve"]} == {10, 100}
    assert result.verdict in str(result) and "few labels" in str(result)
    for row in (row for row in told["curve"] if row["of"] == "pretrained"):
        gain = row["gain"]
        theirs = next(r for r in told["curve"]
                      if (r["of"], r["labels"]) == (gain["control"], row["labels"]))  # fmt: skip
        assert gain["value"] == pytest.approx(row["value"] - theirs["value"])
        assert len(row["values"]) == 3 and f"{gain['value']:+.3f} ± " in str(result)
    assert json.loads((run.path / "evaluation-regress.json").read_text())["task"] == "regress"


def test_what_is_suggested(tmp_path, molecules):
    def table(values):
        path = tmp_path / "a.csv"
        texts = [f"a review of {i} words that differ {'very ' * (i % 5)}" for i in range(80)]
        rows = [f"{t},{v}" for t, v in zip(texts, values, strict=True)]
        path.write_text("\n".join(["text,label", *rows]) + "\n")
        return regress.suits("text", open_source(path), None)

    assert table(range(80)) and table([i / 8 for i in range(80)])
    assert not table([i % 30 for i in range(80)])  # as many classes
    assert not table([i / 2 % 4 for i in range(80)])  # eight grades
    assert not table([f"class {i}" for i in range(80)])
    with pytest.raises(SelfsupError, match="E501"):
        regress.evaluate_task(_encoder(molecules), _unlabelled(tmp_path))


def _encoder(molecules):
    from selfsup.load import Card, LoadedEncoder, rebuild
    from selfsup.modalities.text import Text

    card = Card("text", "bert_micro", 16, {"dim": 16, "depth": 1, "heads": 2}, (0.0,), (1.0,))
    return LoadedEncoder(rebuild(card, Text(tokens="bytes"), 0), card, Text(tokens="bytes"))


def _unlabelled(tmp_path):
    (tmp_path / "plain.txt").write_text("words and words\n" * 200)
    return tmp_path / "plain.txt"


def test_parts(molecules):
    source = open_source(molecules)
    values, name = regress.numbers_of(source)
    assert name == "logS"
    usable = np.arange(len(source))
    prints = [str(i).encode() for i in usable]
    train, held, test, _ = regress.parts_of(source, values, usable, prints, 0)
    every = np.concatenate([train, held, test])
    assert len(set(every.tolist())) == len(every) == len(source) and len(held) > len(test)
    values[train[:5]] = np.nan
    again = regress.parts_of(source, values, usable, prints, 0)[0]
    assert len(again) == len(train) - 5


def test_copies_of_test_samples_neither_teach_nor_choose(molecules):
    source = open_source(molecules)
    values, _ = regress.numbers_of(source)
    usable = np.arange(len(source))
    prints = [str(i).encode() for i in usable]
    train, held, test, _ = regress.parts_of(source, values, usable, prints, 0)
    prints[held[3]] = prints[test[0]]
    prints[train[3]] = prints[test[1]]
    fewer, chosen, same, notes = regress.parts_of(source, values, usable, prints, 0)
    assert chosen.tolist() == np.delete(held, 3).tolist() and same.tolist() == test.tolist()
    assert fewer.tolist() == np.delete(train, 3).tolist()
    told = " ".join(notes)
    assert "1 training samples were dropped" in told and "1 validation samples were" in told
    kin = usable.copy()
    kin[[held[5], train[5]]] = test[2]
    source.groups = lambda: kin
    fewer, chosen, same, _ = regress.parts_of(source, values, usable, prints, 0)
    assert chosen.tolist() == np.delete(held, [3, 5]).tolist() and same.tolist() == test.tolist()
    assert fewer.tolist() == np.delete(train, [3, 5]).tolist()
