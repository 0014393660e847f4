import torch
from fixed import ONE, OTHER
from test_contract import build

from selfsup.methods.barlowtwins import cross_correlation


def test_cross_correlation_against_a_slow_reading_of_equation_2():
    c = cross_correlation(ONE, OTHER)
    for i in range(4):
        for j in range(4):
            a, b = ONE[:, i] - ONE[:, i].mean(), OTHER[:, j] - OTHER[:, j].mean()
            # 1e-5: of batch norm, in the authors' code
            below = (a.square().mean() + 1e-5).sqrt() * (b.square().mean() + 1e-5).sqrt()
            torch.testing.assert_close(c[i, j], (a * b).mean() / below, atol=1e-5, rtol=1e-5)


def test_loss_against_another_implementation():
    """lightly 1.6.0, loss/barlow_twins_loss.py, and solo-learn 1.0.2, losses/barlow.py."""
    method, _ = build("BarlowTwins", "image")
    method.projector.forward = lambda h: torch.cat([ONE, OTHER])
    terms = method([torch.randn(6, 3, 16, 16)] * 2, 0.5)
    total = terms["invariance"] + terms["redundancy"]
    torch.testing.assert_close(total / 0.024, torch.tensor(0.4626297653), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(total, torch.tensor(0.0111031141), atol=1e-5, rtol=1e-5)


def test_both_views_have_a_gradient_and_scale_and_shift_do_not_matter():
    one, other = ONE.clone().requires_grad_(), OTHER.clone().requires_grad_()
    c = cross_correlation(one, other)
    c.square().sum().backward()
    assert one.grad.abs().sum() > 0 and other.grad.abs().sum() > 0
    torch.testing.assert_close(cross_correlation(5 * ONE + 3, OTHER), c, atol=1e-4, rtol=1e-4)
