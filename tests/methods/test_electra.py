"""ELECTRA against a slow reading, and what must not flow from one network to the other."""

import copy
import math

import pytest
import torch
from fixed import waves
from test_contract import build
from torch.nn.functional import gelu

from selfsup import methods
from selfsup.errors import SelfsupError
from selfsup.language import Language
from selfsup.masks import choose
from selfsup.methods import electra
from selfsup.methods.electra import drawn
from selfsup.ragged import Ragged
from selfsup.stems import MASK, SPECIAL


def test_loss_against_a_slow_reading():
    method, (x,) = build("ELECTRA", "text")
    torch.manual_seed(3)
    found = method([x], 0.0)
    torch.manual_seed(3)
    hidden = choose(x, 0.15, method._draws(x))
    even = method._draws(x)
    named = judged = 0.0
    tokens = chosen = 0
    for b in range(8):
        n = int(x.valid[b].sum())
        there = torch.ones(1, n, dtype=torch.bool)
        seen = torch.where(hidden[b, :n], MASK, x.values[b, :n])
        states = method.generator.features(Ragged(seen[None], there))[0]
        put = x.values[b, :n].clone()
        for i in range(n):
            if hidden[b, i]:
                h = method.norm(gelu(method.back(states[i])))
                p = (method.encoder.stem.tokens @ h).softmax(-1)
                named -= p[x.values[b, i]].log()
                below = 0.0
                for token in range(23):
                    if below <= even[b, i] < below + p[token].item():
                        put[i] = token
                    below += p[token].item()
                chosen += 1
        states = method.encoder.features(Ragged(put[None], there))[0]
        for i in range(n):
            d = torch.sigmoid(-method.judge(gelu(method.dense(states[i]))))[0]  # that it is real
            judged -= d.log() if put[i] == x.values[b, i] else (1 - d).log()
            tokens += 1
    torch.testing.assert_close(found["named"], named / chosen, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["found"], 50 * judged / tokens, atol=1e-5, rtol=1e-5)


def test_loss_of_what_is_found_against_another_implementation(monkeypatch):
    """transformers 5.23.0, ElectraForPreTraining with an attention mask; its head says `waves`."""
    method, _ = build("ELECTRA", "text")
    valid = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
    strange = valid & (torch.arange(15).view(3, 5) % 4 == 1)
    monkeypatch.setattr(electra, "choose", lambda *_: strange)
    monkeypatch.setattr(electra, "drawn", lambda logits, even: torch.full_like(even, 9).long())
    method.judge.forward = lambda h: waves(0.3, 3, 5)[valid][:, None]
    found = method([Ragged(torch.arange(15).view(3, 5) * 4 % 7, valid)], 0.0)["found"]
    torch.testing.assert_close(found / 50, torch.tensor(0.6569215655), atol=1e-5, rtol=1e-5)


def test_nothing_flows_from_what_is_found_to_the_generator():
    method, (x,) = build("ELECTRA", "text")
    method([x], 0.0)["found"].backward()
    for name, p in method.named_parameters():
        if name.startswith(("generator", "back", "norm")):
            assert p.grad is None or not p.grad.any(), name
    method.zero_grad()
    method([x], 0.0)["named"].backward()
    for name, p in method.named_parameters():
        touched = p.grad is not None and bool(p.grad.any())
        if name.startswith(("encoder.blocks", "encoder.norm", "dense", "judge")):
            assert not touched, name
    assert method.encoder.stem.tokens.grad.any()  # both networks have the same vectors of tokens


def test_vectors_of_tokens_are_one_tensor_also_in_a_copy():
    method = copy.deepcopy(build("ELECTRA", "text")[0])
    assert method.generator.stem.wide[0] is method.encoder.stem
    assert sum("tokens" in key for key in method.state_dict()) == 1
    assert method.generator.dim < method.encoder.dim


def test_tokens_are_drawn_by_their_probability():
    even = (torch.arange(1000) + 0.5) / 1000
    logits = torch.tensor([0.1, 0.0, 0.6, 0.3]).log().expand(1000, 4)
    assert torch.bincount(drawn(logits, even), minlength=4).tolist() == [100, 0, 600, 300]
    edge = drawn(logits[:2], torch.tensor([0.0, 1 - 2**-24]))
    assert edge.tolist() == [0, 3]


def test_what_is_put_back_right_is_no_replacement():
    method, (x,) = build("ELECTRA", "text")
    same = Ragged(torch.full_like(x.values, 5), x.valid)
    with torch.no_grad():  # a generator that always says 5, and a judge that always says real
        method.name = lambda x, hidden: torch.eye(23)[5].mul(99).expand(int(hidden.sum()), 23)
        method.judge.weight.zero_()
        method.judge.bias.fill_(-20.0)
        assert method([same], 0.0)["found"] < 1e-5
        assert method([x], 0.0)["found"] > 10


def test_the_share_that_is_hidden_and_chance():
    x = Ragged(torch.randint(SPECIAL, 23, (50, 40)), torch.ones(50, 40, dtype=torch.bool))
    assert (choose(x, 0.15, torch.rand(50, 40)).sum(1) == 6).all()
    method, views = build("ELECTRA", "text")
    method(views, 0.0)
    assert method.chance["named"] == pytest.approx(math.log(23))


def test_encoders_that_cannot():
    with pytest.raises(SelfsupError, match="E202"):
        methods.ELECTRA(Language(16, 23, dim=24, depth=1, heads=2, causal=True))
