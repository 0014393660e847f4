"""Every method of the contract: the alarm rings where nothing can be learned."""

import pytest
import torch
from test_contract import CASES, METHODS, build
from torch import nn

from selfsup.methods import clip, grace, simcse, tfc, ts2vec
from selfsup.optim import Optim
from selfsup.train import train

EIGHT = 8  # samples that the contract's views hold


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def look(method, views, lr, steps=10):
    return train(
        method,
        lambda step, part=0, parts=1: views,
        batch=EIGHT,
        steps=steps,
        every=1,
        optim=Optim("adamw", lr=lr, per=EIGHT, warmup=0.0),
        precision="fp32",
    )


def first(name: str):
    """A method of the contract with views of the first kind of data that it is for."""
    return build(name, next(kind for other, kind in CASES if other == name))


@pytest.mark.parametrize("name", METHODS)
def test_a_learning_rate_of_nothing_rings(name):
    outcome = look(*first(name), lr=1e-20)
    said = [event["message"] for event in outcome.events if event["kind"] == "verdict"]
    assert outcome.verdict == "collapsed" and any("do not move" in text for text in said), said


@pytest.mark.parametrize("name", [n for n in METHODS if (n, "series") in CASES])
def test_identical_samples_are_a_fault_of_the_data(name):
    """Of other kinds of data `Batch.alike` tells it, before there are views."""
    method, views = build(name, "series")
    same = [x[:1].expand_as(x) for x in views]
    outcome = look(method, same, lr=1e-3)
    said = [event["message"] for event in outcome.events if event["kind"] == "verdict"]
    assert outcome.verdict == "collapsed" and any("look the same" in text for text in said), said


# -- methods that compare samples or follow themselves, on data for which they are -----------------

KINDS = {
    "SimCSE": "text",
    "GRACE": "graphs",
    "BGRL": "graphs",
    "CLIP": "pairs",
    "TFC": "series",
    "TS2Vec": "series",
}
OTHERS = {"MLM": "text", "CLM": "text", "MDLM": "text", "ELECTRA": "text", "GraphMAE": "graphs",
          "DGI": "graphs", "World_Model": "vectors"}  # fmt: skip


@pytest.mark.parametrize("name", [*KINDS, *OTHERS])
def test_silent_on_a_healthy_run(name):
    """Eight samples, which are learned by heart."""
    outcome = look(*build(name, (KINDS | OTHERS)[name]), lr=1e-3, steps=30)
    assert [e for e in outcome.events if e["kind"] != "spike"] == []
    assert outcome.verdict == "healthy"


def attract(a, b, *rest):
    return 1 - torch.cosine_similarity(a, b, dim=-1).mean()


def without(monkeypatch, name):
    """The method without heads and without what keeps its samples apart, and its views."""
    for module, contrast in ((simcse, "info_nce"), (grace, "contrast"), (clip, "softmax"),
                             (tfc, "nt_xent"), (ts2vec, "contrast")):  # fmt: skip
        monkeypatch.setattr(module, contrast, attract)
    method, views = build(name, KINDS[name])
    if name == "BGRL":
        method.momentum = lambda progress: 0.0
    for part in ("head", "projector", "spectral_projector", "predictor"):
        if hasattr(method, part):
            setattr(method, part, nn.Identity())
    return method, views


@pytest.mark.parametrize("name", KINDS)
def test_without_what_keeps_samples_apart(name, monkeypatch):
    """Of eight samples, which are always the same, the last traces go slowly."""
    outcome = look(*without(monkeypatch, name), lr=2e-2, steps=60)
    said = [event["message"] for event in outcome.events if event["kind"] == "verdict"]
    assert outcome.verdict in ("warning", "collapsed"), said
    assert "same embedding" in said[-1] or "very few dimensions" in said[-1], said
