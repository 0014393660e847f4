"""TF-C against a slow reading of its equations, and what a spectrum is made of."""

import math

import pytest
import torch
from fixed import waves
from test_contract import METHODS, build

from selfsup.dilated import Dilated
from selfsup.errors import SelfsupError
from selfsup.language import Language
from selfsup.methods.tfc import disturbed, spectrum


def slow(a, b):
    """Each vector of both picks its partner among all others, by exp(cosine / 0.2)."""
    z, total = [*a, *b], 0.0
    for i in range(len(z)):
        scores = {
            j: math.exp(torch.cosine_similarity(z[i], z[j], dim=0).item() / 0.2)
            for j in range(len(z))
            if j != i
        }
        total -= math.log(scores[(i + len(a)) % len(z)] / sum(scores.values())) / len(z)
    return total


def test_terms_against_a_slow_reading():
    method, (x1, x2) = build("TFC", "series")
    torch.manual_seed(3)
    terms = method([x1, x2], 0.0)
    plain = spectrum(x1, 3)
    torch.manual_seed(3)
    other = disturbed(plain, 3, 0.1)
    h1, h2, s1, s2 = (
        *(method.encoder(x) for x in (x1, x2)),
        *(method.spectral(x) for x in (plain, other)),
    )
    expected = {
        "time": 0.2 * slow(h1, h2),
        "frequency": 0.2 * slow(s1, s2),
        "consistency": slow(method.projector(h1), method.spectral_projector(s1)),
    }
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, abs=1e-5)
    assert method.chance["consistency"] == pytest.approx(math.log(15))


def test_terms_against_the_authors_code():
    """TFC-pretraining at 741981c, code/TFC/loss.py: NTXentLoss, put together as in trainer.py."""
    method, views = build("TFC", "series")
    h, h_aug, s, s_aug, z, r = (waves(phase, 6, 4) for phase in (0.1, 1.3, 2.2, 0.7, 1.9, 2.9))
    method.encoder.forward = lambda x: torch.cat([h, h_aug])
    method.spectral.forward = lambda x: torch.cat([s, s_aug])
    method.projector.forward, method.spectral_projector.forward = lambda h: z, lambda s: r
    terms = method(views, 0.0)
    expected = {
        "time": 0.2 * 3.9022655487,
        "frequency": 0.2 * 5.2604990005,
        "consistency": 3.1211903095,
    }
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, abs=1e-5)


def test_a_spectrum_against_a_slow_transform():
    x = torch.randn(2, 3, 4, 10)
    found = spectrum(x, 2)
    for k in range(10):
        angle = 2 * math.pi * k * torch.arange(10) / 10
        real, imaginary = (x[:, :2] * angle.cos()).sum(-1), (x[:, :2] * angle.sin()).sum(-1)
        expected = (real.square() + imaginary.square()).sqrt() / 10**0.5
        torch.testing.assert_close(found[:, :2, :, k], expected, atol=1e-5, rtol=1e-5)
    assert (found[:, 2:] == 1).all()  # marks: of a spectrum all values are there


def test_frequencies_are_removed_and_added():
    x = torch.rand(64, 3, 100) + 0.5
    found = disturbed(x, 2, 0.1)
    change = found[:, :2] - x[:, :2]
    assert torch.equal(found[:, 2:], x[:, 2:])
    gone, more = change < -0.3, change > 0
    assert 0.08 < gone.float().mean() < 0.12 and 0.07 < more.float().mean() < 0.11
    largest = x[:, :2].flatten(1).amax(1)[:, None, None].expand_as(change)
    assert (change[more] <= 0.1 * largest[more] + 1e-6).all()
    assert (change[~gone & ~more] == 0).all()


def test_each_encoder_sees_its_own_input():
    method, views = build("TFC", "dilated")
    method.encoder = Dilated(32, 3, dim=24, hidden=16, depth=3, marked=True)
    method.spectral, method.channels = Dilated(32, 3, dim=24, hidden=16, depth=3, marked=True), 3
    marked = [torch.cat([x, (x > 0).float()], 1) for x in views]
    seen = []
    method.encoder.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    method.spectral.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    method(marked, 0.0)
    assert torch.equal(seen[0], torch.cat(marked))
    torch.testing.assert_close(seen[1][:8], spectrum(marked[0], 3))
    assert (seen[1][:, 3:] == 1).all()


def test_time_is_kept_and_the_parts_are_trained_by_what_they_are_for():
    method, views = build("TFC", "series")
    assert method.kept is method.encoder
    terms = method(views, 0.0)
    (terms["time"] + terms["frequency"]).backward(retain_graph=True)
    assert all(p.grad is None for p in method.projector.parameters())
    method.zero_grad()
    terms["time"].backward()
    assert all(p.grad is None for p in method.spectral.parameters())


def test_encoders_that_cannot():
    with pytest.raises(SelfsupError, match="E202"):
        METHODS["TFC"](Language(16, 23, dim=24, depth=1, heads=2, causal=False))
