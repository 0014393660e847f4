import math

import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup import masks
from selfsup.errors import SelfsupError
from selfsup.methods import Wav2Vec2
from selfsup.methods.wav2vec2 import Quantiser, contrast, others, perplexity
from selfsup.sound import wave


def test_contrast_against_a_slow_reading():
    torch.manual_seed(0)
    c, q = torch.randn(3, 7, 5), torch.randn(3, 7, 5)
    wrong = others(3, 7, 4)
    total = 0.0
    for b in range(3):
        for t in range(7):

            def similarity(i, b=b, t=t):
                return torch.cosine_similarity(c[b, t], q[b, i], dim=0) / 0.1

            candidates = [t] + [i for i in range(7) if wrong[b, t, i]]
            assert len(candidates) == 5 and candidates.count(t) == 1
            total -= similarity(t) - torch.logsumexp(
                torch.stack([similarity(i) for i in candidates]), 0
            )
    torch.testing.assert_close(contrast(c, q, wrong, 0.1), total / 21, atol=1e-5, rtol=1e-5)


def test_terms_against_a_slow_reading():
    """Equations 1 to 4. Targets are of what is hidden, as it was."""
    method, (x,) = build("Wav2Vec2", "series")
    hidden = torch.arange(8).expand(8, 8) % 2 == 0
    method.mask = lambda batch, grid, device: hidden
    torch.manual_seed(3)
    terms = method([x], 0.5)
    torch.manual_seed(3)
    even = torch.rand(8, 4 * 2 * 8).clamp(1e-7, 1 - 1e-7).view(8, 4, 2, 8)
    quantiser, stem = method.quantiser, method.encoder.stem
    tokens = stem.project(stem.patches(x))
    tokens[hidden] = method.blank
    final = method.encoder.trunk(tokens + method.encoder.positions)
    total, used = 0.0, torch.zeros(2, 8)
    for b in range(8):
        codes, q = [], []
        for k in range(4):
            local = x[b, :, 16 * k : 16 * k + 8].flatten()
            local = (local - local.mean()) / (local.var(correction=0) + 1e-5).sqrt()
            scores = (quantiser.choose.weight @ local + quantiser.choose.bias).view(2, 8)
            used = used + scores.softmax(-1) / 32
            codes.append((scores - (-even[b, k].log()).log()).argmax(-1).tolist())
            q.append(torch.cat([quantiser.codes[g, codes[k][g]] for g in range(2)]))
        for k in range(4):
            c = method.context(final[b, 2 * k])
            near = [torch.cosine_similarity(c, method.target(v), dim=0) / 0.1 for v in q]
            there = [near[i] for i in range(4) if i == k or codes[i] != codes[k]]
            total -= (near[k] - torch.stack(there).logsumexp(0)) / 32
    perplexities = [torch.exp(-sum(p * p.log() for p in book)) for book in used]
    assert set(terms) == {"contrast", "diversity"}  # patches are not learned: no penalty
    torch.testing.assert_close(terms["contrast"], total, atol=1e-5, rtol=1e-5)
    expected = 0.1 * (16 - sum(perplexities)) / 16
    torch.testing.assert_close(terms["diversity"], expected, atol=1e-5, rtol=1e-5)


def test_parts_against_another_implementation():
    """transformers 5.23.0, models/wav2vec2: compute_contrastive_logits and the cross-entropy of
    forward, all others of the row wrong; _compute_perplexity, which adds up the books."""
    wrong = ~torch.eye(6, dtype=torch.bool).expand(2, 6, 6)
    found = contrast(waves(0.3, 2, 6, 4), waves(1.9, 2, 6, 4), wrong, 0.1)
    torch.testing.assert_close(found, torch.tensor(7.5419135094), atol=1e-5, rtol=1e-5)
    p = (2 * waves(0.5, 10, 2, 8)).softmax(-1).mean(0)
    found = perplexity(p).sum()
    torch.testing.assert_close(found, torch.tensor(15.8584222794), atol=1e-5, rtol=1e-5)


def test_penalty_is_the_mean_square_of_what_the_stem_gives():
    torch.manual_seed(0)
    encoder = wave("wave_tiny", (3200,), 16_000, channels=16, dim=24, depth=1, heads=2)
    x = torch.randn(4, 1, 3200)
    terms = Wav2Vec2(encoder, codes=8, dim=16, span=2)([x], 0.5)
    torch.testing.assert_close(terms["penalty"], 10 * encoder.stem.local(x).square().mean())


def test_perplexity_of_even_and_of_one_code():
    even, one = torch.full((2, 8), 1 / 8), torch.eye(8)[:2]
    torch.testing.assert_close(perplexity(even), torch.full((2,), 8.0))
    torch.testing.assert_close(perplexity(one), torch.ones(2))


def test_quantiser_gives_entries_of_its_books_and_gradients_to_all():
    torch.manual_seed(0)
    quantiser = Quantiser(6, 8, groups=2, codes=5)
    local = torch.randn(2, 3, 6, requires_grad=True)
    values, p, chosen = quantiser(local, 1.0)
    for b in range(2):
        for k in range(3):
            expected = torch.cat([quantiser.codes[g, chosen[b, k, g]] for g in range(2)])
            torch.testing.assert_close(values[b, k], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 3, 2))
    values.square().sum().backward()
    assert local.grad.abs().sum() > 0 and quantiser.choose.weight.grad.abs().sum() > 0


