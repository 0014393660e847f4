import math

import torch
from fixed import waves
from test_contract import build

from selfsup import masks
from selfsup.methods.maskfeat import hog


def slow_hog(x, bins, pool):
    """One channel, pixel by pixel."""
    h, w = x.shape
    mirrored = torch.nn.functional.pad(x[None], (1, 1, 1, 1), mode="reflect")[0]
    found = torch.zeros(bins, h // pool, w // pool)
    for y in range(h):
        for c in range(w):
            part = mirrored[y : y + 3, c : c + 3]
            gx = (part[:, 0] - part[:, 2]) @ torch.tensor([1.0, 2.0, 1.0])
            gy = (part[0] - part[2]) @ torch.tensor([1.0, 2.0, 1.0])
            phase = math.atan2(gx, gy) % math.pi
            number = min(int(phase / math.pi * bins), bins - 1)
            found[number, y // pool, c // pool] += math.hypot(gx, gy)
    return found / found.norm(dim=0).clamp(min=1e-12)


def test_histograms_against_a_slow_reading():
    x = torch.randn(2, 3, 8, 8)
    found = hog(x, 9, (2, 2)).view(2, 3, 9, 4, 4)
    for b in range(2):
        for c in range(3):
            torch.testing.assert_close(found[b, c], slow_hog(x[b, c], 9, 2), atol=1e-5, rtol=1e-5)


def test_brightness_contrast_and_sign_do_not_matter_but_direction_does():
    x = torch.randn(2, 3, 16, 16)
    histograms = hog(x, 9, (4, 4))
    for other in (x + 3, 2 * x, -x):
        torch.testing.assert_close(hog(other, 9, (4, 4)), histograms, atol=1e-3, rtol=1e-3)
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    across, along = hog(ramp, 9, (16, 16)).flatten(), hog(ramp.mT, 9, (16, 16)).flatten()
    assert across.argmax() != along.argmax() and across.max() > 0.99


def test_loss_against_a_slow_reading():
    method, (x,) = build("MaskFeat", "image")
    hidden = masks.blocks(0.4)(8, (4, 4))
    method.mask = lambda batch, grid, device: hidden
    assert method.pool == (2, 2)
    tokens = torch.where(hidden[..., None], method.blank, method.encoder.embed(x))
    said = method.predict(method.encoder.trunk(tokens + method.encoder.positions))
    total, count = 0.0, 0
    histograms = torch.stack([torch.stack([slow_hog(c, 9, 2) for c in sample]) for sample in x])
    for b in range(8):
        for n in range(16):
            if hidden[b, n]:
                y, c = divmod(n, 4)
                target = histograms[b, :, :, 2 * y : 2 * y + 2, 2 * c : 2 * c + 2].flatten()
                total += (said[b, n] - target).square().sum()
                count += len(target)
    found = method([x], 0.0)["gradients"]
    torch.testing.assert_close(found, total / count, atol=1e-5, rtol=1e-5)


def test_histograms_and_loss_against_the_authors_code():
    """SlowFast, slowfast/models/operators.py: HOGLayerC, masked.py: _get_hog_label_2d, their mean
    squared error. Not at the margin, where gradients lie on the edge between two bins."""
    method, _ = build("MaskFeat", "image")
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, [5, 6, 9, 10]] = True
    method.mask = lambda batch, grid, device: hidden
    method.predict.forward = lambda final: waves(1.9, 2, 4, 108)
    found = method([waves(0.3, 2, 3, 16, 16) * waves(1.0, 16, 1)], 0.0)["gradients"]
    torch.testing.assert_close(found, torch.tensor(0.6105956435), atol=1e-5, rtol=1e-5)


def test_hidden_tokens_are_never_seen():
    method, (x,) = build("MaskFeat", "image")
    hidden = masks.blocks(0.4)(8, (4, 4))
    method.mask = lambda batch, grid, device: hidden
    x.requires_grad_()
    method([x], 0.0)["gradients"].backward()
    assert torch.equal(method.encoder.stem.patches(x.grad).abs().sum(-1) > 0, ~hidden)
