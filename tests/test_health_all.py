"""Every method of the contract: the alarm rings where nothing can be learned."""

import pytest
import torch
from test_contract import CASES, METHODS, build

from selfsup.optim import Optim
from selfsup.train import train

EIGHT = 8  # samples that the contract's views hold


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def look(method, views, lr):
    return train(
        method,
        lambda step, part=0, parts=1: views,
        batch=EIGHT,
        steps=10,
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
