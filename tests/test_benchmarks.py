"""The benchmark: small cases through the same workers, and the table it prints."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import selfsup
from benchmarks import cases, drawn, methods, throughput
from benchmarks.cases import Case, settings
from selfsup import settings as schema
from selfsup.data import open_source
from selfsup.data.proteins import RESIDUES
from selfsup.data.store import PROBE
from selfsup.ragged import Ragged
from selfsup.steps import Steps
from selfsup.towers import Parts

HEAD = {"method_hidden": 16, "method_dim": 8}
CASE = Case(
    "small",
    "small",
    batch=8,
    steps=2,
    data=partial(drawn.pictures, side=16),
    settings=settings("image", "simclr", "resnet18", 16, encoder_width=0.125, **HEAD),
)


def test_speed_takes_turns(tmp_path):
    found = throughput.speed(CASE, tmp_path, "fp32")
    assert set(found) == {"end_to_end", "compute", "end_to_end_peak"}
    assert all(value > 0 for value in found.values())


def test_the_first_epoch_decodes_every_picture_once(tmp_path, monkeypatch):
    from selfsup.modalities.image import Image as Pictures

    read = Pictures.read
    decoded = []

    def counted(self, raw, size=None):
        decoded.append(bytes(raw))
        return read(self, raw, size)

    throughput.speed(CASE, tmp_path, "fp32")  # a warm store, in another folder
    monkeypatch.setattr(Pictures, "read", counted)
    assert throughput.first_epoch(CASE, tmp_path, "fp32")["first_epoch"] > 0
    assert len(set(decoded)) == throughput.EPOCH * CASE.batch
    # a store that is there already still looks at a few samples when it is opened
    assert len(decoded) <= throughput.EPOCH * CASE.batch + PROBE


def test_the_store_is_warm(tmp_path, monkeypatch):
    """No sample is decoded in a step that is measured."""
    from selfsup.modalities.image import Image as Pictures

    with throughput._job(CASE, tmp_path, warm=True) as job:
        monkeypatch.setattr(Pictures, "read", lambda *a, **k: pytest.fail("decoded again"))
        views = job.batches(0)
    assert [x.shape for x in views] == [(CASE.batch, 3, 16, 16)] * 2


def test_operations_are_those_of_the_network(tmp_path):
    """A convolution's share of a step is three times its forward pass."""
    wide = replace(CASE, settings={**CASE.settings, "encoder.width": 0.25})
    one = throughput.compute(CASE, tmp_path, "fp32")
    four = throughput.compute(wide, tmp_path, "fp32")
    assert 3 < four["flops"] / one["flops"] < 4.5  # convolutions grow with the square of the width
    assert one["matmul"] > 1e8 and one["precision"] == "fp32" and "padding" not in one


def test_operations_of_fused_layers_count(tmp_path):
    """Inference and a teacher run layers that PyTorch's counter does not know."""
    shape = {"encoder_patch": 8, "encoder_depth": 1, "encoder_heads": 3}
    vit = replace(
        CASE, name="embed", settings=settings("image", "simclr", "vit_tiny", 16, **shape, **HEAD)
    )
    tokens, width = CASE.batch * 4, 192
    layers = 2 * tokens * (12 * width**2 + width * 3 * 8 * 8)  # of a block, and of the patches
    attention = 2 * 2 * tokens * 4 * width
    assert throughput.compute(vit, tmp_path, "bf16")["flops"] == layers + attention


def test_padding_counts_what_the_encoder_computes():
    full = Ragged.of([torch.ones(8), torch.ones(8)])
    packed = Ragged.of([torch.ones(24), torch.ones(12), torch.ones(9)])  # two rows of 24
    assert throughput._padding([[torch.ones(2, 3)]]) is None
    assert throughput._padding([[full]]) == 0
    assert throughput._padding([[packed]]) == pytest.approx(1 - 45 / 48)
    both = Parts({"image": torch.ones(3, 3), "text": packed})
    assert throughput._padding([[both], [both]]) == pytest.approx(1 - 45 / 48)
    there = torch.arange(4) < torch.tensor([4, 1])[:, None]
    steps = Steps(torch.ones(2, 4, 3), torch.ones(2, 4, 2), there)
    assert throughput._padding([[steps]]) == pytest.approx(3 / 8)


def test_ragged_data_through_the_workers(tmp_path):
    shape = {"encoder_dim": 32, "encoder_depth": 1, "encoder_heads": 2}
    ragged = settings("protein", "mlm", "bert_micro", 64, **shape)
    case = Case("ragged", "ragged", batch=4, steps=1, data=drawn.proteins, settings=ragged)
    assert 0 <= throughput.compute(case, tmp_path, "fp32")["padding"] < 0.5


