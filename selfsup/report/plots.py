"""Curves, intervals and point clouds as inline SVG, coloured by the style sheet.

Colours come from classes, so that one picture serves light, dark and print. Colour never stands
alone: series also differ in dash, groups of points in shape, and each figure says in words what it
shows. A drawing is 340 units wide, about the pixels it gets, which keeps its text readable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

import numpy as np

from .page import Markup, join, tag, text

POINTS = 1000
WIDTH, HEIGHT = 340, 190


@dataclass(frozen=True)
class Series:
    """A curve. `low` and `high` are the ends of an interval at each point; `faint` draws it behind
    the others; `colour` is its place in the palette."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    colour: int | None = None
    faint: bool = False


@dataclass(frozen=True)
class Interval:
    """A value with its interval in a row of its own, under the heading `group`."""

    group: str
    name: str
    value: float
    low: float
    high: float
    colour: int


def thin(x: np.ndarray, y: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `points` of a curve (n,), (n,) that look like all of them: each of points/2 stretches
    keeps its lowest and its highest value, so that no spike is lost. Values that are not finite
    are left out."""
    good = np.isfinite(y) & np.isfinite(x)
    x, y = x[good], y[good]
    if len(x) <= points:
        return x, y
    edges = np.linspace(0, len(x), points // 2 + 1).astype(np.int64)
    stretch = np.repeat(np.arange(points // 2), np.diff(edges))
    by_value = np.lexsort((y, stretch))  # within each stretch from the lowest to the highest
    keep = np.unique(np.concatenate([by_value[edges[:-1]], by_value[edges[1:] - 1]]))
    return x[keep], y[keep]


def smooth(y: np.ndarray, window: int) -> np.ndarray:
    """The centred moving mean of y (n,), whose window shrinks at the ends."""
    if window < 2 or len(y) < 3:
        return y
    total = np.concatenate([[0.0], np.cumsum(y)])
    i = np.arange(len(y))
    half = np.minimum(np.minimum(i, len(y) - 1 - i), window // 2)
    return (total[i + half + 1] - total[i - half]) / (2 * half + 1)


def number(value: float | None) -> str:
    """Four digits that mean something; thousands apart; the same width wherever possible."""
    if value is None:
        return "—"
    if not isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 1000:
        return f"{value:,.0f}"
    shown = f"{value:.{max(0, 3 - floor(log10(size)))}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def ticks(low: float, high: float, count: int = 4, *, whole: bool = False) -> list[float]:
    """Round numbers within [low, high], about `count` of them; integers where `whole`."""
    span = high - low
    if span <= 0 or not isfinite(span):
        return [low]
    step = 10 ** floor(log10(span / count))
    step *= min((m for m in (1, 2, 2.5, 5, 10) if span / (step * m) <= count), default=10)
    if whole:
        step = max(1, round(step))
    first = ceil(low / step - 1e-9)
    return [i * step for i in range(first, floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    for parts in ((1, 2, 5), (1,)):
        found = [
            m * 10.0**d
            for d in decades
            for m in parts
            if low * 0.999 <= m * 10.0**d <= high * 1.001
        ]
        if len(found) <= count + 1:
            break
    every = ceil(len(found) / (count + 1))
    return found[::every] or [low]


class Axis:
    """Values to places on the drawing, straight or logarithmic."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False):
        if log and low <= 0:
            raise ValueError(f"a logarithmic axis cannot begin at {low}")
        if high <= low:
            pad = abs(low) * 0.1 or 1.0
            low, high = (low / 2, high * 2) if log else (low - pad, high + pad)
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def __call__(self, value):
        if self.log:
            share = (np.log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int, *, whole: bool = False) -> list[float]:
        if self.log:
            return log_ticks(self.low, self.high, count)
        return ticks(self.low, self.high, count, whole=whole)


def lines(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "step",
    unit: str = "",
    note: object = None,
    log_x: bool = False,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    reference: tuple[float, str] | None = None,
    stops: Sequence[float] = (),
    width: int = WIDTH,
    height: int = HEIGHT,
    percent: bool = False,
    from_zero: bool = False,
) -> Markup:
    """A figure of curves. `reference` is a level worth comparing with and its name; `stops` are
    places on the x axis where something happened (a value that was not finite)."""
    series = [s for s in series if np.isfinite(s.y).any()]
    if not series:
        return Markup("")
    show = (lambda v: f"{100 * v:.1f} %") if percent else number
    x_all = np.concatenate([s.x for s in series])
    y_all = np.concatenate([v for s in series for v in (s.y, s.low, s.high) if v is not None])
    y_all = y_all[np.isfinite(y_all)]
    top, bottom = float(y_all.max()), float(y_all.min())
    if reference is not None:
        top, bottom = max(top, reference[0]), min(bottom, reference[0])
    pad = (top - bottom) * 0.06
    # An axis that nearly reaches zero should: the eye then compares heights.
    floor_ = 0.0 if 0 <= bottom < (top if from_zero else 0.35 * top) else bottom - pad
    named = x_ticks is None
    y_axis = Axis(floor_, top + pad, height - 26, 14)
    labels = y_axis.ticks(4)
    fine = percent and len(labels) > 1 and labels[1] - labels[0] < 0.01
    y_show = (lambda v: f"{100 * v:.{1 if fine else 0}f} %") if percent else number
    left = 14 + 6.4 * max(len(y_show(v)) for v in labels)
    x_axis = Axis(float(x_all.min()), float(x_all.max()), left, width - 10, log=log_x)

    parts: list[Markup] = []
    for value in labels:
        y = round(float(y_axis(value)), 1)
        parts.append(tag("path", class_="gridline", d=Markup(f"M{left:.0f} {y}H{width - 10}")))
        parts.append(
            tag("text", y_show(value), x=round(left - 6, 1), y=round(y + 4, 1), text_anchor="end")
        )
    x_marks = (
        [(v, number(v)) for v in x_axis.ticks(4, whole=True)] if named else list(x_ticks or ())
    )
    for value, word in x_marks:
        x = round(float(x_axis(value)), 1)
        parts.append(tag("text", word, x=x, y=height - 11, text_anchor="middle"))
    parts.append(tag("path", class_="axis", d=Markup(f"M{left:.0f} {height - 26}H{width - 10}")))
    parts.append(tag("text", x_label, x=width - 10, y=height, text_anchor="end"))
    if reference is not None:
        y = round(float(y_axis(reference[0])), 1)
        parts.append(tag("path", class_="mark", d=Markup(f"M{left:.0f} {y}H{width - 10}")))
        parts.append(tag("text", reference[1], x=width - 12, y=y - 4, text_anchor="end"))
    for place in stops:
        x = round(float(x_axis(place)), 1)
        parts.append(tag("path", class_="mark", d=Markup(f"M{x} 14V{height - 26}")))

    words = []
    for i, s in enumerate(series):
        colour = (s.colour if s.colour is not None else i) % 8
        kept = np.isfinite(s.y)
        x, y = x_axis(s.x[kept]), y_axis(s.y[kept])
        if not len(x):
            continue
        look = "raw" if s.faint else f"line dash{colour % 4}"
        few = len(x) <= 12
        if s.low is not None and s.high is not None:
            aside = 2.5 * (i - (len(series) - 1) / 2)  # bars at one place would hide each other
            ends = [
                f"M{a + aside:.1f} {b:.1f}V{c:.1f}"
                for a, b, c in zip(x, y_axis(s.low[kept]), y_axis(s.high[kept]), strict=True)
                if isfinite(b) and isfinite(c)
            ]
            parts.append(tag("path", class_=f"whisker s{colour}", d=Markup("".join(ends))))
        if len(x) > 1:
            parts.append(tag("path", class_=f"{look} s{colour}", d=Markup(path(x, y))))
        if few and not s.faint:
            dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True))
            parts.append(tag("path", class_=f"dots round s{colour}", d=Markup(dots)))
        if not s.faint:
            first, last = float(s.y[kept][0]), float(s.y[kept][-1])
            words.append(
                f"{s.name}: {show(first)} at {number(float(s.x[kept][0]))}, "
                f"{show(last)} at {number(float(s.x[kept][-1]))}, "
                f"lowest {show(float(np.nanmin(s.y)))}, highest {show(float(np.nanmax(s.y)))}"
            )
    shown = [s for s in series if not s.faint]
    keys = (
        legend(
            [
                (s.name, s.colour if s.colour is not None else i)
                for i, s in enumerate(series)
                if not s.faint
            ]
        )
        if len(shown) > 1
        else None
    )
    heading = f"{title} ({unit})" if unit else title
    return figure(heading, parts, f"{title}. {'; '.join(words)}.", height, keys, note, width=width)