def test_noise_of_the_quantiser_follows_the_probabilities():
    torch.manual_seed(0)
    quantiser = Quantiser(4, 4, groups=1, codes=4)
    torch.nn.init.normal_(quantiser.choose.weight, std=0.5)
    local = torch.randn(1, 1, 4).expand(1, 4000, 4)
    _, p, chosen = quantiser(local, 0.7)  # the temperature changes softness, not frequency
    counts = torch.bincount(chosen.flatten(), minlength=4) / 4000
    assert (counts - p[0, 0, 0]).abs().max() < 0.03


def test_spans_hide_as_many_in_every_row_and_in_runs():
    torch.manual_seed(0)
    hidden = masks.spans(0.49, 10)(64, (150,))
    assert (hidden.sum(1) == round(0.49 * 150)).all()
    runs = (hidden[:, 1:] & ~hidden[:, :-1]).sum().item() + hidden[:, 0].sum().item()
    assert hidden.sum().item() / runs > 10  # spans overlap: a run is a span or longer
    assert masks.spans(0.5, 10)(4, (3,)).sum(1).tolist() == [2] * 4
    share = masks.spans(0.49, 10)(2000, (60,)).float().mean(0)
    assert (share - 0.49).abs().max() < 0.1  # nearly the same chance at every place


def test_hidden_tokens_are_never_seen_by_the_trunk():
    method, (x,) = build("Wav2Vec2", "series")
    method.mask = lambda batch, grid, device: torch.arange(8).expand(8, 8) >= 5
    other = x.clone()
    other[:, :, 40:] += 1.0  # tokens 5, 6 and 7
    seen = []
    handle = method.encoder.trunk.register_forward_hook(lambda m, i, out: seen.append(out))
    for views in (x, other):
        torch.manual_seed(1)
        method([views], 0.5)
    handle.remove()
    torch.testing.assert_close(seen[0], seen[1])


def test_only_hidden_tokens_are_scored():
    method, (x,) = build("Wav2Vec2", "series")
    hidden = torch.arange(8).expand(8, 8) % 3 == 0
    method.mask = lambda batch, grid, device: hidden
    outputs = []
    handle = method.encoder.trunk.register_forward_hook(lambda m, i, out: outputs.append(out))
    loss = method([x], 0.5)["contrast"]
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert torch.equal(gradient.abs().sum(-1) > 0, hidden)


@pytest.mark.parametrize("penalty", [0.0, 10.0])
def test_on_waves_the_stem_gets_a_tenth_of_the_gradient(penalty):
    def gradient(share):
        torch.manual_seed(0)
        encoder = wave("wave_tiny", (3200,), 16_000, channels=16, dim=24, depth=1, heads=2)
        method = Wav2Vec2(encoder, codes=8, dim=16, span=2, penalty=penalty, stem_gradient=share)
        torch.manual_seed(1)
        sum(method([torch.randn(4, 1, 3200)], 0.5).values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
        return encoder.stem.layers[0].weight.grad

    torch.testing.assert_close(gradient(0.1), 0.1 * gradient(1.0), atol=1e-6, rtol=1e-3)


def test_codes_in_use_are_watched_and_one_code_is_an_alarm():
    from selfsup.health import prototype_use

    method, (x,) = build("Wav2Vec2", "series")
    method([x], 0.0)
    assert method.watch["assignments"].shape[1] == 8
    with torch.no_grad():
        method.quantiser.choose.weight.zero_()
        method.quantiser.choose.bias.copy_(20.0 * torch.eye(8)[0].repeat(2))
    terms = method([x], 0.0)
    used, _ = prototype_use(method.watch["assignments"])
    assert used < 1.5 and terms["contrast"] < 1e-3  # nothing is wrong where all is the same
    assert terms["diversity"] > 0.08


def test_symbols_and_convolutions_are_refused():
    from test_contract import METHODS

    from selfsup.encoder import resnet

    with pytest.raises(SelfsupError, match="E202"):
        METHODS["Wav2Vec2"](resnet("resnet18", 16, width=0.125))


def test_chance_is_that_of_guessing():
    method, (x,) = build("Wav2Vec2", "series")
    method([x], 0.0)
    assert method.chance["contrast"] == pytest.approx(math.log(4))  # 4 of 8 tokens are hidden


def test_the_temperature_falls_by_the_same_factor():
    from selfsup.schedules import geometric

    schedule = geometric(2.0, 0.5)
    assert [schedule(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([2.0, 1.0, 0.5])


def test_show_gives_hidden_places_the_code_that_was_found():
    method, (x,) = build("Wav2Vec2", "series")
    _, seen, codes, found = method.show([x]).values()
    hidden = found.numbers >= 0
    gone = (method.encoder.stem.patches(seen) == 0).all(-1)
    assert torch.equal(gone, hidden) and 0 < hidden.sum() < hidden.numel()
    for b in range(8):  # one of those that are hidden in the same sample
        assert set(found.numbers[b, hidden[b]].tolist()) <= set(
            codes.numbers[b, hidden[b]].tolist()
        )
    assert codes.count == 8 and codes.grid == (8,)
