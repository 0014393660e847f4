import torch
from fixed import ONE, OTHER
from test_contract import build

from selfsup.methods.byol import distance


def test_distance_against_a_slow_reading_of_equation_2_and_another_implementation():
    total = 0.0
    for q, z in zip(ONE, OTHER, strict=True):
        total += (q / q.norm() - z / z.norm()).square().sum() / 6
    found = distance(ONE, OTHER)
    torch.testing.assert_close(found, total, atol=1e-5, rtol=1e-5)
    # solo-learn 1.0.2, losses/byol.py, on the same numbers
    torch.testing.assert_close(found, torch.tensor(0.2595100403), atol=1e-5, rtol=1e-5)


def test_each_view_predicts_the_other_one():
    method, views = build("BYOL", "image")
    q, z = torch.randn(16, 16), torch.randn(16, 16)
    method.predictor.forward = lambda x: q
    method.teacher_projector.forward = lambda x: z
    found = method(views, 0.5)["regression"]
    torch.testing.assert_close(found, distance(q[:8], z[8:]) + distance(q[8:], z[:8]))


def test_no_gradient_flows_into_the_target():
    method, views = build("BYOL", "image")
    targets = []
    method.teacher_projector.register_forward_hook(lambda m, i, out: targets.append(out))
    method(views, 0.5)
    assert not targets[0].requires_grad


def test_momentum_rises_to_one():
    method, _ = build("BYOL", "image")
    assert method.momentum(0.0) == 0.9 and method.momentum(1.0) == 1.0
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    method.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, method.teacher.parameters(), strict=True))
    method.after_step(0.0)
    for old, now in zip(before, method.teacher.parameters(), strict=True):
        assert torch.allclose(now - old, torch.full_like(old, 0.1), atol=1e-5)
