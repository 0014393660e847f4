"""Image operations against slow readings of one sample at a time, and against PIL."""

import colorsys
import math
import threading

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from selfsup.randomness import Draws
from selfsup.views import image as V
from selfsup.views.one_core import on_one_core

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(b: int, h: int, w: int, seed: int = 0) -> torch.Tensor:
    """Smooth colours with edges and flat places, as photographs have them: uint8 (b, 3, h, w)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (b, 5, 6, 3), dtype=np.uint8)
    large = np.stack([np.asarray(Image.fromarray(s).resize((w, h))) for s in small])
    noisy = large.astype(int) + rng.integers(-20, 21, large.shape)
    noisy[:, : h // 4, : w // 4] = 90  # gray: no hue
    noisy[:, : h // 4, w // 2 :] = (255, 0, 40)
    pixels = torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))
    return pixels.permute(0, 3, 1, 2)


def floats(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float().contiguous() / 255


def pil(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def levels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float()


def boxes(*rows: tuple[int, int, int, int, bool]) -> V.Boxes:
    columns = [torch.tensor(c) for c in zip(*rows, strict=True)]
    return V.Boxes(*columns)


def draws(b: int, seed: int = 0, view: int = 0) -> Draws:
    return Draws(seed, torch.arange(b), view)


# ------------------------------------------------------------------------------ crop

BOXES = boxes(
    (0, 0, 40, 60, False),  # all of it, shrunk
    (3, 7, 9, 11, True),  # enlarged
    (20, 1, 17, 50, False),  # shrunk across, enlarged down
    (39, 59, 1, 1, True),  # one pixel
    (5, 5, 24, 24, True),  # already of that size
)


def test_crop_is_what_pil_does():
    pixels = photographs(5, 40, 60)
    ours = V.crop(pixels, BOXES, 24)
    for i, (top, left, h, w, mirrored) in enumerate(torch.stack(BOXES, 1).tolist()):
        cut = pil(pixels[i]).crop((left, top, left + w, top + h))
        cut = cut.resize((24, 24), Image.Resampling.BILINEAR)
        theirs = levels(ImageOps.mirror(cut) if mirrored else cut)
        assert (ours[i].float() - theirs).abs().max() <= 1, i


def slow_resize(line: np.ndarray, size: int) -> np.ndarray:
    """One line, one new pixel, one old pixel at a time."""
    n, out = len(line), []
    scale = max(n / size, 1.0)
    for new in range(size):
        centre = (new + 0.5) * n / size
        weights = [max(0.0, 1 - abs(old + 0.5 - centre) / scale) for old in range(n)]
        out.append(sum(w * v for w, v in zip(weights, line, strict=True)) / sum(weights))
    return np.array(out)


def test_crop_exact_is_the_equation():
    pixels = photographs(5, 40, 60)
    ours = V.crop_exact(pixels, BOXES, 12)
    for i, (top, left, h, w, mirrored) in enumerate(torch.stack(BOXES, 1).tolist()):
        cut = pixels[i, 1, top : top + h, left : left + w].double().numpy()
        rows = np.stack([slow_resize(row, 12) for row in cut])
        full = np.stack([slow_resize(column, 12) for column in rows.T]).T
        theirs = full[:, ::-1] if mirrored else full
        np.testing.assert_allclose(ours[i, 1] / 255, theirs / 255, atol=1e-5)


def test_the_accelerators_crop_equals_the_cpus_up_to_rounding():
    pixels = photographs(64, 50, 45)
    box = V.draw_boxes(draws(64), torch.full((64,), 50), torch.full((64,), 45), (0.05, 1.0))
    apart = (V.crop(pixels, box, 32).float() - V.crop_exact(pixels, box, 32)).abs()
    assert apart.max() <= 1.51  # the CPU rounds after each direction
    assert apart.mean() < 0.4


def test_nothing_outside_the_box_is_seen():
    pixels = torch.full((1, 3, 30, 30), 255, dtype=torch.uint8)
    pixels[:, :, 10:20, 5:25] = 7
    for size in (4, 10, 64):
        box = boxes((10, 5, 10, 20, False))
        assert (V.crop(pixels, box, size) == 7).all()
        torch.testing.assert_close(
            V.crop_exact(pixels, box, size), torch.full((1, 3, size, size), 7.0)
        )


# ------------------------------------------------------------------------------ boxes


def torchvision_box(rng, height, width, share, ratio):
    """RandomResizedCrop.get_params, line by line, with numpy's generator."""
    for _ in range(10):
        target = height * width * rng.uniform(*share)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def distance(a, b) -> float:
    """Kolmogorov-Smirnov: the largest gap between two samples' distribution functions."""
    a, b = np.sort(np.asarray(a, float)), np.sort(np.asarray(b, float))
    at = np.concatenate([a, b])
    below_a = np.searchsorted(a, at, "right") / len(a)
    return float(np.abs(below_a - np.searchsorted(b, at, "right") / len(b)).max())


