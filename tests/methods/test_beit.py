"""BEiT and its discrete VAE against slow readings, and what must stand still."""

import math

import pytest
import torch
from fixed import waves
from test_contract import METHODS, build

from selfsup import masks
from selfsup.encoder import resnet
from selfsup.errors import SelfsupError
from selfsup.health import prototype_use


def fixed(kind="image"):
    """With a mask that is known, and an own mind of the settled book."""
    method, (x,) = build("BEiT", kind)
    hidden = masks.blocks(0.4)(8, method.encoder.grid)
    method.mask = lambda batch, grid, device: hidden
    method.settled.slow.choose[-1].weight.data.normal_()
    return method, x, hidden


def test_naming_against_a_slow_reading():
    method, x, hidden = fixed()
    patches = method.encoder.stem.patches(x)
    tokens = method.encoder.stem(x)
    tokens[hidden] = method.blank
    final = method.encoder.trunk(tokens + method.encoder.positions)
    first, act, last = method.settled.slow.choose
    total, count = 0.0, 0
    for b in range(8):
        for n in range(16):
            if hidden[b, n]:
                scores = last.weight @ act(first.weight @ patches[b, n] + first.bias) + last.bias
                code = max(range(8), key=scores.tolist().__getitem__)
                said = method.name.weight @ final[b, n] + method.name.bias
                total -= torch.log(said[code].exp() / said.exp().sum())
                count += 1
    assert count == 8 * 6
    torch.testing.assert_close(method([x], 0.0)["named"], total / count, atol=1e-5, rtol=1e-5)


def test_naming_against_the_authors_code():
    """unilm at 2312c6f, beit/engine_for_pretraining.py."""
    method, (x,) = build("BEiT", "image")
    hidden = waves(0.6, 2, 16).argsort(1).argsort(1) >= 10
    method.mask = lambda batch, grid, device: hidden
    method.settled.slow.codes_of = lambda patches: (torch.arange(32) * 5 % 8).view(2, 16)
    method.name.forward = lambda final: waves(0.3, 2, 16, 8)[hidden]
    found = method([x[:2]], 0.0)["named"]
    torch.testing.assert_close(found, torch.tensor(2.3846502304), atol=1e-5, rtol=1e-5)


def test_the_book_against_a_slow_reading():
    method, (x,) = build("BEiT", "image")
    tokeniser, patches = method.tokeniser, method.encoder.stem.patches(x)
    torch.manual_seed(3)
    error, even = method.rebuild(patches, 0.3)
    torch.manual_seed(3)
    uniform = torch.rand(8, 16 * 8).view(8, 16, 8)
    scores = tokeniser.choose(patches)
    entries = torch.zeros(8, 16, 16)
    for b in range(8):
        for n in range(16):
            noisy = [
                s - math.log(-math.log(u)) for s, u in zip(scores[b, n].tolist(), uniform[b, n])
            ]
            entries[b, n] = tokeniser.book[noisy.index(max(noisy))]
    rebuilt = tokeniser.values(tokeniser.decoder(entries + tokeniser.positions))
    torch.testing.assert_close(error, (rebuilt - patches).square().mean(), atol=1e-5, rtol=1e-5)
    used = scores.softmax(-1).mean((0, 1))
    expected = math.exp(-sum(p * math.log(p) for p in used.tolist())) / 8
    assert even.item() == pytest.approx(expected, abs=1e-5)
    terms = method([x], 0.3)
    assert terms["diversity"].item() == pytest.approx(0.3 * (1 - expected), abs=1e-5)


def test_draws_are_sharper_as_progress_goes_on():
    method, _ = build("BEiT", "image")
    asked = []
    method.tokeniser.forward = lambda p, t: asked.append(t) or (p, torch.full((1, 16, 8), 0.125))
    for progress in (0.0, 0.3, 0.6, 1.0):
        method.rebuild(torch.zeros(1, 16, 48), progress)
    assert asked == pytest.approx([1.0, 0.25, 0.0625, 0.0625])


def test_hidden_values_are_never_seen_by_the_encoder_and_alone_are_named():
    method, x, hidden = fixed()
    x.requires_grad_()
    outputs = []
    handle = method.encoder.trunk.register_forward_hook(lambda m, i, out: outputs.append(out))
    loss = method([x], 0.3)["named"]
    handle.remove()
    (values, states) = torch.autograd.grad(loss, [x, outputs[0]])
    seen = method.encoder.stem.patches(values).abs().sum(-1) > 0
    assert torch.equal(seen, ~hidden)
    assert torch.equal(states.abs().sum(-1) > 0, hidden)


def test_naming_trains_the_encoder_alone_and_rebuilding_the_book_alone():
    method, x, _ = fixed()
    terms = method([x], 0.3)
    (terms["rebuilt"] + terms["diversity"]).backward(retain_graph=True)
    assert all(p.grad is None for p in [*method.encoder.parameters(), *method.name.parameters()])
    assert all(p.grad.abs().sum() > 0 for p in method.tokeniser.parameters())
    method.zero_grad()
    terms["named"].backward()
    assert all(p.grad is None for p in method.tokeniser.parameters())


def test_a_book_that_has_settled_stands_still():
    method, (x,) = build("BEiT", "image")
    target = method.settled.slow.codes_of

    def change():
        with torch.no_grad():
            method.tokeniser.choose[-1].weight.normal_()

    patches = method.encoder.stem.patches(x)
    before = target(patches)
    change()
    method.after_step(0.59)
    after = target(patches)
    assert not torch.equal(before, after)
    assert torch.equal(after, method.tokeniser.codes_of(patches))
    change()
    method.after_step(0.6)
    assert torch.equal(target(patches), after)
    terms = method([x], 0.6)
    assert terms["rebuilt"] == 0 and terms["diversity"] == 0
    sum(terms.values()).backward()
    for name, p in method.tokeniser.named_parameters():
        assert p.grad is not None and not p.grad.any(), name


def test_one_code_for_all_is_an_alarm():
    method, (x,) = build("BEiT", "series")
    method([x], 0.0)
    used, _ = prototype_use(method.watch["assignments"])
    assert used > 1.5
    torch.nn.init.zeros_(method.settled.slow.choose[-1].weight)
    method([x], 0.0)
    used, _ = prototype_use(method.watch["assignments"])
    assert used < 1.5 and method.chance["named"] < math.log(8)


def test_encoders_that_cannot():
    with pytest.raises(SelfsupError, match="E202"):
        METHODS["BEiT"](resnet("resnet18", 16, width=0.125))
