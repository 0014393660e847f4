"""iGPT against a slow reading of equation 1, and that no token is told what it is to be."""

import copy
import math

import pytest
import torch
from fixed import waves
from test_contract import GRIDS, METHODS, build

from selfsup.clusters import Clusters
from selfsup.encoder import Encoder
from selfsup.errors import SelfsupError
from selfsup.health import prototype_use
from selfsup.language import Language
from selfsup.methods import IGPT
from selfsup.sound import wave
from selfsup.stems import Patches


def test_loss_against_a_slow_reading():
    """Each token from a network that is given those before it, and nothing else."""
    method, (x,) = build("IGPT", "image")
    found = method([x], 0.0)["next"]
    encoder, palette = method.encoder, method.palette
    tokens = encoder.stem(x) + encoder.positions
    values = encoder.stem.patches(x)
    total = 0.0
    for b in range(8):
        for n in range(16):
            before = [method.start]
            if n:
                before += encoder.trunk(tokens[b : b + 1, :n])[0]
            scores = method.entry.weight @ method.upper(torch.stack(before)[None])[0, -1]
            near = [
                (((values[b, n] - palette.mean) / palette.std) - c).norm() for c in palette.centres
            ]
            own = min(range(8), key=near.__getitem__)
            total -= torch.log(scores[own].exp() / scores.exp().sum())
    torch.testing.assert_close(found, total / (8 * 16), atol=1e-5, rtol=1e-5)


def test_palette_and_loss_against_the_authors_code():
    """image-gpt, src/utils.py: color_quantize, and src/model.py: gen_loss."""
    method, (x,) = build("IGPT", "image")
    palette = Clusters(5, 3)
    palette.centres.copy_(waves(1.9, 5, 3))
    own = palette(waves(0.3, 24, 3))
    expected = [1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert own.tolist() == expected
    method.entries = lambda x: own.view(2, 12)
    method.scores = lambda final: waves(0.7, 2, 12, 5)
    found = method([x], 0.0)["next"]
    torch.testing.assert_close(found, torch.tensor(1.7290259600), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", GRIDS)
def test_what_is_said_of_a_token_depends_on_all_before_and_on_nothing_else(kind):
    method, (x,) = build("IGPT", kind)
    size, patch = GRIDS[kind]
    stem = Patches(size, patch, x.shape[1], 24)
    encoder = Encoder(stem, dim=24, depth=2, heads=2, cls=True, registers=1, causal=True)
    method = METHODS["IGPT"](encoder)
    x.requires_grad_()
    scores = method.scores(encoder.features(x))
    for n in range(scores.shape[1]):
        (gradient,) = torch.autograd.grad(scores[0, n].square().sum(), x, retain_graph=True)
        told = stem.patches(gradient)[0].abs().sum(-1) > 0  # (n,)
        assert torch.equal(told, torch.arange(len(told)) < n), n


def test_the_palette_moves_after_the_step_alone_and_has_no_gradient():
    method, (x,) = build("IGPT", "series")
    method([x], 0.0)
    before = method.palette.centres.clone()
    sum(method([2 * x + 1], 0.1).values()).backward()
    assert torch.equal(method.palette.centres, before) and not method.palette.total.requires_grad
    method.after_step(0.1)
    assert not torch.equal(method.palette.centres, before)


def test_the_palette_moves_by_all_parts_of_a_batch():
    whole, (x,) = build("IGPT", "series")
    whole([x], 0.0)
    whole.after_step(0.0)
    parts, new = copy.deepcopy(whole), 2 * x + 1
    whole([new], 0.1)
    for part in new.split(2):
        parts([part], 0.1)
    for method in (whole, parts):
        method.after_step(0.1)
    torch.testing.assert_close(parts.palette.centres, whole.palette.centres)
    assert torch.equal(parts.palette.counts, whole.palette.counts)


def test_one_entry_for_all_is_an_alarm():
    method, _ = build("IGPT", "series")
    method([torch.zeros(8, 3, 64)], 0.0)
    used, _ = prototype_use(method.watch["assignments"])
    assert used < 1.5 and method.chance["next"] < math.log(8)


def test_the_picture_of_a_palette_with_an_entry_for_each_is_the_sample():
    made, (x,) = build("IGPT", "image")
    method, x = IGPT(made.encoder, clusters=16, upper=0), x[:1]
    method([x], 0.0)
    shown = method.show([x])
    torch.testing.assert_close(shown["in the palette"], x, atol=1e-4, rtol=1e-4)


def test_encoders_that_cannot():
    def patches(**settings):
        return Encoder(Patches((8, 8), (4, 4), 3, 24), dim=24, depth=1, heads=2, **settings)

    for encoder in (
        patches(),
        Language(16, 23, dim=24, depth=1, heads=2, causal=True),
        wave("wave_tiny", (3200,), 16_000, channels=16, dim=24, depth=1, heads=2),
    ):
        with pytest.raises(SelfsupError, match="E202"):
            METHODS["IGPT"](encoder)
    with pytest.raises(SelfsupError, match="E202"):
        patches(cls=True, pool="cls", causal=True)


def test_what_a_causal_encoder_looks_at_comes_before():
    x = torch.randn(2, 3, 8, 8)
    encoder = Encoder(Patches((8, 8), (4, 4), 3, 24), dim=24, depth=1, heads=2, causal=True)
    looks = encoder.attention(x)
    assert (looks.triu(1) == 0).all() and (looks.tril() > 0).any(-1).all()
    torch.testing.assert_close(looks.sum(-1), torch.ones(2, 2, 4))
