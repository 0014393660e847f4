import json
import os
from pathlib import Path

import numpy as np
import pytest
import small_encoder
from PIL import Image
from sklearn.datasets import load_digits

from selfsup.errors import SelfsupError
from selfsup.evaluate import (
    Evaluation,
    adapted,
    controls,
    evaluate,
    finetune,
    folds,
    judge,
    linear,
)
from selfsup.load import Card, LoadedEncoder, load, modality_of, rebuild
from selfsup.transfer import core, tasks


def moved(pictures):
    """Digits somewhere on a larger sheet, so that no single pixel tells them apart."""
    places = np.random.default_rng(0).integers(0, 5, (len(pictures), 2))
    sheets = np.zeros((len(pictures), 12, 12), np.uint8)
    for sheet, picture, (top, left) in zip(sheets, pictures, places, strict=True):
        sheet[top : top + 8, left : left + 8] = picture * 15.9
    return sheets


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return {"images": moved(found.images[:600]), "labels": found.target[:600]}


def encoder_for(size=12, seed=0):
    card = Card("image", "resnet18", size, {"width": 0.25}, (0.5,) * 3, (0.5,) * 3)
    modality = modality_of(card, Path("encoder.json"))
    return LoadedEncoder(rebuild(card, modality, seed), card, modality)


@pytest.fixture(scope="module")
def taught():
    """An encoder that certainly helps: one that was trained with the labels of other digits."""
    from selfsup.data import open_source, open_store

    found = load_digits()
    more = moved(found.images[600:])
    encoder = encoder_for()
    store = open_store(open_source(more), encoder.modality, 12)
    network = finetune.fresh(encoder, 10, pretrained=False, seed=3)
    finetune.train(
        network, encoder, store, np.arange(len(more)), found.target[600:], steps=150,
        choice=finetune.Choice(3e-3), pretrained=False, seed=3,
    )  # fmt: skip
    encoder.encoder.load_state_dict(network.encoder.state_dict())
    return encoder


@pytest.fixture(scope="module")
def helped(taught, digits):
    return evaluate(taught, digits, shots=(1, 5), seeds=3, finetune=False)


def test_a_rare_class_is_judged_by_the_area_under_the_curve(taught, digits):
    """One digit of ten: who never names it is right in nine cases of ten."""
    rare = {"images": digits["images"][:400], "labels": (digits["labels"][:400] == 3).astype(int)}
    found = evaluate(taught, rare, shots=(2,), seeds=2, finetune=False)
    told = found.to_json()
    assert "area under the ROC curve" in found.verdict
    gain = found.score("linear_auroc")["gain"]
    assert told["verdict"]["points"] == 100 * gain["value"]
    assert found.score("linear_auroc")["value"] > 0.8
    assert found.score("linear", "untrained")["value"] > 0.85  # though it says nothing
    assert {row["protocol"] for row in told["curve"]} == {"linear_auroc"}
    assert {"linear", "knn"} <= {row["protocol"] for row in told["scores"]}
    assert any("rare" in note for note in told["notes"])
    assert any("80 samples test" in note and "tests all 400" in note for note in told["notes"])
    assert "ROC" in str(found)


def test_an_encoder_that_helps_is_told_so(helped):
    assert helped.gain and "Pretraining helps" in helped.verdict
    verdict = helped.to_json()["verdict"]
    assert verdict["low"] > 0
    assert verdict["labels_worth"] > 2 and "times the labels" in helped.verdict
    assert helped.score("linear")["value"] > helped.score("linear", "pixels + PCA")["value"]
    assert (
        helped.score("linear", shots=1)["value"] > helped.score("linear", "untrained", 1)["value"]
    )


def test_an_untrained_encoder_has_no_gain(digits):
    fresh = controls.awake(encoder_for(seed=77))
    found = evaluate(fresh, digits, shots=(1,), seeds=2, finetune=False)
    assert not found.gain and "Likely cause" in found.verdict


def test_every_score_stands_beside_its_controls(helped):
    told = helped.to_json()
    for rows in (told["scores"], told["curve"]):
        subjects: dict = {}
        for row in rows:
            subjects.setdefault((row["protocol"], row.get("shots")), set()).add(row["of"])
        for protocol, of in subjects.items():
            assert of >= {"pretrained", "untrained", "pixels + PCA"}, protocol
    for row in told["scores"] + told["curve"]:
        if row["protocol"] != "effective_rank":
            assert row["low"] <= row["value"] <= row["high"] and row["interval"], row
    assert {"knn", "linear", "retrieval_map", "clustering_nmi", "effective_rank"} <= {
        row["protocol"] for row in told["scores"]
    }


