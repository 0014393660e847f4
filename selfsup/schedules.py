"""Schedules are pure functions of progress in [0, 1]: nothing to save, nothing to fast-forward."""

from collections.abc import Callable
from math import cos, pi

Schedule = Callable[[float], float]


def constant(value: float) -> Schedule:
    return lambda progress: value


def cosine(start: float, end: float) -> Schedule:
    return lambda progress: end + (start - end) * (1 + cos(pi * progress)) / 2


def linear(start: float, end: float, until: float = 1.0) -> Schedule:
    """From start to end while progress goes from 0 to `until`; `end` afterwards."""
    return lambda progress: start + (end - start) * min(progress / until, 1.0)


def geometric(start: float, end: float) -> Schedule:
    """The same factor in equal times."""
    return lambda progress: start * (end / start) ** progress


def warmup_cosine(peak: float, warmup: float = 0.1, final: float = 0.0) -> Schedule:
    """Linear up to `peak` over a share `warmup` of training, then a cosine to `final * peak`."""
    decay = cosine(peak, peak * final)
    return lambda p: peak * p / warmup if p < warmup else decay((p - warmup) / (1 - warmup))
