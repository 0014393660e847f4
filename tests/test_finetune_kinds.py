"""Every kind of data from labels to a file of answers: small files, a small encoder, two steps."""

import csv

import numpy as np
import pytest
import soundfile
from PIL import Image

import selfsup
from selfsup.data import open_source
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities import find, of_content
from selfsup.transfer import core, model

SAMPLES = 24  # the even ones are of the class a, the odd ones of b
RANDOM = np.random.default_rng(0)


def table(place, head, cell):
    path = place / "data.csv"
    rows = [f"{cell(i)},{'ab'[i % 2]}" for i in range(SAMPLES)]
    path.write_text("\n".join([f"{head},label", *rows]) + "\n")
    return path


def files(place, write):
    """Each in the folder of its class."""
    for i in range(SAMPLES):
        (place / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        write(place / "data" / "ab"[i % 2] / f"{i}", i)
    return place / "data"


def picture(path, level=0):
    pixels = RANDOM.integers(level, level + 128, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def words(i):
    return " ".join(RANDOM.permutation(["sun", "sea", "sand", "salt"] if i % 2 else ["old", "law"]))


def text(place):
    return table(place, "text", lambda i: f"{words(i)} {i}")


def protein(place):
    return table(place, "sequence", lambda i: "".join(RANDOM.choice([*"ACDEFGHIKL"], 20 + i)))


def graph(place):
    return table(place, "smiles", lambda i: ("c1ccccc1" if i % 2 else "O") + "C" * (i + 1))


def network(place):
    place = place / "data"
    place.mkdir()
    edges = [f"{i},{(i + 2) % SAMPLES}" for i in range(SAMPLES)]
    (place / "edges.csv").write_text("\n".join(["a,b", *edges]) + "\n")
    nodes = [f"{i},{'ab'[i % 2]}" for i in range(SAMPLES)]
    (place / "nodes.csv").write_text("\n".join(["node,label", *nodes]) + "\n")
    np.save(place / "features.npy", RANDOM.random((SAMPLES, 5)))
    return place


def trajectory(place):
    def write(path, i):
        np.savez(path, observation=RANDOM.normal(i % 2, 1, (20, 4)), action=RANDOM.random((20, 2)))

    return files(place, write)


def video(place):
    def write(path, i):
        path.mkdir()
        for frame in range(4):
            picture(path / f"frame_{frame}.png", 100 * (i % 2))

    return files(place, write)


def series(place):
    steps = ",".join(f"t{k}" for k in range(16))
    return table(place, steps, lambda i: ",".join(f"{v:.3f}" for v in RANDOM.normal(i % 2, 1, 16)))


def pairs(place):
    (place / "images").mkdir()
    for i in range(SAMPLES):
        picture(place / "images" / f"{i}.png", 100 * (i % 2))
    rows = [f"{i}.png,{words(i)} in a picture,{'ab'[i % 2]}" for i in range(SAMPLES)]
    path = place / "captions.csv"
    path.write_text("\n".join(["file,caption,label", *rows]) + "\n")
    return path


def audio(place):
    def write(path, i):
        tone = np.sin(np.arange(1600) * (0.3 + 0.5 * (i % 2))) + 0.1 * RANDOM.normal(size=1600)
        soundfile.write(f"{path}.wav", 0.3 * tone, 8000)

    return files(place, write)


VIT = {"dim": 16, "depth": 1, "heads": 2}
SMALL = ["image.width=0.125", *(f"text.{key}={value}" for key, value in VIT.items())]
KINDS = {  # how data are made; encoder, size, its settings, those of the modality
    "text": (text, "bert_micro", 16, VIT, {"tokens": "characters"}),
    "protein": (protein, "bert_micro", 32, VIT, {}),
    "graph": (graph, "gin", 32, {"dim": 8, "depth": 2}, {}),
    "network": (network, "gcn", SAMPLES, {"dim": 8, "depth": 1}, {}),
    "trajectory": (trajectory, "observer_small", 16, {"dim": 8, "hidden": 16, "depth": 1}, {}),
    "video": (video, "vit_tiny", 16, VIT, {"frames": 4}),
    "series": (series, "dilated_small", 16, {"dim": 8, "hidden": 8, "depth": 2}, {}),
    "pairs": (pairs, "towers_micro", 16, {"dim": 8, "parts": SMALL}, {}),
    "audio": (audio, "mel_tiny", 16, VIT, {"mels": 16}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_become_a_file_of_answers(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(core, "LEAST_STEPS", 2)
    monkeypatch.setattr(core, "MOST_STEPS", 2)
    monkeypatch.setattr(core, "LEAST_EPOCHS", 1)
    monkeypatch.setattr(model, "compare", lambda *given: (0.0, 0))  # in a clean process: elsewhere
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    make, name, size, shape, options = KINDS[kind]
    data = make(tmp_path)
    source = open_source(data)
    assert of_content(source.content) == kind
    modality = find(kind)(**options)
    modality.learn(source)
    card = Card(kind, name, size, shape, modality.mean, modality.std, state=modality.state,
                options=options)  # fmt: skip
    encoder = LoadedEncoder(rebuild(card, modality, 0), card, modality)

    found = selfsup.finetune(encoder, data, tmp_path / "m", train="full", minutes=0.001)
    told = found.to_json()
    assert told["task"] == "classify" and told["settings"]["fine-tuned"]["steps"] == 2
    assert len(told["scores"]) >= 3 and all(0 <= row["value"] <= 1 for row in told["scores"])

    written = selfsup.predict(tmp_path / "m", data, tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == written.used == SAMPLES and written.skipped == 0
    assert list(rows[0]) == ["id", "path", "label", "p_a", "p_b"]
    shares = np.array([[float(row["p_a"]), float(row["p_b"])] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert [row["label"] for row in rows] == ["ab"[k] for k in shares.argmax(1)]
    assert len(np.unique(shares[:, 0].round(6))) > 2  # each sample has an answer of its own
    again = found.model.predict(data)
    np.testing.assert_allclose(again["p_a"], shares[:, 0], atol=1e-5)


def test_one_tower_learns_from_labelled_pictures_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "MOST_STEPS", 2)
    monkeypatch.setattr(core, "LEAST_STEPS", 2)
    monkeypatch.setattr(model, "compare", lambda *given: (0.0, 0))
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    table = pairs(tmp_path)
    _, name, size, shape, options = KINDS["pairs"]
    modality = find("pairs")(**options)
    modality.learn(open_source(table))
    card = Card("pairs", name, size, shape, modality.mean, modality.std, state=modality.state,
                options=options)  # fmt: skip
    towers = LoadedEncoder(rebuild(card, modality, 0), card, modality)
    for i in range(SAMPLES):
        folder = tmp_path / "labelled" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(folder / f"{i}.png", 100 * (i % 2))
    found = selfsup.finetune(
        towers, tmp_path / "labelled", tmp_path / "m", train="head", minutes=0.001
    )
    assert found.model.encoder.modality.name == "image"
    answers = found.model.predict(tmp_path / "labelled")
    assert len(answers["p_a"]) == SAMPLES
    again = found.model.predict(table)  # of the pairs, the pictures
    assert len(again["p_a"]) == SAMPLES