def test_a_graph_through_the_workers(tmp_path):
    graph = settings("network", "dgi", "gcn", 64, encoder_dim=16, encoder_depth=1)
    case = Case("graph", "graph", batch=64, steps=1, data=drawn.citations, settings=graph)
    assert throughput.compute(case, tmp_path, "bf16")["flops"] > 0
    assert throughput.speed(case, tmp_path, "fp32")["end_to_end"] > 0


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (partial(drawn.pictures, side=32), "image"),
        (drawn.prose, "text"),
        (partial(drawn.documents, symbols=500), "text"),
        (drawn.proteins, "proteins"),
        (drawn.sounds, "audio"),
        (drawn.series, "series"),
        (drawn.citations, "nodes"),
        (partial(drawn.captioned, side=16, symbols=9), "pairs"),
        (partial(drawn.clips, side=16), "video"),
        (drawn.episodes, "trajectories"),
    ],
)
def test_data_are_what_they_are_drawn_as_and_the_same_each_time(tmp_path, data, content):
    first, again = data(tmp_path / "a", 20), data(tmp_path / "b", 20)
    assert open_source(first).content == content
    files = sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file())
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    times = [path.stat().st_mtime_ns for path in files]
    assert data(tmp_path / "a", 20) == first and again.exists()
    assert [path.stat().st_mtime_ns for path in files] == times  # else a store would be made anew


def test_documents_hold_every_symbol(tmp_path):
    texts = drawn.documents(tmp_path, 8, 700).glob("*.txt")
    assert len(set("".join(path.read_text("utf-8") for path in texts))) == 700


@pytest.mark.parametrize("case", cases.CASES.values(), ids=lambda case: case.name)
def test_settings_are_those_of_a_run(case):
    given = {**case.settings, "train.batch": case.batch, "train.steps": 1}
    resolved = schema.resolve({key: schema.Given(v, "case") for key, v in given.items()}, ())
    assert resolved["train.batch"] == case.batch


def test_the_text_has_every_figure():
    found = {
        "end_to_end": 90.0, "compute": 100.0, "ratio": 0.9, "end_to_end_peak": 1.5,
        "compute_peak": 1.4, "flops": 1e12, "matmul": 4e12, "share_of_peak": 0.78,
        "first_epoch": 80.0, "first_epoch_ratio": 0.8, "padding": 0.043,
        "precision": "bf16", "threads": 2,
        "peers": {"other": {"end_to_end": 30.0, "compute": 31.0, "peak": 2.0, "faster": 3.0}},
    }  # fmt: skip
    told = throughput.text(replace(CASE, batch=32), found)
    for part in (
        "90.0",
        "100.0",
        "0.90",
        "1.40",
        "80.0",
        "3.12 TFLOP/s",
        "78%",
        "3.0 times",
        "4.3%",
    ):
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


def test_pieces_of_proteins_are_judged_without_twins(tmp_path, monkeypatch):
    draws, said = random.Random(0), {"a": "train", "b": "train", "t": "test", "v": "train"}
    chains = {name: "".join(draws.choices(RESIDUES, k=16 * 30 + 5)) for name in said}
    files: dict[str, list[str]] = {"sequences": [], "sampled": [], "mask": []}
    for name, chain in chains.items():
        heading = f">{name} SET={said[name]} VALIDATION={name == 'v'}"
        files["sequences"] += [heading, chain]
        files["sampled"] += [heading, ("H" * 9 + "C" * 7 + "E" * 16) * 15 + "C" * 5]
        files["mask"] += [heading, "1" * 485 if name == "a" else "0" + "1" * 484]
    for name, lines in files.items():
        (tmp_path / f"{name}.fasta").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(methods, "data", lambda *_: tmp_path)
    learned, labelled, chosen = methods.structures()
    rows = [line.split(",") for line in labelled.read_text().splitlines()[1:]]
    assert learned.read_text().split() == ["sequence", chains["a"], chains["b"]]
    assert [row[2] for row in rows] == 30 * ["train"] + 29 * ["test"]  # of a; of t but the first
    assert [row[:2] for row in rows[:2]] == [[chains["a"][:16], "H"], [chains["a"][16:32], "E"]]
    assert chosen.read_text().splitlines() == labelled.read_text().splitlines()[:31]
    made = labelled.stat().st_mtime_ns
    assert methods.structures()[1].stat().st_mtime_ns == made  # else a store would be made anew

    with labelled.open("a") as file:
        file.write(f"{chains['a'][:16]},H,test\n")
    shape = {"name": "bert_micro", "dim": 16, "depth": 1, "heads": 2}
    run = selfsup.pretrain(
        learned, encoder=shape, resolution=32, steps=1, batch=2, out=tmp_path / "run", quiet=True
    )
    found = methods.judged(run.path, labelled, 0, None)
    assert set(found["knn"]) == {"pretrained", "untrained", "residue counts or one-hot"}
