"""95 % intervals: of repeated runs by Student's t, of one run by resampling its test samples.

`among` several of which the best is to speak, each gets a share of the 5 % (Bonferroni): they then
hold for all at once.
"""

from typing import NamedTuple

import numpy as np

from ..randomness import mix

RESAMPLES = 2000
FEWEST = 5  # test samples that can say anything of others
FEW_VALUES = 64  # different ones; up to these, how many of each are drawn is drawn at once


class Interval(NamedTuple):
    """A value with its 95 % interval, and what that covers in words."""

    value: float
    low: float
    high: float
    kind: str

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


def edges(among: int) -> tuple[float, float]:
    """The quantiles between which an interval lies."""
    return 0.025 / among, 1 - 0.025 / among


def over_seeds(values: list[float], among: int = 1) -> Interval:
    """Mean of at least two runs. The interval covers the choice of labels or weights."""
    from scipy.stats import t  # scikit-learn brings scipy

    x = np.asarray(values, float)
    assert len(x) >= 2, "one run has no spread"
    half = float(t.ppf(edges(among)[1], len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    mean = float(x.mean())
    return Interval(mean, mean - half, mean + half, f"t over {len(x)} seeds")


def over_samples(
    outcome: np.ndarray, seed: int = 0, signed: bool = False, among: int = 1
) -> Interval:
    """Mean of one number per test sample. The interval covers the choice of test samples.

    Percentile bootstrap (Efron 1979). Of few different values the resampled counts are multinomial,
    which are drawn at once. Fewer than 5 samples say nothing of others: their interval is all that
    shares, `signed` their differences, can be, and as far as these samples go where that is more.
    """
    x = np.asarray(outcome, float)
    mean, n = float(x.mean()), len(x)
    if n < FEWEST:
        reach = max(1.0, float(np.abs(x).max()))
        low = -reach if signed or x.min() < 0 else 0.0
        return Interval(mean, low, reach, f"all that can be: {n} test samples tell too little")
    generator = np.random.default_rng(mix(seed, 0x626F6F74))
    values, counts = np.unique(x, return_counts=True)
    if np.isin(x, (0.0, 1.0)).all():
        means = generator.binomial(n, mean, RESAMPLES) / n
    elif len(values) <= FEW_VALUES:
        means = generator.multinomial(n, counts / n, RESAMPLES) @ values / n
    else:
        means = np.array([x[generator.integers(0, n, n)].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, edges(among))
    return Interval(mean, float(low), float(high), f"bootstrap over {n} test samples")


def over_both(
    outcomes: np.ndarray, seed: int = 0, signed: bool = False, among: int = 1
) -> Interval:
    """Mean of (draws, n): over what was drawn and over the test samples, in quadrature."""
    draws = over_seeds(list(outcomes.mean(1)), among)
    samples = over_samples(outcomes.mean(0), seed, signed, among)
    half = float(np.hypot(draws.half, samples.half))
    kind = f"{draws.kind} and {samples.kind}"
    return Interval(draws.value, draws.value - half, draws.value + half, kind)


def resampled(
    value: float, drawn: list[float], others: list[float], of: str, beside: str, among: int = 1
) -> Interval:
    """A gain, by those of test samples that were drawn anew. NaN is a draw that tells nothing.

    `others` are the values of the networks or controls that it is a gain over: where there are
    several, which of them it would have been adds to both sides in quadrature.
    """
    low, high = (float(edge) for edge in np.nanquantile(drawn, edges(among)))
    kind = f"bootstrap over {of}"
    if len(others) > 1:
        spread = over_seeds(others, among).half
        low = value - float(np.hypot(value - low, spread))
        high = value + float(np.hypot(high - value, spread))
        kind += f" and t over {len(others)} {beside}"
    return Interval(value, low, high, kind)


def difference(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Interval:
    """Mean of `ours` (n,) minus the mean of `theirs` (seeds, n): outcomes on the same test samples.

    Covers both the test samples (the pairs are resampled together) and, where there are several
    seeds of theirs, which one it would have been: the two half widths add in quadrature.
    """
    theirs = np.atleast_2d(np.asarray(theirs, float))
    gain = np.asarray(ours, float) - theirs.mean(0)
    found = over_samples(gain, seed, signed=True)
    if len(gain) < FEWEST:
        return found
    half, kind = found.half, "bootstrap over test samples"
    if len(theirs) > 1:
        half = float(np.hypot(half, over_seeds(list(theirs.mean(1))).half))
        kind += f" and t over {len(theirs)} untrained networks"
    return Interval(found.value, found.value - half, found.value + half, kind)
