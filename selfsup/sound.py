"""Encoders of sound: transformers on log-mel pictures and on waveforms."""

from math import prod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from . import encoder as pictures
from .encoder import Encoder
from .errors import SelfsupError
from .stems import Patches

# Patches are all bands of a few frames: for speech better than squares (SSAST, arXiv 2110.09784)
SPECTRAL = {
    "mel_tiny": {"dim": 192, "depth": 6, "heads": 3},
    "mel_small": {"dim": 384, "depth": 12, "heads": 6},
}
# `channels` of the convolutions; wave_base is the BASE model of wav2vec 2.0 (arXiv 2006.11477)
WAVES = {
    "wave_tiny": {"dim": 192, "depth": 4, "heads": 3, "channels": 96},
    "wave_small": {"dim": 384, "depth": 6, "heads": 6, "channels": 256},
    "wave_base": {"dim": 768, "depth": 12, "heads": 12, "channels": 512},
}
NAMES = (*SPECTRAL, *WAVES, *pictures.NAMES)


class Waveform(nn.Module):
    """Convolutions from samples to a token every 20 ms (wav2vec 2.0, section 2 and 4.2).

    `local` are the features before the trunk mixes them, (b, n, c); `project` makes tokens of them.
    Departure: samples are padded so that n tokens cover exactly n strides.
    """

    def __init__(self, size: int, rate: int, channels: int, dim: int):
        super().__init__()
        layers = [(10, 5)]  # kernel and stride
        while prod(stride for _, stride in layers) < 0.75 * rate / 50:
            layers.append((3 if len(layers) < 5 else 2, 2))
        self.stride = prod(stride for _, stride in layers)
        self.kernels = layers
        inputs = [1] + [channels] * (len(layers) - 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(i, channels, k, s, bias=False)
            for i, (k, s) in zip(inputs, layers, strict=True)
        )
        self.first_norm = nn.GroupNorm(channels, channels)  # over time, channel by channel
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, dim)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.linear.weight)
        self.size, self.channels = (size,), channels
        self.grid = self.grid_of((size,))

    def grid_of(self, size: tuple[int, ...]) -> tuple[int, ...]:
        if size[0] < self.stride:
            raise SelfsupError("E202", f"{size[0]} samples are fewer than a token's {self.stride}")
        return (size[0] // self.stride,)

    @property
    def patch_dim(self) -> int:
        return self.stride

    @property
    def local_dim(self) -> int:
        return self.channels

    @property
    def entrance(self) -> Tensor:
        return self.layers[0].weight

    @property
    def cell(self) -> tuple[int, ...]:
        return (self.stride,)

    def patches(self, x: Float[Tensor, "b 1 s"]) -> Float[Tensor, "b n p"]:
        """The samples of each stride: what masked methods rebuild."""
        n = self.grid_of(tuple(x.shape[2:]))[0]
        return x[:, 0, : n * self.stride].unflatten(1, (n, self.stride))

    def unpatch(self, patches: Float[Tensor, "b n p"]) -> Float[Tensor, "b 1 s"]:
        return pad(patches.flatten(1)[:, None], (0, self.size[0] - patches[0].numel()))

    def local(self, x: Float[Tensor, "b 1 s"]) -> Float[Tensor, "b n c"]:
        n = self.grid_of(tuple(x.shape[2:]))[0]
        x = x[:, :, : n * self.stride]
        for i, (layer, (kernel, stride)) in enumerate(zip(self.layers, self.kernels, strict=True)):
            extra = kernel - stride
            x = layer(pad(x, (extra // 2, extra - extra // 2)))
            x = gelu(self.first_norm(x) if i == 0 else x)
        return x.transpose(1, 2)

    def project(self, local: Float[Tensor, "b n c"]) -> Float[Tensor, "b n d"]:
        return self.linear(self.norm(local))

    def forward(self, x: Float[Tensor, "b 1 s"]) -> Float[Tensor, "b n d"]:
        return self.project(self.local(x))


def spectral(
    name: str,
    size: tuple[int, int],
    *,
    wide: int = 4,
    high: int | None = None,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    cls: bool = False,
    registers: int = 0,
    pool: str = "mean",
    causal: bool = False,
) -> Encoder:
    """A transformer on log-mel pictures (mels, frames), in patches of `high` bands, or all of them,
    and `wide` frames."""
    shape = _shape(SPECTRAL[name], dim=dim, depth=depth, heads=heads)
    stem = Patches(tuple(size), (high or size[0], wide), 1, shape["dim"])
    return Encoder(stem, **shape, cls=cls, registers=registers, pool=pool, causal=causal)


def wave(
    name: str,
    size: tuple[int],
    rate: int,
    *,
    channels: int | None = None,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    cls: bool = False,
    registers: int = 0,
    pool: str = "mean",
) -> Encoder:
    """Convolutions on samples, a token every 20 ms, and a transformer: that of wav2vec 2.0 with the
    positions and pre-norm blocks of the other encoders here."""
    shape = _shape(WAVES[name], channels=channels, dim=dim, depth=depth, heads=heads)
    stem = Waveform(size[0], rate, shape.pop("channels"), shape["dim"])
    return Encoder(stem, **shape, cls=cls, registers=registers, pool=pool)  # type: ignore[arg-type]


def build(name: str, size: tuple[int, ...], rate: int, **settings: Any) -> nn.Module:
    """The encoder called `name` for pictures (mels, frames) or waves (samples,)."""
    if name not in NAMES:
        raise SelfsupError(
            "E202", f"no encoder is called {name!r}", do=f"one of {', '.join(NAMES)}"
        )
    if (name in WAVES) != (len(size) == 1):
        form = "wave" if name in WAVES else "mel"
        raise SelfsupError(
            "E202",
            f"{name} is an encoder of {'waves' if name in WAVES else 'pictures'}",
            why=f"modality.form is {'mel' if form == 'wave' else 'wave'}",
            do=f"--set modality.form={form}, or another encoder",
        )
    if name in WAVES:
        return wave(name, size, rate, **settings)  # type: ignore[arg-type]
    if name in SPECTRAL:
        return spectral(name, size, **settings)  # type: ignore[arg-type]
    return pictures.build(name, size, **{**settings, "channels": 1})


def _shape(defaults: dict[str, int], **given: int | None) -> dict[str, int]:
    return defaults | {key: value for key, value in given.items() if value}


def over_time(encoder: Any, x: Float[Tensor, "b 1 ..."]) -> Float[Tensor, "b t e"]:
    """One vector for each moment: the places of a picture one above the other, put together.

    e is `width(encoder)`.
    """
    tokens = encoder.features(x)  # (b, n, d)
    if len(encoder.grid) == 1:
        return tokens
    high = encoder.grid[0]
    return tokens.unflatten(1, (high, -1)).transpose(1, 2).flatten(2)


def width(encoder: Any) -> int:
    """Of the vectors that `over_time` gives."""
    return encoder.dim * (encoder.grid[0] if len(encoder.grid) > 1 else 1)