@pytest.mark.parametrize(
    ("height", "width", "share"),
    [(32, 32, (0.2, 1.0)), (224, 298, (0.08, 1.0)), (60, 180, (0.5, 1.0)), (224, 224, (0.05, 0.4))],
)
def test_boxes_are_distributed_as_torchvisions(height, width, share):
    n = 20_000
    box = V.draw_boxes(draws(n), torch.full((n,), height), torch.full((n,), width), share)
    top, left, h, w = (v.numpy() for v in box[:4])
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    assert (h > 0).all() and (w > 0).all()
    rng = np.random.default_rng(1)
    theirs = np.array([torchvision_box(rng, height, width, share, V.RATIO) for _ in range(8000)])
    limit = 1.95 * math.sqrt(1 / n + 1 / 8000)  # 1 in 1000 by chance, and the numbers are fixed
    assert distance(h * w, theirs[:, 2] * theirs[:, 3]) < limit
    assert distance(w / h, theirs[:, 3] / theirs[:, 2]) < limit
    assert distance(top, theirs[:, 0]) < limit
    assert distance(left, theirs[:, 1]) < limit
    assert abs(box.mirrored.float().mean() - 0.5) < 0.015


def test_where_no_box_fits_the_middle_is_taken():
    height, width = torch.tensor([1, 10, 100, 1]), torch.tensor([100, 100, 10, 1])
    box = V.draw_boxes(draws(4), height, width, (0.9, 1.0))
    rows = torch.stack(box[:4], 1).tolist()
    assert rows == [[0, 49, 1, 1], [0, 43, 10, 13], [43, 0, 13, 10], [0, 0, 1, 1]]


# ------------------------------------------------------------------------------ colours


def slow_luma(pixel) -> float:
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def slow(operation: str, x: torch.Tensor, value: float) -> torch.Tensor:
    """One sample (3, h, w), a pixel at a time, from torchvision's definitions."""
    x = x.double().permute(1, 2, 0)
    out = torch.empty_like(x)
    mean = sum(slow_luma(p) for row in x.tolist() for p in row) / (x.shape[0] * x.shape[1])
    for i, row in enumerate(x.tolist()):
        for j, pixel in enumerate(row):
            if operation == "hue":
                h, s, v = colorsys.rgb_to_hsv(*pixel)
                new = colorsys.hsv_to_rgb((h + value) % 1, s, v)
            else:
                other = {"brightness": 0.0, "contrast": mean, "saturation": slow_luma(pixel)}
                new = [value * c + (1 - value) * other[operation] for c in pixel]
            out[i, j] = torch.tensor([min(max(c, 0.0), 1.0) for c in new], dtype=torch.double)
    return out.permute(2, 0, 1).float()


