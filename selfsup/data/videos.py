"""Clips as frames: what FFmpeg reads (mp4, mkv, webm, avi, mov, mpg) by PyAV, or arrays.

Of a file the frame that is shown at each moment is taken, turned upright and made small at once;
nothing is decoded whose header promises more than a budget of pixels.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn import functional as F

from ..errors import SelfsupError
from .kinds import instead
from .outcome import BadSample
from .recordings import Clip, opened, span_of

MOST_PIXELS = 64 * 1024**2  # of one frame, checked before anything is decoded
LONGEST_SIDE = 2  # of a stored frame, in shorter sides
HEAD = 1 << 20  # bytes that tell what a file is that cannot be opened
# Of the time that a header promises, at most: of the clip itself, of the longest thing in the file
MISSING, MISSING_OF_ALL = 0.02, 0.1
EXACT = 1e-3  # seconds that times of frames are rounded by


def decode(
    raw: bytes | Clip,
    size: int,
    rate: float,
    longest: float,
    keep_truncated: bool,
    notes: Counter[str],
) -> UInt8[np.ndarray, "t h w 3"]:
    """A clip, or at most `longest` seconds from the middle, `rate` frames a second."""
    with _opened(raw) as container:
        stream = container.streams.video[0]
        start = float((stream.start_time or 0) * stream.time_base)
        span = span_of(raw)
        first, seconds = span or (0.0, _seconds(container, stream))
        if seconds > longest:
            first += (seconds - longest) / 2
            notes["longer than `longest`: the middle is used"] += 1
        if first > 0:
            container.seek(int((start + first) / stream.time_base), stream=stream)
        seconds = min(seconds, longest) if span else longest
        frames, whole = _frames(container, stream, start, first, seconds, size, rate)
    if not frames and span:
        raise BadSample("truncated", "the file ends before the clip begins")
    if not frames:
        raise BadSample("no_values" if whole else "undecodable", "not one frame is in the file")
    if not whole:
        if not keep_truncated:
            raise BadSample("truncated", "the file ends before the clip does")
        notes["truncated, kept"] += 1
    for frame in frames:
        if frame.shape != frames[0].shape:
            shapes = " and ".join(f"{f.shape[1]} x {f.shape[0]}" for f in (frames[0], frame))
            raise BadSample("frame_sizes", f"its frames change their form: {shapes}")
    return np.stack(frames)


def _frames(
    container: Any,
    stream: Any,
    start: float,
    first: float,
    seconds: float,
    size: int,
    rate: float,
) -> tuple[list[np.ndarray], bool]:
    """The frames shown at even times from `first` on, and whether all that is promised came."""
    import av

    step, shown = 1 / rate, None
    made: list[np.ndarray] = []
    wanted, small, whole, begun, end = 0, None, True, first, first
    usual = float(1 / stream.average_rate) if stream.average_rate else step
    times = first + step * np.arange(max(1, round(seconds * rate)))
    try:
        for frame in container.decode(stream):
            _within_budget(frame.width, frame.height)  # a stream may grow after its header
            time = frame.time - start if frame.time is not None else end
            # frames before this one are shown until now
            while shown is not None and wanted < len(times) and times[wanted] < time - EXACT:
                small = _converted(shown, size) if small is None else small
                made.append(small)
                wanted += 1
            if wanted == len(times):
                return made, True
            if shown is not None:  # AVI tells neither how long a frame is nor how many come
                usual = max(usual, time - begun)
            shown, small, begun = frame, None, time
            end = time + (float(frame.duration * frame.time_base) if frame.duration else usual)
    except av.error.FFmpegError:
        whole = False
    while shown is not None and wanted < len(times) and times[wanted] < end - EXACT:
        small = _converted(shown, size) if small is None else small
        made.append(small)
        wanted += 1
    if shown is not None and not made and first < end:  # shorter than a step
        made.append(_converted(shown, size))
    missing = MISSING if stream.duration else MISSING_OF_ALL
    return made, whole and end + 2 * usual >= (1 - missing) * _seconds(container, stream)


def _converted(frame: Any, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """RGB, upright, its shorter side at `size` if it is longer, of a strip the middle."""
    scale = min(1.0, size / min(frame.width, frame.height))
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    small = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    small = np.rot90(small, round(frame.rotation / 90) % 4)
    h, w, _ = small.shape
    most = LONGEST_SIDE * min(h, w)
    top, left = max(h - most, 0) // 2, max(w - most, 0) // 2
    return np.ascontiguousarray(small[top : top + most, left : left + most])


def from_array(array: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] not in (1, 3) or array.dtype != np.uint8:
        raise BadSample("channels", f"an array of shape {array.shape} and type {array.dtype}")
    if 0 in array.shape:
        raise BadSample("no_values", f"an array of shape {array.shape}")
    if array.shape[1] * array.shape[2] > MOST_PIXELS:
        raise BadSample("too_large", f"frames of {array.shape[1]} x {array.shape[2]} pixels")
    return np.broadcast_to(array, (*array.shape[:3], 3))


def smaller(frames: UInt8[np.ndarray, "t h w 3"], size: int) -> UInt8[np.ndarray, "t h2 w2 3"]:
    short = min(frames.shape[1:3])
    if short <= size:
        return np.ascontiguousarray(frames)
    new = tuple(max(size, round(side * size / short)) for side in frames.shape[1:3])
    x = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2)
    small = F.interpolate(x, new, mode="bilinear", antialias=True)
    return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())


# ---- what a file tells of itself ------------------------------------------------------------


class Head(NamedTuple):
    """What is known of a clip before it is decoded."""

    rate: float
    seconds: float
    height: int
    width: int


def head(raw: bytes | Clip) -> Head:
    with _opened(raw) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.base_rate or 25)
        context = stream.codec_context
        span = span_of(raw)
        seconds = span[1] if span else _seconds(container, stream)
        return Head(rate, seconds, context.height, context.width)


def seconds(file: BinaryIO) -> float:
    """As the header says; 0 where it does not, or cannot be read."""
    try:
        with _opened(file) as container:
            return _seconds(container, container.streams.video[0])
    except BadSample:
        return 0.0


def described(raw: bytes | Clip) -> tuple[str, str, tuple[int, int]]:
    """Format, codec with frames a second, height and width."""
    with _opened(raw) as container:
        stream = container.streams.video[0]
        mode = f"{stream.codec_context.name}, {float(stream.average_rate or 0):.4g} frames/s"
        form = container.format.name.split(",")[0]
        return form, mode, (stream.codec_context.height, stream.codec_context.width)


@contextmanager
def _opened(raw: bytes | Clip | BinaryIO) -> Iterator[Any]:
    """A container with a video stream within the budget. Raises BadSample."""
    try:
        import av
    except ImportError:
        raise SelfsupError(
            "E204", "reading video files needs PyAV", do="pip install 'selfsup[video]'"
        ) from None
    if not raw:
        raise BadSample("empty", "the file has no bytes")
    content = opened(raw)
    try:
        container = av.open(content)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        content.seek(0)
        raise BadSample(*_refused(content.read(HEAD))) from error
    with content, container:
        if not container.streams.video:
            raise BadSample("no_video", "there is no moving picture in it")
        context = container.streams.video[0].codec_context
        if context is None:
            raise BadSample("undecodable", "a codec that FFmpeg does not know")
        _within_budget(context.width, context.height)
        if context.width < 1 or context.height < 1:
            raise BadSample("no_values", f"{context.width} x {context.height} pixels")
        try:
            yield container
        except (av.error.FFmpegError, OSError) as error:
            raise BadSample("undecodable", f"{type(error).__name__}: {error}") from error


def _within_budget(width: int, height: int) -> None:
    """Raises BadSample too_large."""
    if width * height > MOST_PIXELS:
        raise BadSample(
            "too_large",
            f"{width} x {height} pixels; the most that is decoded is {MOST_PIXELS // 1024**2} M",
        )


def _seconds(container: Any, stream: Any) -> float:
    """As the header says; 0 where it does not."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6


def _refused(raw: bytes) -> tuple[str, str]:
    """What a file is that FFmpeg does not open."""
    if (found := instead(raw)) is not None:
        return "not_a_video", found
    known = raw[4:8] == b"ftyp" or raw[:4] in (b"RIFF", b"\x1aE\xdf\xa3", b"\0\0\1\xba")
    if known:
        return "truncated", "a header that is damaged or cut off"
    return "not_a_video", "no format that FFmpeg knows, or a header that is cut off"
