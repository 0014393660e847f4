import pytest
import torch
from fixed import waves
from test_contract import METHODS, build

from selfsup.encoder import Encoder
from selfsup.errors import SelfsupError
from selfsup.methods import CPC
from selfsup.methods.cpc import contrast
from selfsup.stems import Patches


def at(monkeypatch, now, length):
    """Let the moment be `now` of `length` rows."""
    monkeypatch.setattr(torch, "rand", lambda *s, **k: torch.tensor((now - 0.5) / (length - 1)))


def test_loss_against_a_slow_reading(monkeypatch):
    method, (x,) = build("CPC", "image")
    method.negatives = 1000  # all of them
    at(monkeypatch, 2, 4)
    local = method.encoder.embed(x)
    tokens = local + method.encoder.positions
    context = method.encoder.trunk(tokens[:, :8])[:, 4:]  # of the second row
    w = method.foretell.weight.view(3, 16, 24)
    z = method.latent(local)
    everything = z[:, 8:].reshape(-1, 16)  # two rows are left, of eight samples
    total = 0.0
    for b in range(8):
        for k in range(2):
            for column in range(4):
                said = w[k] @ context[b, column]
                own = said @ z[b, 8 + 4 * k + column]
                total += ((everything @ said).exp().sum().log() - own) / 64
    found = method([x], 0.0)["future"]
    torch.testing.assert_close(found, total, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_each_way_is_forward_on_turned_samples(axis, turned, monkeypatch):
    """Where the order was another from the start, and the positions with it."""
    method, (x,) = build("CPC", "image")
    method.negatives = 1000  # all of them
    four = CPC(method.encoder, ways="all", negatives=1000, dim=16)
    assert four.ways == [(0, False), (0, True), (1, False), (1, True)] and four.steps == 3
    way = four.ways.index((axis, turned))
    four.latent = method.latent
    method.foretell.weight.data.copy_(four.foretell.weight.chunk(4)[way])
    at(monkeypatch, 2, 4)
    four.ways = four.ways[way : way + 1]
    four.foretell = method.foretell
    torch.manual_seed(0)
    found = four([x], 0.0)["future"]

    def other(t):  # (b, 16, d)
        rows = t.view(len(t), 4, 4, -1)
        rows = rows.transpose(1, 2) if axis else rows
        return (rows.flip(1) if turned else rows).flatten(1, 2)

    embed, at_grid = method.encoder.embed, method.encoder.positions_at
    monkeypatch.setattr(method.encoder, "embed", lambda x: other(embed(x)))
    monkeypatch.setattr(method.encoder, "positions_at", lambda grid: other(at_grid(grid)[None])[0])
    torch.manual_seed(0)
    torch.testing.assert_close(found, method([x], 0.0)["future"])


def test_ways_take_turns_each_with_weights_of_its_own():
    method, (x,) = build("CPC", "image")
    method = CPC(method.encoder, ways="both")
    used = set()
    for seed in range(8):
        method.zero_grad()
        torch.manual_seed(seed)
        method([x], 0.0)["future"].backward()
        first, second = (g.any().item() for g in method.foretell.weight.grad.chunk(2))
        assert first != second
        used.add(first)
    assert used == {False, True}


def test_what_comes_is_never_its_own_alternative():
    said, z = torch.randn(6, 4), torch.randn(6, 4)
    loss, wrong = contrast(said, z, 100)
    scores = said @ z.T
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(6))
    torch.testing.assert_close(loss, expected)
    assert wrong == 6
    best = contrast(100 * torch.eye(4), torch.eye(4), 100)[0]
    assert best < 1e-6  # not bounded away from zero by itself among the wrong ones


def test_contrast_against_another_implementation():
    """CPC_audio at 1b5fded, cpc/criterion/criterion.py: PredictionNetwork and the criterion, with
    all others as negatives; its weights four times W, as it takes means and not sums over 4."""
    found, _ = contrast(waves(0.3, 6, 4) @ waves(0.7, 4, 4).T, waves(1.9, 6, 4), 100)
    torch.testing.assert_close(found, torch.tensor(1.4213856459), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["image", "series", "video"])
def test_the_context_never_sees_what_comes(kind, monkeypatch):
    method, (x,) = build("CPC", kind)
    length = method.encoder.grid[0]
    at(monkeypatch, 1, length)
    seen = []
    method.encoder.trunk.register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
    x.requires_grad_()
    method([x], 0.0)
    tokens, final = seen[0]
    m = tokens.shape[1]
    assert m * length == method.encoder.positions.shape[0]
    (gradient,) = torch.autograd.grad(final.square().sum(), x, retain_graph=True)
    marks = method.encoder.stem.patches(gradient).abs().sum((0, 2)) > 0
    assert marks[:m].all() and not marks[m:].any()


def test_gradients_reach_the_targets(monkeypatch):
    method, (x,) = build("CPC", "image")
    at(monkeypatch, 1, 4)
    x.requires_grad_()
    method([x], 0.0)["future"].backward()
    assert (method.encoder.stem.patches(x.grad).abs().sum((0, 2)) > 0).all()


def test_the_order_is_along_the_first_axis_of_several_places():
    encoder = Encoder(Patches((8, 24), (8, 4), 3, 24), dim=24, depth=1, heads=2)
    method = METHODS["CPC"](encoder)
    assert method.ways == [(1, False)] and method.steps == 5
    assert method([torch.randn(4, 3, 8, 24)], 0.0)["future"].isfinite()
    with pytest.raises(SelfsupError, match="E202"):
        METHODS["CPC"](Encoder(Patches((8, 4), (8, 4), 3, 24), dim=24, depth=1, heads=2))
