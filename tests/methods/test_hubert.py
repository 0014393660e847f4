"""HuBERT against a slow reading of equation 3, and where clusters and gradients come from."""

import copy
import math

import pytest
import torch
from fixed import waves
from test_contract import METHODS, build

from selfsup.errors import SelfsupError
from selfsup.language import Language
from selfsup.methods import HuBERT
from selfsup.methods.hubert import named
from selfsup.sound import wave


def listened(clusters):
    """All that these clusters are from now on given to move by."""
    seen, see = [], clusters.see
    clusters.see = lambda x: seen.append(x) or see(x)
    return seen


def test_loss_against_a_slow_reading():
    method, (x,) = build("HuBERT", "series")
    hidden = torch.arange(8).expand(8, 8) % 3 == 0
    method.mask = lambda batch, grid, device: hidden
    found = method([x], 0.0)["named"]
    local = method.encoder.stem.patches(x)
    tokens = method.encoder.stem.project(local)
    tokens[hidden] = method.blank
    final = method.encoder.trunk(tokens + method.encoder.positions)
    centres, mean, std = method.outer.centres, method.outer.mean, method.outer.std
    total = 0.0
    for b in range(8):
        for t in range(0, 8, 3):
            o = method.context(final[b, t])
            scores = [torch.exp(torch.cosine_similarity(o, e, dim=0) / 0.1) for e in method.labels]
            own = min(range(8), key=lambda k: (((local[b, t] - mean) / std) - centres[k]).norm())
            total -= torch.log(scores[own] / sum(scores))
    torch.testing.assert_close(found, total / 24, atol=1e-5, rtol=1e-5)


def test_scores_against_another_implementation():
    """fairseq at 0dfd6b6, models/hubert/hubert.py: compute_pred, and its criterion's mean."""
    scores = named(waves(0.3, 2, 5, 4), waves(1.9, 5, 4), 0.1).flatten(0, 1)
    found = torch.nn.functional.cross_entropy(scores, torch.arange(10) * 3 % 5)
    torch.testing.assert_close(found, torch.tensor(5.8901796341), atol=1e-5, rtol=1e-5)


def test_hidden_tokens_are_never_seen_by_the_trunk_and_only_they_are_scored():
    method, (x,) = build("HuBERT", "series")
    hidden = torch.arange(8).expand(8, 8) >= 5
    method.mask = lambda batch, grid, device: hidden
    other = x.clone()
    other[:, :, 40:] += 1.0  # tokens 5, 6 and 7
    seen = []
    handle = method.encoder.trunk.register_forward_hook(lambda m, i, out: seen.append(out))
    loss = method([x], 0.5)["named"]
    method([other], 0.5)
    handle.remove()
    torch.testing.assert_close(seen[0], seen[1])
    (gradient,) = torch.autograd.grad(loss, seen[:1])
    assert torch.equal(gradient.abs().sum(-1) > 0, hidden)


def test_clusters_are_of_the_stem_first_and_of_half_the_encoder_then():
    method, (x,) = build("HuBERT", "series")
    first = method.past.state_dict()["trunk.blocks.0.attn.qkv.weight"].clone()
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(0.1)
    outer, inner = listened(method.outer), listened(method.inner)
    for progress in (0.0, 0.37):
        method([x], progress)
        method.after_step(progress)
    assert outer[-1].shape == (64, method.encoder.stem.local_dim)
    assert not inner and not method.second
    assert torch.equal(method.past.state_dict()["trunk.blocks.0.attn.qkv.weight"], first)
    method.after_step(0.38)
    assert method.second and not method.inner.counts.any()
    method([x], 0.4)
    assert method.inner.counts.sum() == 64
    tokens = method.encoder.trunk.blocks[0](method.encoder.tokens(x))  # one block of two
    expected = method.encoder.trunk.norm(tokens).flatten(0, 1)
    torch.testing.assert_close(inner[-1], expected, atol=1e-5, rtol=1e-5)
    again = method.past.state_dict()["trunk.blocks.0.attn.qkv.weight"].clone()
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(0.1)
    method.after_step(0.5)  # the past stays what it was
    assert torch.equal(method.past.state_dict()["trunk.blocks.0.attn.qkv.weight"], again)


