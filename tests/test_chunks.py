"""An encoder that takes a batch in parts: the same loss and gradients, and the memory of a part."""

import importlib
import json

import numpy as np
import pytest
import torch
from test_graph import WIDTH
from tiny import tensors_hash, without_time

import selfsup
from selfsup import chunks, cli, dilated, faults, language, methods, trunks
from selfsup.chunks import Chunked
from selfsup.encoder import Encoder, resnet
from selfsup.errors import SelfsupError
from selfsup.graph import network
from selfsup.ragged import Ragged
from selfsup.run import Run
from selfsup.stems import Patches
from selfsup.steps import Observer, Steps
from selfsup.stop import Stop
from selfsup.towers import Parts, Towers
from selfsup.train import train

torch.set_num_threads(1)
BATCH = 16


def vit(depth=2, **settings):
    return Encoder(Patches((8, 8), (4, 4), 3, 16), dim=16, depth=depth, heads=2, **settings)


def text(**settings):
    return language.Language(16, 23, dim=16, depth=2, heads=2, causal=False, **settings)


CONTRAST = {"hidden": 16, "dim": 8}
SORT = {"prototypes": 8, "hidden": 16, "dim": 8, "local_views": 1}
MADE = {
    "SimCLR": lambda: methods.SimCLR(vit(), **CONTRAST),
    "SimCLR cls": lambda: methods.SimCLR(vit(cls=True, pool="cls"), **CONTRAST),
    "SimCLR text": lambda: methods.SimCLR(text(), **CONTRAST),
    "SimCLR series": lambda: methods.SimCLR(series(dropout=0.0), **CONTRAST),
    "BarlowTwins": lambda: methods.BarlowTwins(vit(), dim=16),
    "VICReg": lambda: methods.VICReg(vit(), dim=16),
    "BYOL": lambda: methods.BYOL(vit(), **CONTRAST),
    "DINO": lambda: methods.DINO(vit(), **SORT),
    "DINOv2": lambda: methods.DINOv2(vit(), **SORT),
    "MSN": lambda: methods.MSN(vit(), **SORT),
    "MSN cls": lambda: methods.MSN(vit(cls=True, pool="cls"), **SORT),
    "MAE": lambda: methods.MAE(vit(), decoder_dim=16, decoder_depth=1, decoder_heads=2),
    "TS2Vec": lambda: methods.TS2Vec(series(dropout=0.0)),
    "ELECTRA": lambda: methods.ELECTRA(text()),
    "CLIP": lambda: methods.CLIP(Towers({"a": vit(), "b": text()}, dim=8)),
    "WorldModel": lambda: methods.WorldModel(Observer((4,), 2, dim=8, hidden=16, depth=1)),
}


def series(**settings):
    return dilated.Dilated(16, 2, dim=8, hidden=8, depth=2, **settings)


def views_of(name, method):
    torch.manual_seed(3)
    words = [torch.randint(3, 23, (1 + 5 * i % 16,)) for i in range(2 * BATCH)]
    if name == "CLIP":
        return [Parts({"a": torch.randn(BATCH, 3, 8, 8), "b": Ragged.of(words[:BATCH])})]
    if isinstance(method.encoder, language.Language):
        return [Ragged.of(words[i * BATCH :][:BATCH]) for i in range(method.views.count)]
    if name == "WorldModel":
        valid = torch.arange(6) < torch.randint(2, 7, (BATCH, 1))
        return [Steps(torch.randn(BATCH, 6, 4), torch.randn(BATCH, 6, 2), valid)]
    shape = (2, 16) if isinstance(method.encoder, dilated.Dilated) else (3, 8, 8)
    return [torch.randn(BATCH, *shape) for _ in range(method.views.count)]


