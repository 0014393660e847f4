"""Joint-embedding methods: silent when all is well; without what keeps them apart, alarms ring."""

import pytest
import torch
from test_health import BATCH, Digits, look, vit
from torch import nn

from selfsup import methods
from selfsup.methods import barlowtwins, curl, moco, mocov3, msn, nnclr, simsiam, swav
from selfsup.optim import Optim

MADE = {
    "MoCo": {"queue": 128, "hidden": 64, "dim": 16, "momentum": 0.95},
    "CURL": {"dim": 16},
    "MoCoV3": {"hidden": 64, "dim": 16, "momentum": 0.95},
    "BYOL": {"hidden": 64, "dim": 16, "momentum": 0.95},
    "SimSiam": {"hidden": 64, "bottleneck": 16},
    "BarlowTwins": {"dim": 64},
    "VICReg": {"dim": 64},
    "SwAV": {"prototypes": 32, "hidden": 64, "dim": 16, "local_views": 1, "queue": 64},
    "NNCLR": {"queue": 128, "hidden": 64, "dim": 16, "predictor_hidden": 64},
    "TiCo": {"hidden": 64, "dim": 16, "momentum": 0.95},
    "LeJEPA": {"hidden": 64, "dim": 8, "slices": 32, "local_views": 1},
    "MSN": {"prototypes": 32, "hidden": 64, "dim": 16, "local_views": 1, "momentum": 0.95},
    "IBOT": {"prototypes": 32, "hidden": 64, "dim": 16, "local_views": 1, "momentum": 0.95},
    "DINOv2": {"prototypes": 32, "hidden": 64, "dim": 16, "local_views": 1, "momentum": 0.95},
}
SORTING = ("SwAV", "MSN", "IBOT", "DINOv2")  # into prototypes, one of which may win them all


def make(name, **settings):
    torch.manual_seed(0)
    return getattr(methods, name)(vit(), **(MADE[name] | settings))


@pytest.mark.parametrize("name", MADE)
def test_silent_on_a_healthy_run(name):
    method = make(name)
    optim = Optim("adamw", lr=1e-3, per=BATCH, weight_decay=0.0, clip=3.0)
    outcome, rows, _ = look(method, Digits(method.views.count), 30, optim, every=5)
    assert [e for e in outcome.events if e["kind"] != "spike"] == [], rows[-1]
    assert outcome.verdict == "healthy"


@pytest.mark.parametrize("name", MADE)
def test_a_learning_rate_of_nothing_rings(name):
    method = make(name)
    outcome, _, alarms = look(method, Digits(method.views.count), 8, Optim(lr=1e-20))
    assert "weights do not move" in alarms[0]["message"] and outcome.verdict == "collapsed"


def attract(a, b, *rest, **others):
    return 1 - torch.cosine_similarity(a, b).mean()


def without(monkeypatch, name):
    """The method without heads and without what keeps its samples apart."""
    if name in ("MoCo", "MoCoV3", "NNCLR"):
        module = {"MoCo": moco, "MoCoV3": mocov3, "NNCLR": nnclr}[name]
        monkeypatch.setattr(module, "info_nce", attract)
    if name == "CURL":
        monkeypatch.setattr(curl, "bilinear", attract)
    if name == "SimSiam":  # its stopped gradient
        monkeypatch.setattr(simsiam, "distance", attract)
    if name in ("SwAV", "MSN"):
        module = {"SwAV": swav, "MSN": msn}[name]
        monkeypatch.setattr(module, "sinkhorn", lambda scores, *rest: scores.softmax(-1))
    if name == "BarlowTwins":
        monkeypatch.setattr(barlowtwins, "standardise", lambda z: z)
    weights = {
        "BarlowTwins": {"trade_off": 0.0},
        "VICReg": {"variance": 0.0, "covariance": 0.0},
        "TiCo": {"weight": 0.0},
        "LeJEPA": {"weight": 0.0},
        "MSN": {"spread": 0.0},
        "IBOT": {"centre_momentum": 1.0, "momentum": 0.5},
        "DINOv2": {"centring": "mean", "centre_momentum": 1.0, "spread": 0.0, "momentum": 0.5},
    }
    sizes = {"dim": 32, "hidden": 32} if name in ("MoCo", "NNCLR", "TiCo") else {}
    method = make(name, **weights.get(name, {}), **sizes)
    if name not in SORTING:
        for part in ("head", "teacher_head", "projector", "teacher_projector", "predictor",
                     "expander"):  # fmt: skip
            if hasattr(method, part):
                teacher = part.startswith("teacher")
                setattr(method, part, Itself() if teacher else nn.Identity())
    return method


class Itself(nn.Identity):
    def follow(self, student, momentum):
        pass


@pytest.mark.parametrize("name", MADE)
def test_without_what_keeps_samples_apart(name, monkeypatch):
    method = without(monkeypatch, name)
    optim = Optim("adamw", lr=1e-2, per=BATCH, weight_decay=0.0)
    steps = 120 if name in SORTING[1:] else 60
    outcome, rows, alarms = look(method, Digits(method.views.count), steps, optim, every=4)
    assert outcome.verdict == "collapsed", rows[-1]
    assert "same" in alarms[-1]["message"], alarms
