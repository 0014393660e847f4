"""wav2vec 2.0. Baevski et al., 2020, https://arxiv.org/abs/2006.11477

Hide spans of tokens; what the trunk makes of a hidden one must find, among other hidden ones of the
same sample, a discrete version of what was there, from code books that are learned along.
Any modality whose stem gives real values in an order: waveforms, spectrograms, series.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize, one_hot

from .. import distributed, masks, needs, schedules
from ..method import Method, Views
from ..optim import Optim
from ..shown import Groups


class Wav2Vec2(Method):
    views = Views(light=1)
    optim = Optim("adamw", lr=5e-4, weight_decay=0.01, betas=(0.9, 0.98), warmup=0.08, clip=10.0)
    across_batch = True  # the diversity of codes

    def __init__(
        self,
        encoder: Any,
        *,
        ratio: float = 0.49,
        span: int = 10,
        groups: int = 2,
        codes: int = 320,
        dim: int = 256,
        negatives: int = 100,
        temperature: float = 0.1,
        gumbel: tuple[float, float] = (2.0, 0.5),
        diversity: float = 0.1,
        penalty: float = 10.0,
        stem_gradient: float = 0.1,
    ):
        super().__init__(encoder)
        needs.local("wav2vec 2.0", encoder)
        # paper: starts with probability 0.065, which hides 49 %; here the same share in every row
        self.mask = masks.spans(ratio, span)
        self.quantiser = Quantiser(encoder.stem.local_dim, dim, groups, codes)
        self.blank = nn.Parameter(torch.rand(encoder.dim))  # instead of a hidden token
        self.context, self.target = nn.Linear(encoder.dim, dim), nn.Linear(dim, dim)
        self.negatives, self.temperature = negatives, temperature
        self.gumbel = schedules.geometric(*gumbel)
        self.diversity, self.penalty, self.stem_gradient = diversity, penalty, stem_gradient

    def loss(self, views, progress):
        (x,) = views
        stem, terms = self.encoder.stem, {}
        local = stem.local(x)  # (b, n, c)
        if local.requires_grad:
            local = local * self.stem_gradient + (1 - self.stem_gradient) * local.detach()
            terms["penalty"] = self.penalty * local.float().square().mean()
        grid = stem.grid_of(tuple(x.shape[2:]))
        hidden = self.mask(len(x), grid, x.device)
        final = self.final(local, hidden, grid)
        c = self.context(masks.take(final, hidden))  # (b, k, d)
        values, p, chosen = self.quantiser(masks.take(local, hidden), self.gumbel(progress))
        wrong = others(len(c), c.shape[1], self.negatives, x.device)
        wrong = wrong & (chosen[:, :, None] != chosen[:, None]).any(-1)  # equal codes are not wrong
        terms["contrast"] = contrast(c, self.target(values), wrong, self.temperature)
        used = perplexity(distributed.gather(p.mean((0, 1))[None]).mean(0))
        terms["diversity"] = self.diversity * (1 - used.sum() / p[0, 0].numel())
        worst = p[:, :, used.argmin()].flatten(0, 1)  # codes of the book that uses fewest
        self.watch = {"embedding": final.mean(1).detach(), "assignments": worst.detach()}
        self.chance = {"contrast": math.log(1 + min(self.negatives, c.shape[1] - 1))}
        return terms

    def final(self, local, hidden, grid):
        """What the trunk makes of tokens of which some are hidden."""
        seen = self.encoder.stem.project(local)
        tokens = torch.where(hidden[..., None], self.blank.to(local.dtype), seen)
        return self.encoder.trunk(tokens + self.encoder.positions_at(grid))

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        stem, books = self.encoder.stem, self.quantiser.codes
        grid, count = stem.grid_of(tuple(x.shape[2:])), books.shape[1]
        local, hidden = stem.local(x), self.mask(len(x), grid, x.device)
        codes = self.quantiser(local, 1.0)[1].argmax(-1)  # (b, n, g), without noise
        values = torch.einsum("bngv,gvd->bngd", one_hot(codes, count).float(), books)
        c = self.context(masks.take(self.final(local, hidden, grid), hidden))
        target = normalize(masks.take(self.target(values.flatten(2)), hidden).float(), dim=-1)
        place = (normalize(c.float(), dim=-1) @ target.mT).argmax(-1)  # of the hidden ones
        found = torch.full_like(codes[..., 0], -1)
        found[hidden] = masks.take(codes[..., :1], hidden)[..., 0].gather(1, place).flatten()
        return {
            "original": x,
            "what the encoder sees": stem.unpatch(stem.patches(x) * ~hidden[..., None]),
            "the code of each place (book 1)": Groups(codes[..., 0], count, grid),
            "as found where it is hidden": Groups(found, count, grid),
        }


class Quantiser(nn.Module):
    """Product quantisation (section 2): an entry of each book, by straight-through Gumbel noise."""

    def __init__(self, inputs: int, dim: int, groups: int, codes: int):
        super().__init__()
        self.choose = nn.Linear(inputs, groups * codes)
        self.codes = nn.Parameter(torch.rand(groups, codes, dim // groups))
        nn.init.normal_(self.choose.weight)  # as in the authors' code: decided from the start
        nn.init.zeros_(self.choose.bias)

    def forward(self, local: Float[Tensor, "b k c"], temperature: float):
        """Entries (b, k, d), their probabilities without noise (b, k, g, v), numbers (b, k, g)."""
        (b, k, c), (g, v, _) = local.shape, self.codes.shape
        with torch.autocast(local.device.type, enabled=False):  # in float32, as the authors
            logits = self.choose(layer_norm(local.float(), (c,))).view(b, k, g, v)
            even = distributed.rand(b, k * g * v, local.device).view_as(logits)
            noise = -(-even.clamp(1e-7, 1 - 1e-7).log()).log()
            soft = ((logits + noise) / temperature).softmax(-1)
            chosen = soft.argmax(-1)
            hard = one_hot(chosen, v) + soft - soft.detach()
            values = torch.einsum("bkgv,gvd->bkgd", hard, self.codes).flatten(2)
            return values, logits.softmax(-1), chosen


def others(b: int, k: int, count: int, device: Any = None) -> Bool[Tensor, "b k k"]:
    """For each of k tokens, up to `count` of the others, drawn evenly."""
    itself = torch.eye(k, dtype=torch.bool, device=device)
    if k - 1 <= count:
        return (~itself).expand(b, k, k)
    draws = distributed.rand(b, k * k, device).view(b, k, k).masked_fill(itself, 2.0)
    return draws <= draws.kthvalue(count, -1, keepdim=True).values


def contrast(c: Tensor, q: Tensor, wrong: Bool[Tensor, "b k k"], temperature: float) -> Tensor:
    """Equation 3: -log p(own target | it and the wrong ones), by cosine; c and q are (b, k, d)."""
    with torch.autocast(c.device.type, enabled=False):  # in float32, as the authors
        scores = normalize(c.float(), dim=-1) @ normalize(q.float(), dim=-1).mT / temperature
    own = scores.diagonal(dim1=1, dim2=2)[..., None]
    candidates = torch.cat([own, scores.masked_fill(~wrong, -torch.inf)], -1)
    return (candidates.logsumexp(-1) - own[..., 0]).mean()


def perplexity(p: Float[Tensor, "g v"]) -> Float[Tensor, " g"]:
    """Codes in use, of each book: exp of the entropy (equation 4)."""
    return (-torch.xlogy(p, p).sum(-1)).exp()
