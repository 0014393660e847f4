import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup import masks
from selfsup.errors import SelfsupError
from selfsup.language import Language, rotations
from selfsup.methods import Data2Vec
from selfsup.ragged import Ragged
from selfsup.stems import MASK


def normal(f):
    mean, var = f.mean(-1, keepdim=True), f.var(-1, unbiased=False, keepdim=True)
    return (f - mean) / (var + 1e-5).sqrt()


def slow_target(encoder, x, layers, ends):
    """Each block written out; the outputs of feed-forward parts before they are added, or after."""
    stream, found = encoder.tokens(x), []
    for block in encoder.trunk.blocks:
        stream = stream + block.attn(block.norm1(stream))
        f = block.mlp(block.norm2(stream))
        stream = stream + f
        found.append(normal(stream if ends else f))
    mean = sum(found[-layers:]) / layers
    return normal(mean) if ends else mean


@pytest.mark.parametrize("ends", [False, True])
def test_loss_against_a_slow_reading(ends):
    method, (x,) = build("Data2Vec", "image")
    method.ends = ends
    method.teacher.slow.positions.data.add_(0.3)  # a teacher that differs
    hidden = masks.blocks(0.6)(8, (4, 4))
    method.mask = lambda batch, grid, device: hidden
    tokens = method.encoder.embed(x)
    tokens = torch.where(hidden[..., None], method.blank, tokens) + method.encoder.positions
    predicted = method.predict(method.encoder.trunk(tokens))
    target = slow_target(method.teacher.slow, x, 2, ends)
    total = 0.0
    for difference in (predicted - target)[hidden].flatten():  # equation 3, beta = 2
        size = difference.abs()
        total += 0.5 * size**2 / 2 if size <= 2 else size - 1
    found = method([x], 0.0)["latents"]
    count = int(hidden.sum()) * 24
    torch.testing.assert_close(found, total / count, atol=1e-5, rtol=1e-5)


def test_loss_against_the_authors_code():
    """data2vec_vision, beit/engine_for_cyclical.py, without post_target_layer_norm; what fairseq's
    data2vec_audio.py gives is this by the root of the dimension, 24."""
    method, (x,) = build("Data2Vec", "image")
    hidden = waves(0.6, 2, 16).argsort(1).argsort(1) >= 10
    method.mask = lambda batch, grid, device: hidden
    layers = [waves(0.2 + i, 2, 16, 24) + 0.1 * i * waves(2.2, 2, 16, 24) for i in range(3)]
    method.teacher.slow.trunk.added = lambda tokens, last, ends: layers[-last:]
    method.predict.forward = lambda final: 3 * waves(1.9, 12, 24)
    found = method([x[:2]], 0.0)["latents"]
    torch.testing.assert_close(found, torch.tensor(0.9631344676), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found * 24**0.5, torch.tensor(4.7183756828), atol=1e-4, rtol=1e-5)


def test_the_upper_layers_alone_make_the_target():
    method, (x,) = build("Data2Vec", "image")
    trunk = method.teacher.slow.trunk
    tokens = method.encoder.tokens(x)
    both, last = trunk.added(tokens, 2), trunk.added(tokens, 1)
    assert len(both) == 2 and len(last) == 1
    torch.testing.assert_close(both[1], last[0])


def test_several_masks_share_one_pass_of_the_teacher():
    method, (x,) = build("Data2Vec", "image")
    method.copies = 3
    shapes, asked = [], []
    block = method.teacher.slow.trunk.blocks[0].mlp
    block.register_forward_hook(lambda m, args, out: shapes.append(len(out)))
    hidden = method.mask(24, (4, 4), None)
    method.mask = lambda batch, grid, device: asked.append(batch) or hidden
    shared = method([x], 0.0)["latents"]
    assert shapes == [8] and asked == [24]
    method.copies, singly = 1, []
    for i in range(3):
        method.mask = lambda batch, grid, device, i=i: hidden[i::3]
        singly.append(method([x], 0.0)["latents"])
    torch.testing.assert_close(shared, sum(singly) / 3)