def test_a_gain_is_over_the_better_control(helped):
    told = helped.to_json()
    compared = 0
    for row in told["scores"] + told["curve"]:
        if "gain" in row:
            same = [
                other
                for other in told["scores"] + told["curve"]
                if other.get("shots") == row.get("shots")
                and other["protocol"] == row["protocol"]
                and other["of"] != "pretrained"
            ]
            assert row["gain"]["control"] == max(same, key=lambda other: other["value"])["of"]
            expected = row["value"] - max(other["value"] for other in same)
            # in the curve only seeds that both have are compared
            assert row["gain"]["value"] == pytest.approx(expected, abs=1e-9)
            compared += 1
    assert compared >= 5
    assert told["verdict"]["control"] == helped.score("linear")["gain"]["control"]


def test_standardising_knows_nothing_of_the_test_part(taught, digits, monkeypatch):
    sizes = []
    honest = linear.scale_of

    def note(x, **settings):
        sizes.append(len(x))
        return honest(x, **settings)

    monkeypatch.setattr(linear, "scale_of", note)
    found = evaluate(taught, digits, shots=(2,), seeds=2, finetune=False)
    assert set(sizes) == {found.to_json()["split"]["train"]}


def test_the_result_is_json_that_comes_back_and_prints(helped):
    told = json.loads(json.dumps(helped.to_json(), allow_nan=False))
    again = Evaluation(told)
    assert again.table() == helped.table() and told["format"] == 1
    assert "linear probe accuracy" in repr(helped) and helped.verdict in str(helped)
    assert helped.to_json()["split"]["test"] == 120
    page = helped._repr_html_()
    assert "<table>" in page and "untrained" in page


def test_test_labels_choose_nothing(taught, digits, monkeypatch):
    """With the test part's labels scrambled, every chosen strength stays what it was."""
    seen = []
    chosen = linear.choose

    def note(*arguments):
        seen.append(chosen(*arguments)[0])
        return chosen(*arguments)

    monkeypatch.setattr(linear, "choose", note)
    parts = np.arange(600) % 4 == 0
    source = Named(digits["images"], digits["labels"].copy(), parts)
    evaluate(taught, source, shots=(5,), seeds=2, finetune=False)
    first, seen[:] = list(seen), []
    labels = digits["labels"].copy()
    labels[parts] = np.random.default_rng(0).permutation(labels[parts])
    found = evaluate(taught, Named(digits["images"], labels, parts), shots=(5,), seeds=2,
                     finetune=False)  # fmt: skip
    assert seen == first and len(seen) > 5
    assert found.score("linear")["value"] < 0.3 and not found.gain


def Named(images, labels, test):  # noqa: N802 (a source, made like one)
    from selfsup.data import open_source

    source = open_source({"images": images, "labels": labels})
    source.splits = lambda: (test.astype(np.int64), ["train", "test"])
    return source


def test_scratch_and_fine_tuning_have_rows_of_their_own(taught, digits, monkeypatch):
    monkeypatch.setattr(core, "MOST_STEPS", 40)
    monkeypatch.setattr(core, "LEAST_STEPS", 20)
    monkeypatch.setattr(core, "LEAST_EPOCHS", 1)
    monkeypatch.setattr(core, "MOST_SAMPLES", 2000)
    monkeypatch.setattr(judge, "NETWORKS", 2)
    few = {key: value[:150] for key, value in digits.items()}
    parts, choose = [], tasks.choose

    def note(task, encoder, part, **settings):
        parts.append(part)
        return choose(task, encoder, part, **settings)

    monkeypatch.setattr(tasks, "choose", note)
    found = evaluate(taught, few, shots=(2,), seeds=2, finetune=True, minutes=60)
    assert len(parts) == 3 and all(len(part.whole) == len(part) for part in parts)
    scratch = found.score("scratch", "from scratch", shots=2)
    assert len(scratch["values"]) == 2 and scratch["settings"]["steps"] >= 20
    tuned = found.score("finetune")
    assert tuned["value"] > found.score("finetune", "from scratch")["value"]
    assert tuned["gain"]["control"] in ("from scratch", "untrained", "pixels + PCA")
    assert "from scratch" in found.table()


