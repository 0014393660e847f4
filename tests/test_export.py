"""An export is proved in another process before it appears under its name."""

import hashlib
import importlib
import json
import shutil

import numpy as np
import pytest
import small_encoder

import selfsup
from selfsup.errors import SelfsupError
from selfsup.load import load

exporting = importlib.import_module("selfsup.export")


def test_a_run_becomes_a_folder_that_works_anywhere(tmp_path):
    small_encoder.run(tmp_path / "run")
    told = selfsup.export(tmp_path / "run")
    folder = tmp_path / "run/exports/safetensors"
    assert told.path == str(folder) and told.max_abs_error <= 1e-5 and told.compared == 10 * 64
    assert {p.name for p in folder.iterdir()} == {
        "encoder.json", "encoder.safetensors", "MANIFEST.json"
    }  # fmt: skip
    for name, entry in json.loads((folder / "MANIFEST.json").read_text())["files"].items():
        content = (folder / name).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    shutil.move(folder, tmp_path / "elsewhere")
    pictures = np.random.default_rng(0).integers(0, 255, (3, 30, 40, 3)).astype(np.uint8)
    np.testing.assert_array_equal(
        load(tmp_path / "elsewhere").embed(pictures), load(tmp_path / "run").embed(pictures)
    )
    assert "largest difference" in str(told) and "sha256" in str(told)


def test_the_same_encoder_gives_the_same_bytes(tmp_path):
    small_encoder.export(tmp_path / "encoder")
    first = selfsup.export(tmp_path / "encoder", out=tmp_path / "a")
    again = selfsup.export(tmp_path / "encoder", out=tmp_path / "a")  # an export is replaced
    assert first.files == again.files
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_export_that_computes_something_else_does_not_appear(tmp_path, monkeypatch):
    small_encoder.export(tmp_path / "encoder")
    honest = exporting._write

    def wrong(encoder, folder):
        honest(encoder, folder)
        card = json.loads((folder / "encoder.json").read_text())
        card["mean"][0] += 0.001  # preprocessing counts as much as weights
        (folder / "encoder.json").write_text(json.dumps(card))

    monkeypatch.setattr(exporting, "_write", wrong)
    with pytest.raises(SelfsupError) as caught:
        selfsup.export(tmp_path / "encoder", out=tmp_path / "out")
    assert caught.value.code == "E604" and "differs" in caught.value.what
    assert {p.name for p in tmp_path.iterdir()} == {"encoder"}


def test_other_folders_and_formats_are_refused(tmp_path):
    small_encoder.export(tmp_path / "encoder")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(SelfsupError) as caught:
        selfsup.export(tmp_path / "encoder", out=tmp_path / "mine")
    assert caught.value.code == "E605" and (tmp_path / "mine/thesis.txt").exists()
    with pytest.raises(SelfsupError) as caught:
        selfsup.export(tmp_path / "encoder", to="pickle", out=tmp_path / "x")
    assert caught.value.code == "E607" and "safetensors" in caught.value.why
    with pytest.raises(SelfsupError):
        selfsup.export(tmp_path / "absent", out=tmp_path / "x")


def test_a_clean_process_that_takes_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "PATIENCE", 0.01)
    with pytest.raises(SelfsupError, match="within 0") as caught:
        exporting.compare(np.zeros(1), "selfsup.export", tmp_path)
    assert caught.value.code == "E604"