def path(x: np.ndarray, y: np.ndarray) -> str:
    """Points (n,), (n,) as the data of an SVG path, to a tenth of a unit."""
    pairs = np.round(np.stack([x, y], 1), 1).tolist()
    return "M" + "L".join(f"{a:g} {b:g}" for a, b in pairs)


def legend(names: Sequence[tuple[str, int]]) -> Markup:
    def key(colour: int) -> Markup:
        colour %= 8
        stroke = tag("path", class_=f"line dash{colour % 4} s{colour}", d="M1 6H25")
        return tag("svg", stroke, viewBox="0 0 26 12", aria_hidden="true")

    return tag("ul", [tag("li", key(c), tag("span", n)) for n, c in names], class_="legend")


def intervals(
    title: str, rows: Sequence[Interval], *, note: object = None, unit: str = "%"
) -> Markup:
    """Values with their intervals, one row each, grouped: what overlaps is seen at once."""
    if not rows:
        return Markup("")
    lows = min(min(r.low, r.value) for r in rows)
    highs = max(max(r.high, r.value) for r in rows)
    pad = (highs - lows) * 0.08 or 1.0
    groups = list(dict.fromkeys(r.group for r in rows))
    width, left, step = 460, 150, 19
    height = 8 + sum(20 + step * sum(r.group == g for r in rows) + 6 for g in groups) + 22
    axis = Axis(lows - pad, highs + pad, left, width - 52)
    parts, words, y = [], [], 8
    for value in axis.ticks(5):
        x = round(float(axis(value)), 1)
        parts.append(tag("path", class_="gridline", d=Markup(f"M{x} 6V{height - 22}")))
        parts.append(
            tag("text", f"{number(value)} {unit}", x=x, y=height - 6, text_anchor="middle")
        )
    for group in groups:
        y += 14
        parts.append(tag("text", group, x=0, y=y, class_="strong"))
        y += 6
        for r in (r for r in rows if r.group == group):
            middle = y + step / 2
            a, b, c = (round(float(axis(v)), 1) for v in (r.low, r.value, r.high))
            parts.append(tag("text", r.name, x=left - 10, y=middle + 4, text_anchor="end"))
            parts.append(tag("path", class_=f"whisker s{r.colour}", d=Markup(f"M{a} {middle}H{c}")))
            parts.append(
                tag(
                    "path",
                    class_=f"whisker s{r.colour}",
                    d=Markup(f"M{a} {middle - 4}v8M{c} {middle - 4}v8"),
                )
            )
            parts.append(tag("circle", class_=f"f{r.colour}", cx=b, cy=middle, r=4.5))
            parts.append(
                tag(
                    "text",
                    f"{r.value:.1f}",
                    x=width,
                    y=middle + 4,
                    text_anchor="end",
                    class_="strong",
                )
            )
            words.append(
                f"{r.group}, {r.name}: {r.value:.1f} {unit}, interval {r.low:.1f} to {r.high:.1f}"
            )
            y += step
        y += 6
    return figure(title, parts, f"{title}. {'; '.join(words)}.", height, None, note, width=width)


