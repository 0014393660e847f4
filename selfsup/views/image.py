"""Looks at pictures: what two views of one photograph may differ in, for a whole batch at once.

A batch goes through crop and mirror, colour jitter, grayscale, blur and solarisation, in this order
(SimCLR, arXiv 2002.05709, appendix A; BYOL, arXiv 2006.07733, appendix B; DINO, arXiv 2104.14294).
Each sample has its own parameters, all drawn beforehand from counters, so that a view depends
neither on its batch nor on the device. Pixels are uint8 until they are cropped, as in the authors'
PIL pipelines, and numbers in [0, 1] from there on; unlike PIL, nothing after the crop is rounded.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from ..randomness import Draws

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's convert("L") and torchvision's grayscale
RATIO = (3 / 4, 4 / 3)  # width to height of a crop
TRIES = 10  # boxes drawn for a sample before the central one is taken
SMALL = 32  # pixels: up to here the authors' CIFAR recipes halve the jitter and leave the blur out
CACHED = 1 << 16  # pixels of a chunk: some floats for each fit in a CPU's second-level cache

Images = Float[Tensor, "b 3 h w"]
Each = Float[Tensor, " b"]


class Strength(NamedTuple):
    """How far colours move: factors in 1 +- brightness, contrast, saturation; turns in +- hue."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


@dataclass(frozen=True)
class Recipe:
    """How a strong view looks: the probabilities of its disturbances. Fractions in [0, 1]."""

    strength: Strength
    jitter: float = 0.8
    gray: float = 0.2
    blur: float = 0.5
    solarise: float = 0.0


# What the setting `without` of pictures and clips leaves out of views
OPERATIONS = ("crop", "mirror", "colour", "gray", "blur", "solarise")


def recipe(view: int, size: int, alike: bool, local: bool = False) -> Recipe:
    """What strong view number `view`, `size` pixels wide, is made by.

    Alike views are SimCLR's (arXiv 2002.05709, appendix A). Others are BYOL's and DINO's: the first
    is always blurred, the others rarely blurred and sometimes solarised, local ones blurred half of
    the time. Pictures of up to 32 px are never blurred and alike views get half the jitter, as in
    SimCLR's appendix B.9 on CIFAR-10; a blur of sigma 2 would leave nothing of them.
    """
    small = size <= SMALL
    if alike:
        scale = 0.5 if small else 1.0
        strength = Strength(0.8 * scale, 0.8 * scale, 0.8 * scale, 0.2 * scale)
        return Recipe(strength, blur=0.0 if small else 0.5)
    strength = Strength(0.4, 0.4, 0.2, 0.1)
    if local:
        return Recipe(strength, blur=0.0 if small else 0.5)
    if view == 0:
        return Recipe(strength, blur=0.0 if small else 1.0)
    return Recipe(strength, blur=0.0 if small else 0.1, solarise=0.2)


def leave_out(recipe: Recipe, names: Collection[str]) -> Recipe:
    """The recipe without some of its disturbances."""
    fields = {"colour": "jitter", "gray": "gray", "blur": "blur", "solarise": "solarise"}
    return replace(recipe, **{fields[name]: 0.0 for name in names if name in fields})


class Boxes(NamedTuple):
    """Where each sample is cut out, (b,) each, and whether it is seen in the mirror."""

    top: Int64[Tensor, " b"]
    left: Int64[Tensor, " b"]
    height: Int64[Tensor, " b"]
    width: Int64[Tensor, " b"]
    mirrored: Bool[Tensor, " b"]


class Looks(NamedTuple):
    """The disturbances of each sample. Kept on the CPU, which decides who goes through what."""

    jittered: Bool[Tensor, " b"]
    order: Int64[Tensor, "b 4"]  # which of the four colour operations comes first, second ...
    factors: Float[Tensor, "b 4"]  # brightness, contrast, saturation, hue (in turns)
    gray: Bool[Tensor, " b"]
    blurred: Bool[Tensor, " b"]
    sigma: Float[Tensor, " b"]  # pixels
    solarised: Bool[Tensor, " b"]

    def of(self, part: slice) -> "Looks":
        return Looks(*(values[part] for values in self))


# ------------------------------------------------------------------------------ parameters


