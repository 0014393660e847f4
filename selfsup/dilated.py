"""Encoders of series: dilated convolutions, and patches that know what is missing.

Both take (b, 2c, t): values, then marks that are 1 where a value is there, as series have them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad

from .chunks import Chunked, in_chunks
from .errors import SelfsupError
from .randomness import dropout, droppable
from .stems import Patches


class Dilated(Chunked):
    """Residual dilated convolutions: the encoder of TS2Vec (arXiv 2106.10466, section 3.2).

    One vector for each step; `forward` is the largest of each over time. `marked` says that the
    second half of the channels tells which values are there: a step with none is never seen.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        dim: int = 320,
        hidden: int = 64,
        depth: int = 10,
        dropout: float = 0.1,
        marked: bool = False,
    ):
        super().__init__()
        self.dim, self.grid, self.channels, self.marked = dim, (size,), channels, marked
        self.stem = nn.Linear(channels * (2 if marked else 1), hidden)
        blocks = [DilatedBlock(hidden, hidden, 2**i) for i in range(depth)]
        self.trunk = nn.Sequential(*blocks, DilatedBlock(hidden, dim, 2**depth))
        self.dropout = droppable(dropout)

    @property
    def entrance(self) -> Tensor:
        """The weights by which values come in, (d, channels)."""
        return self.stem.weight[:, : self.channels]

    @property
    def cell(self) -> tuple[int, ...]:
        """How much of the input a place covers along each axis."""
        return (1,)

    def here(self, x: Float[Tensor, "b c t"]) -> Bool[Tensor, "b t"]:
        """Steps of which at least one value is there."""
        if not self.marked:
            return torch.ones(len(x), x.shape[2], dtype=torch.bool, device=x.device)
        return (x[:, self.channels :] > 0.5).any(1)

    def tokens(
        self, x: Float[Tensor, "b c t"], hidden: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t h"]:
        """Each step by itself; zero where it is hidden or missing."""
        keep = self.here(x) if hidden is None else self.here(x) & ~hidden
        if self.marked:  # a line drawn through what is missing is no value
            values, marks = x.chunk(2, 1)
            x = torch.cat([values * marks, marks], 1)
        return self.stem(x.transpose(1, 2)) * keep[:, :, None]

    @in_chunks
    def features(
        self, x: Float[Tensor, "b c t"], hidden: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """One vector for each step."""
        h = self.trunk(self.tokens(x, hidden))
        return dropout(h, self.dropout) if self.training else h

    @in_chunks
    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b d"]:
        h = self.features(x)
        if self.marked:
            here = self.here(x)
            here = here | ~here.any(1, keepdim=True)
            h = h.masked_fill(~here[:, :, None], -torch.inf)
        return h.amax(1)


class DilatedBlock(nn.Module):
    def __init__(self, inputs: int, width: int, dilation: int):
        super().__init__()
        self.conv1 = Steps(inputs, width, dilation)
        self.conv2 = Steps(width, width, dilation)
        self.shortcut = nn.Linear(inputs, width) if inputs != width else nn.Identity()

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t d"]:
        return self.shortcut(x) + self.conv2(gelu(self.conv1(gelu(x))))


class Steps(nn.Conv1d):
    """A convolution over three steps, `dilation` apart, as one matrix product.

    Every training step has crops of another length, for each of which a processor's convolutions
    are prepared anew: as a product it takes half the time. Outside taps of short series see
    nothing but padding, and are left out.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int):
        super().__init__(inputs, outputs, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t d"]:
        gap, t = self.dilation[0], x.shape[1]
        if gap >= t:
            return linear(x, self.weight[:, :, 1], self.bias)
        wide = pad(x, (0, 0, gap, gap))
        taps = torch.cat([wide[:, :t], x, wide[:, 2 * gap :]], -1)  # (b, t, 3c)
        return linear(taps, self.weight.permute(0, 2, 1).flatten(1), self.bias)


class MarkedPatches(Patches):
    """Patches of values and of marks go in; what masked methods rebuild are values alone."""

    def __init__(self, size: tuple[int, ...], patch: tuple[int, ...], channels: int, dim: int):
        super().__init__(size, patch, channels, dim)
        self.marks = nn.Parameter(torch.zeros(dim, channels, *patch))

    @property
    def local_dim(self) -> int:
        return 2 * self.patch_dim

    def patches(self, x: Float[Tensor, "b c2 t"]) -> Float[Tensor, "b n p"]:
        return super().patches(x[:, : self.channels])

    def local(self, x: Float[Tensor, "b c2 t"]) -> Float[Tensor, "b n p2"]:
        """Values that are there, zero elsewhere; then what is missing."""
        values, marks = x.chunk(2, 1)
        seen = super().patches(values * marks)  # a line through what is missing is no value
        return torch.cat([seen, super().patches(1 - marks)], -1)

    def project(self, local: Float[Tensor, "b n p2"]) -> Float[Tensor, "b n d"]:
        seen, gone = local.chunk(2, -1)
        return super().project(seen) + linear(gone, self.marks.flatten(1))


DILATED = {
    "dilated": {"dim": 320, "hidden": 64, "depth": 10},
    "dilated_small": {"dim": 128, "hidden": 32, "depth": 7},
}


def dilated(
    name: str,
    size: int,
    channels: int = 1,
    marked: bool = False,
    *,
    dim: int | None = None,
    hidden: int | None = None,
    depth: int | None = None,
    dropout: float = 0.1,
) -> Dilated:
    """Dilated convolutions over `size` steps; the last block looks 2 * 2**depth steps each way."""
    if name not in DILATED:
        raise SelfsupError(
            "E202", f"no encoder is called {name!r}", do=f"one of {', '.join(DILATED)}"
        )
    shape = dict(DILATED[name])
    shape |= {k: v for k, v in {"dim": dim, "hidden": hidden, "depth": depth}.items() if v}
    return Dilated(size, channels, **shape, dropout=dropout, marked=marked)
