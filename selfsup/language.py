"""Encoders of tokens from a vocabulary: text, source code, proteins.

The modern trunk: rotary positions (arXiv 2104.09864), normalisation before each part, gated units
(arXiv 2002.05202), no biases. Documents of different lengths share rows, and no token looks at
padding or at another document; with `causal` it looks at those before it alone.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn.functional import gelu

from . import distributed
from .attention import attend
from .chunks import Chunked, in_chunks
from .errors import SelfsupError
from .ragged import Ragged, mean, those
from .randomness import _hash, droppable
from .stems import MASK, Vocabulary

ROTATION = 10_000.0  # the longest wave of the positions, in tokens, over 2 pi
LENGTHS = 8  # rows are as long as a multiple of this: odd sizes are slow everywhere
WIDER = (1.0, 1.5, 2.0)  # rows, in lengths of the longest document

# Bidirectional for masked tokens, causal for the next token; the sizes are BERT's and GPT's
BIDIRECTIONAL = {
    "bert_micro": {"dim": 128, "depth": 4, "heads": 4},
    "bert_mini": {"dim": 256, "depth": 4, "heads": 4},
    "bert_small": {"dim": 384, "depth": 6, "heads": 6},
    "bert_base": {"dim": 768, "depth": 12, "heads": 12},
}
CAUSAL = {
    "gpt_micro": {"dim": 128, "depth": 4, "heads": 4},
    "gpt_mini": {"dim": 256, "depth": 4, "heads": 4},
    "gpt_small": {"dim": 384, "depth": 6, "heads": 6},
    "gpt_base": {"dim": 768, "depth": 12, "heads": 12},
}


class Trunk(Chunked):
    """Vocabulary, blocks, and a vector for each token. `forward` is the mean over a document.

    Views are `Ragged` token numbers (b, n). `size` is the context, in tokens: the longest view
    that training shows; longer ones are taken all the same. With `rescale` hidden tokens come in as
    zeros and the others larger by as much as is missing (ESM's token dropout). `dropout` is of what
    comes in and of what each block adds.

    A block makes of states what they were before its last part and what that part adds; `context`
    is what blocks are told beside the states, `gap` how far apart documents of one row must be.
    """

    blocks: nn.ModuleList
    norm: nn.LayerNorm
    causal = False
    gap = 0

    def __init__(
        self, size: int, vocabulary: int, dim: int, rescale: bool = False, dropout: float = 0.0
    ):
        super().__init__()
        self.dim, self.size, self.grid, self.rescale = dim, size, (size,), rescale
        self.dropout = droppable(dropout)
        self.stem = Vocabulary(vocabulary, dim)

    def context(self, states: Float[Tensor, "r w d"], layout: "Layout | None") -> tuple:
        raise NotImplementedError

    @in_chunks
    def features(self, x: Ragged) -> Float[Tensor, "b n d"]:
        """One vector for each token; zeros where there is padding."""
        layout = Layout.of(x, self.gap)
        return self._places(self._states(x, layout), x, layout)

    def added(self, x: Ragged, last: int) -> list[Float[Tensor, "b n d"]]:
        """What the last part of each of the last blocks adds to each token, nothing dropped."""
        layout, found = Layout.of(x, self.gap), []
        states, context = self._entering(x, layout)
        for block in self.blocks:
            states, part = block(states, *context, _same)
            states = states + part
            found.append(part)
        return [self._places(part, x, layout) for part in found[-last:]]

    def at(self, x: Ragged, where: Bool[Tensor, "b n"]) -> Float[Tensor, "k d"]:
        """The vectors of some tokens that are there, in reading order."""
        layout = Layout.of(x, self.gap)
        states = self._states(x, layout)
        if layout is None:
            return those(states, where)
        return states.flatten(0, 1)[layout.place[where[x.valid]]]

    def forward(self, x: Ragged) -> Float[Tensor, "b d"]:
        return mean(self.features(x), x.valid)

    def logits(self, states: Float[Tensor, "*k d"]) -> Float[Tensor, "*k v"]:
        """A score for each token of the vocabulary: by the vectors that tokens come in with."""
        return nn.functional.linear(states, self.stem.tokens)

    def _places(self, states: Tensor, x: Ragged, layout: "Layout | None") -> Tensor:
        """States laid out in rows, (r, w, d), each back at its token: (b, n, d)."""
        if layout is None:
            return states
        full = states.new_zeros(*x.shape[:2], self.dim)
        full[x.valid] = states.flatten(0, 1)[layout.place]
        return full

    def _entering(self, x: Ragged, layout: "Layout | None") -> tuple[Tensor, tuple]:
        """The tokens, laid out, and what blocks are told beside them."""
        states = self.stem(x.values if layout is None else layout.rows(x.values, x.valid))
        if self.rescale:
            weight = rescaled(x)
            if layout is not None:
                weight = layout.rows(weight, x.valid)
            states = states * weight.to(states.dtype)[:, :, None]
        return states, self.context(states, layout)

    def _states(self, x: Ragged, layout: "Layout | None") -> Float[Tensor, "r w d"]:
        states, context = self._entering(x, layout)
        drop = Dropout.of(x, layout, self.dropout) if self.training and self.dropout else _same
        states = drop(states)
        for block in self.blocks:
            states, part = block(states, *context, drop)
            states = states + drop(part)
        return self.norm(states)


class Language(Trunk):
    """The transformer: its blocks are told turns of positions, and who must not look."""

    def __init__(
        self,
        size: int,
        vocabulary: int,
        *,
        dim: int,
        depth: int,
        heads: int,
        causal: bool,
        rescale: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__(size, vocabulary, dim, rescale, dropout)
        if dim % (2 * heads):
            raise SelfsupError(
                "E202", f"a width of {dim} with {heads} heads", why="heads have an even width"
            )
        self.causal = causal
        self.blocks = nn.ModuleList(Block(dim, heads, causal) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for block in self.blocks:  # GPT-2: what is added to the stream starts small
            assert isinstance(block, Block)
            for last in (block.proj, block.down):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * depth))

    def context(self, states: Float[Tensor, "r w d"], layout: "Layout | None") -> tuple:
        turns = rotations(0, states.shape[1], self.blocks[0].width, states.device)
        return turns, None if layout is None else layout.bias(self.causal)

    def narrowed(self, share: float) -> "Language":
        """As deep, with some of the heads; for a vocabulary that is put in."""
        block = self.blocks[0]
        heads = max(1, round(share * block.heads))
        return Language(
            self.size, 1, dim=heads * block.width, depth=len(self.blocks), heads=heads,
            causal=self.causal,
        )  # fmt: skip

    def step(self, tokens: Int64[Tensor, "b m"], cache: "Cache") -> Float[Tensor, "b m d"]:
        """The vectors of further tokens of texts that `cache` holds, which grows by them."""
        states = self.stem(tokens)
        turns = rotations(cache.length, tokens.shape[1], self.blocks[0].width, states.device)
        for number, block in enumerate(self.blocks):
            states = block.step(states, turns, cache, number)
        cache.length += tokens.shape[1]
        return self.norm(states)


def rescaled(x: Ragged) -> Float[Tensor, "b n"]:
    """Zero at hidden tokens, elsewhere 1 / (1 - share of the sample that is hidden).

    ESM (https://www.pnas.org/doi/10.1073/pnas.2016239118) multiplies by the usual share that is
    left as well, 0.88; the learned vectors have any size, and so it is left out: where nothing is
    hidden, nothing changes.
    """
    hidden = (x.values == MASK) & x.valid
    left = 1 - hidden.sum(1) / x.lengths.clamp(min=1)
    return (~hidden).float() / left.clamp(min=1 / x.shape[1])[:, None]


class Cache:
    """Keys and values of the tokens so far, for each block."""

    def __init__(self) -> None:
        self.length = 0
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def grow(self, number: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values (b, h, length, d / h) of a block, with the new ones."""
        if number in self.kept:
            before = self.kept[number]
            k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        self.kept[number] = k, v
        return k, v


def draw(
    logits: Float[Tensor, " v"],
    temperature: float,
    top_p: float,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, ""]:
    """One token: the likeliest at temperature 0, else by chance among the nucleus (1904.09751)."""
    if temperature == 0:
        return logits.argmax()
    chances, order = (logits / temperature).softmax(-1).sort(descending=True)
    before = chances.cumsum(-1) - chances  # the likeliest always stays
    chances = chances.masked_fill(before >= top_p, 0.0)
    return order[torch.multinomial(chances, 1, generator=generator)][0]


class Block(nn.Module):
    """Attention and gated units, each after a normalisation and added to the stream."""

    def __init__(self, dim: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.width, self.causal = heads, dim // heads, causal
        hidden = 16 * round(dim / 6)  # 8/3 of the width: as many weights as 4 without gates
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.up = nn.Linear(dim, 2 * hidden, bias=False)  # gates, then what they let through
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x, turns, bias, drop):
        q, k, v = self._split(x, turns)
        mixed = attend(q, k, v, bias=bias, causal=self.causal and bias is None)
        x = x + drop(self.proj(mixed.transpose(1, 2).flatten(2)))
        return x, self.units(x)

    def units(self, x):
        gate, value = self.up(self.norm2(x)).chunk(2, -1)
        return self.down(gelu(gate) * value)

    def step(self, x, turns, cache: Cache, number: int):
        q, k, v = self._split(x, turns)
        k, v = cache.grow(number, k, v)
        bias = None
        if q.shape[2] > 1:  # several new tokens: each sees those before it
            before = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
            bias = hidden_where(~before.tril(k.shape[2] - q.shape[2]), q.dtype)[None, None]
        mixed = attend(q, k, v, bias=bias)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.units(x)

    def _split(self, x, turns) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, turned by their positions, and values: (b, h, n, d / h) each."""
        b, n, _ = x.shape
        return Turned.apply(self.qkv(self.norm1(x)).view(b, n, 3, self.heads, self.width), turns)


def _same(x: Tensor) -> Tensor:
    return x


class Dropout(NamedTuple):
    """Numbers drawn by the token they belong to, wherever it was laid out and on whatever rank.

    Eight at once from a hash, as in `randomness.dropout`; `share` is rounded to 1/256.
    """

    tokens: Int64[Tensor, "r w"]  # a number for each token of the batch of all ranks
    share: float

    @classmethod
    def of(cls, x: Ragged, layout: "Layout | None", share: float) -> "Dropout":
        b, n = x.shape[:2]
        rows = torch.arange(b, device=x.device) + distributed.rank() * b
        tokens = rows[:, None] * (1 << 32) + torch.arange(n, device=x.device)
        return cls(tokens if layout is None else layout.rows(tokens, x.valid), share)

    def __call__(self, x: Float[Tensor, "r w d"]) -> Float[Tensor, "r w d"]:
        threshold = round(256 * self.share)
        seed = torch.randint(1 << 62, ()).to(x.device)
        lanes = torch.arange(-(-x.shape[-1] // 8), device=x.device)
        draws = _hash(_hash(self.tokens + seed)[..., None] + lanes).view(torch.uint8)
        return x * ((draws[..., : x.shape[-1]] >= threshold) * (256 / (256 - threshold)))


def rotations(start: int, n: int, width: int, device: torch.device) -> Complex[Tensor, "n f"]:
    """The turn of each pair of numbers at each position; f = width / 2."""
    pairs = torch.arange(0, width, 2, device=device, dtype=torch.float64)
    angles = torch.arange(start, start + n, device=device, dtype=torch.float64)
    angles = angles[:, None] * ROTATION ** -(pairs / width)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


class Turned(torch.autograd.Function):
    """Queries and keys turned by their positions (arXiv 2104.09864, equation 34), and values.

    From (b, n, 3, h, d) to three of (b, h, n, d), each laid out as attention wants them. A product
    of complex numbers takes a third of the time of its real form; backwards it turns back.
    """

    @staticmethod
    def forward(ctx, qkv, turns):
        ctx.save_for_backward(turns)
        # (3, b, h, n, d)
        parts = qkv.permute(2, 0, 3, 1, 4).clone(memory_format=torch.contiguous_format)
        both = parts[:2]
        both.copy_(_turn(both, turns, copy=False))
        return parts.unbind(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dq, dk, dv):
        (turns,) = ctx.saved_tensors
        b, h, n, d = dq.shape
        grad, back = dq.new_empty(b, n, 3, h, d), turns.conj()
        dq, dk = (_turn(part, back, copy=True) for part in (dq, dk))
        for place, part in enumerate((dq, dk, dv)):
            grad[:, :, place] = part.transpose(1, 2)
        return grad, None


def _turn(
    x: Float[Tensor, "*b n d"], turns: Complex[Tensor, "n f"], *, copy: bool
) -> Float[Tensor, "*b n d"]:
    """Neighbours in the last axis as the parts of a complex number, which is multiplied.

    In place, which is faster; without `copy` that may be the memory of x.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    x = x.to(wide, copy=copy, memory_format=torch.contiguous_format)
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(turns)
    return x


# ---- documents of different lengths ----------------------------------------------------------


class Layout(NamedTuple):
    """Documents laid out in rows, several in one where they fit: (r, w) places.

    place: where each token that is there went, counted over all rows, in reading order.
    document: (r, w), the number of the document at each place; -1 is padding.
    """

    place: Int64[Tensor, " t"]
    document: Int64[Tensor, "r w"]

    @classmethod
    def of(cls, x: Ragged, gap: int = 0) -> "Layout | None":
        """None where all rows are full, so that there is nothing to lay out.

        At least `gap` places without a token lie between two documents of a row.
        """
        lengths = x.lengths.cpu().numpy()
        if (lengths == x.shape[1]).all():
            return None
        width, row, start = fitted(lengths + gap)
        count = int(row.max(initial=0)) + 1
        first = np.repeat(row * width + start, lengths)
        within = np.arange(len(first)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        place = first + within
        document = np.full(count * width, -1)
        document[place] = np.repeat(np.arange(len(lengths)), lengths)
        made = (torch.from_numpy(a).to(x.device) for a in (place, document.reshape(count, width)))
        return cls(*made)

    def rows(self, values: Shaped[Tensor, "b n"], valid: Bool[Tensor, "b n"]) -> Tensor:
        """One value for each token, laid out: (r, w), zero where there is padding."""
        laid = values.new_zeros(self.document.shape)
        laid.view(-1)[self.place] = values[valid]
        return laid

    def bias(self, causal: bool) -> Float[Tensor, "r 1 w w"]:
        """Minus infinity where a token must not look: another document, padding, later tokens.

        Padding sees padding, since a softmax over nothing is not a number.
        """
        apart = self.document[:, :, None] != self.document[:, None, :]
        if causal:
            later = torch.ones(apart.shape[1:], dtype=torch.bool, device=apart.device).triu(1)
            apart = apart | later
        return hidden_where(apart, torch.float32)[:, None]


def fitted(lengths: Int64[np.ndarray, " b"]) -> tuple[int, np.ndarray, np.ndarray]:
    """The width of rows, and row and start of each document.

    Rows as long as the longest document; longer ones are tried where those are a tenth empty.
    """
    tried = []
    for times in WIDER:
        width = LENGTHS * max(1, math.ceil(times * lengths.max(initial=0) / LENGTHS))
        row, start = packed(lengths, width)
        places = width * (int(row.max(initial=0)) + 1)
        tried.append((places, width, row, start))
        if lengths.sum() > 0.9 * places:
            break
    _, width, row, start = min(tried, key=lambda one: one[0])
    return width, row, start


def packed(lengths: Int64[np.ndarray, " b"], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and start of each document: the longest first, each into the first row with room."""
    row, start = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    room = np.full(len(lengths), width, np.int64)
    for i in np.argsort(-lengths, kind="stable").tolist():
        chosen = int((room >= lengths[i]).argmax())
        row[i], start[i] = chosen, width - room[chosen]
        room[chosen] -= lengths[i]
    return row, start


def hidden_where(hidden: Bool[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(
        hidden, -math.inf
    )


def language(
    name: str,
    size: int,
    vocabulary: int,
    *,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    rescale: bool = False,
    dropout: float = 0.0,
) -> Language:
    """A transformer over a vocabulary: bert_* sees both sides, gpt_* only what came before."""
    shape = dict(BIDIRECTIONAL.get(name) or CAUSAL[name])
    shape |= {k: v for k, v in {"dim": dim, "depth": depth, "heads": heads}.items() if v}
    return Language(
        size, vocabulary, **shape, causal=name in CAUSAL, rescale=rescale, dropout=dropout
    )
