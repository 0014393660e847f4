"""Going on with a text: one token after another, each drawn from what a causal encoder expects."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .errors import SelfsupError
from .language import Cache
from .load import LoadedEncoder, load
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
    if not getattr(network, "causal", False):
        raise SelfsupError(
            "E202",
            "this encoder does not foretell text",
            why=f"it is {encoder.card.name}, made by {encoder.card.method or 'another method'}",
            do="pretrain one with --method clm",
        )
    generator = torch.Generator().manual_seed(mix(seed, 0x67656E))
    known = [END, *modality.codec.encode(prompt).tolist()]
    made: list[int] = []
    context = max(2, encoder.size - 1)  # what training showed at most
    cache, fresh = Cache(), known[-context:]
    with stop.installed(), torch.inference_mode():
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
    text = modality.decode(made)
    return Generated(prompt, text, len(made), len(made) < tokens)


def draw(
    logits: Float[Tensor, " v"], temperature: float, top_p: float, generator: torch.Generator
) -> Int64[Tensor, ""]:
    """One token: the likeliest at temperature 0, else by chance among the nucleus (1904.09751)."""
    if temperature == 0:
        return logits.argmax()
    chances, order = (logits / temperature).softmax(-1).sort(descending=True)
    before = chances.cumsum(-1) - chances  # the likeliest always stays
    chances = chances.masked_fill(before >= top_p, 0.0)
    return order[torch.multinomial(chances, 1, generator=generator)][0]
