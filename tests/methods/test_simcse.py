"""SimCSE against a slow reading of equation 4, and the dropout that makes its views."""

import pytest
import torch
from fixed import ONE, OTHER
from test_contract import build
from torch.nn.functional import cosine_similarity

from selfsup import methods
from selfsup.encoder import Encoder
from selfsup.errors import SelfsupError
from selfsup.graph import network
from selfsup.language import Language
from selfsup.stems import Patches


def test_loss_against_a_slow_reading():
    method, (x,) = build("SimCSE", "text")
    torch.manual_seed(3)
    found = method([x], 0.0)["contrast"]
    torch.manual_seed(3)
    h1, h2 = (method.head(method.encoder(x)) for _ in range(2))
    total = 0.0
    for i in range(8):
        scores = [torch.exp(cosine_similarity(h1[i], h2[j], dim=0) / 0.05) for j in range(8)]
        total -= torch.log(scores[i] / sum(scores))
    torch.testing.assert_close(found, total / 8, atol=1e-5, rtol=1e-5)


def test_loss_against_another_implementation():
    """Authors' code at 206d7ae, simcse/models.py: cl_forward, temperature 0.05."""
    method, views = build("SimCSE", "text")
    both = iter((ONE, OTHER))
    method.head.forward = lambda h: next(both)
    found = method(views, 0.0)["contrast"]
    torch.testing.assert_close(found, torch.tensor(2.1887543201), atol=1e-5, rtol=1e-5)


def test_the_two_looks_differ_and_evaluation_has_none_of_it():
    method, (x,) = build("SimCSE", "text")
    assert not torch.allclose(method.encoder(x), method.encoder(x))
    method.eval()
    assert torch.equal(method.encoder(x), method.encoder(x))


def test_encoders_without_dropout_are_refused():
    for encoder in (
        Language(16, 23, dim=24, depth=1, heads=2, causal=False),
        Encoder(Patches((8, 8), (4, 4), 3, 16), dim=16, depth=1, heads=2),
        network("gcn", 6, dim=8),
    ):
        with pytest.raises(SelfsupError, match="E202"):
            methods.SimCSE(encoder)
    methods.SimCSE(network("gcn", 6, dim=8, drop=0.1))
