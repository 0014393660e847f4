"""One recording through the verbs: only its beginning is learned from, and every verb survives."""

import json

import numpy as np
import pytest

import selfsup
from selfsup.scan import scan


@pytest.fixture(scope="module")
def readings(tmp_path_factory):
    """Two channels over 900 steps, a tenth of the second one missing."""
    generator = np.random.Generator(np.random.Philox(5))
    t = np.arange(900)
    a = np.sin(t / 5) + 0.1 * generator.normal(size=len(t))
    b = np.where(generator.random(len(t)) < 0.1, np.nan, np.cos(t / 9) * 40 + 200)
    path = tmp_path_factory.mktemp("readings") / "readings.csv"
    rows = (
        f"{i},{x},{'' if np.isnan(y) else y}\n" for i, (x, y) in enumerate(zip(a, b, strict=True))
    )
    path.write_text("t,a,b\n" + "".join(rows))
    return path


@pytest.mark.parametrize("method", ["ts2vec", "simclr", "dino", "mae"])
def test_a_recording_through_all_verbs(method, readings, tmp_path, monkeypatch):
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    small = {
        "ts2vec": {},
        "simclr": {"hidden": 16, "dim": 8},
        "dino": {"prototypes": 16, "hidden": 16, "dim": 8, "local_views": 1},
        "mae": {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
    }[method]
    dilated = {"name": "dilated_small", "dim": 16, "hidden": 8, "depth": 3}
    vit = {"name": "vit_tiny", "dim": 16, "depth": 1, "heads": 2}
    run = selfsup.pretrain(
        readings,
        method={"name": method, **small},
        encoder=vit if method == "mae" else dilated,
        resolution=32,
        batch=8,
        steps=3,
        out=tmp_path / "run",
        quiet=True,
    )
    card = json.loads((run.path / "encoder.json").read_text())
    assert card["modality"] == "series" and len(card["state"]["level"]) == 2
    assert card["state"]["level"][1] == pytest.approx(200, abs=20)
    encoder = selfsup.load(run.path)
    vectors = encoder.embed(str(readings))
    assert vectors.shape == (len(selfsup.data.open_source(str(readings))), 16)
    assert np.isfinite(vectors).all()
    if method == "ts2vec":
        manifest = json.loads((run.path / "data" / "manifest.json").read_text())
        assert manifest["judged_by"] == str(readings)
        assert manifest["samples"] == len(selfsup.data.open_source(str(readings)).for_training())
        page = run.report().read_text()
        assert "data:image" in page
        again = selfsup.export(run.path)
        assert again is not None


def test_scan_counts_steps_and_tells_of_what_is_missing(readings, tmp_path):
    found = scan(str(readings), out=tmp_path / "sheet.png")
    assert found.content == "series" and found.skipped == 0 and found.unit == "steps"
    assert any("missing" in note for note in found.notes)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
