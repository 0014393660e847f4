"""Reports of runs that were really made: MAE on a small transformer, and what it looks like."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import selfsup
from selfsup.report import report

METHOD = {"name": "mae", "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
ENCODER = {"name": "vit_tiny", "patch": 4, "dim": 32, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures in three colours, and a run of a few steps on them."""
    root = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for i in range(66):
        colour = np.array([[220, 60, 40], [40, 160, 60], [50, 70, 210]][i % 3])
        pixels = np.clip(colour + rng.normal(0, 30, (16, 20, 3)), 0, 255).astype(np.uint8)
        folder = root / "photos" / ("red", "green", "blue")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (root / "photos" / "red" / "<img src=x onerror=alert(1)>.png").write_bytes(b"<html>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_CACHE", str(root / "cache"))
        run = selfsup.pretrain(
            root / "photos", method=METHOD,
            encoder=ENCODER, steps=4, batch=16, resolution=16, out=root / "run", quiet=True,
        )  # fmt: skip
    return root, run


def sections(path):
    return path.read_text()


def test_everything_that_can_be_looked_at(made):
    root, run = made
    page = sections(report(run))
    for title in ("Map of the data", "Best cases", "Worst cases", "Inside the encoder",
                  "What the network saw", "Reconstructions", "What the encoder sees"):  # fmt: skip
        assert title in page, title
    assert "67 found = 66 used + 1 skipped" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "<img src=x" not in page
    assert "Finished, not judged" in page
    assert page.count("data:image/webp;base64,") > 60
    assert len(page) < 2_000_000
    assert not list((root / "photos").rglob("*.html"))


def test_an_evaluation_colours_the_map_with_classes(made):
    root, run = made
    copy = root / "judged"
    shutil.copytree(run.path, copy)
    selfsup.evaluate(copy, root / "photos", shots=(1, 2), seeds=2, finetune=False,
                     cache=root / "cache")  # fmt: skip
    page = sections(report(copy))
    assert "test samples of the evaluation" in page and "Colour and shape show the class" in page
    assert "kNN accuracy" in page and "pixels + PCA" in page
    assert "of the same class; by chance it would be" in page
    told = json.loads((copy / "evaluation.json").read_text())
    told["encoder"]["fingerprint"] = "of another state of the encoder"
    (copy / "evaluation.json").write_text(json.dumps(told))
    page = sections(report(copy))
    assert "samples of the training data" in page and "no labels were used" in page


def test_data_that_moved_and_a_checkpoint_that_is_gone(made):
    root, run = made
    copy = root / "without"
    shutil.copytree(run.path, copy)
    shutil.rmtree(copy / "checkpoints")
    page = sections(report(copy))
    assert "neither encoder.safetensors nor a whole checkpoint is there" in page
    assert "What the network saw" in page and "Samples and their views" in page
    assert "these are the untrained network" in page
    moved = (copy / "resolved.toml").read_text().replace("/photos", "/elsewhere")
    (copy / "resolved.toml").write_text(moved)
    page = sections(report(copy))
    assert "Not here yet" in page and "selfsup report" in page


def test_a_damaged_checkpoint_is_told_and_survived(made):
    root, run = made
    copy = root / "damaged"
    shutil.copytree(run.path, copy)
    for path in copy.glob("checkpoints/*/encoder.safetensors"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    page = sections(report(copy))
    assert "no encoder in" in page and "Map and neighbours" in page


def test_the_report_can_be_interrupted(made):
    from selfsup.stop import Stopped, stop

    _, run = made
    before = (run.path / "report.html").read_bytes()
    stop.request()
    try:
        with pytest.raises(Stopped):
            report(run)
    finally:
        stop.signal = None
    assert (run.path / "report.html").read_bytes() == before
