"""Looks at samples that are stored as numbers of tokens, two bytes each: text, amino acids."""

from collections.abc import Callable, Collection, Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from ..data.batch import Batch
from ..method import Views
from ..ragged import Ragged
from ..randomness import Draws
from ..stems import MASK, SPECIAL
from ..tokens import SHOWN

OPERATIONS = ("crop", "drop", "mask")  # that the setting `without` leaves out
SHARES = {"drop": 0.1, "mask": 0.1}  # of a strong view's tokens


def packed(tokens: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n2 1 1"]:
    """A sample as the store keeps it."""
    return tokens.astype("<u2").view(np.uint8).reshape(-1, 1, 1)


def views(
    batch: Batch, spec: Views, draws: Draws, size: int, without: Collection[str] = ()
) -> list[Ragged]:
    """Windows of up to `size` tokens, at any place of longer samples.

    Strong views show a part (`spec.share`) of such a window and leave out one token in ten and
    hide one in ten; local ones show less of it.
    """
    stored, lengths = stored_of(batch)
    made = []
    for number in range(spec.count):
        own = draws.of_view(number)
        n = lengths.clamp(max=size)
        first = (own.uniform() * (lengths - n + 1)).long()
        if number >= spec.light:
            local = number >= spec.light + spec.strong
            low, high = spec.local_share if local else spec.share
            part = (n * own.uniform(low, high)).round().long().clamp(min=min(8, size))
            part = part.minimum(n)
            first = first + (own.uniform() * (n - part + 1)).long()
            n = part
        if "crop" in without:
            first, n = torch.zeros_like(n), lengths.clamp(max=size)
        view = window(stored, first, n)
        made.append(view if number < spec.light else _disturbed(view, own, size, without))
    return made


def first(batch: Batch, size: int) -> Ragged:
    """The first `size` tokens."""
    stored, lengths = stored_of(batch)
    return window(stored, torch.zeros_like(lengths), lengths.clamp(max=size))


def rows(batch: Batch) -> list[Int64[np.ndarray, " n"]]:
    """The tokens that were stored of each sample."""
    stored, lengths = stored_of(batch)
    tokens = stored.cpu().numpy().view(np.uint16).astype(np.int64)
    return [row[:n] for row, n in zip(tokens, lengths.tolist(), strict=True)]


def shares(batch: Batch, count: int) -> Float[Tensor, "b v"]:
    """How often each token occurs, as a share of the sample."""
    stored, lengths = stored_of(batch)
    there = torch.arange(stored.shape[1], device=stored.device) < lengths[:, None]
    counts = torch.zeros(len(stored), count, device=stored.device)
    counts.scatter_add_(1, (stored.long() & 0xFFFF) * there, there.float())
    return counts / lengths[:, None]


def picture(x: Ragged, decode: Callable[[Iterable[int]], str]) -> UInt8[Tensor, "b 3 h w"]:
    """The beginning of each sample, written."""
    pairs = zip(x.values.cpu(), x.valid.cpu(), strict=True)
    made = [written(decode(values[valid].tolist())) for values, valid in pairs]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


def stored_of(batch: Batch) -> tuple[Tensor, Int64[Tensor, " b"]]:
    """Tokens as they lie in the batch, (b, longest) int16, and how many there are of each."""
    stored = batch.pixels[:, 0, :, 0].contiguous().view(torch.int16)
    if batch.extents is None:
        return stored, torch.full((len(stored),), stored.shape[1], device=stored.device)
    return stored, batch.extents[:, 0].to(stored.device) // 2


def window(stored: Tensor, first: Tensor, n: Tensor) -> Ragged:
    """`n` tokens of each row from its `first` on."""
    longest = int(n.max())
    within = torch.arange(longest, device=stored.device)
    valid = within < n[:, None]
    place = (first[:, None] + within).clamp(max=stored.shape[1] - 1)
    values = stored.gather(1, place).long() & 0xFFFF  # stored without sign
    return Ragged(values * valid, valid)


def _disturbed(x: Ragged, draws: Draws, size: int, without: Collection[str]) -> Ragged:
    """One token in ten left out and one in ten hidden; special ones stay."""
    share = SHARES | dict.fromkeys(without, 0.0)
    n = x.shape[1]
    fate = draws.uniform(n=size)[:, :n]
    free = x.values >= SPECIAL
    values = x.values.masked_fill(free & (fate > 1 - share["mask"]), MASK)
    stays: Bool[Tensor, "b n"] = x.valid & ~(free & (fate < share["drop"]))
    order = torch.argsort(
        (~stays).long(), dim=1, stable=True
    )  # those that stay come first, in order
    lengths = stays.sum(1).clamp(min=1)
    valid = torch.arange(n, device=values.device) < lengths[:, None]
    return Ragged(values.gather(1, order) * valid, valid)


def written(text: str, side: int = 160) -> UInt8[np.ndarray, "h w 3"]:
    from textwrap import wrap

    from PIL import Image, ImageDraw, ImageFont

    end, hidden, _ = SHOWN  # signs that the font has not
    text = text.strip(end).replace(end, " | ").replace(hidden, "_")
    sheet = Image.new("RGB", (side, side), (250, 250, 247))
    font = ImageFont.load_default(11)
    wide = 20 if text.isupper() else 26  # capitals, of amino acids, are wider
    lines = [part for line in text[:1000].split("\n") for part in wrap(line, wide) or [""]]
    ImageDraw.Draw(sheet).multiline_text((4, 3), "\n".join(lines[:12]), (30, 30, 30), font=font)
    return np.asarray(sheet)
