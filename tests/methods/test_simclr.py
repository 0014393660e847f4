import torch
from fixed import ONE, OTHER
from test_contract import build

from selfsup.methods.simclr import nt_xent


def slow(z1, z2, t):
    """Equation 1, view by view."""
    z = [v / v.norm() for v in [*z1, *z2]]
    n, total = len(z1), 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        candidates = sum(torch.exp(z[i] @ z[k] / t) for k in range(2 * n) if k != i)
        total -= torch.log(torch.exp(z[i] @ z[j] / t) / candidates)
    return total / (2 * n)


def test_nt_xent_against_a_slow_reading_of_equation_1():
    z1, z2 = torch.randn(5, 7), torch.randn(5, 7)
    torch.testing.assert_close(nt_xent(z1, z2, 0.3), slow(z1, z2, 0.3), atol=1e-5, rtol=1e-5)


def test_loss_against_a_slow_reading_and_another_implementation():
    method, views = build("SimCLR", "image")
    z1, z2 = method.projector(method.encoder(torch.cat(views))).chunk(2)
    terms = method(views, 0.5)
    assert list(terms) == ["nt_xent"]
    torch.testing.assert_close(terms["nt_xent"], slow(z1, z2, 0.2), atol=1e-5, rtol=1e-5)
    method.projector.forward = lambda h: torch.cat([ONE, OTHER])
    found = method(views, 0.5)["nt_xent"]
    # lightly 1.6.0, loss/ntx_ent_loss.py, temperature 0.2, on the same numbers
    torch.testing.assert_close(found, torch.tensor(1.6406641006), atol=1e-5, rtol=1e-5)


def test_partners_that_agree_and_nobody_else_give_the_smallest_loss():
    z = torch.eye(8)
    aligned, crossed = nt_xent(z, z, 0.1), nt_xent(z, z.roll(1, 0), 0.1)
    assert aligned < 0.01 and crossed > 5


def test_identical_views_of_one_sample_are_chance():
    z = torch.ones(6, 4)
    torch.testing.assert_close(nt_xent(z, z, 0.2), torch.tensor(11.0).log())