def test_targets_have_no_gradient():
    method, (x,) = build("HuBERT", "image")
    sum(method([x], 0.0).values()).backward()
    assert all(p.grad is None for p in method.past.parameters())
    assert not method.outer.total.requires_grad


@pytest.mark.parametrize("second", [False, True])
def test_clusters_move_by_all_parts_of_a_batch(second):
    whole, (x,) = build("HuBERT", "series")
    whole.second.fill_(second)
    whole([x], 0.0)
    whole.after_step(0.0)
    parts, new = copy.deepcopy(whole), 2 * x + 1
    whole([new], 0.1)
    for part in new.split(2):
        parts([part], 0.1)
    for method in (whole, parts):
        method.after_step(0.1)
    torch.testing.assert_close(parts.used.centres, whole.used.centres)
    assert torch.equal(parts.used.counts, whole.used.counts)


def test_one_cluster_for_all_is_an_alarm():
    from selfsup.health import prototype_use

    method, _ = build("HuBERT", "series")
    method([torch.zeros(8, 3, 64)], 0.0)
    used, _ = prototype_use(method.watch["assignments"])
    assert used < 1.5 and method.chance["named"] < math.log(8)


@pytest.mark.parametrize("penalty", [0.0, 10.0])
def test_on_waves_the_stem_gets_a_tenth_of_the_gradient(penalty):
    def gradient(share):
        torch.manual_seed(0)
        encoder = wave("wave_tiny", (3200,), 16_000, channels=16, dim=24, depth=1, heads=2)
        method = HuBERT(encoder, clusters=8, dim=16, span=2, penalty=penalty, stem_gradient=share)
        torch.manual_seed(1)
        sum(method([torch.randn(4, 1, 3200)], 0.5).values()).backward()
        return encoder.stem.layers[0].weight.grad

    torch.testing.assert_close(gradient(0.1), 0.1 * gradient(1.0), atol=1e-6, rtol=1e-3)


def test_first_clusters_are_of_the_stem_as_it_was_and_the_penalty_as_it_is():
    torch.manual_seed(0)
    encoder = wave("wave_tiny", (3200,), 16_000, channels=16, dim=24, depth=2, heads=2)
    method, x = HuBERT(encoder, clusters=8, dim=16, span=2), torch.randn(4, 1, 3200)
    seen = listened(method.outer)
    penalty = method([x], 0.0)["penalty"]
    torch.testing.assert_close(penalty, 10 * encoder.stem.local(x).square().mean())
    with torch.no_grad():
        for p in encoder.stem.parameters():
            p.add_(0.1)
    method([x], 0.0)
    assert torch.equal(seen[-1], seen[-2])


def test_encoders_that_cannot():
    with pytest.raises(SelfsupError, match="E202"):
        METHODS["HuBERT"](Language(16, 23, dim=24, depth=1, heads=2, causal=False))


def test_show_names_hidden_places_alone_and_moves_no_cluster():
    method, (x,) = build("HuBERT", "series")
    method([x], 0.0)
    before = copy.deepcopy(method.state_dict())
    _, seen, true, named = method.show([x]).values()
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    hidden = named.numbers >= 0
    gone = (method.encoder.stem.patches(seen) == 0).all(-1)
    assert torch.equal(gone, hidden) and 0 < hidden.sum() < hidden.numel()
    local = method.past.stem.local(x).flatten(0, 1)
    assert torch.equal(true.numbers.flatten(), method.outer.distances(local).argmin(1))
    assert true.count == named.count == 8
    with torch.no_grad():
        method.labels.zero_()[3] = method.context.bias.fill_(1.0)
        method.context.weight.zero_()
    named = method.show([x])["as named where it is hidden"].numbers
    assert (named[named >= 0] == 3).all()
