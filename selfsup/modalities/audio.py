"""Speech, music, machines, birds: recordings as log-mel pictures or as waveforms.

Every file becomes one channel of 16-bit samples at one rate by the rules of
docs/modalities/audio.md: decoded and resampled once, channels averaged, its own level kept beside
it so that nothing is clipped and nothing quiet is lost.
"""

from functools import partial
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..data import fields, sounds
from ..data.base import Source, evenly
from ..data.batch import Batch
from ..data.outcome import BadSample
from ..data.recordings import Clip
from ..data.sounds import RATES
from ..errors import SelfsupError
from ..method import Views
from ..randomness import Draws
from ..views import audio as looks
from ..views.one_core import on_one_core
from .base import Modality

USUAL_RATE = 16_000  # speech models' own; above 8 kHz there is little that tells sounds apart
SHORTEST = 0.01  # seconds
LOOKED_AT = 64  # files whose headers tell rate and length
HEARD = 128  # files that tell mean and deviation
CEPSTRA = 20  # coefficients of the baseline
STEP = 16  # sizes are multiples of so many frames


class Audio(Modality):
    """Anything that libsndfile reads (wav, flac, ogg, mp3, aiff), or arrays.

    `form` is what encoders get: log-mel pictures, (b, 1, mels, frames), or waves, (b, 1, samples).
    `rate` in Hz; without one, 16,000 or the data's own if that is lower. `hop` is the length of a
    frame in ms, the unit of sizes. Longer files are cut into clips of at most `longest` seconds.
    With `mix` up to that share of a strong view is another sound of the batch, in the background;
    `without` names what views leave out, such as "noise,mask".
    `keep_truncated` uses files that end early as far as they go, `keep_silent` those without sound.
    """

    name = "audio"
    contents = ("audio",)
    unit = "frames"
    raw_unit = "ms"
    baseline_name = "MFCC statistics"
    upward = True
    default_method = "simclr"
    encoders = ("mel_tiny", "mel_small", "wave_tiny", "wave_small", "wave_base", "vit_tiny",
                "vit_small", "resnet18", "resnet50")  # fmt: skip
    mean = (-9.0,)  # of log-mel powers; learned from the data
    std = (3.5,)

    operations = looks.OPERATIONS

    def __init__(
        self,
        *,
        form: Literal["mel", "wave"] = "mel",
        rate: int | None = None,
        mels: int = 64,
        hop: float = 10.0,
        longest: float = 20.0,
        mix: float = 0.0,
        keep_truncated: bool = False,
        keep_silent: bool = False,
        without: str = "",
    ):
        if rate is not None and not RATES[0] <= rate <= RATES[1]:
            raise _setting(f"modality.rate is {rate}", f"from {RATES[0]} to {RATES[1]} Hz")
        if not 4 <= mels <= 512 or not 1 <= hop <= 1000 or longest < SHORTEST:
            raise _setting(f"mels {mels}, hop {hop}, longest {longest}", "mels from 4, hop from 1")
        if not 0 <= mix < 1 or (mix and form == "wave"):
            raise _setting(f"modality.mix is {mix}, form {form}", "0 to 1, of log-mel pictures")
        self.form, self.mels, self.hop, self.longest, self.mix = form, mels, hop, longest, mix
        self.rate = rate or USUAL_RATE
        self.fixed = rate is not None
        self.keep_truncated, self.keep_silent = keep_truncated, keep_silent
        self.without = self.left_out(without)
        if form == "wave":
            self.mean, self.std = (0.0,), (1.0,)

    @property
    def rules(self) -> str:
        kept = f"truncated={self.keep_truncated} silent={self.keep_silent}"
        return f"audio 1 rate={self.rate} longest={self.longest} {kept}"

    @property
    def step(self) -> int:
        """Samples in a frame."""
        return round(self.rate * self.hop / 1000)

    # ---- what the data tell ----------------------------------------------------------------------

    def learn(self, source: Source) -> None:
        """The rate, from headers, and the mean and deviation of log-mel powers."""
        heads = _heads(source)
        if not self.fixed and heads:
            self.rate = min(USUAL_RATE, max(rate for rate, _ in heads))
        if self.form == "wave":
            return
        total = np.zeros(3)
        for raw in _raws(source, HEARD):
            try:
                wave = self._wave(fields.unpack_one(self.read(raw)[:, 0, 0]))
            except BadSample:
                continue
            x = self._log_mel(torch.nn.functional.pad(wave, (self.margin, self.margin))[None])
            total += [x.numel(), float(x.double().sum()), float(x.double().square().sum())]
        self.notes.clear()
        if total[0]:
            mean = total[1] / total[0]
            std = max(total[2] / total[0] - mean**2, 1e-4) ** 0.5
            self.mean, self.std = (round(float(mean), 4),), (round(float(std), 4),)  # type: ignore[misc]

    @property
    def state(self) -> dict[str, Any]:
        return {"rate": self.rate, "mean": self.mean[0], "std": self.std[0]}

    def restore(self, state: dict[str, Any]) -> None:
        if not state:
            return
        rate, mean, std = (state.get(key) for key in ("rate", "mean", "std"))
        numbers = isinstance(rate, int) and all(isinstance(v, float | int) for v in (mean, std))
        if not numbers or not RATES[0] <= rate <= RATES[1] or not std > 0:  # type: ignore[operator]
            raise ValueError(f"rate {rate!r}, mean {mean!r}, std {std!r} are no state of audio")
        self.rate, self.mean, self.std = rate, (float(mean),), (float(std),)  # type: ignore[assignment,arg-type]

    @staticmethod
    def seconds(file: BinaryIO) -> float:
        found = sounds.head(file)
        return 0.0 if found is None else found[1]

    def extent(self, source: Source) -> int:
        """Frames that nine of ten recordings fit in."""
        heads = _heads(source)
        seconds = sorted(min(length, self.longest) for _, length in heads)
        if not seconds:
            return STEP if len(source) else 0
        return max(1, round(1000 * seconds[int(0.9 * (len(seconds) - 1))] / self.hop))

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        most = 1024 if device == "cuda" else 256
        size = min(max(STEP, -(-extent // STEP) * STEP), most)
        told = f"nine of ten recordings have at most {extent} frames of {self.hop:g} ms"
        if size < extent:
            where = "a graphics card" if device == "cuda" else "processor cores"
            return size, f"{told}; {most} is what {where} can afford"
        return size, f"{told}; a multiple of {STEP}"

    # ---- one sample ------------------------------------------------------------------------------

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "n 1 1"]:
        """One channel at `rate` from a file's bytes or an array (n,), (n, c) or (c, n) at `rate`.

        Fields: wave, int16 (n,), with its peak at full scale, and that peak, float32.
        Raises BadSample: empty, not_audio, truncated, undecodable, rate, channels, too_short,
        no_values, silent.
        """
        if isinstance(raw, bytes | bytearray | memoryview | Clip):
            raw = raw if isinstance(raw, Clip) else bytes(raw)
            sound, rate = sounds.decode(raw, self.longest, self.keep_truncated, self.notes)
        else:
            if isinstance(raw, Tensor):
                raw = raw.detach().cpu().numpy()
            if not isinstance(raw, np.ndarray):
                raise BadSample("not_audio", f"{type(raw).__name__} is neither bytes nor array")
            sound, rate = sounds.from_array(raw), self.rate
        if not np.isfinite(sound).all():
            if not np.isfinite(sound).any():
                raise BadSample("no_values", "no sample is a finite number")
            self.notes["NaN or infinite samples taken for silence"] += 1
            sound = np.where(np.isfinite(sound), sound, 0)
        mono = sounds.mixed(sound, self.notes)
        if len(mono) < SHORTEST * rate:
            raise BadSample("too_short", f"{len(mono)} samples at {rate} Hz, less than 10 ms")
        mono = mono - mono.mean()  # a constant offset is of the converter, not of the sound
        if sounds.clipped(mono):
            self.notes["clipped recordings"] += 1
        mono = sounds.resample(mono, rate, self.rate)
        peak = float(np.abs(mono).max())
        if not peak > 1e-7:
            if not self.keep_silent:
                raise BadSample("silent", "all samples have the same value")
            mono, peak = np.zeros_like(mono), 1.0
        wave = np.rint(mono * (32767 / peak)).astype("<i2")
        return fields.pack({"wave": wave, "peak": np.array([peak], np.float32)})

    # ---- batches ---------------------------------------------------------------------------------

    @property
    def margin(self) -> int:
        return looks.margin(self.rate, self.step)

    @staticmethod
    def _wave(sample: dict[str, np.ndarray]) -> Tensor:
        scale = float(sample["peak"][0]) / 32767
        return torch.from_numpy(sample["wave"].astype(np.float32)) * scale

    def _log_mel(self, waves: Float[Tensor, "b n"]) -> Float[Tensor, "b m t"]:
        return looks.decibel_free(looks.mel_power(waves, self.rate, self.step, self.mels))

    def _normal(self, picture: Float[Tensor, "b m t"]) -> Float[Tensor, "b 1 m t"]:
        return (picture[:, None] - self.mean[0]) / self.std[0]

    def _cut(
        self, samples: list[dict[str, np.ndarray]], first: Tensor, count: int, margin: int = 0
    ) -> Float[Tensor, "b n"]:
        """`count` samples of each wave from `first` on, `margin` more on both sides; silence where
        there is none."""
        out = np.zeros((len(samples), count + 2 * margin), np.float32)
        for row, start, sample in zip(out, first.tolist(), samples, strict=True):
            wave, start = sample["wave"], start - margin
            low, high = max(start, 0), min(start + len(row), len(wave))
            if low < high:
                scale = float(sample["peak"][0]) / 32767
                np.multiply(wave[low:high], scale, out=row[low - start : high - start])
        return torch.from_numpy(out)

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Float[Tensor, "b 1 ..."]]:
        """`size` frames of each recording, from anywhere in it; docs/modalities/audio.md has the
        rest."""
        device = batch.pixels.device
        on_cpu = Draws(draws.seed, draws.samples.cpu(), 0)
        made = partial(self._views, fields.unpack(batch.to("cpu")), spec, on_cpu, size, local_size)
        return [view.to(device) for view in on_one_core(made)]

    def _views(
        self,
        samples: list[dict[str, np.ndarray]],
        spec: Views,
        draws: Draws,
        size: int,
        local_size: int | None,
    ) -> list[Tensor]:
        lengths = torch.tensor([len(sample["wave"]) for sample in samples])
        small = local_size if local_size is not None else self.local_size(size)
        views = []
        for number in range(spec.count):
            local = number >= spec.light + spec.strong
            frames, share = (small, spec.local_share) if local else (size, spec.share)
            own = draws.of_view(number)
            if self.form == "wave":
                first = looks.starts(lengths, frames * self.step, self._where(own))
                waves = self._cut(samples, first, frames * self.step)
                if number >= spec.light:
                    waves = looks.disturbed_wave(waves, self._look(own), own)
                views.append(looks.standardised(waves)[:, None])
                continue
            views.append(
                self._picture_view(samples, lengths, own, frames, share, number < spec.light)
            )
        return views

    def _picture_view(
        self,
        samples: list[dict[str, np.ndarray]],
        lengths: Tensor,
        draws: Draws,
        frames: int,
        share: tuple[float, float],
        light: bool,
    ) -> Float[Tensor, "b 1 m t"]:
        if light:
            first = looks.starts(lengths, frames * self.step, self._where(draws))
            waves = self._cut(samples, first, frames * self.step, self.margin)
            return self._normal(self._log_mel(waves))
        # of a word, two thirds say what it was, and a fifth does not: the fourth root of the share
        share = (1.0, 1.0) if "crop" in self.without else share
        wide = frames * draws.uniform(*share) ** 0.25
        first = looks.starts(lengths, (wide * self.step).long(), self._where(draws))
        waves = self._cut(samples, first, frames * self.step, self.margin)
        look = self._look(draws)
        power = looks.mel_power(waves, self.rate, self.step, self.mels)
        picture = looks.decibel_free(looks.disturbed(power, look, draws))
        if self.mix:
            picture = looks.mixed(picture, draws.uniform(0, self.mix), self.std[0])
        picture = looks.resized(picture, torch.zeros_like(wide), wide, frames, look)
        return looks.masked(self._normal(picture)[:, 0], look)[:, None]

    def _where(self, draws: Draws) -> Float[Tensor, " b"]:
        """In a recording a view lies, from 0 to 1; where nothing is cropped, in the middle."""
        found = draws.uniform()
        return torch.full_like(found, 0.5) if "crop" in self.without else found

    def _look(self, draws: Draws) -> looks.Look:
        return looks.leave_out(looks.draw_look(draws), self.without)

    @staticmethod
    def local_size(size: int) -> int:
        """Half of `size`, a multiple of 8."""
        return max(8, size // 16 * 8)

    def plain(self, batch: Batch, size: int) -> Float[Tensor, "b 1 ..."]:
        """The middle of each recording, `size` frames; a shorter one lies in the middle."""
        return on_one_core(partial(self._plain, batch, size)).to(batch.pixels.device)

    def _plain(self, batch: Batch, size: int) -> Tensor:
        samples = fields.unpack(batch.to("cpu"))
        lengths = torch.tensor([len(sample["wave"]) for sample in samples])
        count = size * self.step
        first = looks.starts(lengths, count, torch.full((len(samples),), 0.5))
        if self.form == "wave":
            return looks.standardised(self._cut(samples, first, count))[:, None]
        return self._normal(self._log_mel(self._cut(samples, first, count, self.margin)))

    def picture(self, x: Float[Tensor, "b 1 ..."]) -> UInt8[Tensor, "b 3 h w"]:
        """Log-mel, low tones at the bottom, loud is bright; of waves, the same from their samples.

        A picture is as wide as it is high, whatever was seen: time is stretched to fit.
        """
        if x.ndim == 3:
            mean, std = -9.0, 3.5
            waves = torch.nn.functional.pad(x[:, 0], (self.margin, self.margin))
            x = ((self._log_mel(waves * 0.1) - mean) / std)[:, None]
        shown = ((x.flip(2) + 2) / 4.5).clamp(0, 1)
        side = max(x.shape[2:])
        shown = torch.nn.functional.interpolate(shown, (side, side), mode="nearest")
        return _colours(shown[:, 0])

    def thumbnail(self, sample: UInt8[np.ndarray, "n 1 1"]) -> UInt8[np.ndarray, "h w 3"]:
        """The whole recording as a log-mel picture."""
        wave = self._wave(fields.unpack_one(sample[:, 0, 0]))
        wave = torch.nn.functional.pad(wave, (self.margin, self.margin + self.step))
        x = self._log_mel(wave[None])
        return self.picture(((x - x.mean()) / x.std().clamp(min=1e-3))[:, None])[0].permute(
            1, 2, 0
        ).numpy()  # fmt: skip

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]]:
        """Format, coding with channels and rate, and the length in ms, twice."""
        if not isinstance(raw, bytes | Clip):
            milliseconds = round(1000 * max(raw.shape) / self.rate)
            return "array", f"{raw.dtype}", (milliseconds, milliseconds)
        return sounds.described(raw)

    def examples(self) -> list[Any]:
        """Tones that rise, in noise, shorter and longer than a view."""
        random = np.random.Generator(np.random.Philox(20260101))
        made = []
        for seconds in (0.05, 0.3, 1.0, 4.0):
            t = np.arange(round(seconds * self.rate)) / self.rate
            noise = 0.01 * random.standard_normal(len(t))
            made.append((0.3 * np.sin(1000 * t * (1 + t)) + noise).astype(np.float32))
        return made

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """MFCC statistics over the whole recording: mean, deviation, and those of differences.

        Coefficients are the cosine transform of the log-mel picture, as many as speech recognisers
        used, and every frame counts.
        """
        return on_one_core(partial(self._baseline, batch))

    def _baseline(self, batch: Batch) -> Tensor:
        basis = _cosines(self.mels, CEPSTRA)
        rows = []
        for sample in fields.unpack(batch.to("cpu")):
            wave = torch.nn.functional.pad(self._wave(sample), (self.margin, self.margin))
            if len(wave) < looks.transform_size(self.rate):
                wave = torch.nn.functional.pad(wave, (0, looks.transform_size(self.rate)))
            x = basis @ self._log_mel(wave[None])[0]  # (k, t)
            change = x.diff(dim=1) if x.shape[1] > 1 else torch.zeros_like(x)
            parts = [x.mean(1), x.std(1, correction=0), change.mean(1), change.std(1, correction=0)]
            rows.append(torch.cat([*parts, torch.tensor([float(np.log(x.shape[1]))])]))
        return torch.stack(rows)

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        from ..sound import build

        if self.form == "wave":
            shape: tuple[int, ...] = (size * self.step,)
        else:
            shape = (self.mels, size)
        return build(name, shape, self.rate, **keywords)


