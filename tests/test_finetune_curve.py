"""Curves of few labels: the same draws for both sides, nothing of what tests, nothing undrawn."""

import numpy as np
import pytest
import small_encoder
import torch
from scipy.stats import t
from sklearn.datasets import load_digits

import selfsup
from selfsup import machine
from selfsup.cli.options import counts
from selfsup.data import open_source
from selfsup.demo import scenes
from selfsup.errors import SelfsupError
from selfsup.evaluate.features import extract
from selfsup.evaluate.linear import scale_of
from selfsup.evaluate.shots import few_labels
from selfsup.evaluate.verdict import worth
from selfsup.finetune.curve import Curve
from selfsup.finetune.result import conclude
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities.series import Series
from selfsup.randomness import mix
from selfsup.transfer import core, model, tasks

FOUND = load_digits()
DIGITS = (FOUND.images * 15.9).astype(np.uint8)
PIXELS = "pixels + PCA"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    small_encoder.export(folder / "vit", "vit_tiny", 8, dim=16, depth=1, heads=2, patch=4)
    small_encoder.export(folder / "seer", "vit_tiny", 32, dim=16, depth=1, heads=2, patch=8)
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    def effort(labels, affordable):
        two = core.Effort(labels, 2)
        return two if two.samples <= affordable else None

    monkeypatch.setattr(core, "effort", effort)
    monkeypatch.setattr(core, "least_steps", lambda labels: 2)
    monkeypatch.setattr(machine, "choose_precision", lambda *given: "fp32")
    monkeypatch.setattr(model, "compare", lambda *given: (0.0, 0))
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def curves(monkeypatch):
    """Those that are made, with the job behind them."""
    seen, honest = [], Curve.found
    monkeypatch.setattr(
        Curve, "found", lambda self, *given: seen.append(self) or honest(self, *given)
    )
    return seen


@pytest.fixture
def trained(monkeypatch):
    """What `tasks.train` is given: part, steps, seed, pretrained or not."""
    seen, honest = [], tasks.train

    def train(network, encoder, part, **settings):
        seen.append({"part": part} | settings)
        honest(network, encoder, part, **settings)

    monkeypatch.setattr(tasks, "train", train)
    return seen


def teach(*given, **settings):
    return selfsup.finetune(*given, **{"minutes": 1000, "shots": (2, 4), "seeds": 2} | settings)


def test_both_sides_get_the_same_samples_and_none_that_tests(home, tmp_path, curves, trained):
    data = {"images": DIGITS[:80], "labels": FOUND.target[:80] % 2}
    found = teach(home / "vit", data, tmp_path / "m", train="full")
    (curve,) = curves
    few = [call for call in trained if len(call["part"]) <= 8]
    assert len(few) == 2 * 2 * 2  # counts, draws, sides: too few labels to choose a rate with
    for ours, theirs in zip(few[::2], few[1::2], strict=True):
        assert (ours["pretrained"], theirs["pretrained"]) == (True, False)
        assert np.array_equal(ours["part"].rows, theirs["part"].rows)
        assert np.array_equal(ours["part"].targets, theirs["part"].targets)
        assert (ours["steps"], ours["seed"]) == (theirs["steps"], theirs["seed"])
        assert not set(ours["part"].rows) & set(curve.job.test.rows)
        assert len(set(np.bincount(ours["part"].targets))) == 1  # as many of each class
        assert np.array_equal(ours["part"].targets, FOUND.target[ours["part"].rows] % 2)
    draws = [set(call["part"].rows) for call in few[::2]]
    assert draws[0] != draws[1] and draws[0] < draws[2] and draws[1] < draws[3]
    told = found.to_json()
    assert [(row["shots"], row["of"], row["labels"]) for row in found.curve] == [
        (shots, of, 2 * shots) for shots in (2, 4) for of in ("pretrained", "from scratch", PIXELS)
    ]
    assert found.curve[0]["settings"]["trained"] == "full"
    for row in found.curve:
        assert len(row["values"]) == 2 and row["value"] == pytest.approx(np.mean(row["values"]))
    assert "2 labels per class" in str(found) and told["few"]["sentence"] in str(found)
    assert found.model.told["found"]["few"] == told["few"]  # is kept


