import math

import torch
from test_contract import build

from selfsup.methods.samesample import pair


def test_loss_against_a_slow_reading():
    method, (one, other) = build("SameSample", "image")
    method.eval()
    a = [method.encoder(x[None])[0] for x in one]
    b = [method.encoder(x[None])[0] for x in other]
    total = 0.0
    for i in range(8):
        for j, same in ((i, True), ((i + 1) % 8, False)):
            seen = torch.stack([*(a[i] * b[j]), *(a[i] - b[j]).abs()])
            chance = method.answer(seen[None])[0, 0].sigmoid()
            total -= torch.log(chance if same else 1 - chance) / 16
    torch.testing.assert_close(method([one, other], 0.0)["same"], total, atol=1e-5, rtol=1e-5)


def test_no_sample_is_a_stranger_to_itself_and_none_is_left_out():
    method, views = build("SameSample", "image")
    asked = []
    method.answer.register_forward_hook(lambda module, given, out: asked.append(given[0]))
    method(views, 0.0)
    a, b = method.encoder(torch.cat(views)).chunk(2)
    places = torch.stack([pair(a, b.roll(-shift, 0)) for shift in range(8)])  # (8, b, d2)
    torch.testing.assert_close(asked[0], torch.cat([places[0], places[1]]))
    apart = (places[1:] - places[0]).abs().amax(-1)
    assert apart.min() > 1e-3  # of other samples another question


def test_the_order_of_parts_is_not_asked():
    a, b = torch.randn(2, 4, 6)
    assert torch.equal(pair(a, b), pair(b, a))


def test_gradients_reach_the_encoder_by_every_part():
    method, views = build("SameSample", "image")
    views = [x.requires_grad_() for x in views]
    sum(method(views, 0.0).values()).backward()
    assert all(x.grad.abs().flatten(1).amax(1).min() > 0 for x in views)
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"encoder", "answer"}


def test_parts_that_look_alike_stay_at_chance():
    method, views = build("SameSample", "image")
    alike = [x[:1].expand_as(x) for x in views]
    losses = []
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    for _ in range(20):
        loss = method(alike, 0.0)["same"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert method.chance == {"same": math.log(2)} and min(losses) >= math.log(2) - 1e-4