# ---- samples ---------------------------------------------------------------------------------


def _raws(source: Source, count: int) -> list[Any]:
    """Samples spread over the source, as they are stored, without those that cannot be read."""
    found = []
    for i in evenly(len(source), count):
        try:
            found.append(source.read(i))
        except BadSample:
            continue
    return found


def _heads(source: Source) -> list[tuple[int, float]]:
    """Rate and seconds, of those that tell."""
    heads = map(sounds.head, _raws(source, LOOKED_AT))
    return [head for head in heads if head is not None]


def _setting(what: str, expected: str) -> SelfsupError:
    return SelfsupError("E201", f"a setting of audio is not valid: {what}", why=expected)


# ---- tables ----------------------------------------------------------------------------------


def _cosines(n: int, count: int) -> Float[Tensor, "count n"]:
    """The orthonormal cosine transform, type II, without its constant."""
    k = torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    at = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (torch.cos(torch.pi * k * at) * (2 / n) ** 0.5).float()


def _colours(level: Float[Tensor, "b h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """Dark blue over red to pale yellow."""
    stops = torch.tensor([[10, 10, 40], [90, 20, 110], [200, 60, 70], [250, 160, 40],
                          [255, 250, 200]], dtype=torch.float32, device=level.device)  # fmt: skip
    at = level.float() * (len(stops) - 1)
    low = at.floor().long().clamp(max=len(stops) - 2)
    part = (at - low)[..., None]
    mixed = stops[low] * (1 - part) + stops[low + 1] * part
    return mixed.round().to(torch.uint8).permute(0, 3, 1, 2)
