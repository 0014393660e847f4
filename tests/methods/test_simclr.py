import torch

from selfsup.methods.simclr import nt_xent


def test_nt_xent_against_a_slow_reading_of_equation_1():
    z1, z2, t = torch.randn(5, 7), torch.randn(5, 7), 0.3
    z = [v / v.norm() for v in [*z1, *z2]]
    total = 0.0
    for i in range(10):
        j = (i + 5) % 10
        candidates = sum(torch.exp(z[i] @ z[k] / t) for k in range(10) if k != i)
        total -= torch.log(torch.exp(z[i] @ z[j] / t) / candidates)
    torch.testing.assert_close(nt_xent(z1, z2, t), total / 10, atol=1e-5, rtol=1e-5)


def test_partners_that_agree_and_nobody_else_give_the_smallest_loss():
    z = torch.eye(8)
    aligned, crossed = nt_xent(z, z, 0.1), nt_xent(z, z.roll(1, 0), 0.1)
    assert aligned < 0.01 and crossed > 5


def test_identical_views_of_one_sample_are_chance():
    z = torch.ones(6, 4)
    torch.testing.assert_close(nt_xent(z, z, 0.2), torch.tensor(11.0).log())
