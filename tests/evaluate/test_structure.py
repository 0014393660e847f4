import pytest
import torch

from selfsup.evaluate import structure


def test_effective_rank_of_spaces_whose_rank_is_known():
    assert structure.effective_rank(torch.ones(50, 8)) == pytest.approx(1.0, abs=1e-3)
    assert structure.effective_rank(torch.eye(32).repeat(4, 1)) == pytest.approx(32, rel=1e-4)
    x = torch.zeros(100, 80)
    x[:, :3] = torch.linalg.qr(torch.randn(100, 3))[0]  # three equal directions of 80
    assert structure.effective_rank(x) == pytest.approx(3, rel=1e-3)
    assert structure.effective_rank(torch.zeros(10, 4)) < 5


def test_effective_rank_against_equation_1():
    x = torch.randn(90, 70) @ torch.diag(torch.linspace(0.1, 3, 70))
    s = torch.linalg.svdvals(x.double())
    p = s / s.sum() + 1e-7
    expected = torch.exp(-(p * p.log()).sum()).item()
    assert structure.effective_rank(x) == pytest.approx(expected, rel=1e-5)
    assert structure.effective_rank(x.T) == pytest.approx(expected, rel=1e-5)


def test_clusters_that_are_classes_agree_and_noise_does_not():
    y = torch.arange(120) % 3
    x = 0.05 * torch.randn(120, 6) + torch.eye(6)[y]
    assert structure.clustering(x, y) == (1.0, 1.0)
    noise = structure.clustering(torch.randn(120, 6), y)
    assert noise.nmi < 0.2 and abs(noise.ari) < 0.1


def test_a_collapsed_space_has_no_agreement_and_no_warning(recwarn):
    found = structure.clustering(torch.ones(30, 4), torch.arange(30) % 3)
    assert found.nmi == pytest.approx(0.0, abs=1e-9) and not recwarn.list


def test_what_is_clustered_is_of_every_class(monkeypatch):
    """Class by class the first ones are of half of the classes, and in turns every second is."""
    monkeypatch.setattr(structure, "MOST", 60)
    y = torch.arange(6).repeat_interleave(20)
    x = torch.eye(6)[y]
    x[y >= 3] = torch.eye(6)[0]  # the later classes look like the first
    assert structure.clustering(x, y).nmi < 0.9
    assert structure.clustering(torch.eye(6)[y], y).nmi == pytest.approx(1.0)
    turns = torch.arange(120) % 2
    assert structure.clustering(torch.ones(120, 6), turns).nmi < 0.1