def test_a_linear_layer_is_that_of_an_evaluation(home, tmp_path, curves):
    """`evaluate` draws and fits the same; the gain is of the same draws, over the best control."""
    data = {"images": DIGITS[:200], "labels": FOUND.target[:200] % 4}
    found = teach(home / "vit", data, tmp_path / "m", shots=(3, 9), seeds=3, seed=5)
    (curve,) = curves
    job = curve.job
    assert np.array_equal(job.train.whole, job.split.groups)
    rows = np.concatenate([job.train.rows, job.test.rows])
    both = extract(job.encoder, job.store, rows)
    n = len(job.train)
    y, y_test = (torch.from_numpy(part.targets) for part in (job.train, job.test))
    for count in (3, 9):
        ours, theirs, plain = (row for row in found.curve if row["shots"] == count)
        expected = [
            few_labels(
                both[:n], y, both[n:], y_test, 4, count, mix(5, i), scale_of(both[:n])
            ).mean()
            for i in range(3)
        ]
        assert ours["values"] == pytest.approx(expected)
        x, other = job.plain
        expected = [
            few_labels(x, y, other, y_test, 4, count, mix(5, i), scale_of(x, common=True)).mean()
            for i in range(3)
        ]
        assert plain["values"] == pytest.approx(expected)
        control = max((theirs, plain), key=lambda row: row["value"])
        gains = np.subtract(ours["values"], control["values"])
        half = t.ppf(1 - 0.025 / 2, 2) * gains.std(ddof=1) / np.sqrt(3)  # the better of two counts
        assert ours["gain"]["control"] == control["of"]
        assert ours["gain"]["value"] == pytest.approx(gains.mean())
        drawn, whole = ours["gain"]["value"] - ours["gain"]["low"], half
        assert drawn > whole, "the test samples are another chance"
    lines = {of: {r["labels"]: r["value"] for r in found.curve if r["of"] == of}
             | {n: found.score("frozen linear probe" if of == "pretrained" else of)}
             for of in ("pretrained", "from scratch", PIXELS)}  # fmt: skip
    expected = worth(lines.pop("pretrained"), list(lines.values()))
    assert found.to_json()["few"]["labels_worth"] == [one.to_json() for one in expected]


def test_few_labels_speak_where_all_of_them_say_nothing():
    task, settings = tasks.Regress(0.0, 1.0), {"trained": "head", "labels": 90}
    scores = [{"of": of, "value": 0.5} for of in ("frozen linear probe", "from scratch")]

    def verdict(low, few):
        gains = [{"over": "from scratch", "low": low, "high": 0.2}]
        few = {"sentence": "With 10 labels: R2 0.4.", "gain": few}
        return conclude(task, "frozen linear probe", scores, gains, settings, few)

    alone, both, none = verdict(-0.1, True), verdict(0.1, True), verdict(-0.1, False)
    assert (alone["gain"], both["gain"], none["gain"]) == (True, True, False)
    head = "Pretraining helps where labels are few. With 10 labels: R2 0.4. Frozen linear probe"
    assert alone["sentence"].startswith(head) and "not clearly different" in alone["sentence"]
    assert all(one["sentence"].endswith(". With 10 labels: R2 0.4.") for one in (both, none))


def test_numbers_that_are_not_drawn_say_nothing(home, tmp_path, curves):
    """Not through the unit of the answers, nor the learning rate of the control."""
    numbers = DIGITS[:100].mean((1, 2)) / 7

    def run(numbers):
        return teach(home / "vit", {"images": DIGITS[:100], "labels": numbers}, tmp_path / "m",
                     task="regress", shots=(3, 12))  # fmt: skip

    first = run(numbers)
    (curve,) = curves
    seen = np.concatenate([curve.drawn(12, mix(0, i)) for i in range(2)])
    undrawn = np.setdiff1d(np.arange(len(curve.train)), seen)
    other = numbers.copy()
    other[curve.train.rows[undrawn]] += 1000
    second = run(other)
    assert [row["values"] for row in first.curve] == [row["values"] for row in second.curve]
    assert first.score("frozen linear probe") != second.score("frozen linear probe")
    assert {row["labels"] for row in first.curve} == {3, 12} and len(undrawn) > 50
    assert "12 labels" in str(first) and "per class" not in str(first)