def computed(method, views, chunk):
    """The loss, the gradients, and the most rows that a block ever saw."""
    method.zero_grad()
    chunks.cut(method, chunk)
    rows, kinds = [0], (trunks.Block, language.Block, dilated.DilatedBlock)
    handles = [
        m.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
        for m in method.modules()
        if isinstance(m, kinds)
    ]
    torch.manual_seed(5)
    loss = sum(method(views, 0.5).values())
    loss.backward()
    for handle in handles:
        handle.remove()
    gradients = {k: p.grad.clone() for k, p in method.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, max(rows)


def farthest(found, expected) -> float:
    """The largest difference of gradients, beside the largest, in the encoder and outside of it."""
    assert set(found) == set(expected)
    parts: dict[bool, list[str]] = {True: [], False: []}
    for name in expected:
        parts[name.startswith("encoder.")].append(name)
    assert len(parts[True]) > 5
    return max(
        max(float((found[k] - expected[k]).abs().max()) for k in names)
        / max(float(expected[k].abs().max()) for k in names)
        for names in parts.values()
        if names
    )


@pytest.mark.parametrize("name", MADE)
def test_loss_and_gradients_are_those_of_the_whole_batch(name):
    torch.manual_seed(0)
    method = MADE[name]()
    views = views_of(name, method)
    whole, expected, _ = computed(method, views, None)
    for chunk in (4, 7):
        loss, gradients, rows = computed(method, views, chunk)
        assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
        assert farthest(gradients, expected) < (1e-6 if name == "SimCLR" else 3e-6)
        assert rows <= chunk, "teachers and towers, too"


@pytest.mark.parametrize("name", ["text", "series"])
def test_what_is_dropped_is_dropped_again(name, monkeypatch):
    """Against parts whose activations are all kept: nothing is computed twice there."""
    torch.manual_seed(0)
    encoder = text(dropout=0.3) if name == "text" else series(dropout=0.3)
    method = methods.SimCLR(encoder, **CONTRAST)
    views = views_of(name, method)
    loss, gradients, _ = computed(method, views, 4)
    after = torch.get_rng_state()
    with monkeypatch.context() as kept:
        kept.setattr(chunks, "checkpoint", lambda run, *parts, **_: run(*parts))
        plain, expected, _ = computed(method, views, 4)
    assert torch.equal(loss, plain) and farthest(gradients, expected) < 1e-6
    assert torch.equal(after, torch.get_rng_state()), "backward draws nothing"
    encoder.eval()
    assert computed(method, views, 4)[0] != loss  # there was something to drop


def test_half_precision_sums_the_gradients_of_parts_in_full():
    """A bfloat16 that is above 256 does not grow by adding numbers below 1."""

    class Layer(Chunked):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        @chunks.in_chunks
        def forward(self, x):
            return self.linear(x)

    layer, x = Layer(), torch.rand(1024, 4)
    layer.chunk = 2
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    expected = x.bfloat16().float().sum(0).expand(3, 4)
    torch.testing.assert_close(layer.linear.weight.grad, expected, rtol=1e-3, atol=0)


def test_memory_is_that_of_a_part():
    """By what the allocator was asked for. Views, their vectors and weights are always there."""
    torch.manual_seed(0)
    method = methods.SimCLR(vit(depth=4), **CONTRAST)
    views = [torch.randn(64, 3, 8, 8) for _ in range(2)]

    def peak(chunk):
        computed(method, views, chunk)
        method.zero_grad()
        with torch.profiler.profile(profile_memory=True) as seen:
            sum(method(views, 0.5).values()).backward()
        held, most = 0, 0
        for event in seen.profiler.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        return most

    whole, part = peak(None), peak(8)  # a sixteenth of the 128 views
    assert whole > 2_000_000 and part < whole / 6


# -- what cannot go in parts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "why"),
    [
        (lambda: resnet("resnet18", 8, width=0.125), "batch norm"),
        (lambda: network("gcn", WIDTH, dim=8), "Network is not known to keep samples apart"),
        (lambda: Towers({"a": vit(), "b": resnet("resnet18", 8, width=0.125)}, dim=8), "batch"),
    ],
)
def test_encoders_that_need_all_samples_are_refused(encoder, why):
    method = methods.BYOL(encoder(), **CONTRAST)
    with pytest.raises(SelfsupError) as caught:
        train(method, None, batch=8, steps=1, chunk=4)
    assert caught.value.code == "E202" and why in caught.value.why
    assert "train.chunk" in caught.value.do
    assert all(m.chunk is None for m in method.modules() if isinstance(m, Chunked))


