"""BGRL against a slow reading of equations 3 to 5."""

import copy

import pytest
import torch
from fixed import waves
from test_graph import WIDTH, graphs

from selfsup.graph import network
from selfsup.methods import BGRL


def method(**settings) -> BGRL:
    torch.manual_seed(0)
    model = BGRL(network("gcn", WIDTH, dim=8), hidden=16, **settings)
    for p in model.teacher.parameters():  # after a while it is another one
        p.data += 0.1 * torch.randn_like(p)
    return model


def test_loss_against_a_slow_reading():
    model, x, y = method(), graphs((5, 7)), graphs((5, 7), seed=1)
    total = 0.0
    for one, other in ((x, y), (y, x)):
        q = model.predictor(model.encoder.nodes(one))
        z = model.teacher.slow.nodes(other)
        for i in range(12):
            total += 1 - q[i] @ z[i] / (q[i].norm() * z[i].norm())
    found = model([x, y], 0.0)["regression"]
    torch.testing.assert_close(found, total / 12, atol=1e-5, rtol=1e-5)


def test_loss_and_momentum_against_the_authors_code():
    """bgrl at 868acd9, train_transductive.py, and scheduler.py at steps 0, 300, 500 and 1000."""
    model, x = method(), graphs((5, 7))
    q1, y2, q2, y1 = (waves(phase, 6, 4) for phase in (0.1, 1.3, 2.2, 0.7))
    model.predictor.forward = lambda h: torch.cat([q1, q2])
    model.teacher.slow.nodes = lambda x: torch.cat([y1, y2])
    found = model([x, x], 0.0)["regression"]
    torch.testing.assert_close(found, torch.tensor(1.5662794113), atol=1e-5, rtol=1e-5)
    momenta = [model.momentum(p) for p in (0.0, 0.3, 0.5, 1.0)]
    assert momenta == pytest.approx([0.99, 0.9920610737, 0.995, 1.0], abs=1e-9)


def test_the_teacher_is_an_average_and_ends_where_it_is():
    model = method(momentum=0.9)
    before, encoder = copy.deepcopy(model.teacher.slow), model.encoder
    model.after_step(0.0)
    for p, old, new in zip(
        model.teacher.slow.parameters(), before.parameters(), encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(p, 0.9 * old + 0.1 * new)
    again = copy.deepcopy(model.teacher.slow)
    model.after_step(1.0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.teacher.parameters(), again.parameters(), strict=True)
    )
    assert model.momentum(0.5) == pytest.approx(0.95)


def test_no_gradient_reaches_the_teacher_and_none_the_encoder_through_the_target():
    model, x, y = method(), graphs((5, 7)), graphs((5, 7), seed=1)
    model([x, y], 0.0)["regression"].backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    for p in model.predictor.parameters():
        p.data.zero_()  # then the target is all that could say anything of the views
    model.zero_grad()
    model([x, y], 0.0)["regression"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.encoder.parameters())
