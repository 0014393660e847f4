"""What the network saw: the views of some samples, and what the method makes of them."""

from typing import Any

import numpy as np
import torch

from ..errors import SelfsupError
from ..modalities import Modality
from ..randomness import Draws
from ..shown import Groups
from .made import coloured, in_use, told
from .page import Markup, missing, section, tag
from .pictures import grid
from .studio import SEED, Studio, as_pictures, said, short

LOOKED_AT = 5  # samples whose views are shown
MOST_VIEWS = 8


def views(studio: Studio, again: str) -> Markup:
    """The section of samples and their views. `again` is the command that makes the report."""
    title = "What the network saw"
    if "samples" in studio.why:
        return section("views", title, missing("views;", again, studio.why["samples"]))
    try:
        method, trained = studio.method()
    except SelfsupError as error:
        return section("views", title, missing("views;", again, said(error)))
    modality, size = studio.modality, studio.card.size
    rows = studio.some(LOOKED_AT, purpose=2)
    if not len(rows):
        return section("views", title, missing("views;", again, "The samples cannot be read."))
    part = studio.batch(rows)
    spec = method.views
    with torch.no_grad():
        each = modality.views(part, spec, Draws(SEED, part.samples), size)[:MOST_VIEWS]
    kinds = (
        [f"light {i + 1}" if spec.light > 1 else "light" for i in range(spec.light)]
        + [f"strong {i + 1}" for i in range(spec.strong)]
        + [f"local {i + 1}" for i in range(spec.local)]
    )[:MOST_VIEWS]
    columns = ["whole", *kinds]
    shown = [studio.pictures(rows), *(as_pictures(modality, v) for v in each)]
    names = [short(studio.samples.name(i)) for i in rows]
    lines = [(name, [column[i] for column in shown]) for i, name in enumerate(names)]
    hidden = spec.count - len(kinds)
    plural = "s" if spec.count > 1 else ""
    words = (
        f"The network was shown {spec.count} view{plural} of each sample of a batch, drawn anew "
    )
    words += "each time."
    if hidden > 0:
        words += f" {hidden} of them are left out here."
    words += " If the views no longer show what matters to you, nothing about it can be learned."
    parts: list[Markup] = [grid(studio.album, columns, lines, caption="Samples and their views")]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        plain = modality.plain(part, size)
        made = method.show([plain] * max(1, spec.count))
    drawn, groups, rest = _sorted(made, modality)
    if made:
        state = "" if trained else " There is no checkpoint yet: these are the untrained network's."
        state = f"{' ' + in_use(groups) if groups else ''}{state}"
        parts.append(tag("h3", "Reconstructions" if drawn else "What the method makes of them"))
        what = "What the method makes of hidden parts." if drawn else "Of whole samples."
        parts.append(tag("p", f"{what}{state}", class_="note"))
    if drawn:
        lines = [(name, [v[i] for _, v in drawn]) for i, name in enumerate(names)]
        parts.append(
            grid(
                studio.album,
                [c.capitalize() for c, _ in drawn],
                lines,
                caption="Samples, what was shown of them, and what was made of that",
            )
        )
    parts += [told(caption, found, names, modality) for caption, found in rest]
    return section("views", title, parts, lead=words)


def _sorted(
    made: dict[str, Any], modality: Modality
) -> tuple[list[tuple[str, np.ndarray]], list[Groups], list[tuple[str, Any]]]:
    """What is drawn, the groups among it, and what is told in tables."""
    drawn, groups, rest = [], [], []
    for caption, found in made.items():
        if isinstance(found, Groups):
            groups.append(found)
            drawn.append((caption, coloured(found, modality.upward)))
        elif hasattr(found, "shape"):
            drawn.append((caption, as_pictures(modality, found)))
        else:
            rest.append((caption, found))
    return drawn, groups, rest
