"""Convolutions on small maps as one matrix product, which processors with matrix units do faster.

On maps of 4 x 4 and less, oneDNN's bfloat16 convolution leaves most of the unit idle, its weight
gradient nearly all: 512 channels at 4 x 4, batch 512, take 214 ms against 35. There the patches
that the kernel sees become the rows of a matrix (Chellapilla et al., 2006).
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .machine import product_dtype

PLACES = 16  # of the output map; from 8 x 8 on, copying the patches costs what the product gains
CHANNELS = 64


class Conv2d(nn.Conv2d):
    """nn.Conv2d without bias; in bfloat16 on a CPU by products where these are faster."""

    def forward(self, x: Tensor) -> Tensor:  # (b, c, h, w) -> (b, o, h', w')
        if not self._fits(x):
            return super().forward(x)
        half = torch.bfloat16
        return _Convolution.apply(x.to(half), self.weight.to(half), self.stride[0], self.padding[0])

    def _fits(self, x: Tensor) -> bool:
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not matrix_unit():
            return False
        k, s, p = self.kernel_size[0], self.stride[0], self.padding[0]
        places = ((x.shape[2] + 2 * p - k) // s + 1) * ((x.shape[3] + 2 * p - k) // s + 1)
        return (
            product_dtype(x) == torch.bfloat16 and places <= PLACES and self.in_channels >= CHANNELS
        )


@cache
def matrix_unit() -> bool:
    """Whether this CPU multiplies tiles of bfloat16 (AMX); without, convolutions are as fast."""
    return bool(torch.cpu._is_amx_tile_supported())


class _Convolution(torch.autograd.Function):
    """y = conv(x, w); x (b, c, h, w), w (o, c, k, k), both bfloat16."""

    @staticmethod
    def forward(ctx, x, w, stride, padding):
        ctx.save_for_backward(x, w)
        ctx.stride, ctx.padding = stride, padding
        patches, shape = _patches(x, w.shape[-1], stride, padding)
        y = patches @ w.permute(0, 2, 3, 1).flatten(1).T  # (b h' w', o)
        return y.view(*shape, len(w)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        k, stride, padding = w.shape[-1], ctx.stride, ctx.padding
        dx = dw = None
        if ctx.needs_input_grad[0]:
            if stride == 1:  # the convolution of dy with the turned kernel
                turned = w.flip(2, 3).permute(1, 2, 3, 0).flatten(1)  # (c, k k o)
                patches, shape = _patches(dy, k, 1, k - 1 - padding)
                dx = (patches @ turned.T).view(*shape, w.shape[1]).permute(0, 3, 1, 2)
            else:
                args = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [True, False, False]
                dx = torch.ops.aten.convolution_backward(dy, x, w, None, *args)[0]
        if ctx.needs_input_grad[1]:
            rows = dy.permute(0, 2, 3, 1).flatten(0, 2).T.contiguous()  # (o, b h' w')
            dw = rows @ _patches(x, k, stride, padding)[0]
            dw = dw.view(len(w), k, k, -1).permute(0, 3, 1, 2)
        return dx, dw, None, None


def _patches(x: Tensor, k: int, stride: int, padding: int) -> tuple[Tensor, tuple[int, int, int]]:
    """What the kernel sees at each place (b h' w', k k c), and (b, h', w')."""
    x = x.permute(0, 2, 3, 1)  # a view where x is channels_last
    x = pad(x, (0, 0, *[padding] * 4)) if padding else x.contiguous()
    windows = x.unfold(1, k, stride).unfold(2, k, stride)  # (b, h', w', c, k, k)
    b, height, width = windows.shape[:3]
    windows = windows.permute(0, 1, 2, 4, 5, 3)
    return windows.reshape(b * height * width, -1), (b, height, width)
