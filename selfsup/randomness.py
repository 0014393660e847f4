"""Random numbers that are pure functions of where they are used.

A run draws everything from (seed, step) or (seed, sample, view): no generator has a state that
would have to be saved, and neither the number of workers nor of ranks changes a single number.
"""

from copy import copy

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .errors import SelfsupError

# splitmix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195), figure 17
GOLDEN, MIX1, MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK64 = (1 << 64) - 1
AT_ONCE = 1 << 15  # numbers that a processor makes while they are in its cache


def mix(*parts: int) -> int:
    """A 63-bit number from integers; any change of any part changes about half of its bits."""
    state = 0
    for part in parts:
        state = _finish((state + part + 1) * GOLDEN & MASK64)
    return state >> 1


def start(number: int, device: str) -> None:
    """PyTorch draws from this number on.

    Its `manual_seed` also tells kinds of devices that are not there, each with the written-out
    stack of calls, which takes 0.3 ms: much in each step of a small model.
    """
    if device == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of `n` samples in an epoch: (n,) int64, a permutation."""
    return np.random.Generator(np.random.Philox(mix(seed, epoch))).permutation(n)


class Draws:
    """Numbers for each sample of a batch, whatever batch, worker or rank it is in.

    A number is a function of (seed, sample counter, view, how many calls came before).
    """

    def __init__(self, seed: int, samples: Int64[Tensor, " b"], view: int = 0):
        self.seed, self.samples, self.calls = seed, samples, 0
        self.keys = _hash(samples + _signed(mix(seed, view)))

    def of_view(self, view: int) -> "Draws":
        """The same samples seen another time."""
        return Draws(self.seed, self.samples, view)

    def of_rows(self, rows: Tensor) -> "Draws":
        """Some of the samples; they get what they would get among all."""
        some = copy(self)
        some.samples, some.keys = self.samples[rows], self.keys[rows]
        return some

    def uniform(
        self, low: float = 0.0, high: float = 1.0, n: int | None = None
    ) -> Float[Tensor, "..."]:
        """Numbers in [low, high): (b,), or (b, n) where n is given."""
        self.calls += 1
        keys = _hash(self.keys + _signed(mix(self.calls)))
        if n is None:
            return low + (high - low) * _unit(keys)
        lanes = torch.arange(1, n + 1, device=keys.device) * _signed(GOLDEN)
        few = max(1, AT_ONCE // max(n, 1)) if keys.device.type == "cpu" else len(keys)
        parts = [_unit(_hash(some[:, None] + lanes)) for some in keys.split(max(1, few))]
        return low + (high - low) * torch.cat(parts)

    def each(self, rows: Int64[Tensor, " m"], lanes: Int64[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Numbers in [0, 1) for pairs of a row of the batch and any whole number."""
        self.calls += 1
        keys = _hash(self.keys + _signed(mix(self.calls)))
        few = AT_ONCE if keys.device.type == "cpu" else max(1, len(rows))
        parts = zip(rows.split(few), lanes.split(few), strict=True)
        return torch.cat([_unit(_hash(keys[r] + (n + 1) * _signed(GOLDEN))) for r, n in parts])

    def chance(self, p: float) -> Bool[Tensor, " b"]:
        """True with probability p."""
        return self.uniform() < p

    def integers(self, high: int, n: int | None = None) -> Int64[Tensor, "..."]:
        """Integers in [0, high), for high up to 2**24."""
        return (self.uniform(n=n) * high).long()

    def normal(self, n: int | None = None) -> Float[Tensor, "..."]:
        """Standard normal numbers (Box-Muller)."""
        radius = (-2 * torch.log1p(-self.uniform(n=n))).sqrt()
        return radius * torch.cos(2 * torch.pi * self.uniform(n=n))

    def permutation(self, n: int) -> Int64[Tensor, "b n"]:
        """An order of n things for each sample."""
        return self.uniform(n=n).argsort(1)


def _unit(keys: Int64[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """In [0, 1), by 24 bits: exact in float32."""
    return (keys >> 40 & 0xFFFFFF).to(torch.float32) / (1 << 24)


def _finish(z: int) -> int:
    z = (z ^ (z >> 30)) * MIX1 & MASK64
    z = (z ^ (z >> 27)) * MIX2 & MASK64
    return z ^ (z >> 31)


def _signed(z: int) -> int:
    """The same 64 bits as torch's int64 reads them."""
    return z - (1 << 64) if z >= 1 << 63 else z


def droppable(p: float) -> float:
    """The share itself; raises SelfsupError E202 for one that would leave nothing."""
    if not 0 <= round(256 * p) < 256:
        raise SelfsupError("E202", f"a dropout of {p}", do="a share from 0 to 0.99")
    return p


def dropout(x: Tensor, p: float) -> Tensor:
    """Like torch's own but six times as fast on a processor; p is rounded to 1/256.

    torch draws one number after the other; here eight at once, from a hash of their places.
    """
    threshold = round(256 * p)
    if threshold == 0 or x.is_cuda:
        return torch.nn.functional.dropout(x, p)
    seed = torch.randint(1 << 62, ())
    draws = _hash(torch.arange(-(-x.numel() // 8)) + seed).view(torch.uint8)[: x.numel()]
    return x * (draws >= threshold).view(x.shape) * (256 / (256 - threshold))


def _hash(z: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """splitmix64's finish on int64 tensors, whose products wrap as unsigned ones do."""
    z = (z ^ _shift(z, 30)) * _signed(MIX1)
    z = (z ^ _shift(z, 27)) * _signed(MIX2)
    return z ^ _shift(z, 31)


def _shift(z: Int64[Tensor, "..."], bits: int) -> Int64[Tensor, "..."]:
    """A logical shift to the right: torch's own copies the sign."""
    return z >> bits & (1 << (64 - bits)) - 1
