"""What a method makes of samples where that is no picture: groups, names, passages, cosines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from ..modalities import Modality
from ..shown import Alike, Continued, Groups, Guesses
from ..views.graph_picture import colour
from .page import Markup, clean, join, table, tag
from .pictures import SIDE

MOST = 12  # tokens or columns of a place
NONE = (225, 225, 225)  # of places without a group


def coloured(groups: Groups, upward: bool) -> UInt8[np.ndarray, "b h w 3"]:
    """A colour for each group, a cell for each place; those of one axis as a strip."""
    rows = groups.numbers.cpu().numpy().reshape(len(groups), -1, groups.grid[-1])
    colours = np.array([colour(i) for i in range(groups.count)] + [NONE], np.uint8)
    cells = colours[rows[:, ::-1] if upward else rows]
    shape = SIDE, SIDE // 4 if rows.shape[1] == 1 else SIDE
    resized = (Image.fromarray(c).resize(shape, Image.Resampling.NEAREST) for c in cells)
    return np.stack([np.asarray(image) for image in resized])


def in_use(found: Sequence[Groups]) -> str:
    """How many groups there are in these samples, and how often the guesses are right."""
    true = found[0].numbers
    words = (
        f"{len(true[true >= 0].unique())} of {found[0].count} groups are in use in these samples."
    )
    for guessed in found[1:]:
        there = guessed.numbers >= 0
        right = (guessed.numbers == true)[there].float().mean()
        words += f" Of the hidden places {100 * float(right):.0f} % get their own."
    return words


def told(caption: str, made: Any, names: Sequence[str], modality: Modality) -> Markup:
    """The table of one thing that a method shows."""
    draw: Any = {Guesses: _guesses, Continued: _continued, Alike: _alike}[type(made)]
    note, head, rows, numbers = draw(made, [clean(name, 60) for name in names], modality)
    title = tag("h4", clean(caption.capitalize(), 200))
    return tag("div", title, table(head, rows, caption=note, numbers=numbers))


def _guesses(made: Guesses, names: Sequence[str], modality: Modality) -> tuple:
    note = f"{made.right} of {made.of} that were hidden are guessed right; some of them:"
    rows = []
    for name, guesses in zip(names, made.rows, strict=True):
        for guess in guesses:
            true, shown = (
                [_word(modality, n) for n in part] for part in (guess.true, guess.guessed)
            )
            shown = [tag("strong", f"✓ {word}") if word in true else word for word in shown]
            cells = (join([*part[:MOST], "…"] if len(part) > MOST else part, ", ")
                     for part in (true, shown))  # fmt: skip
            rows.append([name, f"{guess.place + 1}", *cells, guess.note])
    return note, ["sample", "place", "what was there", "taken for", "how sure or near"], rows, 0


def _continued(made: Continued, names: Sequence[str], modality: Modality) -> tuple:
    note = "The beginning is given; what follows was drawn as selfsup generate does."
    rows = [
        [name, *(clean(modality.words(part), 2000) for part in parts)]
        for name, parts in zip(names, made.rows, strict=True)
    ]
    return note, ["sample", "beginning", "how it went on", "as the network goes on"], rows, 0


def _alike(made: Alike, names: Sequence[str], modality: Modality) -> tuple:
    first, second = (clean(part, 60) for part in made.parts)
    found = (made.cosines.argmax(1).cpu() == torch.arange(len(made))).sum()
    note = (
        f"Cosine of the {first} of a sample (a row) and the {second} of each (a column); "
        f"{int(found)} of {len(made)} find their own, in bold, before the others."
    )
    rows: list[list[Any]] = []
    for i, line in enumerate(made.cosines.tolist()):
        cells = [f"{value:.2f}" for value in line]
        rows.append([names[i], *(tag("strong", c) if i == j else c for j, c in enumerate(cells))])
    return note, [first, *names], rows, len(names)


def _word(modality: Modality, number: int) -> str:
    return clean(modality.words([number]), 40) or "(blank)"
