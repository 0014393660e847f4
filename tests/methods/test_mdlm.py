"""MDLM against slow readings of its schedule and its bound."""

import math

import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup import methods
from selfsup.errors import SelfsupError
from selfsup.generate import denoised
from selfsup.language import Language
from selfsup.methods import mdlm
from selfsup.methods.mdlm import LEAST, times
from selfsup.ragged import Ragged
from selfsup.stems import END, MASK


def test_loss_against_a_slow_reading():
    method, (x,) = build("MDLM", "text")
    torch.manual_seed(3)
    found = method([x], 0.0)["bound"]
    torch.manual_seed(3)
    t = times(8, torch.device("cpu"))
    draws = method._draws(x)
    total, count = 0.0, 0
    for b in range(8):
        n = int(x.valid[b].sum())
        count += n
        time = t[b].double().requires_grad_()
        sigma = -torch.log(1 - (1 - LEAST) * time)
        (slope,) = torch.autograd.grad(sigma, time)
        chance = 1 - torch.exp(-sigma).item()
        seen = [MASK if draws[b, i] < chance else int(x.values[b, i]) for i in range(n)]
        row = Ragged(torch.tensor([seen]), torch.ones(1, n, dtype=torch.bool))
        states = method.encoder.features(row)[0]
        for i in range(n):
            if seen[i] == MASK:
                scores = method.encoder.stem.tokens @ states[i]
                others = torch.cat([scores[:MASK], scores[MASK + 1 :]])
                nats = others.logsumexp(0) - scores[x.values[b, i]]
                total += nats * (slope / (torch.exp(sigma) - 1)).item()
    torch.testing.assert_close(found, total / count, atol=1e-5, rtol=1e-5)


def test_loss_against_another_implementation(monkeypatch):
    """Authors' code at b886f9f, diffusion.py: _subs_parameterization, _loss, log-linear noise."""
    method, _ = build("MDLM", "text")
    valid = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
    x = Ragged(2 + torch.arange(15).view(3, 5) * 4 % 5, valid)
    monkeypatch.setattr(mdlm, "times", lambda *_: torch.tensor([0.9, 0.3, 0.6]))
    method._draws = lambda x: 1.0 - (torch.arange(15).view(3, 5) % 3 == 1).float()
    method.encoder.features = lambda seen: waves(0.3, 3, 5, 7)
    method.encoder.logits = lambda states: states
    found = method([x], 0.0)["bound"]
    torch.testing.assert_close(found, torch.tensor(1.1885868311), atol=1e-5, rtol=1e-5)


def test_times_are_spread_evenly_and_uniform_each():
    t = torch.stack([times(10, torch.device("cpu")) for _ in range(2000)])
    gaps = t.sort(1).values.diff(dim=1)
    torch.testing.assert_close(gaps, torch.full_like(gaps, (1 - LEAST) / 10), atol=1e-5, rtol=0)
    assert t.min() >= LEAST and t.max() <= 1
    assert (t.mean(0) - 0.5).abs().max() < 0.03 and (t.std(0) - 12**-0.5).abs().max() < 0.01


def test_a_network_that_knows_nothing_is_at_chance_and_the_bound_is_that_of_guessing():
    method, (x,) = build("MDLM", "text")
    torch.nn.init.zeros_(method.encoder.stem.tokens)
    found = []
    for seed in range(300):
        torch.manual_seed(seed)
        found.append(method([x], 0.0)["bound"].item())
        assert found[-1] == pytest.approx(method.chance["bound"], rel=1e-4)
    # unbiased: the expectation of the weights is one for each token
    assert sum(found) / 300 == pytest.approx(math.log(22), rel=0.1)


def test_hidden_tokens_are_never_seen_and_only_they_are_scored():
    method, (x,) = build("MDLM", "text")
    seen, outputs = [], []
    handles = [
        method.encoder.stem.register_forward_hook(lambda m, i, out: seen.append(i[0].clone())),
        method.encoder.norm.register_forward_hook(lambda m, i, out: outputs.append(out)),
    ]
    torch.manual_seed(3)
    loss = method([x], 0.0)["bound"]
    torch.manual_seed(3)
    hidden = x.valid & (times(8, x.device)[:, None] * (1 - LEAST) > method._draws(x))
    other = Ragged(torch.where(hidden, 3 + (x.values - 2) % 20, x.values), x.valid)
    torch.manual_seed(3)
    method([other], 0.0)
    for handle in handles:
        handle.remove()
    assert torch.equal(seen[0], seen[1]) and not torch.equal(other.values, x.values)
    (gradient,) = torch.autograd.grad(loss, outputs[:1])
    assert int((gradient.abs().sum(-1) > 0).sum()) == int(hidden.sum())


def test_mask_is_never_named():
    method, (x,) = build("MDLM", "text")
    assert (method.scores(torch.randn(5, 24))[:, MASK] == -torch.inf).all()
    for row in method.show([x])["the others as it names them"].values:
        assert MASK not in row.tolist()


class Counting(torch.nn.Module):
    """Says of each place that it holds the token after that of the place before, if it sees it."""

    def __init__(self):
        super().__init__()
        self.asked = 0
        self.unknown = torch.zeros(12).index_fill_(0, torch.tensor([3, 4]), 4.0)

    def features(self, x):
        self.asked += 1
        before = x.values.roll(1, 1)
        known = 20.0 * torch.nn.functional.one_hot((before + 1).clamp(max=11), 12)
        return torch.where((before == MASK)[..., None], self.unknown, known)

    def logits(self, states):
        return states


def test_writing_keeps_what_is_known_and_asks_again_only_after_a_change():
    network, generator = Counting(), torch.Generator().manual_seed(0)
    made = denoised(network, [END, 5, 6], 6, 1.0, 1.0, generator)
    assert len(made) == 6 and MASK not in made and made[0] == 7
    assert 1 <= network.asked <= 6
    asked = []
    for seed in range(40):
        network = Counting()
        denoised(network, [END], 20, 1.0, 1.0, torch.Generator().manual_seed(seed))
        asked.append(network.asked)
    # of 20 steps those pass unasked in which no token appears: (1 - 1 / 20) ** 20 of them
    assert sum(asked) / 40 == pytest.approx(20 * (1 - (1 - 1 / 20) ** 20), abs=1.0)


def test_tokens_are_drawn_by_their_probability():
    network, counts = Counting(), {3: 0, 4: 0}
    network.unknown = torch.full((12,), -torch.inf)
    network.unknown[3], network.unknown[4] = math.log(0.8), math.log(0.2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        (token,) = denoised(network, [MASK], 1, 1.0, 1.0, generator)
        counts[token] += 1
    assert counts[3] / 1000 == pytest.approx(0.8, abs=0.04)


def test_encoders_that_cannot():
    with pytest.raises(SelfsupError, match="E202"):
        methods.MDLM(Language(16, 23, dim=24, depth=1, heads=2, causal=True))