def test_without_time_networks_are_left_out_and_that_is_said(taught, digits):
    found = evaluate(taught, digits, shots=(2,), seeds=2, finetune=True, minutes=1e-6)
    notes = " ".join(found.to_json()["notes"])
    assert "from scratch with 2 labels per class is left out" in notes
    assert "fine-tuning is left out" in notes


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 6)):
        for label in ("cat", "dog"):
            place = tmp_path / "data" / part / label
            place.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 200, (20, 24, 3)).astype(np.uint8)
                pixels[..., 0] += 50 * (label == "dog")
                Image.fromarray(pixels).save(place / f"{i}.png")
    small_encoder.run(tmp_path / "run")
    return tmp_path


def test_a_run_keeps_its_evaluation_and_counts_reconcile(folder, monkeypatch):
    monkeypatch.setenv("SELFSUP_CACHE", str(folder / "cache"))
    (folder / "data/train/cat/bad.jpg").write_bytes(b"<html>not found</html>")
    before = sorted(str(p) for p in (folder / "data").rglob("*"))
    found = evaluate(folder / "run", folder / "data", shots=(1, 3), seeds=2, finetune=False)
    told = json.loads((folder / "run/evaluation.json").read_text())
    assert told == json.loads(json.dumps(found.to_json()))
    assert told["split"]["kind"] == "given" and told["split"]["train"] == 24
    data = told["data"]
    assert data["found"] == data["used"] + data["skipped"] == 37 and data["skipped"] == 1
    assert "found 37 = used 36 + skipped 1 (1 not_an_image; `selfsup scan`" in str(found)
    assert before == sorted(str(p) for p in (folder / "data").rglob("*"))
    names = {case["query"]["name"] for case in told["retrieval"]["best"]}
    assert all((folder / "data" / name).is_file() for name in names)
    from safetensors.numpy import load_file

    kept = load_file(folder / "run/evaluation.safetensors")
    assert kept["vectors"].shape[0] == 12 == len(kept["labels"])


def test_a_leak_between_the_parts_stops_it(folder, monkeypatch):
    monkeypatch.setenv("SELFSUP_CACHE", str(folder / "cache"))
    twin = Image.open(folder / "data/train/dog/3.png")
    twin.save(folder / "data/test/dog/again.bmp")  # the same pixels in another format
    with pytest.raises(SelfsupError) as caught:
        evaluate(folder / "run", folder / "data", shots=(1,), seeds=2, finetune=False)
    assert caught.value.code == "E502" and "train/dog/3.png" in caught.value.where
    found = evaluate(
        folder / "run", folder / "data", shots=(1,), seeds=2, finetune=False, drop_leaks=True
    )
    assert found.to_json()["split"]["train"] == 23
    assert not (folder / "run/evaluation.json.tmp").exists()


def test_the_encoder_that_it_started_from_stands_beside_and_is_no_control(
    digits, taught, monkeypatch
):
    few = {key: value[:150] for key, value in digits.items()}
    settings = {"shots": (2,), "seeds": 2, "finetune": False}
    monkeypatch.setattr(adapted, "before", lambda *_: (taught, ["A note."]))
    found = evaluate(encoder_for(), few, old=few, **settings)
    told = found.to_json()
    for shots in (None, 2):
        ours, theirs = (found.score("linear", of, shots) for of in ("pretrained", "started from"))
        since = ours["since"]
        assert since["value"] == pytest.approx(ours["value"] - theirs["value"]) and since["low"] < 0
        assert theirs["value"] > ours["value"] and ours["gain"]["control"] != "started from"
    assert told["forgot"] == found.score("linear")["since"]  # the same data
    assert told["verdict"]["control"] != "started from"
    assert "started from" not in found.verdict and found.rows()[0][-1].endswith("over the start")
    assert "A note." in found.notes() and "from which it started" in found.notes()[-2]
    assert found.notes()[-1].startswith("The linear probe on the old data: -")
    assert f"{100 * since['value']:+.1f} ± " in found.table() and "(started from)" in found.table()
    monkeypatch.undo()
    with pytest.raises(SelfsupError, match="E201"):
        evaluate(taught, few, old=few, **settings)


