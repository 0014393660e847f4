"""Encoders: what pretraining is for. One vector a sample, and one for each place in it."""

from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

from .chunks import Chunked, in_chunks
from .errors import SelfsupError
from .stems import Patches
from .trunks import BasicBlock, Bottleneck, Transformer


class Encoder(Chunked):
    """Stem, positions and trunk: the three parts that a method may compose.

    `pool` says what `forward` returns: the "mean" of the final tokens, or the "cls" token. With
    `causal` a token sees those before it, row by row, and none after it.
    """

    def __init__(
        self,
        stem: Patches,
        *,
        dim: int,
        depth: int,
        heads: int,
        cls: bool = False,
        registers: int = 0,
        pool: str = "mean",
        causal: bool = False,
    ):
        super().__init__()
        if pool not in ("mean", "cls") or (pool == "cls" and not cls):
            raise SelfsupError(
                "E202",
                f"pool={pool!r} with cls={cls}",
                why='pool is "mean" or "cls", and "cls" needs the cls token',
                do="--set encoder.pool=mean, or --set encoder.cls=true",
            )
        if causal and pool == "cls":
            raise SelfsupError(
                "E202",
                "a causal encoder has nothing in its cls token",
                why="it comes first, and sees none of the others",
                do="--set encoder.pool=mean",
            )
        self.stem, self.dim, self.grid, self.pool = stem, dim, stem.grid, pool
        self.causal = causal
        self.positions = nn.Parameter(sincos(stem.grid, dim))  # learned from there on
        self.trunk = Transformer(dim, depth, heads, prefix=int(cls) + registers, causal=causal)

    @property
    def entrance(self) -> Tensor:
        """The weights by which values come in, (d, channels, ...)."""
        return self.stem.entrance

    @property
    def cell(self) -> tuple[int, ...]:
        """How much of the input a place covers along each axis."""
        return self.stem.cell

    def embed(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b n d"]:
        """Tokens without their positions."""
        return self.stem(x)

    def positions_at(self, grid: tuple[int, ...]) -> Float[Tensor, "n d"]:
        """The positions, interpolated where the input has another size than the stem expects."""
        if grid == self.grid:
            return self.positions
        mode = {1: "linear", 2: "bicubic", 3: "trilinear"}[len(grid)]
        square = self.positions.T.reshape(1, self.dim, *self.grid).float()
        resized = interpolate(square, size=grid, mode=mode, align_corners=False)
        return resized.flatten(2)[0].T

    def tokens(
        self, x: Float[Tensor, "b c *size"], hidden: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """What the trunk gets: tokens with their positions; hidden ones have nothing else."""
        tokens = self.embed(x)
        if hidden is not None:
            tokens = tokens.masked_fill(hidden[:, :, None], 0.0)
        return tokens + self.positions_at(self.stem.grid_of(tuple(x.shape[2:])))

    @in_chunks
    def features(
        self, x: Float[Tensor, "b c *size"], hidden: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """One vector for each place of the grid."""
        return self.trunk(self.tokens(x, hidden))

    def attention(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b h m m"]:
        """The last block's attention weights; prefix tokens first."""
        return self.trunk.attention(self.tokens(x))

    def pooled(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """One vector a sample, from what the trunk gets: all tokens, or those that are seen."""
        return self.trunk.cls(tokens) if self.pool == "cls" else self.trunk(tokens).mean(1)

    def both(
        self, tokens: Float[Tensor, "b n d"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n d"]]:
        """One vector a sample and one for each place, from what the trunk gets."""
        prefix, places = self.trunk.split(tokens)
        return prefix[:, 0] if self.pool == "cls" else places.mean(1), places

    @in_chunks
    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b d"]:
        return self.pooled(self.tokens(x))


class ResNet(Chunked):
    """Residual network (arXiv 1512.03385). Layer names are those of timm and torchvision.

    `stem` is how much the first layers shrink the picture: 1 (a 3x3 convolution: up to 64 px, as
    SimCLR's appendix B.9 has it), 2 (the same with stride 2) or 4 (7x7 and max-pooling).
    """

    def __init__(
        self,
        size: tuple[int, ...],
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, ...],
        *,
        channels: int = 3,
        width: float = 1.0,
        stem: int | None = None,
    ):
        super().__init__()
        stem = stem or (1 if max(size) <= 64 else 4)
        if stem not in (1, 2, 4):
            raise SelfsupError("E202", f"a stem of {stem}", why="it shrinks by 1, 2 or 4")
        base = max(8, round(64 * width / 8) * 8)
        kernel = 7 if stem == 4 else 3
        self.conv1 = nn.Conv2d(channels, base, kernel, min(stem, 2), kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        inputs = base
        for index, depth in enumerate(layers):
            blocks = []
            for i in range(depth):
                stride = 2 if index > 0 and i == 0 else 1
                blocks.append(block(inputs, base * 2**index, stride))
                inputs = base * 2**index * block.expansion
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
        self.stem, self.dim, self.stages = stem, inputs, len(layers)
        self.grid = tuple(-(-s // (stem * 2 ** (len(layers) - 1))) for s in size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock | Bottleneck):  # a block starts as its shortcut
                last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                nn.init.zeros_(last.weight)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def entrance(self) -> Tensor:
        """The weights by which values come in, (d, channels, ...)."""
        return self.conv1.weight

    @property
    def cell(self) -> tuple[int, ...]:
        """How much of the input a place covers along each axis."""
        return (self.stem * 2 ** (self.stages - 1),) * 2

    def _map(self, x):
        x = x.contiguous(memory_format=torch.channels_last)
        x = relu(self.bn1(self.conv1(x)), inplace=True)
        if self.stem == 4:
            x = max_pool2d(x, 3, 2, 1)
        for index in range(self.stages):
            x = getattr(self, f"layer{index + 1}")(x)
        return x  # (b, d, h, w)

    @in_chunks
    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """One vector for each place of the last feature map."""
        return self._map(x).flatten(2).transpose(1, 2)

    @in_chunks
    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        return self._map(x).mean((2, 3))


TRANSFORMERS = {
    "vit_tiny": {"dim": 192, "depth": 12, "heads": 3},
    "vit_small": {"dim": 384, "depth": 12, "heads": 6},
    "vit_base": {"dim": 768, "depth": 12, "heads": 12},
}
RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
NAMES = (*TRANSFORMERS, *RESNETS)


def vit(
    name: str,
    size: int | tuple[int, ...],
    *,
    patch: int | None = None,
    tubelet: int = 2,
    channels: int = 3,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    cls: bool = False,
    registers: int = 0,
    pool: str = "mean",
    causal: bool = False,
) -> Encoder:
    """A ViT for inputs of `size`; `patch` defaults to the largest that gives 8 along a side.

    Of three axes the first is time, and patches are `tubelet` long there (arXiv 2103.15691).
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    side = size[-2:][0]
    if patch is None:
        patch = max(p for p in (1, 2, 4, 8, 16) if side % p == 0 and p <= max(side // 8, 1))
    shape = dict(TRANSFORMERS[name])
    shape |= {k: v for k, v in {"dim": dim, "depth": depth, "heads": heads}.items() if v}
    cut = (tubelet, patch, patch) if len(size) == 3 else (patch,) * len(size)
    stem = Patches(size, cut, channels, shape["dim"])
    return Encoder(stem, **shape, cls=cls, registers=registers, pool=pool, causal=causal)


def resnet(
    name: str,
    size: int | tuple[int, ...],
    *,
    channels: int = 3,
    width: float = 1.0,
    stem: int | None = None,
) -> ResNet:
    """A ResNet for inputs of `size`, all layers `width` times as wide as in the paper."""
    size = (size, size) if isinstance(size, int) else tuple(size)
    block, layers = RESNETS[name]
    return ResNet(size, block, layers, channels=channels, width=width, stem=stem)


def build(name: str, size: int | tuple[int, ...], **settings) -> nn.Module:
    """The encoder called `name` for inputs of `size`; `settings` are those of `vit` or `resnet`."""
    if name not in NAMES:
        raise SelfsupError(
            "E202", f"no encoder is called {name!r}", do=f"one of {', '.join(NAMES)}"
        )
    return vit(name, size, **settings) if name in TRANSFORMERS else resnet(name, size, **settings)


def sincos(grid: tuple[int, ...], dim: int) -> Float[Tensor, "n d"]:
    """Fixed sine-cosine positions over any number of axes, an equal share of `dim` for each.

    The one-axis form is equation 3.5 of arXiv 1706.03762; MAE (arXiv 2111.06377) uses two axes.
    """
    share = dim // (2 * len(grid))  # frequencies an axis
    frequencies = 10_000 ** -(torch.arange(share, dtype=torch.float64) / share)
    axes = torch.meshgrid(*(torch.arange(g, dtype=torch.float64) for g in grid), indexing="ij")
    parts = []
    for axis in axes:
        angle = axis.flatten()[:, None] * frequencies  # (n, share)
        parts += [angle.sin(), angle.cos()]
    table = torch.zeros(prod(grid), dim)
    table[:, : 2 * share * len(grid)] = torch.cat(parts, 1).float()
    return table
