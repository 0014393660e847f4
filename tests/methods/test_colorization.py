import copy

import pytest
import torch
from test_contract import METHODS, build, run

from selfsup import methods
from selfsup.dilated import Dilated, MarkedPatches
from selfsup.encoder import Encoder, resnet
from selfsup.errors import SelfsupError
from selfsup.stems import Patches


def test_loss_against_a_slow_reading():
    method, (x,) = build("Colorization", "image")
    mean = x.mean(1, keepdim=True).expand_as(x)
    said = method.values(method.encoder.features(mean))
    total = 0.0
    for b in range(8):
        for n in range(16):
            y, c = divmod(n, 4)
            at = slice(4 * y, 4 * y + 4), slice(4 * c, 4 * c + 4)
            target = (x - mean)[b, :, at[0], at[1]].flatten()
            total += (said[b, n] - target).square().mean() / 128
    torch.testing.assert_close(method([x], 0.0)["channels"], total, atol=1e-5, rtol=1e-5)


def test_some_channels_from_others():
    torch.manual_seed(0)
    method = methods.Colorization(resnet("resnet18", 16, width=0.125), seen=(1,), hidden=16)
    x = torch.randn(4, 3, 16, 16)
    grey, target = method.split(x)
    assert grey[:, [0, 2]].abs().sum() == 0 and torch.equal(grey[:, 1], x[:, 1])
    assert target.shape == (4, 4, 2 * 8 * 8)
    assert torch.equal(target[0, 3], x[0, [0, 2], 8:, 8:].flatten())


@pytest.mark.parametrize("seen", [(), (0,), (0, 2)])
@pytest.mark.parametrize("kind", ["transformer", "convolutional", "dilated"])
def test_the_encoder_stays_blind_to_what_is_held_out(kind, seen):
    """So that evaluation may feed it samples as they are."""
    torch.manual_seed(0)
    size = (32,) if kind == "dilated" else (16, 16)
    encoder = {
        "transformer": lambda: Encoder(Patches(size, (4, 4), 3, 24), dim=24, depth=1, heads=2),
        "convolutional": lambda: resnet("resnet18", 16, width=0.125),
        "dilated": lambda: Dilated(32, 3, dim=24, hidden=16, depth=3),
    }[kind]()
    method = methods.Colorization(encoder, seen=seen, hidden=16)
    before = copy.deepcopy(method.encoder.entrance.detach())
    x = torch.randn(8, 3, *size)
    run(method, [x], 5, lr=1e-2)
    assert not torch.equal(method.encoder.entrance, before)
    method.eval()
    grey, _ = method.split(x)
    torch.testing.assert_close(method.encoder(x), method.encoder(grey), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(method.encoder(x), method.encoder(x.flip(0)), atol=1e-3)


def test_marks_are_no_channels():
    stem = MarkedPatches((16,), (4,), 2, 24)
    method = METHODS["Colorization"](Encoder(stem, dim=24, depth=1, heads=2))
    x = torch.cat([torch.randn(3, 2, 16), torch.ones(3, 2, 16)], 1)
    grey, target = method.split(x)
    assert torch.equal(grey[:, 2:], x[:, 2:]) and target.shape == (3, 4, 8)
    torch.testing.assert_close(grey[:, 0], x[:, :2].mean(1))
    assert method([x], 0.0)["channels"].isfinite()


def test_one_channel_is_refused():
    for seen in ((), (0,)):
        stem = Patches((16,), (4,), 1, 24)
        with pytest.raises(SelfsupError, match="E202"):
            methods.Colorization(Encoder(stem, dim=24, depth=1, heads=2), seen=seen)