def draw_boxes(
    draws: Draws,
    height: Int64[Tensor, " b"],
    width: Int64[Tensor, " b"],
    share: tuple[float, float],
    ratio: tuple[float, float] = RATIO,
) -> Boxes:
    """Boxes of torchvision's RandomResizedCrop, mirrored half of the time.

    The area is uniform in `share` of the sample, the ratio log-uniform. Of ten such boxes the first
    that fits is taken; where none does, the largest central one of an allowed ratio.
    """
    numbers = draws.uniform(n=2 * TRIES + 3).cpu()
    area = (height * width)[:, None] * (share[0] + (share[1] - share[0]) * numbers[:, :TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    stretch = torch.exp(low + (high - low) * numbers[:, TRIES : 2 * TRIES])
    w = (area * stretch).sqrt().round().long()  # (b, tries)
    h = (area / stretch).sqrt().round().long()
    fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
    first = fits.int().argmax(1, keepdim=True)  # the first of the largest, that is, of the ones
    found = fits.any(1)
    h, w = h.gather(1, first)[:, 0], w.gather(1, first)[:, 0]
    h = torch.where(found, h, height.minimum((width / ratio[0]).round().long()))
    w = torch.where(found, w, width.minimum((height * ratio[1]).round().long()))
    top_at, left_at, coin = numbers[:, 2 * TRIES :].unbind(1)
    top = torch.where(found, (top_at * (height - h + 1)).long(), (height - h) // 2)
    left = torch.where(found, (left_at * (width - w + 1)).long(), (width - w) // 2)
    return Boxes(top, left, h, w, coin < 0.5)


def middle(height: Int64[Tensor, " b"], width: Int64[Tensor, " b"]) -> Boxes:
    """The largest square in the middle of each sample."""
    side = height.minimum(width)
    flat = torch.zeros(len(side), dtype=torch.bool)
    return Boxes((height - side) // 2, (width - side) // 2, side, side, flat)


def boxes_without(
    names: Collection[str],
    draws: Draws,
    height: Int64[Tensor, " b"],
    width: Int64[Tensor, " b"],
    share: tuple[float, float],
) -> Boxes:
    """As `draw_boxes` has them; without "crop" the middle, without "mirror" none is mirrored."""
    boxes = draw_boxes(draws, height, width, share)
    if "crop" in names:
        boxes = middle(height, width)._replace(mirrored=boxes.mirrored)
    if "mirror" in names:
        boxes = boxes._replace(mirrored=torch.zeros_like(boxes.mirrored))
    return boxes


def draw_looks(draws: Draws, recipe: Recipe) -> Looks:
    """Colour factors uniform around 1, hue shifts around 0, blur of sigma 0.1 to 2 pixels."""
    numbers = draws.uniform(n=13).cpu()
    strength = torch.tensor(recipe.strength)
    factors = (2 * numbers[:, :4] - 1) * strength
    factors[:, :3] += 1
    jittered, gray, blurred, solarised, sigma = numbers[:, 8:].unbind(1)
    return Looks(
        jittered < recipe.jitter,
        numbers[:, 4:8].argsort(1),
        factors.clamp_(min=torch.tensor([0.0, 0.0, 0.0, -0.5])),
        gray < recipe.gray,
        blurred < recipe.blur,
        0.1 + 1.9 * sigma,
        solarised < recipe.solarise,
    )


# ------------------------------------------------------------------------------ whole views


def light(
    pixels: UInt8[Tensor, "b 3 H W"],
    boxes: Boxes,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    as_lab: bool = False,
) -> Float[Tensor, "b 3 size size"]:
    """Crop, mirror, and scale to zero mean and unit deviation over the data."""
    return _views(pixels, boxes, None, size, mean, std, as_lab)


def strong(
    pixels: UInt8[Tensor, "b 3 H W"],
    boxes: Boxes,
    looks: Looks,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    as_lab: bool = False,
) -> Float[Tensor, "b 3 size size"]:
    """A light view whose colours and sharpness are disturbed as well."""
    return _views(pixels, boxes, looks, size, mean, std, as_lab)


def _views(pixels, boxes: Boxes, looks: Looks | None, size: int, mean, std, as_lab) -> Tensor:
    views = pixels.new_empty((len(pixels), 3, size, size), dtype=torch.float32)
    scale = 1 / views.new_tensor(std)[:, None, None]
    shift = views.new_tensor(mean)[:, None, None] * scale

    def make(part: slice) -> None:
        x = crop(pixels[part], Boxes(*(values[part] for values in boxes)), size)
        x = x.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)
        if looks is not None:
            x = disturb(x, looks.of(part))
        if as_lab:
            x = lab(x)
        torch.mul(x, scale, out=views[part]).sub_(shift)

    step = max(1, CACHED // size**2) if pixels.device.type == "cpu" else len(pixels)
    for start in range(0, len(pixels), step):
        make(slice(start, start + step))
    return views


def disturb(x: Images, looks: Looks) -> Images:
    """Jitter, grayscale, blur, solarise: each for the samples whose coin says so."""
    x = jitter(x, looks)
    x = _only(_where(looks.gray), gray, x)
    x = _only(_where(looks.blurred), blur, x, looks.sigma)
    return _only(_where(looks.solarised), solarise, x)


def jitter(x: Images, looks: Looks) -> Images:
    """Brightness, contrast, saturation and hue, in an order of its own for each sample."""
    operations = (brightness, contrast, saturation, hue)
    orders = looks.order.tolist()
    jittered = _where(looks.jittered)
    for step in range(4):
        for number, operation in enumerate(operations):
            chosen = [i for i in jittered if orders[i][step] == number]
            x = _only(chosen, operation, x, looks.factors[:, number])
    return x


def _where(coins: Bool[Tensor, " b"]) -> list[int]:
    return [i for i, heads in enumerate(coins.tolist()) if heads]


def _only(chosen: list[int], operation: Callable[..., Tensor], x: Tensor, *each: Tensor) -> Tensor:
    """Apply an operation, and its parameters, to the chosen samples. May write into `x`."""
    if not chosen:
        return x
    if len(chosen) == len(x):
        return operation(x, *(values.to(x.device) for values in each))
    if len(chosen) == 1:  # a slice is not copied
        one = slice(chosen[0], chosen[0] + 1)
        x[one] = operation(x[one], *(values[one].to(x.device) for values in each))
        return x
    index = torch.tensor(chosen)
    each = tuple(values[index].to(x.device) for values in each)
    index = index.to(x.device)
    return x.index_copy_(0, index, operation(x.index_select(0, index), *each))


# ------------------------------------------------------------------------------ operations


def crop(
    pixels: UInt8[Tensor, "b c H W"], boxes: Boxes, size: int
) -> UInt8[Tensor, "b c size size"]:
    """Cut out boxes, bring them to one size, mirror: bilinear with antialiasing, as PIL does it.

    Only what lies inside the box counts, as if it had been cut out first. Rounded to whole levels.
    """
    if pixels.device.type != "cpu":
        return crop_exact(pixels, boxes, size).round_().to(torch.uint8)
    # torch resizes uint8 with the channels side by side six times faster than floats, and looks
    # only at what is inside the box; that outweighs some microseconds of overhead for each sample
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    parts = []
    for i, (top, left, h, w) in enumerate(torch.stack(boxes[:4], 1).tolist()):
        part = pixels[i : i + 1, :, top : top + h, left : left + w]
        if (h, w) != (size, size):
            part = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
        parts.append(part)
    return _only(_where(boxes.mirrored), mirror, torch.cat(parts))


def mirror(x: Tensor) -> Tensor:
    return x.flip(3)


def crop_exact(
    pixels: UInt8[Tensor, "b c H W"], boxes: Boxes, size: int
) -> Float[Tensor, "b c size size"]:
    """The same before rounding, as two products of matrices for the whole batch; levels 0 to 255.

    Each row of a sample's matrix holds the weights of one new pixel; to mirror is to reverse them.
    """
    top, left, h, w, mirrored = (values.to(pixels.device) for values in boxes)
    down = _weights(top, h, pixels.shape[2], size)[:, None]  # (b, 1, size, H)
    across = _weights(left, w, pixels.shape[3], size)[:, None]  # (b, 1, size, W)
    across = torch.where(mirrored[:, None, None, None], across.flip(2), across)
    return down @ (pixels.float() @ across.transpose(2, 3))


def _weights(
    start: Int64[Tensor, " b"], length: Int64[Tensor, " b"], extent: int, size: int
) -> Float[Tensor, "b size extent"]:
    """Triangles as wide as a new pixel, but at least as an old one."""
    start, length = start[:, None, None], length[:, None, None]
    new = (torch.arange(size, device=start.device)[:, None] + 0.5) * length / size
    old = torch.arange(extent, device=start.device) - start + 0.5  # (b, 1, extent)
    scale = (length / size).clamp(min=1)
    weights = (1 - (old - new).abs() / scale).clamp_(min=0)
    weights = weights * ((old > 0) & (old < length))
    return weights / weights.sum(2, keepdim=True)


def brightness(x: Images, factor: Each) -> Images:
    """Towards black (factor 0) or away from it."""
    return (x * factor[:, None, None, None]).clamp_(0, 1)


def contrast(x: Images, factor: Each) -> Images:
    """Towards the mean of the sample's luma (factor 0) or away from it."""
    middle = x.mean((2, 3)) @ x.new_tensor(LUMA)  # (b,)
    offset = middle * (1 - factor)
    return (x * factor[:, None, None, None]).add_(offset[:, None, None, None]).clamp_(0, 1)


def saturation(x: Images, factor: Each) -> Images:
    """Towards the pixel's own luma (factor 0) or away from it."""
    factor = factor[:, None, None, None]
    return torch.addcmul(luma(x).mul_(1 - factor), x, factor).clamp_(0, 1)


def hue(x: Images, shift: Each) -> Images:
    """Turn the hue by `shift` turns, in HSV space: the largest and smallest channel stay."""
    red, green, blue = x.split(1, 1)  # (b, 1, h, w) each
    most = torch.maximum(red, green).maximum(blue)
    least = torch.minimum(red, green).minimum(blue)
    spread = most - least
    # Sixths of a turn, by which channel is the largest. That one is exactly 1 after the division,
    # so its floor tells: comparing and choosing take a CPU several times as long as arithmetic.
    red, green, blue = (x - least).div_(spread.clamp(min=1e-12)).split(1, 1)
    angle = (red - green).add_(4)
    angle.addcmul_(green.floor(), (blue - red).add_(2).sub_(angle))
    angle.addcmul_(red.floor(), (green - blue).sub_(angle))
    # Each channel falls below the largest by a trapezium of the hue's distance from its own, which
    # for red, green and blue is 0, 1/3 and 2/3 of a turn: not up to 1/6, and wholly from 1/3 on.
    own = x.new_tensor([0.0, 1 / 3, 2 / 3])[:, None, None]
    away = angle.mul_(1 / 6) + (shift[:, None, None, None] - own)  # (b, 3, h, w)
    away.sub_(away.round()).abs_().clamp_(1 / 6, 1 / 3)
    return torch.addcmul(most.add_(spread), away, spread.mul_(6), value=-1)


def gray(x: Images) -> Images:
    """The luma in all three channels."""
    return luma(x).expand_as(x).clone()


def luma(x: Images) -> Float[Tensor, "b 1 h w"]:
    red, green, blue = x.split(1, 1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def blur(x: Images, sigma: Each) -> Images:
    """A Gaussian of `sigma` pixels, cut off at three; beyond the border the last pixel goes on.

    PIL's own, three box filters, reaches about two and a half.
    """
    radius = math.ceil(3 * float(sigma.max()))
    steps = torch.arange(-radius, radius + 1, device=x.device)
    weights = torch.exp(-0.5 * (steps / sigma[:, None]) ** 2)
    weights = weights * (steps.abs() <= (3 * sigma).ceil()[:, None])  # whatever the batch's radius
    weights = (weights / weights.sum(1, keepdim=True))[:, :, None, None, None]  # (b, taps, 1, 1, 1)
    for axis in (2, 3):
        length = x.shape[axis]
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, length - 1, 1)
        padded = torch.cat([first] * radius + [x] + [last] * radius, axis)
        x = padded.narrow(axis, 0, length) * weights[:, 0]
        for tap in range(1, 2 * radius + 1):
            x.addcmul_(padded.narrow(axis, tap, length), weights[:, tap])
    return x


def solarise(x: Images) -> Images:
    """Invert what is brighter than the middle: PIL's threshold 128 of 255, on whole levels."""
    return torch.minimum(x, 1 - x)


# ------------------------------------------------------------------------------ colour spaces

XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750),
       (0.0193339, 0.1191920, 0.9503041))  # fmt: skip  # of linear sRGB, beside white of D65
BEND = 6 / 29  # below it the cube root of CIELAB is a line
NO_COLOUR = (0.0, 0.5, 0.5)


def lab(x: Images) -> Images:
    """CIE 1976 L*a*b* of sRGB, in [0, 1] too: L over 100; a and b over 256, from -128 on."""
    x = x.clamp(0, 1)
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,bj...->bi...", _of_white(x), linear)
    f = torch.where(xyz > BEND**3, xyz ** (1 / 3), xyz / (3 * BEND**2) + 4 / 29)
    fx, fy, fz = f.unbind(1)
    x = torch.stack([1.16 * fy - 0.16, 500 / 256 * (fx - fy), 200 / 256 * (fy - fz)], 1)
    return x.add_(x.new_tensor(NO_COLOUR)[:, None, None])


def rgb(x: Images) -> Images:
    """The inverse of `lab`; what no screen can show is cut."""
    lightness, a, b = (x - x.new_tensor(NO_COLOUR)[:, None, None]).unbind(1)
    fy = (lightness + 0.16) / 1.16
    f = torch.stack([fy + 256 / 500 * a, fy, fy - 256 / 200 * b], 1)
    xyz = torch.where(f > BEND, f**3, 3 * BEND**2 * (f - 4 / 29))
    linear = torch.einsum("ij,bj...->bi...", _of_white(x).inverse(), xyz).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _of_white(x: Tensor) -> Float[Tensor, "3 3"]:
    matrix = x.new_tensor(XYZ)
    return matrix / matrix.sum(1, keepdim=True)
