"""The benchmark: small cases through the same workers, and the table it prints."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import cases, throughput
from benchmarks.cases import Case, draw
from selfsup.data.store import PROBE
from selfsup.encoder import build
from selfsup.methods import SimCLR


def small() -> SimCLR:
    return SimCLR(build("resnet18", 16, width=0.125), hidden=16, dim=8)


CASE = Case("small", "small", side=16, batch=8, steps=2, build=small)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw(tmp_path / "16", 16, throughput.EPOCH * CASE.batch)
    return tmp_path


def test_speed_takes_turns(folder):
    found = throughput.speed(CASE, folder, "fp32")
    assert set(found) == {"end_to_end", "compute", "end_to_end_peak"}
    assert all(value > 0 for value in found.values())


def test_the_first_epoch_decodes_every_picture_once(folder, monkeypatch):
    from selfsup.modalities.image import Image as Pictures

    read = Pictures.read
    decoded = []

    def counted(self, raw, size=None):
        decoded.append(bytes(raw))
        return read(self, raw, size)

    throughput.speed(CASE, folder, "fp32")  # a warm store, in another folder
    monkeypatch.setattr(Pictures, "read", counted)
    assert throughput.first_epoch(CASE, folder, "fp32")["first_epoch"] > 0
    assert len(set(decoded)) == throughput.EPOCH * CASE.batch
    # a store that is there already still looks at a few samples when it is opened
    assert len(decoded) <= throughput.EPOCH * CASE.batch + PROBE


def test_the_store_is_warm(folder, monkeypatch):
    """No sample is decoded in a step that is measured."""
    from selfsup.modalities.image import Image as Pictures

    fresh, close = throughput._data(CASE, folder, warm=True)
    monkeypatch.setattr(Pictures, "read", lambda *a, **k: pytest.fail("decoded again"))
    views = fresh(0)
    close()
    assert [x.shape for x in views] == [(CASE.batch, 3, 16, 16)] * 2


def test_operations_are_those_of_the_network(folder):
    """A convolution's share of a step is three times its forward pass."""
    wide = replace(CASE, build=lambda: SimCLR(build("resnet18", 16, width=0.25), hidden=16, dim=8))
    one = throughput.compute(CASE, folder, "fp32")
    four = throughput.compute(wide, folder, "fp32")
    assert 3 < four["flops"] / one["flops"] < 4.5  # convolutions grow with the square of the width
    assert one["matmul"] > 1e8 and one["precision"] == "fp32"


def test_operations_of_fused_layers_count(folder):
    """Inference and a teacher run layers that PyTorch's counter does not know."""
    vit = replace(
        CASE, name="embed", build=lambda: build("vit_tiny", 16, patch=8, depth=1, heads=3)
    )
    tokens, width = CASE.batch * 4, 192
    layers = 2 * tokens * (12 * width**2 + width * 3 * 8 * 8)  # of a block, and of the patches
    attention = 2 * 2 * tokens * 4 * width
    assert throughput.compute(vit, folder, "bf16")["flops"] == layers + attention


def test_pictures_are_the_same_each_time(tmp_path):
    first, again = draw(tmp_path / "a", 32, 2), draw(tmp_path / "b", 32, 2)
    for path in sorted(first.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes()
    sizes = [Image.open(io.BytesIO(path.read_bytes())).size for path in first.iterdir()]
    assert sizes == [(32, 32)] * 2


def test_the_text_has_every_figure():
    found = {
        "end_to_end": 90.0, "compute": 100.0, "ratio": 0.9, "end_to_end_peak": 1.5,
        "compute_peak": 1.4, "flops": 1e12, "matmul": 4e12, "share_of_peak": 0.78,
        "first_epoch": 80.0, "first_epoch_ratio": 0.8, "precision": "bf16", "threads": 2,
        "peers": {"other": {"end_to_end": 30.0, "compute": 31.0, "peak": 2.0, "faster": 3.0}},
    }  # fmt: skip
    told = throughput.text(replace(CASE, batch=32), found)
    for part in ("90.0", "100.0", "0.90", "1.40", "80.0", "3.12 TFLOP/s", "78%", "3.0 times"):
        assert part in told


def test_the_command_has_its_cases():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", "--help"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        check=True,
    )
    assert all(name in done.stdout for name in cases.CASES)
    assert json.loads(json.dumps(throughput.PEER_CASES)).keys() == {
        path.stem.removesuffix("_steps") for path in throughput.PEERS.glob("*_steps.py")
    }