SHAPES = ("round", "square", "plus", "ring", "triangle", "cross")


def scatter(
    title: str,
    points: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    *,
    note: object = None,
    pictures: Sequence[tuple[float, float, Markup]] = (),
    picture_size: float = 26,
    keyed: bool = True,
) -> Markup:
    """A cloud of points (n, 2), their groups (n,) told apart by colour and shape; `pictures` are
    (x, y, data URI) laid over it in the same coordinates."""
    size = 460
    low, high = points.min(0), points.max(0)
    span = float((high - low).max()) or 1.0
    middle = (low + high) / 2
    height = int(size * min(1.0, max(0.6, float((high - low)[1]) / span + 0.06)))

    def place(p: np.ndarray) -> np.ndarray:  # one scale for both axes: distances stay true
        offset = (p - middle) / span * (size - 2 * picture_size)
        return np.stack([size / 2 + offset[..., 0], height / 2 - offset[..., 1]], -1)

    where = np.round(place(points), 1)
    parts, keys = [], []
    for g, name in enumerate(names):
        mine = where[groups == g]
        if not len(mine):
            continue
        colour, shape = g % 8, SHAPES[(g // 8 + g) % len(SHAPES)]
        style = (
            f"dots round s{colour}"
            if shape == "round"
            else (
                f"dots square s{colour}" if shape == "square" else f"stroke dots-{shape} s{colour}"
            )
        )
        drawn = "".join(f"M{a:g} {b:g}{_SHAPE[shape]}" for a, b in mine.tolist())
        parts.append(tag("path", tag("title", name), class_=style, d=Markup(drawn), fill="none"))
        key = tag("path", class_=style, d=Markup(f"M13 6{_SHAPE[shape]}"), fill="none")
        keys.append(
            tag(
                "li",
                tag("svg", key, viewBox="0 0 26 12", aria_hidden="true"),
                tag("span", f"{name} ({len(mine)})"),
            )
        )
    for x, y, uri in pictures:
        a, b = place(np.array([x, y])) - picture_size / 2
        parts.append(
            tag(
                "image",
                x=round(float(a), 1),
                y=round(float(b), 1),
                width=picture_size,
                height=picture_size,
                href=Markup(uri),
            )
        )
    counted = ", ".join(f"{name}: {int((groups == g).sum())}" for g, name in enumerate(names))
    about = f"{title}: {len(points)} points in {len(names)} groups ({counted})."
    return figure(
        title,
        parts,
        about,
        height,
        tag("ul", keys, class_="legend") if keyed else None,
        note,
        width=size,
    )


_SHAPE = {
    "round": "h0",
    "square": "h0",
    "plus": "m-3 0h6m-3-3v6",
    "cross": "m-2.5-2.5l5 5m0-5l-5 5",
    "ring": "m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0",
    "triangle": "m0-3l3 5.2h-6z",
}


def figure(
    title: str,
    parts: Sequence[Markup],
    about: str,
    height: float,
    keys: Markup | None,
    note: object,
    *,
    width: int = WIDTH,
) -> Markup:
    """A drawing with its title above, its key and its note below, and its content in words."""
    drawing = tag(
        "svg",
        join(parts),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=text(about, 2000),
    )
    below = tag("figcaption", note) if note else None
    return tag("figure", tag("p", title, class_="title"), drawing, keys, below)