def test_bad_data_of_before_are_told_of_before_the_probes(digits, taught, monkeypatch):
    few = {key: value[:60] for key, value in digits.items()}
    settings = {"shots": (2,), "seeds": 2, "finetune": False}
    monkeypatch.setattr(adapted, "before", lambda *_: (taught, []))

    def probes(*_):
        raise AssertionError("too late")

    monkeypatch.setattr(judge.Judge, "frozen", probes)
    images = few["images"].copy()
    images[0] = images[1]
    leaky = Named(images, few["labels"], np.arange(60) % 4 == 0)  # 0 tests, 1 teaches
    for old, code in ((few["images"], "E501"), (leaky, "E502")):
        with pytest.raises(SelfsupError, match=code):
            evaluate(encoder_for(), few, old=old, **settings)
    with pytest.raises(AssertionError):
        evaluate(encoder_for(), few, old=leaky, drop_leaks=True, **settings)
    monkeypatch.setattr(folds, "extract", probes)
    with pytest.raises(SelfsupError, match="E502"):
        evaluate(encoder_for(), digits, task="folds", old=leaky)
    with pytest.raises(AssertionError):
        evaluate(encoder_for(), digits, task="folds", old=leaky, drop_leaks=True)


def test_a_start_that_sees_larger_pictures_is_not_put_beside(monkeypatch):
    monkeypatch.setattr(adapted, "start_of", lambda *_: Path("runs/large"))
    for size, there in ((12, True), (8, True), (16, False)):
        monkeypatch.setattr(adapted, "load", lambda _, size=size: encoder_for(size))
        start, notes = adapted.before("run", encoder_for(12), "image")
        assert (start is not None) == there == (not notes)
    assert notes[0].startswith("No comparison with large, from which it started: ")
    assert "size 12" in notes[0] and "at 16" in notes[0]


def test_folds_of_recordings_that_are_labelled_in_part(digits, monkeypatch):
    from selfsup.data import open_source

    monkeypatch.setattr(folds, "FEW", ())
    monkeypatch.setattr(folds, "FOLDS", 2)
    labels, recordings, seen = digits["labels"][:200] % 2, np.arange(200) // 4, []
    labels[:120] = -1

    def few(both, y, test, *_, **__):
        seen.append(test.numpy())
        return [0.5]

    monkeypatch.setattr(folds, "_accuracies", few)
    source = open_source({"images": digits["images"][:200], "labels": digits["labels"][:200]})
    source.labels = lambda: (labels, ["even", "odd"])
    source.groups = lambda: recordings
    told = evaluate(encoder_for(), source, task="folds", seeds=2).to_json()
    assert "80 samples" in told["statement"] and "of one recording" in told["statement"]
    for test in seen:
        assert len(test) == 80 and 30 <= test.sum() <= 50
        assert not set(recordings[120:][test]) & set(recordings[120:][~test])
    source.folds = lambda: [np.arange(0, 200, 2), np.arange(1, 200, 2)]
    told = evaluate(encoder_for(), source, task="folds", seeds=2).to_json()
    assert not [note for note in told["notes"] if "equal one" in note]  # clips, but no copies


def test_data_without_labels_is_an_error(tmp_path):
    with pytest.raises(SelfsupError) as caught:
        evaluate(encoder_for(), np.zeros((10, 12, 12), np.uint8))
    assert caught.value.code == "E501"


def test_masks_are_for_finetune(tmp_path):
    with pytest.raises(SelfsupError, match="E501") as caught:
        evaluate("run", "pictures", labels=tmp_path)
    assert "selfsup finetune RUN DATA --labels" in str(caught.value)


def test_a_stop_is_obeyed(taught, digits, monkeypatch):
    from selfsup.stop import Stopped, stop

    monkeypatch.setattr(stop, "signal", 15)
    with pytest.raises(Stopped):
        evaluate(taught, digits, shots=(1,), seeds=2, finetune=False)


@pytest.mark.skipif("SELFSUP_DATA" not in os.environ, reason="SELFSUP_DATA names no folder of data")
def test_an_untrained_network_has_no_gain_on_photographs(tmp_path, monkeypatch):
    import tarfile

    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    with tarfile.open(Path(os.environ["SELFSUP_DATA"]) / "images/cifar10_jpg.tar.gz") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(("01.jpg", "37.jpg")):
                archive.extract(member, tmp_path, filter="data")
    small_encoder.export(tmp_path / "encoder", "resnet18", 32, seed=5, width=0.25)
    encoder = controls.awake(load(tmp_path / "encoder"))
    found = evaluate(encoder, tmp_path / "cifar10", shots=(1, 10), seeds=3, finetune=False)
    assert found.to_json()["split"]["kind"] == "given" and not found.gain
    assert 0.15 < found.score("linear", "pixels + PCA")["value"] < 0.5
