"""Recordings as numbers: what libsndfile reads (wav, flac, ogg, mp3, aiff), or arrays.

Nothing is taken on trust: what a header promises is held against what comes.
"""

import io
import re
from collections import Counter
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
import soundfile
from jaxtyping import Float

from .kinds import instead
from .outcome import BadSample
from .recordings import Clip, opened, span_of

RATES = (1_000, 768_000)
MOST_CHANNELS = 64
CANCELLED = 0.01  # of the channels' power left in their mean: one was the other upside down
HEAD = 1 << 20  # bytes that tell what a file is that cannot be opened
BLOCK = 1 << 12  # frames at a time where a broken file is read as far as it goes


def decode(
    raw: bytes | Clip, longest: float, keep_truncated: bool, notes: Counter[str]
) -> tuple[np.ndarray, int]:
    """(n, channels) float64 and the rate: a clip, or at most `longest` seconds from the middle.

    Clips are of what is there, also of a file that ends early: told of, but not refused.
    """
    if not raw:
        raise BadSample("empty", "the file has no bytes")
    with opened(raw) as content:
        try:
            file = _file_of(content)
        except (soundfile.SoundFileError, RuntimeError) as error:
            content.seek(0)
            code, why = _refused(content.read(HEAD), error)
            raise BadSample(code, why) from error
        with file:
            return _span(file, raw, longest, keep_truncated, notes), file.samplerate


def _span(
    file: soundfile.SoundFile,
    raw: bytes | Clip,
    longest: float,
    keep_truncated: bool,
    notes: Counter[str],
) -> np.ndarray:
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise BadSample("rate", f"{file.samplerate} samples a second")
    if not 1 <= file.channels <= MOST_CHANNELS:
        raise BadSample("channels", f"{file.channels} channels")
    cut = _ends_early(file.extra_info)
    wanted, first, frames = round(longest * file.samplerate), 0, file.frames
    if span := span_of(raw):
        first = round(span[0] * file.samplerate)
        frames = min(frames - first, round(span[1] * file.samplerate))
        if cut:
            notes["clips of files that end early"] += 1
    if frames > wanted:
        first += (frames - wanted) // 2
        notes[f"longer than {longest:g} s: the middle is used"] += 1
    expected = min(frames, wanted)
    try:
        if first:
            file.seek(first)
        sound = _samples(file, expected, keep_truncated)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise BadSample("undecodable", f"{error}: damaged or cut off") from error
    if (cut and not span) or len(sound) < 0.98 * expected:
        if not keep_truncated:
            raise BadSample("truncated", "the file ends before the recording does")
        notes["truncated, kept"] += 1
    if len(sound) == 0:
        raise BadSample("no_values", "a header without samples")
    return sound


def _samples(file: soundfile.SoundFile, count: int, keep_truncated: bool) -> np.ndarray:
    if not keep_truncated:
        return file.read(count, always_2d=True)
    parts: list[np.ndarray] = []
    while (left := count - sum(len(part) for part in parts)) > 0:
        try:
            part = file.read(min(BLOCK, left), always_2d=True)
        except (soundfile.SoundFileError, RuntimeError):
            break  # what came before is there; the caller counts
        if len(part) == 0:
            break
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros((0, file.channels))


def from_array(array: np.ndarray) -> Float[np.ndarray, "n c"]:
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "iuf" or 0 in array.shape:
        raise BadSample("not_audio", f"an array of shape {array.shape} and type {array.dtype}")
    if array.shape[0] < array.shape[1]:
        array = array.T
    if array.shape[1] > MOST_CHANNELS:
        raise BadSample("channels", f"an array of shape {array.shape}")
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    range_ = np.iinfo(array.dtype)
    middle = 0 if array.dtype.kind == "i" else (range_.max + 1) // 2
    return (array.astype(np.float64) - middle) / (range_.max - middle)


# ---- one channel at one rate ----------------------------------------------------------------