def test_batch_norm_that_is_frozen_does_no_harm():
    towers = Towers({"a": vit(), "b": resnet("resnet18", 8, width=0.125)}, dim=8, frozen=("b",))
    method = methods.CLIP(towers)
    views = [Parts({"a": torch.randn(BATCH, 3, 8, 8), "b": torch.randn(BATCH, 3, 8, 8)})]
    whole, expected, _ = computed(method, views, None)
    before = {k: v.clone() for k, v in method.named_buffers()}
    loss, gradients, _ = computed(method, views, 5)
    torch.testing.assert_close(loss, whole)
    assert farthest(gradients, expected) < 1e-5
    assert all(torch.equal(v, before[k]) for k, v in method.named_buffers()) and before


def test_not_with_compile_and_not_by_nothing():
    with pytest.raises(SelfsupError, match="exclude each other"):
        train(MADE["SimCLR"](), None, batch=8, steps=1, chunk=4, compile=True)
    with pytest.raises(ValueError, match="at least 1"):
        train(MADE["SimCLR"](), None, batch=8, steps=1, chunk=0)


# -- runs -----------------------------------------------------------------------------------------


class Noise:
    """Two views of a step's samples; stops a run where it is told to."""

    def __init__(self, stop=None, at=-1):
        self.stop, self.at = stop, at

    def __call__(self, step, part=0, parts=1):
        if step == self.at:
            self.stop.request()
        generator = torch.Generator().manual_seed(step)
        words = [torch.randint(3, 23, (1 + i % 9,), generator=generator) for i in range(8)]
        return [Ragged.of(words), Ragged.of(words[::-1])]


def a_run(folder, chunk=4, at=-1, **settings):
    torch.manual_seed(0)
    stop = Stop()
    method = methods.BYOL(text(dropout=0.2), **CONTRAST)
    settings = {"batch": 8, "steps": 6, "every": 1, "precision": "bf16"} | settings
    run = Run(folder)
    train(method, Noise(stop, at), run=run, stop=stop, chunk=chunk, average=0.9, **settings)
    return tensors_hash(run.checkpoint), without_time(run.metrics.read())


def test_a_run_in_parts_resumes_bitwise(tmp_path):
    """With dropout, a teacher and an average of the encoder, in half precision."""
    straight = a_run(tmp_path / "straight")
    assert len(a_run(tmp_path / "stopped", at=2)[1]) == 3
    assert a_run(tmp_path / "stopped") == straight
    a_run(tmp_path / "other", at=2)
    with pytest.raises(SelfsupError, match="chunk: 4 -> 2"):
        a_run(tmp_path / "other", chunk=2)


def test_a_run_from_before_there_were_parts_goes_on(tmp_path, monkeypatch):
    loop = importlib.import_module("selfsup.train")
    settings = loop._settings
    with monkeypatch.context() as before:
        before.setattr(
            loop, "_settings", lambda *a: {k: v for k, v in settings(*a).items() if k != "chunk"}
        )
        a_run(tmp_path, chunk=None, at=2)
    assert len(a_run(tmp_path, chunk=None)[1]) == 6


def test_out_of_memory_is_told_what_would_help(monkeypatch):
    monkeypatch.setattr(faults, "_seen", {})
    monkeypatch.setenv("SELFSUP_FAULT", "train.memory:memory:1")
    with pytest.raises(SelfsupError) as caught:
        train(MADE["VICReg"](), lambda *_: [torch.randn(8, 3, 8, 8)] * 2, batch=8, steps=2)
    assert caught.value.code == "E206" and "train.chunk=4" in caught.value.do


def test_the_setting_reaches_the_loop(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    sizes, cut = [], chunks.cut
    monkeypatch.setattr(chunks, "cut", lambda method, size: (sizes.append(size), cut(method, size)))
    pictures = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), np.uint8)
    np.save(tmp_path / "p.npy", pictures)
    words = ["pretrain", str(tmp_path / "p.npy"), "--method", "simclr", "--encoder", "vit_tiny"]
    words += ["--resolution", "8", "--batch", "8", "--steps", "2", "--out", str(tmp_path / "r")]
    for setting in ("train.chunk=6", "encoder.dim=12", "encoder.depth=1", "method.hidden=8"):
        words += ["--set", setting]
    assert cli.main([*words, "--dry-run"]) == 0
    assert cli.main(words) == 0 and sizes == [6, 6]
    state = json.loads((selfsup.Run.open(tmp_path / "r").checkpoint / "state.json").read_text())
    assert state["settings"]["chunk"] == 6
