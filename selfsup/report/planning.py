"""The page of `selfsup plan`: how many goals were reached, and an episode frame by frame."""

import numpy as np
from PIL import Image

from .page import Markup, section, table, tag
from .pictures import Album
from .reading import Folder
from .scores import number, rows

WIDE = 1200  # pixels of the filmstrip, at most


def planning(folder: Folder) -> list[tuple[str, str, Markup]]:
    """The section, where this run was planned with."""
    planned = folder.tasks.get("plan", {})
    lines: list[list[object]] = []
    for row in rows(planned.get("scores"))[:12]:
        value, low, high = (number(row.get(key)) for key in ("value", "low", "high"))
        if value is not None and low is not None and high is not None:
            steps = number(row.get("steps"))
            span = f"{100 * low:.0f} to {100 * high:.0f}"
            taken = "—" if steps is None else f"{steps:.0f}"
            lines.append([str(row.get("of")), f"{100 * value:.0f}", span, taken])
    if not lines:
        return []
    head = ["actions by", "goals reached, %", "95 % interval", "steps"]
    about = f"Episodes in {planned.get('environment')}"
    parts: list[Markup] = [table(head, lines, caption=about, numbers=3)]
    path = folder.path / "filmstrip.png"
    if path.is_file():
        with Image.open(path) as image:
            frames = np.asarray(image.convert("RGB"))
        parts.append(tag("h3", "A planned episode"))
        parts.append(Album().image(frames, "frames of an episode", side=WIDE, exact=True))
        words = "From the first step to the last; the goal, which the plan was given, stands last."
        parts.append(tag("p", words, class_="note"))
    lead = str(planned.get("statement", ""))
    return [("planning", "Planning", section("planning", "Planning", *parts, lead=lead))]
