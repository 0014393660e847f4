"""TS2Vec against a slow reading of the paper, and what must hold whatever is computed."""

import math

import pytest
import torch
from fixed import waves

from selfsup.dilated import Dilated
from selfsup.encoder import Encoder
from selfsup.methods import TS2Vec, ts2vec
from selfsup.stems import Patches


def slow_instance(z1, z2):
    """Equation 2, sample by sample and place by place, both directions."""
    b, n, _ = z1.shape
    total = 0.0
    for t in range(n):
        for i in range(b):
            for a, other in ((z1, z2), (z2, z1)):
                positive = math.exp(a[i, t] @ other[i, t])
                rest = sum(math.exp(a[i, t] @ other[j, t]) for j in range(b))
                rest += sum(math.exp(a[i, t] @ a[j, t]) for j in range(b) if j != i)
                total -= math.log(positive / rest)
    return total / (2 * b * n)


def slow_temporal(z1, z2):
    """Equation 1: the same with places of one sample for samples at one place."""
    return slow_instance(z1.transpose(0, 1), z2.transpose(0, 1))


def test_equations_and_hierarchy(monkeypatch):
    torch.manual_seed(0)
    z1, z2 = torch.randn(3, 7, 4, dtype=torch.float64) / 2, torch.randn(3, 7, 4).double() / 2
    found = ts2vec.contrast(z1.transpose(0, 1), z2.transpose(0, 1)).item()
    assert found == pytest.approx(slow_instance(z1, z2), abs=1e-5)
    assert ts2vec.contrast(z1, z2).item() == pytest.approx(slow_temporal(z1, z2), abs=1e-5)

    method = TS2Vec(Dilated(7, 2, dim=4, hidden=4, depth=1))
    both = iter((z1, z2))
    monkeypatch.setattr(ts2vec, "overlap", lambda *_: ((0, 0, 7, 7), torch.zeros(3).long()))
    monkeypatch.setattr(TS2Vec, "see", lambda *_: next(both))
    terms = method.loss([torch.zeros(3, 2, 7)], 0.0)
    expected = {"instance": 0.0, "temporal": 0.0}
    a, b = z1, z2
    for level in range(3):  # 7, 3 and 1 places
        expected["instance"] += 0.5 * slow_instance(a, b) / 3
        if level < 2:
            expected["temporal"] += 0.5 * slow_temporal(a, b) / 3
            a, b = (z[:, : len(z[0]) // 2 * 2].unflatten(1, (-1, 2)).amax(2) for z in (a, b))
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, abs=1e-5), name


def test_loss_against_another_implementation(monkeypatch):
    """The authors' code (ts2vec 0.1, models/losses.py), hierarchical_contrastive_loss."""
    method = TS2Vec(Dilated(7, 2, dim=4, hidden=4, depth=1))
    both = iter((waves(0.3, 3, 7, 4), waves(1.9, 3, 7, 4)))
    monkeypatch.setattr(ts2vec, "overlap", lambda *_: ((0, 0, 7, 7), torch.zeros(3).long()))
    monkeypatch.setattr(TS2Vec, "see", lambda *_: next(both))
    found = sum(method.loss([torch.zeros(3, 2, 7)], 0.0).values())
    torch.testing.assert_close(found, torch.tensor(1.8676685095), atol=1e-5, rtol=1e-5)


def test_the_gradient_is_that_of_the_loss():
    z = torch.randn(3, 8, 5, dtype=torch.double, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):  # which leaves float64 alone
        assert torch.autograd.gradcheck(ts2vec._Contrast.apply, z)
    (first,) = torch.autograd.grad(ts2vec._Contrast.apply(z) ** 2, z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):  # instead of a wrong second one
        first.sum().backward()
    similarity = (z @ z.mT).masked_fill(torch.eye(8, dtype=torch.bool), -torch.inf)
    partner = torch.arange(8).roll(4).repeat(3)
    expected = torch.nn.functional.cross_entropy(similarity.flatten(0, 1), partner)
    torch.testing.assert_close(ts2vec._Contrast.apply(z), expected)


def test_half_precision_is_for_the_gradient_alone():
    """Similarities of hundreds, whose last digits tell who is nearest, are beyond bfloat16."""
    torch.manual_seed(0)
    z = (3 * torch.randn(4, 16, 64)).bfloat16().float().requires_grad_()
    halves = z.detach().clone().requires_grad_()
    whole = ts2vec.contrast(*z.chunk(2, 1))
    with torch.autocast("cpu", torch.bfloat16):
        half = ts2vec.contrast(*halves.chunk(2, 1))
    assert torch.equal(half, whole) and whole > 100
    whole.backward(), half.backward()
    torch.testing.assert_close(halves.grad, z.grad, atol=1e-3, rtol=1e-2)
    assert not torch.equal(halves.grad, z.grad)


def test_untrained_losses_are_at_chance(monkeypatch):
    method = TS2Vec(Dilated(16, 1, dim=4, hidden=4, depth=1))
    monkeypatch.setattr(TS2Vec, "see", lambda self, x, unit: torch.zeros(5, x.shape[2] // unit, 4))
    torch.manual_seed(0)
    terms = method.loss([torch.randn(5, 1, 16)], 0.0)
    for name, value in method.chance.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 97])
def test_crops_share_their_places_and_stay_inside(n):
    seen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        (outer, left, right, end), offset = ts2vec.overlap(n, 6, torch.device("cpu"))
        assert 0 <= outer <= left < right <= end <= n and right - left >= min(2, n)
        assert (offset + outer >= 0).all() and (offset + end <= n).all()
        places = torch.arange(n).float().expand(6, 1, n)
        first = ts2vec.cut(places, offset + outer, right - outer, 1)[:, :, left - outer :]
        second = ts2vec.cut(places, offset + left, end - left, 1)[:, :, : right - left]
        assert torch.equal(first, second)
        seen.add((outer, left, right, end))
    assert len(seen) > 20 or n < 10


def test_a_cut_in_patches_of_two_axes():
    x = torch.arange(2 * 1 * 6 * 2).view(2, 1, 6, 2).float()
    found = ts2vec.cut(x, torch.tensor([0, 1]), 2, 2)
    assert torch.equal(found, torch.stack([x[0, :, 0:4], x[1, :, 2:6]]))


@pytest.mark.parametrize("kind", ["dilated", "patches"])
def test_what_is_hidden_is_never_seen(kind):
    torch.manual_seed(0)
    if kind == "dilated":
        encoder, unit = Dilated(16, 2, dim=8, hidden=8, depth=2).eval(), 1
    else:
        encoder, unit = Encoder(Patches((16,), (4,), 2, 8), dim=8, depth=1, heads=2), 4
    hidden = torch.rand(3, 16 // unit) < 0.5
    x, y = torch.randn(3, 2, 16), torch.randn(3, 2, 16)
    gone = hidden.repeat_interleave(unit, 1)[:, None]
    z = encoder.features(x, hidden)
    assert torch.equal(z, encoder.features(torch.where(gone, y, x), hidden))
    assert not torch.equal(z, encoder.features(torch.where(gone, x, y), hidden))
    x.requires_grad_()
    encoder.features(x, hidden)[:, :, 0].sum().backward()
    assert (x.grad.abs().sum(1, keepdim=True) > 0).equal(~gone)


def test_what_is_kept_is_the_mean_of_all_weights():
    method = TS2Vec(Dilated(8, 1, dim=4, hidden=4, depth=1))
    weight, seen = method.encoder.stem.weight, []
    for step in range(5):
        with torch.no_grad():
            weight.add_(torch.randn_like(weight))
        seen.append(weight.detach().clone())
        method.after_step(step / 5)
    torch.testing.assert_close(method.kept.stem.weight, torch.stack(seen).mean(0))
