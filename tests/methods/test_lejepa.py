import math

import torch
from fixed import ONE, OTHER, waves
from test_contract import build

from selfsup.losses import sigreg


def slow(views, d):
    total, step, n = 0.0, 3 / 16, views.shape[1]
    for view in views:
        for m in range(d.shape[1]):
            x = (view @ d[:, m]).tolist()
            for k in range(-16, 17):  # both sides of zero
                t = k * step
                phi = sum(complex(math.cos(t * a), math.sin(t * a)) for a in x) / n
                error = abs(phi - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)
                total += n * error * step * (0.5 if abs(k) == 16 else 1)
    return torch.tensor(total / len(views) / d.shape[1])


def test_sigreg_against_a_slow_reading_and_another_implementation():
    d = waves(0.5, 4, 8)
    d = d / d.norm(dim=0)
    views = torch.stack([ONE, OTHER])
    found = sigreg(views, d)
    torch.testing.assert_close(found, slow(views, d), atol=1e-5, rtol=1e-5)
    # lightly 1.6.0, loss/lejepa_loss.py, along the same directions
    torch.testing.assert_close(found, torch.tensor(1.6974742413), atol=1e-5, rtol=1e-5)


def test_two_views_against_the_authors_code(monkeypatch):
    """lejepa at 2f2d970, MINIMAL.md: inv_loss and SIGReg, along the same directions."""
    method, views = build("LeJEPA", "image")
    d = waves(0.5, 4, 8)
    monkeypatch.setattr("selfsup.methods.lejepa.directions", lambda *_: d / d.norm(dim=0))
    method.projector.forward = lambda h: torch.cat([ONE, OTHER])
    terms = method([x[:6] for x in views[:2]], 0.5)
    expected = {"prediction": 0.95 * 0.0312160496, "sigreg": 0.05 * 1.6974742413}
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], torch.tensor(value), atol=1e-6, rtol=1e-5)


def test_sigreg_is_small_for_a_gaussian_and_large_for_what_is_none():
    torch.manual_seed(0)
    d = torch.randn(8, 64)
    d = d / d.norm(dim=0)
    gauss = torch.randn(1, 2000, 8)
    small = float(sigreg(gauss, d))
    assert small < 1.5  # of the order of 1, whatever the number of samples
    point = torch.zeros(1, 2000, 8)
    line = gauss[..., :1].expand_as(gauss)
    for x in (point, line, 3 * gauss, gauss + 1, gauss.sign() * 2):
        assert float(sigreg(x, d)) > 20 * small
    assert float(sigreg(torch.cat([gauss, point]), d)) > 20 * small  # each view for itself


def test_all_views_are_drawn_to_the_mean_of_the_wide_ones():
    method, views = build("LeJEPA", "image")
    z = torch.randn(64, 8)
    method.projector.forward = lambda h: z
    terms = method(views, 0.5)
    by_view = z.view(8, 8, 8)  # views, samples, numbers
    total = 0.0
    for view in by_view:
        total += (view - (by_view[0] + by_view[1]) / 2).square().mean() / 8
    torch.testing.assert_close(terms["prediction"], 0.95 * total)


def test_sigreg_is_of_each_view_along_directions_of_length_one_and_weighs_a_twentieth():
    method, views = build("LeJEPA", "image")
    z = waves(0.3, 64, 8)
    method.projector.forward = lambda h: z
    torch.manual_seed(3)
    terms = method(views, 0.5)
    torch.manual_seed(3)
    d = torch.randn(8, 32)
    expected = 0.05 * slow(z.view(8, 8, 8), d / d.norm(dim=0))
    assert set(terms) == {"prediction", "sigreg"}
    torch.testing.assert_close(terms["sigreg"], expected, atol=1e-5, rtol=1e-5)


def test_directions_are_drawn_anew_from_the_step_and_gradients_reach_all_views():
    method, views = build("LeJEPA", "image")
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(method(views, 0.5)["sigreg"].item())
    assert values[0] == values[1] != values[2]
    views = [x.requires_grad_() for x in views]
    method(views, 0.5)["prediction"].backward()
    assert all(x.grad.abs().sum() > 0 for x in views)  # nothing is stopped
