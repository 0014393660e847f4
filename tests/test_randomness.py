import traceback

import numpy as np
import pytest
import torch

from selfsup import randomness
from selfsup.dilated import Dilated
from selfsup.errors import SelfsupError
from selfsup.graph import network
from selfsup.language import language
from selfsup.randomness import Draws, _hash, _signed, dropout, mix, order, start


def test_hash_is_splitmix64():
    # first outputs of splitmix64 from state 1234567, as published with the reference C code
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + golden * i) % 2**64 for i in (1, 2, 3)]
    got = _hash(torch.tensor([_signed(s) for s in states]))
    assert [int(g) % 2**64 for g in got] == expected


def test_order_is_a_permutation_that_changes_with_seed_and_epoch():
    one, other = order(0, 0, 1000), order(0, 1, 1000)
    assert np.array_equal(np.sort(one), np.arange(1000))
    assert np.array_equal(one, order(0, 0, 1000))
    assert (one == other).mean() < 0.01 and (one == order(1, 0, 1000)).mean() < 0.01


def test_start_seeds_as_pytorch_does_without_the_stack(monkeypatch):
    torch.manual_seed(mix(1, 2))
    expected = torch.rand(3)
    monkeypatch.setattr(traceback, "format_stack", None)  # nobody may call it
    start(mix(1, 2), "cpu")
    assert torch.equal(torch.rand(3), expected)


def test_a_sample_draws_the_same_numbers_in_any_batch():
    whole = Draws(3, torch.arange(64), view=1)
    part = Draws(3, torch.arange(16, 24), view=1)
    for draw in (
        lambda d: d.uniform(),
        lambda d: d.uniform(-1, 2, n=5),
        lambda d: d.normal(n=3),
        lambda d: d.permutation(4),
    ):
        assert torch.equal(draw(whole)[16:24], draw(part))


def test_numbers_of_pairs_are_made_in_parts(monkeypatch):
    rows, lanes = torch.arange(50_000) % 64, torch.arange(50_000)
    made, hash = [], randomness._hash
    monkeypatch.setattr(randomness, "_hash", lambda z: made.append(z.numel()) or hash(z))
    whole = Draws(3, torch.arange(64)).each(rows, lanes)
    assert max(made) <= randomness.AT_ONCE
    for part in (slice(0), slice(7, 11), slice(40_000, None)):
        assert torch.equal(Draws(3, torch.arange(64)).each(rows[part], lanes[part]), whole[part])


def test_numbers_are_uniform_and_independent():
    draws = Draws(0, torch.arange(100_000))
    first, second = draws.uniform(), draws.uniform()
    other_view = draws.of_view(1).uniform()
    lanes = draws.uniform(n=2)
    for x in (first, second, other_view, lanes[:, 1]):
        counts = torch.histc(x, 20, 0, 1)
        assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi squared, 19 degrees: p about 1e-4
    for x, y in ((first, second), (first, other_view), lanes.T, (first[1:], first[:-1])):
        assert torch.corrcoef(torch.stack([x, y]))[0, 1].abs() < 0.015
    assert abs(draws.normal().std() - 1) < 0.01
    assert abs(draws.chance(0.3).float().mean() - 0.3) < 0.01


def test_mix_separates_its_parts():
    assert len({mix(a, b) for a in range(100) for b in range(100)}) == 10_000
    assert mix(1, 2) != mix(2, 1) and mix(0) != mix(0, 0) and mix(2**62) < 2**63


def test_some_rows_get_what_they_get_among_all():
    rows = torch.tensor([4, 1])
    whole, some = Draws(0, torch.arange(6)), Draws(0, torch.arange(6))
    whole.uniform()
    some.uniform()
    assert torch.equal(whole.uniform(n=3)[rows], some.of_rows(rows).uniform(n=3))


def test_dropout_drops_as_many_and_repeats():
    torch.manual_seed(3)
    x = torch.ones(1000, 77)
    y = dropout(x, 0.2)
    assert dropout(x.bfloat16(), 0.2).dtype == torch.bfloat16
    kept = (y != 0).float().mean().item()
    assert abs(kept - 0.8) < 0.005 and abs(y.mean().item() - 1) < 0.01
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.2), y)
    by_byte = (y.flatten()[: 8 * 9600].view(-1, 8) != 0).float().mean(0)
    assert (by_byte - 0.8).abs().max() < 0.02  # every byte of a hash is as good


@pytest.mark.parametrize("encoder", ["dilated_small", "gin", "bert_micro"])
@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_a_dropout_that_leaves_nothing_is_refused(encoder, share):
    build = {
        "dilated_small": lambda: Dilated(16, 2, dropout=share),
        "gin": lambda: network("gin", 4, drop=share),
        "bert_micro": lambda: language("bert_micro", 16, 32, dropout=share),
    }[encoder]
    with pytest.raises(SelfsupError, match="dropout") as caught:
        build()
    assert caught.value.code == "E202"
