"""Encoders of sound."""

import pytest
import torch

from selfsup import sound
from selfsup.errors import SelfsupError


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
def test_a_token_is_about_twenty_milliseconds(rate):
    stem = sound.Waveform(rate, rate, 8, 12)
    assert 0.014 < stem.stride / rate < 0.03
    x = torch.randn(2, 1, rate)
    assert stem(x).shape == (2, *stem.grid, 12)
    assert stem.grid == (rate // stem.stride,)
    patches = stem.patches(x)
    whole = stem.grid[0] * stem.stride
    torch.testing.assert_close(stem.unpatch(patches)[:, :, :whole], x[:, :, :whole])


def test_a_token_sees_its_own_samples_and_a_few_around():
    torch.manual_seed(0)
    stem = sound.Waveform(3200, 16_000, 8, 12)
    stem.first_norm = torch.nn.Identity()  # which looks at all of the sample
    x = torch.randn(1, 1, 3200, requires_grad=True)
    stem(x)[0, 5].sum().backward()
    seen = x.grad[0, 0].nonzero()[:, 0]
    assert seen.min() >= 5 * 320 - 160 and seen.max() < 6 * 320 + 160
    assert 320 <= len(seen) <= 640


@pytest.mark.parametrize(
    ("name", "size", "settings"),
    [
        ("mel_tiny", (64, 32), {}),
        ("mel_tiny", (64, 32), {"high": 16, "wide": 8}),
        ("wave_tiny", (5120,), {}),
        ("resnet18", (64, 64), {"width": 0.125}),
        ("vit_tiny", (64, 32), {"patch": 8, "depth": 1}),
    ],
)
def test_every_encoder_gives_vectors_and_moments(name, size, settings):
    encoder = sound.build(name, size, 16_000, **settings).eval()
    x = torch.randn(2, 1, *size)
    with torch.no_grad():
        assert encoder(x).shape == (2, encoder.dim)
        moments = sound.over_time(encoder, x)
    assert moments.shape == (2, encoder.grid[-1], sound.width(encoder))


def test_moments_are_in_the_order_of_time():
    torch.manual_seed(0)
    encoder = sound.build("mel_tiny", (64, 32), 16_000, high=16, depth=1)
    x = torch.randn(1, 1, 64, 32)
    encoder.trunk = torch.nn.Identity()  # tokens as they are
    changed = x.clone()
    changed[..., 12:16] += 1.0  # the fourth step of four frames
    moved = (sound.over_time(encoder, x) - sound.over_time(encoder, changed)).abs().sum(-1)[0]
    assert (moved > 1e-4).tolist() == [i == 3 for i in range(8)]


def test_the_wrong_form_is_a_clear_error():
    with pytest.raises(SelfsupError, match="form"):
        sound.build("wave_tiny", (64, 32), 16_000)
    with pytest.raises(SelfsupError, match="form"):
        sound.build("mel_tiny", (5120,), 16_000)
    with pytest.raises(SelfsupError, match="no encoder"):
        sound.build("wave_huge", (5120,), 16_000)
