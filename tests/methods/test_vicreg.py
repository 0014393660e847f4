import torch
from fixed import ONE, OTHER
from test_contract import build


def terms_of(one, other, **settings):
    method, _ = build("VICReg", "image")
    method.expander.forward = lambda h: torch.cat([one, other])
    return method([torch.randn(6, 3, 16, 16)] * 2, 0.5)


def test_terms_against_another_implementation():
    """lightly 1.6.0, loss/vicreg_loss.py; solo-learn does not halve the variance: authors' do."""
    found = sum(terms_of(ONE, OTHER).values())
    torch.testing.assert_close(found, torch.tensor(15.0055093765), atol=1e-4, rtol=1e-5)


def test_each_term_against_a_slow_reading():
    terms = terms_of(ONE, OTHER)
    near = sum((a - b).square().sum() for a, b in zip(ONE, OTHER, strict=True)) / 24
    torch.testing.assert_close(terms["invariance"], 25 * near)
    spread = [
        max(0.0, 1 - float(z[:, j].var() + 1e-4) ** 0.5) for z in (ONE, OTHER) for j in range(4)
    ]
    torch.testing.assert_close(terms["variance"], torch.tensor(25 * sum(spread) / 8))
    apart = 0.0
    for z in (ONE, OTHER):
        c = torch.cov(z.T)
        apart += (c.square().sum() - c.diagonal().square().sum()) / 4
    torch.testing.assert_close(terms["covariance"], apart)


def test_a_point_pays_the_whole_variance_and_nothing_else():
    point = torch.ones(6, 4)
    terms = {name: float(x) for name, x in terms_of(point, point).items()}
    assert terms["invariance"] == terms["covariance"] == 0
    assert abs(terms["variance"] - 25 * 0.99) < 1e-4
