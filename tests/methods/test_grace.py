"""GRACE against a slow reading of equations 1 and 2."""

import math

import pytest
import torch
from fixed import ONE, OTHER
from test_graph import WIDTH, graphs
from torch.nn.functional import cosine_similarity

from selfsup.errors import SelfsupError
from selfsup.graph import network
from selfsup.methods import GRACE
from selfsup.methods.grace import contrast


def slow(u, v, temperature):
    def one(a, b, i):
        def theta(x, y):
            return torch.exp(cosine_similarity(x, y, dim=0) / temperature)

        total = sum(theta(a[i], b[k]) for k in range(len(a)))
        total = total + sum(theta(a[i], a[k]) for k in range(len(a)) if k != i)
        return -torch.log(theta(a[i], b[i]) / total)

    return sum(one(u, v, i) + one(v, u, i) for i in range(len(u))) / (2 * len(u))


def test_loss_and_gradient_are_those_of_the_equations():
    u, v = (torch.randn(7, 4, dtype=torch.double, requires_grad=True) for _ in range(2))
    found, expected = contrast(u, v, 0.4), slow(u, v, 0.4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad(3 * found, (u, v))
    theirs = torch.autograd.grad(3 * expected, (u, v))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_loss_against_a_slow_reading_and_another_implementation():
    torch.manual_seed(0)
    method = GRACE(network("gcn", WIDTH, dim=8), hidden=8, dim=4)
    for p in method.projector.parameters():  # or all point almost the same way
        torch.nn.init.normal_(p)
    x, y = graphs((4, 2)), graphs((4, 2), seed=1)
    u, v = (method.projector(method.encoder.nodes(view)) for view in (x, y))
    terms = method([x, y], 0.0)
    assert list(terms) == ["contrast"]
    torch.testing.assert_close(terms["contrast"], slow(u, v, 0.4), atol=1e-5, rtol=1e-5)
    method.projector.forward = lambda h: torch.cat([ONE, OTHER])
    found = method([x, y], 0.0)["contrast"]
    # authors' code at 700be33, model.py, tau 0.4, on the same numbers
    torch.testing.assert_close(found, torch.tensor(1.7469743490), atol=1e-5, rtol=1e-5)


def test_parts_of_the_similarities_give_the_same(monkeypatch):
    u, v = torch.randn(30, 8), torch.randn(30, 8)
    whole = contrast(u, v, 0.4)
    monkeypatch.setattr("selfsup.methods.grace.ROWS", 7)
    torch.testing.assert_close(contrast(u, v, 0.4), whole)


@pytest.mark.parametrize("temperature", [0.02, 0.4, 3.0])
def test_exponentials_stay_finite(temperature):
    u = torch.randn(40, 8)
    for v in (u, -u, torch.randn(40, 8)):  # from alike to opposite
        u.requires_grad_().grad = None
        loss = contrast(u, v, temperature)
        loss.backward()
        torch.testing.assert_close(loss, slow(u, v, temperature), atol=1e-5, rtol=1e-5)
        assert u.grad.isfinite().all()
    with pytest.raises(SelfsupError, match="at least"):
        GRACE(network("gcn", WIDTH, dim=8), temperature=0.01)


def test_large_batches_are_thinned_and_chance_is_told():
    torch.manual_seed(0)
    method = GRACE(network("gcn", WIDTH, dim=8), hidden=8, dim=4, most=10)
    loss = method([graphs((30,)), graphs((30,))], 0.0)["contrast"]
    assert method.chance["contrast"] == math.log(19) and loss.isfinite()
