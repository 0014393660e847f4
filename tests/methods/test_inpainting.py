import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup.dilated import MarkedPatches
from selfsup.encoder import Encoder
from selfsup.errors import SelfsupError
from selfsup.methods import Inpainting
from selfsup.stems import paste


def test_loss_against_a_slow_reading():
    method, (x,) = build("Inpainting", "image")
    torch.manual_seed(3)
    hidden = method.hide(x)
    _, painted = method.paint(x, hidden)
    total, count = 0.0, 0
    for b in range(8):
        for c in range(3):
            for y, row in enumerate(hidden[b, 0]):
                for z, inside in enumerate(row):
                    if inside:
                        total += (painted[b, c, y, z] - x[b, c, y, z]) ** 2
                        count += 1
    assert count == 8 * 3 * 8 * 8  # a quarter
    torch.manual_seed(3)
    found = method([x], 0.0)["reconstruction"]
    torch.testing.assert_close(found, total / count, atol=1e-5, rtol=1e-5)


def test_loss_against_another_implementation():
    """context_encoder_pytorch at 1df1de0, train.py: errG_l2, with no overlap."""
    method, (x,) = build("Inpainting", "image")
    hidden = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    hidden[..., 4:12, 4:12] = True
    x, painted = x[:2], torch.zeros(2, 3, 16, 16)
    x[..., 4:12, 4:12], painted[..., 4:12, 4:12] = waves(1.9, 2, 3, 8, 8), waves(0.3, 2, 3, 8, 8)
    method.hide = lambda x: hidden
    method.paint = lambda x, hidden: (torch.zeros(2, 16, 24), painted)
    found = method([x], 0.0)["reconstruction"]
    torch.testing.assert_close(found, torch.tensor(1.0275878906), atol=1e-5, rtol=1e-5)


def test_values_of_a_place_land_there():
    method, (x,) = build("Inpainting", "convolutional")
    method.values.forward = lambda spread: torch.arange(4.0).view(1, 4, 1).expand(8, 4, 3 * 64)
    _, painted = method.paint(x, method.hide(x))
    assert painted.shape == x.shape
    quarters = [
        painted[..., :8, :8],
        painted[..., :8, 8:],
        painted[..., 8:, :8],
        painted[..., 8:, 8:],
    ]
    assert all((part == i).all() for i, part in enumerate(quarters))


def test_the_block_is_never_seen_and_alone_is_scored():
    for kind in ("image", "convolutional", "dilated", "video"):
        method, (x,) = build("Inpainting", kind)
        method.eval()
        hidden = method.hide(x)
        method.hide = lambda x, hidden=hidden: hidden
        _, one = method.paint(x, hidden)
        _, other = method.paint(x + 5 * hidden, hidden)
        torch.testing.assert_close(one, other)
        x.requires_grad_()
        kept = []
        method.values.register_forward_hook(lambda m, i, out, kept=kept: kept.append(out))
        terms = method([x], 0.0)
        (gradient,) = torch.autograd.grad(terms["reconstruction"], kept)
        whole = paste(gradient, method.encoder.grid, tuple(x.shape[2:]))
        assert torch.equal(whole.abs().sum(1, keepdim=True) > 0, hidden), kind


def test_blocks_are_of_one_size_and_anywhere():
    method, _ = build("Inpainting", "image")
    hidden = method.hide(torch.randn(500, 3, 16, 16))
    assert set(hidden.flatten(1).sum(1).tolist()) == {64}
    assert hidden.any(0).all()


def test_marks_are_hidden_too_and_not_painted():
    stem = MarkedPatches((16,), (4,), 2, 24)
    method = Inpainting(Encoder(stem, dim=24, depth=1, heads=2), hidden=16)
    x = torch.cat([torch.randn(3, 2, 16), torch.ones(3, 2, 16)], 1)
    seen = []
    method.encoder.stem.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    hidden = method.hide(x)
    method.hide = lambda x: hidden
    method([x], 0.0)
    assert torch.equal(seen[0][:, 2:] == 0, hidden.expand(-1, 2, -1))
    assert method.show([x])["painted in"].shape == x.shape


def test_a_grid_that_does_not_tile_the_input_is_refused():
    method, _ = build("Inpainting", "wave")
    with pytest.raises(SelfsupError, match="E202"):
        method([torch.randn(2, 1, 250)], 0.0)