def mixed(sound: Float[np.ndarray, "n c"], notes: Counter[str]) -> Float[np.ndarray, " n"]:
    """The mean of the channels; where they cancel each other, the loudest."""
    if sound.shape[1] == 1:
        return sound[:, 0]
    mean = sound.mean(1)
    powers = sound.var(0)
    if mean.var() < CANCELLED * powers.mean():
        notes["channels that cancel each other: the loudest is used"] += 1
        return sound[:, int(powers.argmax())]
    return mean


def clipped(mono: Float[np.ndarray, " n"]) -> bool:
    """Whether a hundredth of all samples sits at the largest or the smallest value."""
    ends = (mono == mono.max()).sum() + (mono == mono.min()).sum()
    return bool(ends > max(2, 0.01 * len(mono)))


def resample(wave: Float[np.ndarray, " n"], rate: int, new: int) -> Float[np.ndarray, " m"]:
    """By a polyphase filter (SciPy's Kaiser window); the ratio is exact to a millionth."""
    if rate == new:
        return wave
    from scipy.signal import resample_poly  # scikit-learn brings scipy

    ratio = Fraction(new, rate).limit_denominator(1000)
    return resample_poly(wave, ratio.numerator, ratio.denominator)


# ---- what a file tells of itself ------------------------------------------------------------


def head(raw: Any) -> tuple[int, float] | None:
    """Rate and seconds, where a header tells; of bytes, a clip, or a file that is open."""
    if not isinstance(raw, bytes | Clip) and not hasattr(raw, "read"):
        return None
    try:
        with opened(raw) as content, _file_of(content) as file:
            return file.samplerate, _seconds(file, raw)
    except (soundfile.SoundFileError, RuntimeError, BadSample):
        return None


def described(raw: bytes | Clip) -> tuple[str, str, tuple[int, int]]:
    """Format, coding with channels and rate, and the length in ms, twice."""
    with opened(raw) as content, _file_of(content) as file:
        milliseconds = round(1000 * _seconds(file, raw))
        mode = f"{file.subtype}, {file.channels} x {file.samplerate} Hz"
        return file.format, mode, (milliseconds, milliseconds)


def _seconds(file: soundfile.SoundFile, raw: Any) -> float:
    span = span_of(raw)
    return span[1] if span else file.frames / max(file.samplerate, 1)


def _file_of(content: BinaryIO) -> soundfile.SoundFile:
    """By its descriptor where it has one: else libsndfile calls Python for every few bytes.

    Every clip gets a new one: what MP3 decodes to after a seek depends in its last digits on what
    was decoded before, and a sample must not depend on the samples before it.
    """
    try:
        number = content.fileno()
    except io.UnsupportedOperation:
        return soundfile.SoundFile(content)
    return soundfile.SoundFile(number, closefd=False)


def _ends_early(told: str) -> bool:
    """What libsndfile noticed while it read the header, but does not count as an error."""
    if "without an End-Of-Stream flag" in told or "lacks an end-of-stream bit" in told:
        return True
    if "not equal to frame count" in told:  # AIFF
        return True
    declared = re.search(r"data\s*: (\d+) \(should be (\d+)\)", told)
    # programs that write into a pipe declare the largest size there is, and are not to blame
    return bool(declared and int(declared[2]) < int(declared[1]) < 0x7FFFF000)


def _refused(raw: bytes, error: Exception) -> tuple[str, str]:
    """What a file is that libsndfile does not open."""
    if (found := instead(raw)) is not None:
        return "not_audio", found
    known = raw[:4] in (b"RIFF", b"fLaC", b"OggS", b"FORM") or raw[:3] == b"ID3"
    if known:
        return "truncated", f"a header that is damaged or cut off ({_reason(error)})"
    return "not_audio", "no format that libsndfile knows, or a header that is cut off"


def _reason(error: Exception) -> str:
    return re.sub(r"^.*?: ", "", re.sub(r"<[^>]*>", "the file", str(error)))
