"""Looks at sound: log-mel pictures and waveforms of a whole batch, disturbed by numbers from Draws.

Powers are those of a full-scale signal: a sine of amplitude 1 has 1/4 in its bin, so levels are the
same whatever the window.
"""

import math
from collections.abc import Collection
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import grid_sample

from ..randomness import Draws

WINDOW = 25.0  # ms
FLOOR = 1e-8  # of the power: -80 dB, below what 16 bits and most microphones resolve
LOUDER = 10.0  # dB, up or down
TILT, WAVES, RIPPLE = 6.0, 3, 3.0  # dB over all of the spectrum; of cosines along it, dB each
WARP, SHIFT = 0.25, 0.04  # of the frequency axis: stretched and moved, as by another throat
NOISY, QUIETEST, LOUDEST = 0.8, 30.0, 0.0  # how often, and signal over noise in dB
AT_ONCE = 512  # frames that a processor transforms while they are in its cache
HOLE = 0.3  # of an axis that a mask covers at most (SpecAugment)

# What the setting `without` leaves out of views: "crop", and these numbers of a Look
STILL = {
    "filter": {"gain": 0.0, "tilt": 0.0, "ripple": 0.0},
    "pitch": {"warp": 1.0, "shift": 0.0},
    "noise": {"noise": math.inf},
    "mask": {"holes": 0.0},
}
OPERATIONS = ("crop", *STILL)


# ---- the transform -------------------------------------------------------------------------------


def window_samples(rate: int) -> int:
    return round(rate * WINDOW / 1000)


def transform_size(rate: int) -> int:
    """The power of two from the window on."""
    return 1 << math.ceil(math.log2(window_samples(rate)))