@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation", "hue"])
def test_colour_operations_are_torchvisions(operation):
    x = floats(photographs(4, 14, 18))
    x[0, :, 0, :8] = torch.tensor(  # the corners of the colour cube, where two channels are largest
        [[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], dtype=torch.float32
    ).T
    values = torch.tensor([-0.5, -0.1, 0.2, 0.5] if operation == "hue" else [0.0, 0.4, 1.0, 1.8])
    ours = getattr(V, operation)(x.clone(), values)
    for i in range(4):
        torch.testing.assert_close(
            ours[i], slow(operation, x[i], float(values[i])), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(
    ("operation", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_colour_operations_are_pils(operation, enhance):
    pixels = photographs(3, 20, 30)
    factors = torch.tensor([0.3, 1.0, 1.7])
    ours = getattr(V, operation)(floats(pixels), factors) * 255
    for i in range(3):
        theirs = levels(enhance(pil(pixels[i])).enhance(float(factors[i])))
        assert (ours[i] - theirs).abs().max() < 2.01  # PIL rounds its gray, then its result


def test_hue_is_pils_in_hsv():
    pixels = photographs(1, 24, 24)
    hsv = np.array(pil(pixels[0]).convert("HSV"))
    hsv[..., 0] += np.uint8(round(0.2 * 255))  # wraps around, as in torchvision's adjust_hue
    theirs = levels(Image.fromarray(hsv, "HSV").convert("RGB"))
    ours = V.hue(floats(pixels), torch.tensor([0.2]))[0] * 255
    assert (ours - theirs).abs().mean() < 1.5  # 255 levels of hue
    assert (ours - theirs).abs().max() < 10


def test_gray_is_pils():
    pixels = photographs(2, 20, 30)
    ours = V.gray(floats(pixels)) * 255
    theirs = np.asarray(pil(pixels[1]).convert("L")).astype(np.float32)
    for channel in range(3):
        assert np.abs(ours[1, channel].numpy() - theirs).max() < 1


def test_solarise_is_pils_on_every_level_at_128():
    """Threshold 0.5 handed to PIL, whose pixels are 0 to 255, gives full negatives instead."""
    ramp = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    theirs = levels(ImageOps.solarize(pil(ramp), threshold=128))
    ours = V.solarise(floats(ramp)[None])[0] * 255
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert ours[0, 0, :128].tolist() == pytest.approx(list(range(128)))


def test_jitter_follows_each_samples_order():
    b = 48
    pixels = photographs(b, 6, 7)
    looks = V.draw_looks(draws(b), V.recipe(0, 224, alike=True))
    names = ("brightness", "contrast", "saturation", "hue")
    ours = V.jitter(floats(pixels), looks)
    assert len({tuple(row) for row in looks.order.tolist()}) > 15
    assert 0 < int(looks.jittered.sum()) < b
    for i in range(b):
        x = floats(pixels[i])
        if looks.jittered[i]:
            for step in looks.order[i].tolist():
                x = slow(names[step], x, float(looks.factors[i, step]))
        torch.testing.assert_close(ours[i], x, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------ blur


def test_blur_is_the_equation():
    x = floats(photographs(3, 9, 13)).double()
    sigma = torch.tensor([0.1, 0.8, 2.0])
    ours = V.blur(x.float(), sigma)
    for i, s in enumerate(sigma.tolist()):
        radius = math.ceil(3 * np.float32(s))
        taps = range(-radius, radius + 1)
        total = sum(math.exp(-0.5 * (t / s) ** 2) for t in taps)
        for r, c in ((0, 0), (4, 6), (8, 12), (2, 11)):
            value = 0.0
            for dr in taps:
                for dc in taps:
                    weight = math.exp(-0.5 * (dr * dr + dc * dc) / s**2) / total**2
                    row, column = min(max(r + dr, 0), 8), min(max(c + dc, 0), 12)
                    value = value + weight * x[i, :, row, column]
            torch.testing.assert_close(ours[i, :, r, c].double(), value, atol=1e-5, rtol=0)


def test_a_blurs_reach_does_not_depend_on_its_batch():
    x = floats(photographs(2, 24, 24))
    together = V.blur(x, torch.tensor([1.0, 2.0]))
    assert torch.equal(together[:1], V.blur(x[:1], torch.tensor([1.0])))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_close_to_pils(sigma):
    pixels = photographs(1, 64, 64)
    theirs = levels(pil(pixels[0]).filter(ImageFilter.GaussianBlur(sigma)))
    ours = V.blur(floats(pixels), torch.tensor([sigma]))[0] * 255
    assert (ours - theirs).abs().mean() < 1.0  # PIL: three box filters on whole levels
    assert (floats(pixels)[0] * 255 - theirs).abs().mean() > 1.5


# ------------------------------------------------------------------------------ distributions


def test_looks_have_the_papers_distributions():
    n = 40_000
    for recipe, strength, coins in (
        (V.recipe(0, 224, True), (0.8, 0.8, 0.8, 0.2), (0.8, 0.2, 0.5, 0.0)),
        (V.recipe(1, 224, True), (0.8, 0.8, 0.8, 0.2), (0.8, 0.2, 0.5, 0.0)),
        (V.recipe(0, 32, True), (0.4, 0.4, 0.4, 0.1), (0.8, 0.2, 0.0, 0.0)),
        (V.recipe(0, 224, False), (0.4, 0.4, 0.2, 0.1), (0.8, 0.2, 1.0, 0.0)),
        (V.recipe(1, 224, False), (0.4, 0.4, 0.2, 0.1), (0.8, 0.2, 0.1, 0.2)),
        (V.recipe(5, 96, False, local=True), (0.4, 0.4, 0.2, 0.1), (0.8, 0.2, 0.5, 0.0)),
    ):
        looks = V.draw_looks(draws(n), recipe)
        flags = (looks.jittered, looks.gray, looks.blurred, looks.solarised)
        for flag, p in zip(flags, coins, strict=True):
            assert abs(flag.float().mean() - p) < 0.01
            assert p not in (0, 1) or (flag == bool(p)).all()
        for column, s in enumerate(strength):
            centre = 0 if column == 3 else 1
            even = np.linspace(centre - s, centre + s, n)
            assert distance(looks.factors[:, column], even) < 0.012
        assert distance(looks.sigma, np.linspace(0.1, 2.0, n)) < 0.012
        orders = (looks.order * torch.tensor([64, 16, 4, 1])).sum(1).bincount()
        counts = orders[orders > 0]
        assert len(counts) == 24 and (counts / n * 24 - 1).abs().max() < 0.12
        together = np.corrcoef(torch.stack([f.float() for f in flags if 0 < f.float().mean() < 1]))
        assert np.abs(np.atleast_2d(together) - np.eye(len(np.atleast_2d(together)))).max() < 0.02


# ------------------------------------------------------------------------------ whole views


def a_view(pixels, samples, size=24, seed=5, view=0):
    own = Draws(seed, samples, view)
    b, _, h, w = pixels.shape
    box = V.draw_boxes(own, torch.full((b,), h), torch.full((b,), w), (0.2, 1.0))
    return V.strong(pixels, box, V.draw_looks(own, V.recipe(0, 224, True)), size, MEAN, STD)


def test_a_view_is_the_sum_of_its_parts():
    b = 16
    pixels = photographs(b, 40, 40)
    own = draws(b, 3)
    box = V.draw_boxes(own, torch.full((b,), 40), torch.full((b,), 40), (0.2, 1.0))
    looks = V.draw_looks(own, V.recipe(1, 224, False))
    looks = looks._replace(solarised=torch.arange(b) % 3 == 0, blurred=torch.arange(b) % 2 == 0)
    ours = V.strong(pixels, box, looks, 24, MEAN, STD)
    for i in range(b):
        one = V.Boxes(*(v[i : i + 1] for v in box))
        x = V.crop(pixels[i : i + 1], one, 24).float().contiguous() / 255
        if looks.jittered[i]:
            for step in looks.order[i].tolist():
                operation = (V.brightness, V.contrast, V.saturation, V.hue)[step]
                x = operation(x, looks.factors[i : i + 1, step])
        x = V.gray(x) if looks.gray[i] else x
        x = V.blur(x, looks.sigma[i : i + 1]) if looks.blurred[i] else x
        x = torch.where(x >= 0.5, 1 - x, x) if looks.solarised[i] else x
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        torch.testing.assert_close(ours[i : i + 1], x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [8, 24, 300])
def test_a_view_does_not_depend_on_its_batch(size):
    """Bitwise: alone, in another order, on another rank's share."""
    pixels = photographs(12, 33, 41)
    samples = torch.arange(100, 112)
    whole = a_view(pixels, samples, size)
    turned = a_view(pixels.flip(0), samples.flip(0), size).flip(0)
    assert torch.equal(whole, turned)
    halves = [a_view(pixels[p], samples[p], size) for p in (slice(0, 5), slice(5, 12))]
    assert torch.equal(whole, torch.cat(halves))
    alone = [a_view(pixels[i : i + 1], samples[i : i + 1], size) for i in range(12)]
    assert torch.equal(whole, torch.cat(alone))


def test_views_seeds_and_samples_differ():
    pixels = photographs(1, 40, 40).expand(8, -1, -1, -1)
    samples = torch.arange(8)
    first = a_view(pixels, samples)
    assert not torch.equal(first, a_view(pixels, samples, view=1))
    assert not torch.equal(first, a_view(pixels, samples, seed=6))
    assert len({tuple(x.flatten().tolist()) for x in first}) == 8


def test_work_on_one_core_leaves_the_others_alone():
    before = torch.get_num_threads()
    seen = []
    try:
        torch.set_num_threads(2)
        on_one_core(lambda: seen.append(torch.get_num_threads()))
        assert seen == [1] and torch.get_num_threads() == 2
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert seen == [1, 2]
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ZeroDivisionError):
        on_one_core(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
        ((5, 5, 5), (1.37, 0.0, 0.0)),  # where the cube root is a line
    ],
)
def test_lab_of_known_colours(colour, expected):
    x = torch.tensor(colour).view(1, 3, 1, 1) / 255
    found = V.lab(x)
    numbers = (found[0, :, 0, 0] - torch.tensor([0.0, 0.5, 0.5])) * torch.tensor([100, 256, 256])
    torch.testing.assert_close(numbers, torch.tensor(expected), atol=0.01, rtol=0)
    torch.testing.assert_close(V.rgb(found), x, atol=1e-5, rtol=0)
