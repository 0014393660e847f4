"""Pictures as part of the page, within a budget of bytes."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from .page import Markup, clean, tag

BUDGET = 7_000_000  # bytes of all pictures as text; the rest of a page needs less than 2 MB
SIDE = 128  # pixels of the longer side, twice what is shown, for screens of high density
SMALL = 64  # shown with hard pixel edges up to here: blurring 32 pixels hides what is there

# Dark blue over teal to yellow, even in lightness (viridis, CC0): also in grey and to those who do
# not see red and green apart.
HEAT = np.array(
    [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64
)


class Album:
    """Makes data URIs and counts their bytes; beyond the budget there are none."""

    def __init__(self, budget: int = BUDGET):
        self.left = budget
        self.refused = 0

    def uri(
        self, picture: UInt8[np.ndarray, "h w 3"], side: int = SIDE, *, exact: bool = False
    ) -> Markup | None:
        """`exact` keeps every pixel: for maps of a few tokens, where a codec would smear."""
        image = Image.fromarray(np.ascontiguousarray(picture))
        image.thumbnail((4 * side if _wide(picture) else side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        if exact:
            image.save(buffer, "WEBP", lossless=True)
        else:
            image.save(buffer, "WEBP", quality=82, method=4)
        text = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
        if len(text) > self.left:
            self.refused += 1
            return None
        self.left -= len(text)
        return Markup(text)

    def image(
        self,
        picture: UInt8[np.ndarray, "h w 3"],
        alt: str,
        *,
        side: int = SIDE,
        exact: bool = False,
    ) -> Markup:
        source = self.uri(picture, side, exact=exact)
        if source is None:
            return tag("span", "no room for this picture")
        h, w = picture.shape[:2]
        small = "small" if max(h, w) <= SMALL else None
        return tag(
            "img",
            src=source,
            alt=clean(alt, 200),
            width=w,
            height=h,
            class_=small,
            decoding="async",
        )


@dataclass(frozen=True)
class Tile:
    """A picture with its name; `sign` says in a word and a mark how it belongs to the first."""

    picture: np.ndarray
    name: str
    below: str = ""
    kind: str = ""  # query, same, other


def strip(album: Album, tiles: Sequence[Tile], *, label: str) -> Markup:
    """A row of pictures, the first one of which may be the one that was asked for."""
    items = []
    for tile in tiles:
        mark = {"same": "✓ ", "other": "✕ "}.get(tile.kind, "")
        image = album.image(tile.picture, f"{tile.name}{', ' + tile.below if tile.below else ''}")
        items.append(
            tag(
                "li",
                image,
                tag("span", clean(tile.name, 80), class_="name", title=clean(tile.name, 200)),
                tag("span", tag("span", mark, class_="sign") if mark else None, tile.below),
                class_=tile.kind or None,
            )
        )
    return tag("ul", items, class_=_form("strip", [t.picture for t in tiles]), aria_label=label)


def grid(
    album: Album,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    *,
    caption: str,
    exact: Sequence[str] = (),
) -> Markup:
    """A table of pictures with the names of its rows and columns. Rows named in `exact` keep every
    pixel."""
    head = tag(
        "tr", tag("th", "", scope="col"), [tag("th", clean(c, 60), scope="col") for c in columns]
    )
    body = [
        tag(
            "tr",
            tag("th", clean(name, 60), scope="row"),
            [
                tag("td", album.image(p, f"{name}: {c}" if c else name, exact=name in exact))
                for c, p in zip(columns, pictures, strict=False)
            ],
        )
        for name, pictures in rows
    ]
    form = _form("grid", [picture for _, pictures in rows for picture in pictures])
    inner = tag(
        "table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=form
    )
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _wide(picture: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Frames side by side: with the room of one they would tell nothing."""
    return picture.shape[1] > 3 * picture.shape[0]


def _form(name: str, several: Sequence[np.ndarray]) -> str:
    return f"{name} wide" if any(map(_wide, several)) else name


def heat(
    picture: UInt8[np.ndarray, "h w 3"], weights: Float[np.ndarray, "gh gw"]
) -> UInt8[np.ndarray, "h w 3"]:
    """A map of weights over a picture: dark blue is little, yellow much; the picture shows through
    in its lightness."""
    h, w = picture.shape[:2]
    low, high = np.quantile(weights, [0.02, 0.98])
    level = np.clip((weights - low) / max(high - low, 1e-12), 0, 1)
    smooth = Image.fromarray(np.round(level * 255).astype(np.uint8)).resize(
        (w, h), Image.Resampling.BICUBIC
    )
    level = np.asarray(smooth, np.float64) / 255
    place = level * (len(HEAT) - 1)
    lower = np.minimum(place.astype(int), len(HEAT) - 2)
    part = (place - lower)[..., None]
    colour = HEAT[lower] * (1 - part) + HEAT[lower + 1] * part
    grey = picture.mean(-1, keepdims=True)
    return np.clip(0.65 * colour + 0.35 * grey, 0, 255).astype(np.uint8)


def as_colours(
    tokens: Float[np.ndarray, "b n d"], shape: tuple[int, int]
) -> UInt8[np.ndarray, "b gh gw 3"]:
    """The first three principal components of all tokens together as red, green and blue (as in
    DINOv2, Oquab et al., 2023, https://arxiv.org/abs/2304.07193, figure 1): what looks alike to the
    encoder has the same colour in all pictures."""
    b, n, d = tokens.shape
    flat = tokens.reshape(b * n, d).astype(np.float64)
    flat = flat - flat.mean(0)
    _, vectors = np.linalg.eigh(flat.T @ flat)
    parts = flat @ vectors[:, ::-1][:, :3]
    if parts.shape[1] < 3:
        parts = np.pad(parts, ((0, 0), (0, 3 - parts.shape[1])))
    # the sign of a component is arbitrary; fixed, so that a report made again looks the same
    parts *= np.where(np.abs(parts.min(0)) > parts.max(0), -1.0, 1.0)
    low, high = np.quantile(parts, [0.02, 0.98], axis=0)
    level = np.clip((parts - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.round(level * 255).astype(np.uint8).reshape(b, *shape, 3)
