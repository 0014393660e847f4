"""Encoders of tokens: against slow readings; no leak between documents, past and future."""

import math

import numpy as np
import pytest
import torch

from selfsup.attention import attend
from selfsup.errors import SelfsupError
from selfsup.language import Cache, Dropout, Language, Layout, Turned, language, packed, rotations
from selfsup.ragged import Ragged
from selfsup.stems import MASK

LENGTHS = [16, 3, 7, 1, 9, 5, 12, 4]


def encoder(causal: bool) -> Language:
    torch.manual_seed(0)
    made = Language(16, 23, dim=24, depth=2, heads=2, causal=causal)
    for p in made.parameters():  # large weights, so that a leak would show
        torch.nn.init.normal_(p, std=0.3)
    return made.eval()


def documents() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randint(3, 23, (n,)) for n in LENGTHS]


def alone(x: torch.Tensor) -> Ragged:
    return Ragged(x[None], torch.ones(1, len(x), dtype=torch.bool))


@pytest.mark.parametrize("causal", [False, True])
def test_a_document_in_a_batch_is_as_it_is_alone(causal):
    net, texts = encoder(causal), documents()
    together = net.features(Ragged.of(texts))
    assert together.shape == (8, 16, 24)
    for i, text in enumerate(texts):
        by_itself = net.features(alone(text))[0]
        torch.testing.assert_close(together[i, : len(text)], by_itself, atol=1e-5, rtol=1e-5)
        assert not together[i, len(text) :].any()
    pooled = net(Ragged.of(texts))
    torch.testing.assert_close(pooled[2], together[2, :7].mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_no_gradient_across_documents_and_none_from_the_future(causal):
    net, texts = encoder(causal), documents()
    x = Ragged.of(texts)
    inputs = []
    handle = net.stem.register_forward_hook(lambda m, i, out: inputs.append(out))
    states = net.features(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(states[4, 5].sum(), inputs)
    layout = Layout.of(x)
    touched = torch.zeros(layout.document.numel(), dtype=torch.bool)
    mine = layout.place[sum(LENGTHS[:4]) : sum(LENGTHS[:5])]
    touched[mine[: 6 if causal else 9]] = True
    assert torch.equal(gradient.abs().sum(-1).flatten() > 0, touched)


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_features_against_a_slow_reading(causal):
    net, text = encoder(causal).double(), documents()[4]
    x = net.stem.tokens[text]  # (n, d)

    def norm(x, layer):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (var + 1e-6).sqrt() * layer.weight

    for block in net.blocks:
        q, k, v = (block.qkv.weight @ norm(x, block.norm1).T).T.chunk(3, -1)
        mixed = torch.zeros_like(x)
        for head in range(2):
            part = slice(12 * head, 12 * head + 12)
            for i in range(len(x)):
                scores = []
                for j in range(len(x)):
                    if causal and j > i:
                        continue
                    # only the difference of positions matters: turn the key back by i - j
                    score = 0.0
                    for f in range(6):
                        a = complex(q[i, part][2 * f], q[i, part][2 * f + 1])
                        b = complex(k[j, part][2 * f], k[j, part][2 * f + 1])
                        angle = (i - j) * 10_000 ** (-2 * f / 12)
                        score += (
                            a * b.conjugate() * complex(math.cos(angle), math.sin(angle))
                        ).real
                    scores.append(score / math.sqrt(12))
                weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
                mixed[i, part] = weights @ v[: len(scores), part]
        x = x + mixed @ block.proj.weight.T
        gate, value = (norm(x, block.norm2) @ block.up.weight.T).chunk(2, -1)
        x = x + (gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2))) * value) @ block.down.weight.T
    found = net.features(alone(text))[0]
    torch.testing.assert_close(found, norm(x, net.norm), atol=1e-6, rtol=1e-6)


def test_a_cache_gives_what_the_whole_text_gives():
    net, text = encoder(causal=True), documents()[0][None]
    whole = net.features(alone(text[0]))
    cache, found = Cache(), []
    for low, high in ((0, 5), (5, 6), (6, 9), (9, 16)):
        found.append(net.step(text[:, low:high], cache))
    assert cache.length == 16
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-5, rtol=1e-5)


def test_packing_wastes_little_and_loses_nothing():
    lengths = np.random.default_rng(0).normal(60, 25, 64).astype(int).clip(4, 128)  # as news are
    row, start = packed(lengths, 128)
    taken = np.zeros((row.max() + 1, 128), int)
    for n, r, s in zip(lengths, row, start, strict=True):
        taken[r, s : s + n] += 1
    assert taken.max() == 1 and taken.sum() == lengths.sum()
    assert taken.mean() > 0.9
    captions = [26] + [18] * 63  # of which no two fit into a row of 32
    layout = Layout.of(Ragged.of([torch.arange(n) for n in captions]))
    assert sum(captions) > 0.9 * layout.document.numel()
    assert Layout.of(Ragged.of([torch.arange(3, 11)] * 2)) is None  # nothing to pack