def to_mel(hertz: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """O'Shaughnessy's formula, as HTK has it."""
    return 2595 * torch.log10(1 + hertz / 700)


def from_mel(mel: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return 700 * (10 ** (mel / 2595) - 1)


@cache
def mel_bank(mels: int, rate: int) -> Float[Tensor, "mels bins"]:
    """Triangles of height 1, evenly spaced in mel from 0 to half the rate, each from the centre of
    its lower neighbour to that of its upper one."""
    bins = transform_size(rate) // 2 + 1
    hertz = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    top = to_mel(torch.tensor(rate / 2, dtype=torch.float64))
    corners = from_mel(torch.linspace(0, 1, mels + 2, dtype=torch.float64) * top)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rise, fall = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
    return torch.minimum(rise, fall).clamp(min=0).float()


@cache
def _window(rate: int) -> Tensor:
    return torch.hann_window(window_samples(rate))


def margin(rate: int, hop: int) -> int:
    """Samples that a picture needs before its first frame's own, and after the last one's."""
    return (transform_size(rate) - hop) // 2


def mel_power(
    waves: Float[Tensor, "b n"], rate: int, hop: int, mels: int
) -> Float[Tensor, "b mels frames"]:
    """Power in mel bands. `waves` have frames * hop samples and `margin` more on either side."""
    size, window = transform_size(rate), _window(rate).to(waves.device)
    bank = (mel_bank(mels, rate) / _window(rate).sum().square()).to(waves.device)
    frames = max(1, waves.shape[1] // hop)
    few = max(1, AT_ONCE // frames) if waves.device.type == "cpu" else len(waves)
    parts = []
    for some in waves.split(few):
        found = torch.stft(
            some, size, hop, window_samples(rate), window, center=False, return_complex=True
        )
        parts.append(bank @ found.real.square().addcmul_(found.imag, found.imag))
    return torch.cat(parts)


# ---- what a strong view draws ----------------------------------------------------------------


class Look(NamedTuple):
    """Numbers for each sample; curves are functions of the place on the frequency axis, in [0, 1].

    `noise` is its level under the signal's in dB, or infinity; `holes` are the start and the end
    of what is masked in frequency and in time, as shares.
    """

    gain: Float[Tensor, " b"]  # dB
    tilt: Float[Tensor, " b"]  # dB from the lowest to the highest
    ripple: Float[Tensor, "b k"]  # dB
    phase: Float[Tensor, "b k"]
    warp: Float[Tensor, " b"]
    shift: Float[Tensor, " b"]
    noise: Float[Tensor, " b"]
    colour: Float[Tensor, " b"]  # dB from the lowest to the highest, of the noise
    holes: Float[Tensor, "b 4"]


def draw_look(draws: Draws) -> Look:
    def hole() -> tuple[Tensor, Tensor]:
        width = draws.uniform(0, HOLE)
        start = draws.uniform() * (1 - width)
        return start, start + width

    gain, tilt = draws.uniform(-LOUDER, LOUDER), draws.uniform(-TILT, TILT)
    ripple, phase = draws.uniform(-RIPPLE, RIPPLE, WAVES), draws.uniform(n=WAVES)
    warp, shift = draws.uniform(1 - WARP, 1 + WARP), draws.uniform(-SHIFT, SHIFT)
    noisy, level = draws.chance(NOISY), draws.uniform(LOUDEST, QUIETEST)
    colour = draws.uniform(-30.0, 10.0)
    holes = torch.stack([*hole(), *hole()], 1)
    level = torch.where(noisy, level, torch.inf)
    return Look(gain, tilt, ripple, phase, warp, shift, level, colour, holes)


def leave_out(look: Look, names: Collection[str]) -> Look:
    """The look without some of its disturbances."""
    still = {field: value for name in names for field, value in STILL.get(name, {}).items()}
    return look._replace(**{f: torch.full_like(getattr(look, f), v) for f, v in still.items()})


def filter_curve(look: Look, n: int) -> Float[Tensor, "b n"]:
    """The microphone's and the room's say: factors of the power along the frequency axis."""
    at = torch.linspace(0, 1, n, device=look.gain.device)
    decibels = look.gain[:, None] + look.tilt[:, None] * (at - 0.5)
    for k in range(WAVES):
        wave = torch.cos(math.pi * ((k + 1) * at + 2 * look.phase[:, k : k + 1]))
        decibels = decibels + look.ripple[:, k : k + 1] * wave
    return 10 ** (decibels / 10)


def noise_curve(look: Look, n: int) -> Float[Tensor, "b n"]:
    """The noise's power along the frequency axis, 1 on average."""
    at = torch.linspace(0, 1, n, device=look.gain.device)
    curve = 10 ** (look.colour[:, None] * at / 10)
    return curve / curve.mean(1, keepdim=True)


# ---- pictures --------------------------------------------------------------------------------


def disturbed(power: Float[Tensor, "b m t"], look: Look, draws: Draws) -> Float[Tensor, "b m t"]:
    """Filtered, louder or softer, with noise: in the power domain, where sounds add up.

    Noise has the exponential distribution of a noise's periodogram; only its bands are correlated
    in reality, where filters overlap.
    """
    _, m, t = power.shape
    noisy = look.noise.isfinite().nonzero()[:, 0]
    if len(noisy):
        grain = -torch.log1p(-draws.of_rows(noisy).uniform(n=m * t)).view(-1, m, t)
        level = power[noisy].mean((1, 2)) * 10 ** (-look.noise[noisy] / 10)
        curve = level[:, None] * noise_curve(look, m)[noisy]  # (noisy, m)
        power.index_add_(0, noisy, grain.mul_(curve[:, :, None]))
    return power * filter_curve(look, m)[:, :, None]


def decibel_free(power: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The natural logarithm, with a floor."""
    return power.clamp(min=FLOOR).log()


def mixed(
    picture: Float[Tensor, "b m t"], share: Float[Tensor, " b"], scale: float
) -> Float[Tensor, "b m t"]:
    """Each sound with a `share` of its neighbour in the batch in the background: mixup of BYOL-A
    (arXiv 2103.06695, equation 1), log((1 - a) exp(x) + a exp(y)) of log-mels over `scale`.

    Neighbours are rows 0 and 1, 2 and 3, ...: the same wherever a batch is cut into even parts; a
    last one without a neighbour stays alone. Departure: paper: a sound of the last 2,048.
    """
    even = len(picture) // 2 * 2
    own, a = picture[:even] / scale, share[:even, None, None]
    other = own.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    both = torch.logaddexp(own + torch.log1p(-a), other + a.log())
    return torch.cat([both * scale, picture[even:]])


def resized(
    picture: Float[Tensor, "b m t"],
    start: Float[Tensor, " b"],
    length: Float[Tensor, " b"],
    frames: int,
    look: Look | None = None,
) -> Float[Tensor, "b m frames"]:
    """`length` frames of each picture from `start` on, brought to `frames`; with a look, the
    frequency axis is stretched and moved as well. Bilinear; beyond the ends the last value."""
    b, m, t = picture.shape
    across = (torch.arange(frames, device=picture.device) + 0.5) / frames
    x = (start[:, None] + length[:, None] * across) * 2 / t - 1  # (b, frames)
    y = (torch.arange(m, device=picture.device) + 0.5) / m
    y = y.expand(b, m)
    if look is not None:
        y = y * look.warp[:, None] + look.shift[:, None]
    grid = torch.stack(
        [x[:, None].expand(b, m, -1), (2 * y - 1)[:, :, None].expand(-1, -1, frames)], -1
    )
    found = grid_sample(picture[:, None], grid, padding_mode="border", align_corners=False)
    return found[:, 0]


def masked(picture: Float[Tensor, "b m t"], look: Look) -> Float[Tensor, "b m t"]:
    """A band and a stretch of time at the data's mean, 0 (SpecAugment, arXiv 1904.08779)."""
    _, m, t = picture.shape
    low, high, begin, end = look.holes.T[..., None]  # (b, 1) each
    band = (torch.arange(m, device=picture.device) + 0.5) / m
    time = (torch.arange(t, device=picture.device) + 0.5) / t
    hidden = ((band >= low) & (band < high))[:, :, None]
    hidden = hidden | ((time >= begin) & (time < end))[:, None, :]
    return picture.masked_fill(hidden, 0.0)


# ---- waveforms -------------------------------------------------------------------------------


def disturbed_wave(waves: Float[Tensor, "b n"], look: Look, draws: Draws) -> Float[Tensor, "b n"]:
    """The same filter and noise on samples; half of the waves upside down, a stretch silent."""
    n = waves.shape[1]
    spectrum = torch.fft.rfft(waves)
    noisy = look.noise.isfinite().nonzero()[:, 0]
    if len(noisy):
        white = torch.fft.rfft(draws.of_rows(noisy).normal(n))
        level = waves[noisy].square().mean(1).sqrt() * 10 ** (-look.noise[noisy] / 20)
        curve = level[:, None] * noise_curve(look, white.shape[1])[noisy].sqrt()
        spectrum.index_add_(0, noisy, white * curve)
    spectrum = spectrum * filter_curve(look, spectrum.shape[1]).sqrt()
    waves = torch.fft.irfft(spectrum, n)
    time = (torch.arange(n, device=waves.device) + 0.5) / n
    begin, end = look.holes[:, 2:3], look.holes[:, 3:4]
    waves = waves.masked_fill((time >= begin) & (time < end), 0.0)
    return waves * torch.where(look.tilt >= 0, 1.0, -1.0)[:, None]


def standardised(waves: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Zero mean and unit deviation for each (wav2vec 2.0, section 4.1); silence stays silent."""
    waves = waves - waves.mean(1, keepdim=True)
    return waves / waves.square().mean(1, keepdim=True).sqrt().clamp(min=1e-5)


# ---- where a view looks ----------------------------------------------------------------------


def starts(
    lengths: Int64[Tensor, " b"], wanted: int | Int64[Tensor, " b"], where: Float[Tensor, " b"]
) -> Int64[Tensor, " b"]:
    """First sample of a window of `wanted`, `where` in [0, 1] between the first possible and the
    last. A shorter sound lies anywhere in the window: the start is then negative."""
    room = lengths - wanted
    return torch.where(room >= 0, room.clamp(min=0) * where, room.clamp(max=0) * where).long()
