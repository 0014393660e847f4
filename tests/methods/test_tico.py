import torch
from fixed import ONE, OTHER
from test_contract import build

from selfsup.methods.tico import contrast


def normalise(x):
    return torch.nn.functional.normalize(x, dim=1)


def test_contrast_against_a_slow_reading():
    z, c = ONE, OTHER.T @ OTHER
    total = sum(z[n, i] * c[i, j] * z[n, j] for n in range(6) for i in range(4) for j in range(4))
    torch.testing.assert_close(contrast(z, c), total / 6)


def test_one_way_of_the_loss_against_another_implementation():
    """lightly 1.6.0, loss/tico_loss.py: the first call, and the second on the same numbers."""
    z, t, c = normalise(ONE), normalise(OTHER), torch.zeros(4, 4)
    for expected in (0.531365037, 0.8928139806):
        c = 0.9 * c + 0.1 * z.T @ z / 6
        loss = 1 - (z * t).sum(-1).mean() + 8 * contrast(z, c)
        torch.testing.assert_close(loss, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_both_ways_and_the_memory():
    method, views = build("TiCo", "image")
    z, t = torch.randn(16, 16), torch.randn(16, 16)
    method.projector.forward = lambda h: z
    method.teacher_projector.forward = lambda h: t
    for _ in range(2):
        before = method.covariance.clone()
        terms = method(views, 0.5)
        expected = 0.9 * before + 0.1 * normalise(z).T @ normalise(z) / 16
        torch.testing.assert_close(method.covariance, expected)
    cosines = torch.cosine_similarity(z, torch.cat([t[8:], t[:8]]), dim=1)
    torch.testing.assert_close(terms["invariance"], 1 - cosines.mean())
    torch.testing.assert_close(terms["contrast"], 8 * contrast(normalise(z), expected))


def test_the_gradient_is_of_the_batchs_own_covariance_too():
    """By hand: z' C z changes by 2 C z; and by what z itself, 1 - beta of it, does to C."""
    method, views = build("TiCo", "image")
    method(views, 0.5)
    before = method.covariance.clone()
    raw = torch.randn(16, 16, requires_grad=True)
    seen = []
    method.projector.forward = lambda h: raw
    raw.register_hook(seen.append)
    method(views, 0.5)["contrast"].backward()
    z = normalise(raw.detach())
    own = z.T @ z / 16
    c = 0.9 * before + 0.1 * own
    slope = 8 / 16 * (2 * z @ c + 0.1 * 2 * z @ own)
    slope = slope - (slope * z).sum(1, keepdim=True) * z  # along the sphere
    torch.testing.assert_close(seen[0], slope / raw.detach().norm(dim=1, keepdim=True))


def test_the_memory_and_the_target_have_no_gradient():
    method, views = build("TiCo", "image")
    method(views, 0.5)
    assert not method.covariance.requires_grad
    targets = []
    method.teacher_projector.register_forward_hook(lambda m, i, out: targets.append(out))
    method(views, 0.5)
    assert not targets[0].requires_grad