def test_masks(home, tmp_path, trained, curves):
    """Whole pictures are drawn, and drawn anew for the intervals."""
    folder = scenes(tmp_path / "scenes", 25)
    found = teach(home / "seer", folder / "pictures", tmp_path / "m", labels=folder / "masks",
                  train="full", shots=(3,))  # fmt: skip
    few = found.to_json()["few"]
    assert few["sentence"] in found.verdict and str(found).count(few["sentence"]) == 1
    assert found.curve[0]["gain"]["interval"] == "t over 2 seeds and bootstrap over test samples"
    assert [row["of"] for row in found.curve] == [
        "pretrained",
        "from scratch",
        "untrained",
        "colour of the pixel",
    ]
    few = [call["part"].rows.tolist() for call in trained if len(call["part"]) == 3]
    drawn = [curves[0].drawn(3, mix(0, i)) for i in range(2)]
    expected = [curves[0].train.rows[places].tolist() for places in drawn]
    assert [rows for rows in few if rows not in expected] == [] and expected[0] in few


def test_forecasts(tmp_path, curves):
    random, time = np.random.default_rng(0), np.arange(900)
    wave = 10 + 3 * np.sin(2 * np.pi * time / 24)
    noise = random.normal(size=900)
    wave[100:130] = noise[100:130] = np.nan  # futures of which nothing is known are not drawn
    path = tmp_path / "waves.csv"
    rows = [f"{a},{b}\n".replace("nan", "") for a, b in zip(wave, noise, strict=True)]
    path.write_text("wave,noise\n" + "".join(rows))
    modality = Series()
    modality.learn(open_source(path).for_training())
    card = Card("series", "dilated_small", 48, {"depth": 2}, (0.0,), (1.0,), state=modality.state)
    encoder = LoadedEncoder(rebuild(card, modality, 0), card, modality)
    found = teach(encoder, path, tmp_path / "m", horizon=6, train="head", shots=(5, 50))
    last = [row for row in found.curve if row["of"] == "last value"]
    assert [row["values"] for row in last] == [[found.score("last value")] * 2] * 2
    (curve,) = curves
    assert len(curve.places) < len(curve.train)
    futures = curve.train.targets[curve.places][:, :-2]  # then come level and spread
    assert np.isfinite(futures).any((1, 2)).all() and np.isnan(futures).any()
    ours = {row["shots"]: row for row in found.curve if row["of"] == "pretrained"}
    assert ours[50]["value"] < ours[5]["value"]  # errors
    control = ours[50]["gain"]["control"]
    theirs = next(r for r in found.curve if r["shots"] == 50 and r["of"] == control)
    assert ours[50]["gain"]["value"] == pytest.approx(theirs["value"] - ours[50]["value"])
    assert theirs["value"] == min(r["value"] for r in found.curve
                                  if r["shots"] == 50 and r["of"] != "pretrained")  # fmt: skip


def test_what_does_not_fit_is_left_out_and_said(home, tmp_path, curves):
    data = {"images": DIGITS[:80], "labels": FOUND.target[:80] % 2}
    found = teach(home / "vit", data, tmp_path / "m", shots=(2, 500), minutes=1e-6)
    told = found.to_json()
    assert "few" not in told and found.curve == [] and found.path.exists()
    assert [note for note in told["notes"] if "leaves out" in note] == [
        "The curve leaves out 500 labels per class: too few are there.",
        "The curve leaves out 2 labels per class: it would take longer than the time given "
        "(minutes).",
    ]
    (curve,) = curves
    one = curve._affordable(4, 1e9)
    assert one[0] == 2
    trials = len(curve.task.scratch_rates) + 1
    samples = one[1].samples
    assert curve._affordable(4, samples * (1 + trials))[0] == 1  # one draw rather than none
    assert curve._affordable(4, samples * (1 + trials) - 1) == (0, None)
    alone = teach(home / "vit", data, tmp_path / "m", shots=(2,), seeds=1, controls=False)
    assert [row["of"] for row in alone.curve] == ["pretrained", "from scratch"]
    assert all(row["interval"] == "bootstrap over test samples" for row in alone.curve)


def test_bad_counts_are_refused(home, tmp_path):
    assert counts("1,10, 100") == (1, 10, 100)
    for bad in ("", "a", "0,1"):
        with pytest.raises(SelfsupError, match="E201"):
            counts(bad)
    with pytest.raises(SelfsupError, match="E201"):
        teach(home / "vit", DIGITS, tmp_path / "m", shots=(0, 5))
