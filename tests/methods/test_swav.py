import torch
from fixed import waves
from test_contract import build

from selfsup.losses import sinkhorn
from selfsup.methods.swav import swapped


def test_swapped_against_a_slow_reading_of_equation_6_and_another_implementation():
    scores = torch.stack([waves(0.3 * i, 6, 5) for i in range(4)])
    codes = torch.stack([sinkhorn(x / 0.5) for x in scores[:2]])
    total = 0.0
    for i in range(2):
        for j in range(4):
            for row in range(6 if i != j else 0):
                p = torch.softmax(scores[j, row] / 0.1, 0)
                total -= (codes[i, row] * p.log()).sum() / 6 / 3 / 2
    found = swapped(scores / 0.1, codes)
    torch.testing.assert_close(found, total, atol=1e-5, rtol=1e-5)
    # lightly 1.6.0, loss/swav_loss.py, epsilon 0.5, on the same numbers
    torch.testing.assert_close(found, torch.tensor(3.6856980324), atol=1e-4, rtol=1e-5)


def test_loss_against_a_slow_reading():
    """Codes by exp(scores / 0.05) and three rounds; scores are over the temperature of 0.1."""
    method, views = build("SwAV", "image")
    raw = waves(0.3, 8, 8, 16)  # views, samples, numbers
    method.projector.forward = lambda h: raw.flatten(0, 1)
    c = method.prototypes.directions.detach()
    scores = (raw / raw.norm(dim=-1, keepdim=True)) @ (c / c.norm(dim=1, keepdim=True)).T
    total = 0.0
    for i in range(2):
        q = (scores[i] / 0.05).exp()
        for _ in range(3):
            q = q / q.sum(0) / 32
            q = q / q.sum(1, keepdim=True) / 8
        for j in range(8):
            for row in range(8 if i != j else 0):
                p = (scores[j, row] / 0.1).softmax(0)
                total -= (8 * q[row] * p.log()).sum() / 8 / 14
    found = method(views, 0.0)["swav"]
    torch.testing.assert_close(found, total, atol=1e-5, rtol=1e-5)


def test_a_view_does_not_foretell_its_own_code():
    scores = waves(0.2, 2, 3, 5).requires_grad_()
    codes = torch.zeros(2, 3, 5)
    codes[0, :, 1] = 1.0  # only the first view is sorted
    (gradient,) = torch.autograd.grad(swapped(scores, codes), scores)
    assert gradient[0].abs().sum() == 0 and gradient[1].abs().sum() > 0


def test_codes_use_all_prototypes_alike_and_have_no_gradient():
    method, _ = build("SwAV", "image")
    method.rounds = 100
    z = torch.nn.functional.normalize(torch.randn(64, 16, requires_grad=True), dim=1)
    codes = method.codes(0, z, 0.0)
    torch.testing.assert_close(codes.sum(1), torch.ones(64))
    torch.testing.assert_close(codes.sum(0), torch.full((32,), 2.0), atol=1e-3, rtol=1e-3)
    assert not codes.requires_grad


def test_the_queue_counts_once_it_is_full_and_its_time_has_come():
    method, _ = build("SwAV", "image")
    z = torch.nn.functional.normalize(waves(0.3, 8, 16), dim=1)
    alone = sinkhorn(method.prototypes(z) / 0.05)
    torch.testing.assert_close(method.codes(1, z, 0.5), alone)  # nothing in it
    before = torch.nn.functional.normalize(waves(2.3, 8, 16), dim=1)
    method.codes(1, before, 0.5)  # now the sixteen places are taken
    torch.testing.assert_close(method.codes(1, z, 0.07), alone)  # too early
    method.codes(1, before, 0.07)
    everyone = torch.cat([z, before, z])
    expected = sinkhorn(method.prototypes(everyone) / 0.05)[:8]
    torch.testing.assert_close(method.codes(1, z, 0.5), expected)
    assert not method.queues[0].full  # each wide view has its own


def test_prototypes_do_not_move_while_frozen():
    method, views = build("SwAV", "image")
    method(views, 0.0)["swav"].backward()
    assert method.prototypes.directions.grad.abs().sum() == 0
    assert method.projector[0].weight.grad.abs().sum() > 0