def test_hidden_tokens_are_never_seen_by_the_student_and_the_teacher_has_no_gradient():
    method, (x,) = build("Data2Vec", "image")
    hidden = masks.blocks(0.6)(8, (4, 4))
    method.mask = lambda batch, grid, device: hidden
    x.requires_grad_()
    method([x], 0.0)["latents"].backward()
    gradient = method.encoder.stem.patches(x.grad).abs().sum(-1)
    assert torch.equal(gradient > 0, ~hidden)
    assert method.kept is method.encoder  # as the authors fine-tune the student
    before = method.teacher.slow.positions.clone()
    method.encoder.positions.data.add_(1.0)
    method.after_step(0.5)
    torch.testing.assert_close(method.teacher.slow.positions, before + 0.1)  # momentum 0.9


# ---- tokens of a vocabulary --------------------------------------------------------------------


def slow_added(encoder, words):
    """Of one text, without padding: what the units of each block add, before it is added."""
    stream, found = encoder.stem.tokens[words][None], []
    turns = rotations(0, len(words), encoder.blocks[0].width, stream.device)
    for block in encoder.blocks:
        stream, _ = block(stream, turns, None, lambda x: x)  # with what attention adds
        gate, value = (block.norm2(stream) @ block.up.weight.T).chunk(2, -1)
        found.append((torch.nn.functional.gelu(gate) * value) @ block.down.weight.T)
        stream = stream + found[-1]
    return found


def test_words_against_a_slow_reading():
    method, (x,) = build("Data2Vec", "text")
    method.teacher.slow.stem.tokens.data.add_(0.1 * torch.randn(23, 24))
    torch.manual_seed(3)
    found = method([x], 0.0)["latents"]
    torch.manual_seed(3)
    draws = torch.rand(8, 48).view(8, 3, 16)
    total, count, fates = 0.0, 0, []
    for b in range(8):
        n = int(x.valid[b].sum())
        words, (rank, fate, other) = x.values[b, :n], draws[b, :, :n]
        layers = [normal(f) for f in slow_added(method.teacher.slow, words)]
        target = (layers[0] + layers[1])[0] / 2
        chosen = rank.argsort()[: max(1, round(0.15 * n))].tolist()
        seen = words.clone()
        for i in chosen:
            if fate[i] < 0.8:
                seen[i] = MASK
            elif fate[i] < 0.9:
                seen[i] = 3 + int(other[i] * 20)
            fates.append(fate[i].item())
        final = method.encoder.features(Ragged(seen[None], torch.ones(1, n, dtype=torch.bool)))
        for i in chosen:
            for difference in (method.predict(final[0, i]) - target[i]).tolist():
                size = abs(difference)
                total += 0.5 * size**2 / 2 if size <= 2 else size - 1
                count += 1
    assert min(fates) < 0.8 and max(fates) > 0.8  # hidden ones and others
    torch.testing.assert_close(found.item(), total / count, atol=1e-5, rtol=1e-5)


def test_masks_share_a_pass_of_the_teacher_over_words_too():
    method, (x,) = build("Data2Vec", "text")
    method.copies, asked = 3, []
    slow = method.teacher.slow
    method.teacher.slow.added = lambda x, last: (
        asked.append(len(x)) or Language.added(slow, x, last)
    )
    assert method([x], 0.0)["latents"].isfinite() and asked == [8]


def test_the_teacher_of_words_has_no_gradient_and_there_is_no_second_mask_token():
    method, views = build("Data2Vec", "text")
    sum(method(views, 0.0).values()).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert not hasattr(method, "blank") and method.encoder.stem.tokens.grad[MASK].any()


def test_encoders_that_cannot():
    with pytest.raises(SelfsupError, match="E202"):
        Data2Vec(Language(16, 23, dim=24, depth=1, heads=2, causal=True))
    with pytest.raises(SelfsupError, match="E201"):
        Data2Vec(Language(16, 23, dim=24, depth=1, heads=2, causal=False), ends=True)
