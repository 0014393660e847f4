"""Convolutions over tokens from a vocabulary: CARP's trunk.

Yang, Fusi, Lu, 2022, https://doi.org/10.1101/2022.05.19.492714: ByteNet's residual blocks (arXiv
1610.10099), whose dilations double from block to block and begin again, name hidden residues as
well as transformers do. Neighbours, which transformers must learn to look at, they know from the
first step on: where time is short they are ahead (docs/LOG.md).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad

from .language import Layout, Trunk

WIDTH = 5  # tokens that a convolution sees
PERIOD = 3  # blocks after which dilations begin again; paper: 8. Further away costs steps here

# paper: CARP-38M is 16 blocks of 1,024
CONVOLUTIONS = {
    "carp_micro": {"dim": 256, "depth": 6},
    "carp_small": {"dim": 512, "depth": 8},
    "carp_base": {"dim": 1024, "depth": 16},
}


class Carp(Trunk):
    """What a block is told beside the states is where no token is: nothing comes from there."""

    gap = WIDTH // 2 * 2 ** (PERIOD - 1)

    def __init__(
        self,
        size: int,
        vocabulary: int,
        *,
        dim: int,
        depth: int,
        rescale: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__(size, vocabulary, dim, rescale, dropout)
        self.blocks = nn.ModuleList(CarpBlock(dim, 2 ** (i % PERIOD)) for i in range(depth))
        self.norm = nn.LayerNorm(dim)
        for block in self.blocks:  # what is added to the stream starts small
            assert isinstance(block, CarpBlock)
            nn.init.normal_(block.rise.weight, std=0.02 / math.sqrt(depth))
            nn.init.zeros_(block.rise.bias)

    def context(self, states: Float[Tensor, "r w d"], layout: Layout | None) -> tuple:
        return (None if layout is None else (layout.document < 0)[:, :, None],)

    def narrowed(self, share: float) -> "Carp":
        """As deep, with a share of the width; for a vocabulary that is put in."""
        dim = max(2, 2 * round(share * self.dim / 2))
        return Carp(self.size, 1, dim=dim, depth=len(self.blocks))


class CarpBlock(nn.Module):
    """Half as wide inside; each product after a normalisation and a GELU."""

    def __init__(self, dim: int, dilation: int):
        super().__init__()
        self.norm1, self.fall = nn.LayerNorm(dim), nn.Linear(dim, dim // 2)
        self.norm2, self.mix = nn.LayerNorm(dim // 2), Taps(dim // 2, dilation)
        self.norm3, self.rise = nn.LayerNorm(dim // 2), nn.Linear(dim // 2, dim)

    def forward(self, x, empty, drop):
        inside = gelu(self.norm2(self.fall(gelu(self.norm1(x)))))
        if empty is not None:
            inside = inside.masked_fill(empty, 0.0)
        return x, self.rise(gelu(self.norm3(self.mix(inside))))


class Taps(nn.Conv1d):
    """A convolution over tokens, `dilation` apart, as one product: batches differ in length, and a
    processor's convolutions are prepared anew for each."""

    def __init__(self, dim: int, dilation: int):
        super().__init__(dim, dim, WIDTH, dilation=dilation)

    def forward(self, x: Float[Tensor, "r w c"]) -> Float[Tensor, "r w c"]:
        gap, n = self.dilation[0], x.shape[1]
        wide = pad(x, (0, 0, WIDTH // 2 * gap, WIDTH // 2 * gap))
        taps = torch.cat([wide[:, i * gap : i * gap + n] for i in range(WIDTH)], -1)  # (r, w, 5c)
        return linear(taps, self.weight.permute(0, 2, 1).flatten(1), self.bias)


def carp(
    name: str,
    size: int,
    vocabulary: int,
    *,
    dim: int | None = None,
    depth: int | None = None,
    rescale: bool = False,
    dropout: float = 0.0,
) -> Carp:
    """Convolutions over a vocabulary, which see both sides."""
    shape = dict(CONVOLUTIONS[name])
    shape |= {k: v for k, v in {"dim": dim, "depth": depth}.items() if v}
    return Carp(size, vocabulary, **shape, rescale=rescale, dropout=dropout)
