"""From labels to a model that answers: every task on small data, whole or not at all."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import small_encoder
from PIL import Image
from sklearn.datasets import load_digits

import selfsup
from selfsup.data import open_source
from selfsup.demo import scenes
from selfsup.errors import SelfsupError
from selfsup.finetune import COLOUR, FEW, PROBE, TUNED, how_much
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities.series import Series
from selfsup.stop import Stopped, stop
from selfsup.transfer import core, model, tasks

ROOT = Path(__file__).resolve().parent.parent
FOUND = load_digits()
DIGITS = (FOUND.images * 15.9).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    small_encoder.export(folder / "vit", "vit_tiny", 8, dim=16, depth=2, heads=2, patch=4)
    small_encoder.export(folder / "seer", "vit_tiny", 32, dim=16, depth=1, heads=2, patch=8)
    for i in range(120):
        place = folder / "photos" / ("odd" if FOUND.target[i] % 2 else "even")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS[i]).save(place / f"{i:03}.png")
    (folder / "photos" / "odd" / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    monkeypatch.setattr(core, "LEAST_STEPS", 4)
    monkeypatch.setattr(core, "MOST_STEPS", 6)
    monkeypatch.setattr(core, "LEAST_EPOCHS", 1)
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def unproved(monkeypatch):
    """Without the clean process, which one test runs."""
    monkeypatch.setattr(model, "compare", lambda *given: (0.0, 0))


def classes(n=120):
    return {"images": DIGITS[:n], "labels": FOUND.target[:n] % 2}


def test_short_time_trains_a_linear_layer_alone(home, tmp_path, unproved):
    found = selfsup.finetune(home / "vit", classes(400), tmp_path / "m", minutes=1e-6).to_json()
    assert found["settings"]["trained"] == "head" and "time" in found["settings"]["reason"]
    assert "from scratch" not in {row["of"] for row in found["scores"]}
    assert any("from scratch is left out" in note for note in found["notes"])
    asked = selfsup.finetune(
        home / "vit", classes(400), tmp_path / "n", train="lora", minutes=1e-6
    ).to_json()
    assert asked["settings"]["trained"] == "lora"  # what was asked for is done, however long


def test_a_model_answers_the_same_in_a_clean_process(home, tmp_path):
    found = selfsup.finetune(home / "vit", home / "photos", tmp_path / "m", train="lora",
                             minutes=0.01)  # fmt: skip
    assert found.to_json()["max_abs_error"] < 1e-5
    assert "found 121 = used 120 + skipped 1 (1 not_an_image; `selfsup" in str(found)
    out = tmp_path / "p.csv"
    words = [sys.executable, "-m", "selfsup", "predict", tmp_path / "m", home / "photos"]
    done = subprocess.run(
        [*words, "--out", out, "--json"], cwd=ROOT, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    assert told["found"] == 121 == told["used"] + told["skipped"] and told["skipped"] == 1
    assert json.loads(Path(told["skipped_list"]).read_text())["name"].endswith("bad.png")
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "path", "label", "p_even", "p_odd"]
    paths = [home / "photos" / row["path"] for row in rows]
    here = found.model.predict(paths)
    assert here["label"].tolist() == [row["label"] for row in rows]
    shares = np.array([[float(row[f"p_{c}"]) for c in ("even", "odd")] for row in rows])
    np.testing.assert_allclose(shares[:, 0], here["p_even"], atol=1e-6)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    # the encoder in it is whole, and can be loaded alone
    assert list(selfsup.load(tmp_path / "m").encoder.state_dict()) == list(
        selfsup.load(home / "vit").encoder.state_dict()
    )
    assert {p.name for p in tmp_path.iterdir()} == {
        "m", "cache", "p.csv", "p.csv.json", "p.csv.skipped.jsonl"
    }  # fmt: skip


def test_scores_stand_beside_their_controls(home, tmp_path, unproved):
    out = tmp_path / "my model"
    found = selfsup.finetune(home / "vit", classes(), out, train="full", minutes=0.01)
    told = found.to_json()
    assert [row["of"] for row in told["scores"]] == [
        TUNED, PROBE, "from scratch", "pixels + PCA"
    ]  # fmt: skip
    assert [row["over"] for row in told["gains"]] == [PROBE, "from scratch", "pixels + PCA"]
    for row in told["scores"]:
        assert row["low"] <= row["value"] <= row["high"] and row["of"] in str(found)
    assert found.score() == told["scores"][0]["value"] and "full" in found.verdict
    assert str(found).endswith(f"selfsup predict '{out}' DATA")
    assert told["settings"][TUNED]["layer_decay"] == core.LAYER_DECAY
    alone = selfsup.finetune(home / "vit", classes(), tmp_path / "m", train="head", controls=False)
    assert [row["of"] for row in alone.to_json()["scores"]] == [PROBE]
    assert alone.score(PROBE) == found.score(PROBE)


def test_numbers_are_seen_and_answered_in_their_unit(home, tmp_path, unproved):
    bright = DIGITS[:150].mean((1, 2)) / 7
    found = selfsup.finetune(home / "vit", {"images": DIGITS[:150], "labels": bright},
                             tmp_path / "m", train="full", minutes=0.01)  # fmt: skip
    told = found.to_json()
    assert told["task"] == "regress" and "numbers" in told["reason"] and found.score() > 0.5
    said = found.model.predict(DIGITS[150:200])["number"]
    assert np.corrcoef(said, DIGITS[150:200].mean((1, 2)))[0, 1] > 0.8
    with pytest.raises(SelfsupError, match="no labels"):
        selfsup.finetune(home / "vit", home / "photos", tmp_path / "n", task="regress")


def test_other_data_test(home, tmp_path, unproved):
    other = {"images": DIGITS[200:260], "labels": FOUND.target[200:260] % 3}  # 2 is not known
    found = selfsup.finetune(home / "vit", classes(), tmp_path / "m", test=other, train="head",
                             controls=False)  # fmt: skip
    told = found.to_json()
    assert told["split"]["train"] == 120 and told["split"]["test"] == 60
    x = selfsup.load(home / "vit")
    said = np.array([int(v) for v in found.model.predict(other["images"])["label"]])
    assert set(said) <= {0, 1} and x.dim == 16  # classes are those of the model
    assert found.score(PROBE) == pytest.approx((said == other["labels"]).mean())
    with pytest.raises(SelfsupError) as caught:
        selfsup.finetune(home / "vit", classes(), tmp_path / "n", test=classes(40))
    assert caught.value.code == "E502"


def test_masks(home, tmp_path, unproved):
    folder = scenes(tmp_path / "scenes", 40)
    found = selfsup.finetune(home / "seer", folder / "pictures", tmp_path / "m",
                             labels=folder / "masks", train="full", minutes=0.01)  # fmt: skip
    told = found.to_json()
    assert told["task"] == "segment" and told["metric"] == "mean IoU"
    assert {row["of"] for row in told["scores"]} == {
        TUNED, PROBE, "from scratch", "untrained", COLOUR
    }  # fmt: skip
    for row in told["scores"]:
        assert np.mean([*row["classes"].values()]) == pytest.approx(row["value"])
    assert set(told["scores"][0]["classes"]) == {"0", "1"} and "of class  " in str(found)
    shown = np.asarray(Image.open(found.path / "masks.png"))  # 8 of 8: what was seen, is, was said
    assert shown.shape == (3 * 32, 8 * 32, 3)
    names = [path.name for path in sorted((folder / "masks").iterdir())]
    for seen, true, said in zip(*(np.hsplit(row, 8) for row in np.vsplit(shown, 3)), strict=True):
        (name,) = (
            n for n in names if (np.asarray(Image.open(folder / "pictures" / n)) == seen).all()
        )
        digit = np.asarray(Image.open(folder / "masks" / name)) == 1
        assert np.array_equal(true.any(-1), digit) and not true[~digit].any()
        assert {tuple(c) for c in said.reshape(-1, 3)} <= {(0, 0, 0), tuple(true[digit][0])}
    with pytest.raises(SelfsupError, match="E105"):  # a mask would be of two pictures
        selfsup.finetune(home / "seer", folder / "pictures", tmp_path / "n",
                         labels=folder / "masks", test=folder / "pictures")  # fmt: skip
    (found.path / "masks.png").unlink()  # a model does not need it
    selfsup.predict(found.path, folder / "pictures", tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["id", "path", "mask", "share_0", "share_1"]
    mask = np.asarray(Image.open(__import__("io").BytesIO(table["mask"][0].as_py())))
    assert mask.shape == (32, 32) and set(np.unique(mask)) <= {0, 1}
    assert (mask == 1).mean() == pytest.approx(table["share_1"][0].as_py())
    with pytest.raises(SelfsupError) as caught:
        selfsup.predict(found.path, folder / "pictures", tmp_path / "p.csv")
    assert caught.value.code == "E607"


def test_forecasts(tmp_path, unproved):
    random, t = np.random.default_rng(0), np.arange(1500)
    wave = 10 + 3 * np.sin(2 * np.pi * t / 24)
    path = tmp_path / "waves.csv"
    rows = [f"{a},{b}\n" for a, b in zip(wave, random.normal(size=1500), strict=True)]
    path.write_text("wave,noise\n" + "".join(rows))
    modality = Series()
    modality.learn(open_source(path).for_training())
    card = Card("series", "dilated_small", 48, {"depth": 3}, (0.0,), (1.0,), state=modality.state)
    encoder = LoadedEncoder(rebuild(card, modality, 0), card, modality)
    found = selfsup.finetune(encoder, path, tmp_path / "m", horizon=6, train="head", minutes=0.01)
    assert found.to_json()["task"] == "forecast"
    assert found.score(PROBE) < 0.7 < found.score("last value")
    said = found.model.predict(path)
    ahead = 10 + 3 * np.sin(2 * np.pi * np.arange(1500, 1506) / 24)
    np.testing.assert_allclose([said[f"wave+{k + 1}"][0] for k in range(6)], ahead, atol=1)


def test_how_much_is_trained_depends_on_the_labels(home):
    encoder, task = selfsup.load(home / "vit"), tasks.Classify(["a", "b"])
    assert how_much(task, encoder, FEW)[0] == "head"
    how, reason = how_much(task, encoder, FEW + 1)
    assert how == "lora" and str(FEW + 1) in reason
    assert how_much(task, encoder, 10**6)[0] == "full"


def test_what_is_something_else_is_not_replaced(home, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("mine")
    with pytest.raises(SelfsupError) as caught:
        selfsup.finetune(home / "vit", classes(), tmp_path / "m")
    assert caught.value.code == "E605" and (tmp_path / "m" / "thesis.txt").exists()
    with pytest.raises(SelfsupError) as caught:
        selfsup.load_model(tmp_path / "m")
    assert caught.value.code == "E608"
    with pytest.raises(SelfsupError) as caught:
        selfsup.finetune(home / "vit", DIGITS[:50], tmp_path / "n")
    assert caught.value.code == "E501"
    with pytest.raises(SelfsupError) as caught:
        selfsup.finetune(home / "vit", classes(), tmp_path / "n", train="some")
    assert caught.value.code == "E201"


def test_what_can_only_be_judged_is_pointed_to(home, tmp_path):
    for given in ({"task": "tokens"}, {"labels": "residues.fasta"}):
        with pytest.raises(SelfsupError) as caught:
            selfsup.finetune(home / "vit", classes(), tmp_path / "m", **given)
        assert caught.value.code == "E201"
        labels = "--labels residues.fasta " if "labels" in given else ""
        assert f"evaluate RUN DATA {labels}--task tokens" in caught.value.do
    with pytest.raises(SelfsupError, match="no task 'token'"):
        selfsup.finetune(home / "vit", classes(), tmp_path / "m", task="token")


def test_damaged_models_are_refused(home, tmp_path, unproved):
    selfsup.finetune(home / "vit", classes(), tmp_path / "m", train="head", controls=False)
    for name in ("head.safetensors", "encoder.safetensors", "model.json"):
        whole = (tmp_path / "m" / name).read_bytes()
        (tmp_path / "m" / name).write_bytes(whole[:-1] + b"?")
        with pytest.raises(SelfsupError) as caught:
            selfsup.load_model(tmp_path / "m")
        assert caught.value.code == "E603"
        (tmp_path / "m" / name).write_bytes(whole)
    (tmp_path / "m" / "head.safetensors").unlink()
    os.symlink(tmp_path / "m" / "model.json", tmp_path / "m" / "head.safetensors")
    with pytest.raises(SelfsupError, match="cannot be used"):
        selfsup.load_model(tmp_path / "m")


def test_a_signal_leaves_nothing_half_written(home, tmp_path, monkeypatch, unproved):
    honest = tasks.train

    def interrupted(*given, **settings):
        honest(*given, **settings)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(tasks, "train", interrupted)
    monkeypatch.setattr(stop, "signal", None)
    with pytest.raises(Stopped):
        selfsup.finetune(home / "vit", classes(), tmp_path / "m", train="full", minutes=0.01)
    stop.signal = None
    assert [p.name for p in tmp_path.iterdir()] in ([], ["cache"])


def test_predictions_go_on_after_an_interruption(home, tmp_path, unproved, monkeypatch):
    import importlib

    verb = importlib.import_module("selfsup.predict")
    monkeypatch.setattr(verb, "BLOCK", 16)
    selfsup.finetune(home / "vit", classes(), tmp_path / "m", train="head", controls=False)
    whole = selfsup.predict(tmp_path / "m", home / "photos", tmp_path / "a.parquet", batch=8)
    honest, count = verb._block, []

    def cut(*given):
        if len(count) == 3:
            raise Stopped("stopped")
        count.append(honest(*given))

    monkeypatch.setattr(verb, "_block", cut)
    with pytest.raises(Stopped):
        selfsup.predict(tmp_path / "m", home / "photos", tmp_path / "b.parquet", batch=8)
    monkeypatch.setattr(verb, "_block", honest)
    rest = selfsup.predict(tmp_path / "m", home / "photos", tmp_path / "b.parquet", batch=8)
    assert rest.resumed == 48 and rest.used == whole.used
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))
    again = selfsup.predict(tmp_path / "m", home / "photos", tmp_path / "b.parquet", batch=8)
    assert again.used == whole.used and again.seconds == 0
    with pytest.raises(SelfsupError) as caught:
        selfsup.predict(tmp_path / "m", DIGITS[:20], tmp_path / "b.parquet", batch=8)
    assert caught.value.code == "E605"


def test_equal_test_numbers_leave_json_that_every_reader_takes(home, tmp_path, unproved):
    taught = {"images": DIGITS[:60], "labels": FOUND.images[:60].mean((1, 2))}
    others = {"images": DIGITS[60:70], "labels": np.full(10, 2.5)}
    settings = {"train": "head", "controls": False, "task": "regress"}
    found = selfsup.finetune(home / "vit", taught, tmp_path / "m", test=others, **settings)
    assert np.isnan(found.score(PROBE))
    told = (tmp_path / "m" / "model.json").read_text()
    json.loads(told, parse_constant=pytest.fail)  # NaN is Python's alone


def test_a_gain_is_over_what_is_not_pretrained():
    """A fine-tuned model that is as good as its frozen probe can be better than all controls."""
    from selfsup.finetune.result import PROBE, TUNED, conclude
    from selfsup.transfer.tasks import Classify

    values = {TUNED: 0.9, PROBE: 0.89, "untrained": 0.5}
    scores = [{"of": of, "value": value} for of, value in values.items()]
    gains = [
        {"over": PROBE, "low": -0.02, "high": 0.04},
        {"over": "untrained", "low": 0.3, "high": 0.5},
    ]
    settings = {"trained": "all weights", "labels": 100}
    told = conclude(Classify(["a", "b"]), TUNED, scores, gains, settings)
    assert told["gain"] and f"not clearly different from {PROBE}" in told["sentence"]
    gains[1]["low"] = -0.1
    assert not conclude(Classify(["a", "b"]), TUNED, scores, gains, settings)["gain"]
    assert not conclude(Classify(["a", "b"]), TUNED, scores, gains[:1], settings)["gain"]


def waves(path, columns, gaps=0.0):
    """A wave and, 100 above it, another; a share of the values is missing."""
    random, t = np.random.default_rng(0), np.arange(600)
    values = {"a": np.sin(t / 4), "b": 100 + np.sin(t / 5)}
    rows = (
        ",".join("" if random.random() < gaps else f"{values[c][i]:.4f}" for c in columns)
        for i in range(600)
    )
    path.write_text("\n".join([",".join(columns), *rows]) + "\n")
    return path


def of_waves(path):
    modality = Series()
    modality.learn(open_source(path).for_training())
    card = Card("series", "dilated_small", 32, {"depth": 2, "dim": 8, "hidden": 8}, (0.0,), (1.0,),
                state=modality.state)  # fmt: skip
    return LoadedEncoder(rebuild(card, modality, 0), card, modality)


def test_forecasts_of_what_has_gaps(tmp_path, unproved):
    """No future of 24 steps is known whole."""
    path = waves(tmp_path / "gaps.csv", "ab", gaps=0.3)
    found = selfsup.finetune(of_waves(path), path, tmp_path / "m", horizon=24, train="head",
                             controls=False, shots=(20,), seeds=2, minutes=0.01)  # fmt: skip
    assert 0 < found.score(PROBE) < 1.2
    assert all(0 < row["value"] < 3 for row in found.curve)
    assert all(np.isfinite(values).all() for values in found.model.predict(path).values())


def test_columns_in_another_order_are_refused(tmp_path, unproved):
    path = waves(tmp_path / "ab.csv", "ab")
    found = selfsup.finetune(of_waves(path), path, tmp_path / "m", horizon=4, train="head",
                             controls=False)  # fmt: skip
    with pytest.raises(SelfsupError, match="another order") as caught:
        found.model.predict(waves(tmp_path / "ba.csv", "ba"))
    assert caught.value.code == "E105" and caught.value.do.endswith(": a, b")
    with pytest.raises(SelfsupError, match="another order"):
        selfsup.evaluate(found.model.encoder, tmp_path / "ba.csv")
    source = open_source(path)
    source.problems.add(b"broken.csv", "broken-row")
    assert found.model.task.samples(source).found == 2


def test_a_file_that_is_missing_is_no_shorter_answer(home, tmp_path, unproved):
    found = selfsup.finetune(home / "vit", classes(), tmp_path / "m", train="head", controls=False)
    path = home / "photos" / "even" / "000.png"
    assert len(found.model.predict([path])["label"]) == 1
    with pytest.raises(SelfsupError, match="nowhere") as caught:
        found.model.predict([path, home / "photos" / "nowhere.png"])
    assert caught.value.code == "E103"


def test_models_and_exports_do_not_replace_each_other(home, tmp_path, unproved):
    selfsup.finetune(home / "vit", classes(), tmp_path / "m", train="head", controls=False)
    with pytest.raises(SelfsupError, match="no export"):
        selfsup.export(home / "vit", out=tmp_path / "m")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "MANIFEST.json").write_text("{}")
    with pytest.raises(SelfsupError, match="no model"):
        selfsup.finetune(home / "vit", classes(), tmp_path / "e", train="head", controls=False)


def test_what_tests_is_told_apart(home, tmp_path, unproved):
    other = {"images": DIGITS[200:203], "labels": [0, 1, 7]}
    found = selfsup.finetune(home / "vit", classes(), tmp_path / "m", test=other, minutes=1e-6)
    told = found.to_json()
    assert any(note.startswith("1 test samples are of classes without") for note in told["notes"])
    assert (told["scores"][0]["low"], told["scores"][0]["high"]) == (0, 1)
    assert all(gain["low"] == -1 and gain["high"] == 1 for gain in told["gains"])
    for given in ({"horizon": 5}, {"test": home / "photos"}, {"labels": home / "photos"}):
        with pytest.raises(SelfsupError) as caught:
            selfsup.finetune(home / "vit", classes(), home / "photos" / "m", **given)
        assert caught.value.code == "E201"
    with pytest.raises(SelfsupError, match="E202"):
        selfsup.finetune(home / "vit", classes(), tmp_path / "n", task="transcribe")


def test_masks_of_frames_and_classes_that_nothing_teaches(home, tmp_path, unproved):
    random = np.random.default_rng(0)

    def folder(name, masks):
        for i in range(12):
            for kind, array in (
                ("pictures", random.integers(0, 255, (32, 32, 3), np.uint8)),
                ("masks", np.pad(np.full((16, 16), masks, np.uint8), 8)),
            ):
                path = tmp_path / "in" / name / kind / "ab"[i % 2] / f"frame_{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
        return tmp_path / "in" / name / "pictures"

    pictures, others = folder("one", 1), folder("two", 2)
    assert open_source(pictures).content == "video"
    settings = {"train": "head", "controls": False, "minutes": 0.01}
    found = selfsup.finetune(home / "seer", pictures, tmp_path / "m", test=others,
                             labels=tmp_path / "in", **settings)  # fmt: skip
    told = found.to_json()
    assert told["split"]["train"] == told["split"]["test"] == 12
    assert "No mask that teaches has the classes 2: not tested." in told["notes"]
    with pytest.raises(SelfsupError, match="one class") as caught:
        selfsup.finetune(home / "seer", folder("none", 0), tmp_path / "n",
                         labels=tmp_path / "in" / "none" / "masks", **settings)  # fmt: skip
    assert caught.value.code == "E503"