def test_turning_keeps_length_depends_on_distance_and_turns_back():
    x = torch.randn(1, 1, 3, 1, 8, dtype=torch.float64).expand(1, 20, 3, 1, 8)
    turns = rotations(0, 20, 8, x.device)
    q, k, v = Turned.apply(x, turns)
    torch.testing.assert_close(q.norm(dim=-1), x[:, :, 0].norm(dim=-1).mT, atol=1e-6, rtol=1e-6)
    products = (q @ k.transpose(-2, -1))[0, 0]
    torch.testing.assert_close(products.diagonal(3), products[0, 3].expand(17), atol=1e-5, rtol=0)
    assert torch.equal(v, x[:, :, 2].transpose(1, 2))
    later, _, _ = Turned.apply(x[:, :5], rotations(15, 5, 8, x.device))
    torch.testing.assert_close(later, q[:, :, 15:], atol=1e-6, rtol=1e-6)
    inputs = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Turned.apply(x, turns[:5, :2]), inputs, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("b", "n"), [(1, 1), (2, 5)])
def test_turning_leaves_what_it_is_given(b, n, dtype):
    inputs = torch.randn(b, n, 3, 2, 4, dtype=dtype, requires_grad=True)
    directions = torch.randn(3, b, 2, n, 4, dtype=dtype)
    before = inputs.detach().clone(), directions.clone()
    torch.autograd.backward(
        Turned.apply(inputs, rotations(7, n, 4, inputs.device)), list(directions)
    )
    assert torch.equal(inputs, before[0]) and torch.equal(directions, before[1])


@pytest.mark.parametrize("causal", [False, True])
def test_attention_with_a_bias_in_bfloat16_is_that_in_float32(causal):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 24, 16, requires_grad=True) for _ in range(3))
    bias = torch.zeros(3, 1, 24, 24).masked_fill(torch.rand(3, 1, 24, 24) < 0.3, -torch.inf)
    bias.diagonal(dim1=-2, dim2=-1).zero_()
    later = torch.full((24, 24), -torch.inf).triu(1) if causal else torch.zeros(24, 24)
    expected = attend(q, k, v, bias=bias + later)
    wanted = torch.autograd.grad(expected.square().sum(), (q, k, v))
    half = [x.detach().bfloat16().requires_grad_() for x in (q, k, v)]
    found = attend(*half, bias=bias, causal=causal)
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    for a, b in zip(torch.autograd.grad(found.float().square().sum(), half), wanted, strict=True):
        assert (a.float() - b).abs().max() < 0.05 * b.abs().max()


def test_names_and_sizes():
    assert not language("bert_micro", 16, 40).causal and language("gpt_micro", 16, 40).causal
    assert len(language("gpt_micro", 16, 40, depth=2).blocks) == 2
    with pytest.raises(SelfsupError, match="E202"):
        language("bert_micro", 16, 40, dim=130, heads=4)


def test_hidden_tokens_come_in_as_zeros_and_the_others_larger():
    torch.manual_seed(0)
    net = Language(16, 23, dim=24, depth=2, heads=2, causal=False, rescale=True).double()
    rows = [torch.tensor([0, 5, MASK, 7, 8, MASK, 0]), torch.tensor([0, MASK, 4, 0])]
    x = Ragged.of(rows)
    inputs = []
    handle = net.blocks[0].register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    found = net.features(x)
    handle.remove()
    for b, row in enumerate(rows):
        plain = net.stem.tokens[row] * (row != MASK)[:, None] * len(row) / (row != MASK).sum()
        alone = Ragged.of([row])
        torch.testing.assert_close(net.features(alone)[0], found[b, : len(row)])
        handle = net.blocks[0].register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
        net.features(alone)
        handle.remove()
        torch.testing.assert_close(inputs[-1][0], plain)
    usual = Language(16, 23, dim=24, depth=2, heads=2, causal=False).double()
    usual.load_state_dict(net.state_dict())
    whole = Ragged.of([torch.tensor([0, 9, 4, 0])])
    torch.testing.assert_close(usual.features(whole), net.features(whole))  # nothing is hidden
    gone = Ragged.of([torch.full((5,), MASK)])
    assert torch.isfinite(net.features(gone)).all()
    assert net.bfloat16().features(x).dtype == torch.bfloat16


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    x = Ragged(torch.zeros(40, 50, dtype=torch.long), torch.ones(40, 50, dtype=torch.bool))
    torch.manual_seed(0)
    drop = Dropout.of(x, None, 0.25)
    first, second = (drop(torch.ones(40, 50, 30)) for _ in range(2))
    for y in (first, second):
        assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert y.mean().item() == pytest.approx(1.0, abs=0.01)
        for axis in ((0, 1), (0, 2), (1, 2)):  # no token, row or number is favoured
            assert ((y == 0).float().mean(axis) - 0.25).abs().max() < 0.06
    assert ((first == 0) & (second == 0)).float().mean().item() == pytest.approx(1 / 16, abs=0.01)


def test_dropout_follows_the_token_wherever_it_is_laid_out():
    torch.manual_seed(0)
    model = Language(16, 23, dim=24, depth=2, heads=2, causal=False, dropout=0.2)
    x = Ragged.of([torch.randint(3, 23, (n,)) for n in (9, 3, 5, 16)])
    torch.manual_seed(1)
    together = model(x)
    alone = Ragged(x.values[:2, :9], x.valid[:2, :9])  # other padding, another layout
    torch.manual_seed(1)
    torch.testing.assert_close(model(alone), together[:2])
    model.eval()
    plain = Language(16, 23, dim=24, depth=2, heads=2, causal=False)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain.eval()(x), model(x))
