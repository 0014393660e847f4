"""How well an encoder that sees both sides names tokens that are hidden from it.

A masked language model (mlm): 15 in a hundred of the tokens, drawn once and for all and hidden
together; how likely it finds them is a pseudo-perplexity. A diffusion model (mdlm): any share of
them, which bounds the likelihood of the whole text from above (Sahoo et al., 2024, arXiv
2406.07524): of L tokens k are hidden, k drawn evenly from 1 to L, and their nats count L / k times.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from .. import machine
from ..load import LoadedEncoder, load_method, untrained_method
from ..masks import choose
from ..ragged import Ragged
from ..randomness import mix
from ..stems import MASK
from ..stop import stop
from .result import home_of

MLM, MDLM = "mlm", "mdlm"
SHARE = 0.15
PASSES = 4  # shares of a window that are hidden, one after another
WINDOWS = 64  # at a time


class Namer(NamedTuple):
    """A network, and what names hidden tokens by the vectors of their places."""

    network: Any
    name: Callable[[Float[Tensor, "k d"]], Float[Tensor, "k v"]]


def names(run: Any, encoder: LoadedEncoder) -> bool:
    """The head of mlm is in the folder of a run alone; mdlm names by the encoder itself."""
    return encoder.card.method == MDLM or (encoder.card.method == MLM and home_of(run) is not None)


def namer(run: Any, encoder: LoadedEncoder, seed: int | None = None) -> Namer:
    """As it was trained, or with weights drawn from `seed`."""
    if encoder.card.method == MDLM:
        network: Any = (encoder if seed is None else encoder.untrained(seed)).encoder
        return Namer(network.to(encoder.device), partial(_without_mask, network))
    home = home_of(run)
    assert home is not None, "asked for by `names`"
    if seed is None:
        method = load_method(home, encoder.card, encoder.modality)[0]
    else:
        method = untrained_method(home, encoder.card, encoder.modality, seed)
    method.to(encoder.device)
    return Namer(method.encoder, method.name)


def losses(
    by: Namer, streams: list[np.ndarray], size: int, bound: bool
) -> tuple[Float[np.ndarray, " t"], Int64[np.ndarray, " t"]]:
    """Nats and number of each token that was hidden, or with `bound` of each token, in order.

    In windows of `size`. What is hidden is the same for every network.
    """
    rows = [
        torch.from_numpy(stream[start : start + size])
        for stream in streams
        for start in range(0, len(stream), size)
    ]
    device = next(by.network.parameters()).device
    precise = machine.choose_precision("auto", device.type) == "fp32"
    half = torch.autocast(device.type, torch.bfloat16, enabled=not precise)
    generator = torch.Generator().manual_seed(mix(0x6D61736B))
    most, end = sum(map(len, streams)), 0
    nats, tokens = torch.empty(most, dtype=torch.float64), torch.empty(most, dtype=torch.int64)
    for low in range(0, len(rows), WINDOWS):
        x = Ragged.of(rows[low : low + WINDOWS])
        found = torch.zeros(x.shape, dtype=torch.float64)
        scored = x.valid & bound
        for hidden, weight in (_shares if bound else _some)(x, generator):
            stop.check()
            seen = Ragged(x.values.masked_fill(hidden, MASK), x.valid).to(device)
            with torch.inference_mode(), half:
                logits = by.name(by.network.features(seen)[hidden.to(device)])
            each = cross_entropy(logits.float().cpu(), x.values[hidden], reduction="none")
            found[hidden] += (weight[:, None].expand(x.shape)[hidden] * each).double()
            scored = scored | hidden
        start, end = end, end + int(scored.sum())
        nats[start:end], tokens[start:end] = found[scored], x.values[scored]
    return nats[:end].numpy(), tokens[:end].numpy()


def unigram(
    counts: Int64[np.ndarray, " v"], targets: Int64[np.ndarray, " t"]
) -> Float[np.ndarray, " t"]:
    """Nats of each token by how often it was counted, once more so that none is impossible."""
    return -np.log((counts[targets] + 1) / (counts.sum() + len(counts)))


Hiding = Iterator[tuple[Bool[Tensor, "b n"], Float[Tensor, " b"]]]  # what is hidden, its weight


def _some(x: Ragged, generator: torch.Generator) -> Hiding:
    yield choose(x, SHARE, torch.rand(x.shape, generator=generator)), torch.ones(len(x))


def _shares(x: Ragged, generator: torch.Generator) -> Hiding:
    lengths = x.valid.sum(1)
    start = torch.rand(len(x), generator=generator)
    for i in range(PASSES):  # at even steps: k is drawn evenly, with less luck
        count = 1 + (lengths * (start + i) / PASSES).long().clamp(max=lengths - 1)
        draws = torch.rand(x.shape, generator=generator).masked_fill(~x.valid, 2.0)
        hidden = x.valid & (draws.argsort(1).argsort(1) < count[:, None])
        yield hidden, lengths / count / PASSES


def _without_mask(network: Any, states: Float[Tensor, "k d"]) -> Float[Tensor, "k v"]:
    """No token is MASK (SUBS, section 3.2.3 of the paper)."""
    logits = network.logits(states).float()
    return logits.masked_fill(torch.arange(logits.shape[-1], device=logits.device) == MASK, -1e30)
