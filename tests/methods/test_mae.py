import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup import masks
from selfsup.errors import SelfsupError
from selfsup.methods.mae import MAE, normalise


def test_loss_against_a_slow_reading():
    method, (x,) = build("MAE", "image")
    hidden = torch.rand(8, 16).argsort(1) < 12
    method.mask = lambda batch, grid, device: hidden
    _, predicted = method.rebuild(x, hidden)
    total, count = 0.0, 0
    for b in range(8):
        row = 0
        for n in range(16):
            if not hidden[b, n]:
                continue
            y, c = divmod(n, 4)
            patch = x[b, :, 4 * y : 4 * y + 4, 4 * c : 4 * c + 4].flatten()
            target = (patch - patch.mean()) / (patch.var(unbiased=True) + 1e-6) ** 0.5
            total += (predicted[b, row] - target).square().sum()
            count += len(target)
            row += 1
    terms = method([x], 0.0)
    torch.testing.assert_close(terms["reconstruction"], total / count, atol=1e-5, rtol=1e-5)


def test_loss_against_another_implementation():
    """transformers 5.23.0, ViTMAEForPreTraining, norm_pix_loss; its decoder says `guess`."""
    method, _ = build("MAE", "image")
    x, guess = waves(0.3, 2, 3, 16, 16), waves(1.9, 2, 3, 16, 16)
    hidden = waves(0.6, 2, 16).argsort(1).argsort(1) >= 4
    method.mask = lambda batch, grid, device: hidden
    said = masks.take(method.encoder.stem.patches(guess), hidden)
    method.rebuild = lambda x, hidden: (torch.zeros(2, 4, 24), said)
    found = method([x], 0.0)["reconstruction"]
    torch.testing.assert_close(found, torch.tensor(1.5213664770), atol=1e-5, rtol=1e-5)


def test_hidden_tokens_are_never_seen_by_the_encoder_and_alone_are_scored():
    method, (x,) = build("MAE", "image")
    hidden = torch.rand(8, 16).argsort(1) < 12
    other = method.encoder.stem.patches(x)
    other[hidden] += 1.0
    changed = method.encoder.stem.unpatch(other)
    for a, b in zip(method.rebuild(x, hidden), method.rebuild(changed, hidden), strict=True):
        torch.testing.assert_close(a, b)
    method.mask = lambda batch, grid, device: hidden
    outputs = []
    handle = method.decoder.register_forward_hook(lambda m, i, out: outputs.append(out))
    loss = method([x], 0.0)["reconstruction"]
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert torch.equal(gradient.abs().sum(-1) > 0, hidden)


def test_show_leaves_visible_patches_alone():
    method, (x,) = build("MAE", "image")
    hidden = torch.rand(8, 16).argsort(1) < 12
    method.mask = lambda batch, grid, device: hidden
    original, seen, rebuilt = method.show([x]).values()
    stem = method.encoder.stem
    assert torch.equal(original, x)
    assert torch.equal(stem.patches(seen)[~hidden], stem.patches(x)[~hidden])
    assert torch.equal(stem.patches(rebuilt)[~hidden], stem.patches(x)[~hidden])
    assert stem.patches(seen)[hidden].abs().sum() == 0


def test_normalise_has_mean_zero_and_unit_deviation():
    patches = torch.randn(2, 3, 48) * 5 + 2
    std, mean = torch.std_mean(normalise(patches), -1)
    torch.testing.assert_close(mean, torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones(2, 3), atol=1e-4, rtol=0)


def test_put_is_the_inverse_of_take():
    tokens, where = torch.randn(4, 9, 5), torch.rand(4, 9).argsort(1) < 3
    full = masks.put(masks.take(tokens, where), where, torch.full((5,), 7.0))
    assert torch.equal(full[where], tokens[where]) and (full[~where] == 7).all()


def test_random_mask_hides_the_same_number_everywhere_and_each_token_equally_often():
    hidden = masks.random(0.75)(4000, (4, 4))
    assert (hidden.sum(1) == 12).all()
    assert (hidden.float().mean(0) - 0.75).abs().max() < 0.03
    assert (masks.random(1.0)(2, (4, 4)).sum(1) == 15).all()


def test_tubes_hide_the_same_places_at_all_times():
    hidden = masks.tube(0.75)(16, (3, 4, 4)).view(16, 3, 16)
    assert (hidden == hidden[:, :1]).all() and (hidden.sum(2) == 12).all()
    assert len(hidden[:, 0].unique(dim=0)) > 8
    with pytest.raises(SelfsupError, match="E202"):
        masks.tube(0.75)(2, (8,))
    method, (x,) = build("MAE", "video")
    tubes = MAE(method.encoder, mask="tube", decoder_dim=32, decoder_depth=1, decoder_heads=2)
    seen = tubes.show([x])["what the encoder sees"]
    assert torch.equal((seen[:, :, :2] == 0).all(2), (seen[:, :, 2:] == 0).all(2))
