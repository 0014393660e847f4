"""Looks at clips: one cut in space and one in time for all frames, and the same disturbance."""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from . import image as looks

SHOWN = 4  # frames of a picture


def moments(
    frames: Int64[Tensor, " b"], first: Float[Tensor, " b"], long: Float[Tensor, " b"], count: int
) -> Int64[Tensor, "b count"]:
    """The numbers of `count` frames evenly spread over `long` frames from `first` on."""
    middle = (torch.arange(count) + 0.5) / count
    at = first[:, None] + middle * long[:, None]
    return at.long().clamp(min=0).minimum(frames[:, None] - 1)


def cut(
    frames: UInt8[Tensor, "t h w c"], box: tuple[int, int, int, int], size: int, mirrored: bool
) -> UInt8[Tensor, "t c size size"]:
    """The box (top, left, height, width) of every frame at one size, as `image.crop` does it."""
    top, left, h, w = box
    part = frames[:, top : top + h, left : left + w].permute(0, 3, 1, 2)  # channels side by side
    if (h, w) != (size, size):
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
    return part.flip(3) if mirrored else part


def disturbed(x: Float[Tensor, "t 3 h w"], look: looks.Looks, row: int) -> Float[Tensor, "t 3 h w"]:
    """All frames with the colours and the sharpness of one sample's look."""
    same = (values[row : row + 1].expand(len(x), *values.shape[1:]) for values in look)
    return looks.disturb(x.contiguous(), looks.Looks(*same))


def sheet(x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Four moments of each clip, to be read like lines of text."""
    some = torch.linspace(0, x.shape[2] - 1, SHOWN).round().long()
    first, second, third, fourth = x[:, :, some].unbind(2)
    return torch.cat([torch.cat([first, second], 3), torch.cat([third, fourth], 3)], 2)
