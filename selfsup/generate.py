"""Going on with a text: each token drawn from what an encoder expects.

A causal encoder writes one token after another; one that sees both sides and was trained by mdlm
fills hidden ones in any order.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .errors import SelfsupError
from .language import Cache, draw
from .load import LoadedEncoder, load
from .ragged import Ragged
from .randomness import mix
from .stems import END, MASK, UNKNOWN
from .stop import stop


@dataclass(frozen=True)
class Generated:
    """`text` is what was added to `prompt`."""

    prompt: str
    text: str
    tokens: int
    ended: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return self.prompt + self.text


def generate(
    run: str | Path | Any,
    prompt: str = "",
    *,
    tokens: int = 200,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> Generated:
    """Up to `tokens` tokens after `prompt`; fewer where the document ends.

    `temperature` 0 takes the likeliest each time; `top_p` draws from the fewest tokens that have
    that share of the probability together. The same seed gives the same text.
    Raises SelfsupError E202 for an encoder that foretells nothing, E201 for odd settings.
    """
    if tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise SelfsupError(
            "E201",
            f"tokens {tokens}, temperature {temperature}, top_p {top_p}",
            why="at least one token, no temperature below 0, and a share above 0 up to 1",
        )
    encoder = run if isinstance(run, LoadedEncoder) else load(run)
    network: Any = encoder.encoder
    modality: Any = encoder.modality
    fills = encoder.card.method == "mdlm"
    if not hasattr(modality, "codec") or not (fills or getattr(network, "causal", False)):
        raise SelfsupError(
            "E202",
            "this encoder does not foretell text",
            why=f"it is {encoder.card.name}, made by {encoder.card.method or 'another method'}",
            do="pretrain one with --method clm or mdlm",
        )
    generator = torch.Generator().manual_seed(mix(seed, 0x67656E))
    known = [END, *modality.codec.encode(prompt).tolist()]
    with stop.installed(), torch.inference_mode():
        write = _filled if fills else _followed
        made = write(encoder, known, tokens, temperature, top_p, generator)
    text = modality.decode(made)
    return Generated(prompt, text, len(made), len(made) < tokens)


def _followed(
    encoder: Any, known: list[int], tokens: int, temperature: float, top_p: float, generator: Any
) -> list[int]:
    """One token after another, by a causal encoder."""
    network, made = encoder.encoder, []
    context = max(2, encoder.size - 1)  # what training showed at most
    cache, fresh = Cache(), known[-context:]
    while len(made) < tokens:
        stop.check()
        if cache.length + len(fresh) > context:  # anew, with the later half of it
            cache, fresh = Cache(), (known + made)[-max(1, context // 2) :]
        states = network.step(torch.tensor([fresh], device=encoder.device), cache)
        logits = network.logits(states[0, -1]).float().cpu()
        logits[[MASK, UNKNOWN]] = -torch.inf
        token = int(draw(logits, temperature, top_p, generator))
        if token == END:
            break
        made.append(token)
        fresh = [token]
    return made


def _filled(
    encoder: Any, known: list[int], tokens: int, temperature: float, top_p: float, generator: Any
) -> list[int]:
    """Stretches of half a context, each filled in any order after what came before it."""
    made: list[int] = []
    while len(made) < tokens:
        before = (known + made)[-max(1, encoder.size // 2) :]
        count = min(tokens - len(made), max(1, encoder.size - len(before)))
        new = denoised(
            encoder.encoder, before, count, temperature, top_p, generator, encoder.device
        )
        if END in new:
            return made + new[: new.index(END)]
        made += new
    return made


def denoised(
    network: Any,
    known: list[int],
    count: int,
    temperature: float,
    top_p: float,
    generator: torch.Generator,
    device: torch.device | None = None,
) -> list[int]:
    """`count` tokens after the known ones, hidden at first (MDLM, arXiv 2406.07524, section 4).

    Time goes from 1 to 0 in as many steps; in each a token appears with the probability that takes
    it from one share of hidden ones to the next. A step in which none does costs nothing.
    """
    x = torch.tensor([known + [MASK] * count], device=device)
    there = torch.ones_like(x, dtype=torch.bool)
    for left in range(count, 0, -1):  # of the steps
        stop.check()
        hidden = (x[0] == MASK).nonzero()[:, 0]
        hidden = hidden[hidden >= len(known)]
        appears = torch.rand(len(hidden), generator=generator) < 1 / left
        if not appears.any():
            continue
        places = hidden[appears.to(hidden.device)]
        logits = network.logits(network.features(Ragged(x, there))[0, places]).cpu().double()
        logits[:, [MASK, UNKNOWN]] = -torch.inf
        for place, row in zip(places.tolist(), logits, strict=True):
            x[0, place] = draw(row, temperature, top_p, generator)
    return x[0, len(known) :].tolist()
