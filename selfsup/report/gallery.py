"""What can be looked at: the encoder's map of the data, neighbours, its inner maps, its views.

Everything here needs the data, most of it a checkpoint as well. Each part that cannot be made says
why, and the others are made all the same.
"""

import importlib.util
import warnings
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64

from . import plots
from .page import Markup, clean, missing, section, tag
from .partners import partners
from .pictures import Tile, as_colours, grid, heat, strip
from .reading import Folder
from .studio import Samples, Studio, as_pictures, short
from .views import views

NEIGHBOURS = 6
SHOWN = 8  # pictures in the inner maps
CLIPS = 24  # whose moments are compared
MOST_GROUPS = 12


def gallery(folder: Folder) -> list[tuple[str, str, Markup]]:
    """Sections with their anchors and titles."""
    studio = Studio(folder)
    again = folder.command("report")
    reason = studio.why.get("samples") or studio.why.get("encoder")
    if reason:
        gone = section("map", "Map and neighbours", missing("pictures of the data;", again, reason))
        sections = [("map", "Map", gone)]
    else:
        sections = [
            ("map", "Map", _map(studio)),
            ("neighbours", "Neighbours", _neighbours(studio)),
        ]
        if (inside := _inside(studio)) is not None:
            sections.append(("inside", "Inside", inside))
    sections.append(("views", "Views", views(studio, again)))
    if (found := partners(folder.path, studio.album)) is not None:
        sections.insert(0, ("partners", "Partners", found))
    return sections


# ---- the map ---------------------------------------------------------------------------------


def _map(studio: Studio) -> Markup:
    samples, points = studio.samples, studio.points
    labelled = samples.labels is not None
    groups, names = (
        _clusters(points) if samples.labels is None else _classes(samples, samples.labels)
    )
    coloured = "class" if labelled else "cluster (k-means on the embeddings; no labels were used)"
    flat, share = principal(points, 2)
    note = (
        f"Two of {points.shape[1]} dimensions, with {100 * share.sum():.0f} % of the variance: "
        "groups that overlap here may be apart in the others."
    )
    figures = [
        plots.scatter("Principal components", flat, groups, names, note=note),
        plots.scatter(
            "The same with pictures",
            flat,
            groups,
            names,
            note="A sample of the pictures at their places.",
            pictures=_thumbnails(studio, flat),
            keyed=False,
        ),
    ]
    if importlib.util.find_spec("umap") is not None:
        near = _umap(points)
        figures.append(
            plots.scatter(
                "UMAP",
                near,
                groups,
                names,
                note="Neighbours stay neighbours; distances between groups mean little.",
            )
        )
    where = "test samples of the evaluation" if labelled else f"samples of the {samples.of}"
    return section(
        "map",
        "Map of the data",
        tag("div", figures, class_="two"),
        lead=f"{len(points):,} {where} ({clean(samples.where, 120)}) as the encoder sees them: "
        f"alike is near. Colour and shape show the {coloured}.",
    )


def principal(x: Float[np.ndarray, "n d"], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k principal components (n, k) and their shares of the variance (k,)."""
    x = x - x.mean(0)
    values, vectors = np.linalg.eigh(x.T @ x)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    vectors = vectors[:, :k] * np.where(vectors[:, :k].sum(0) < 0, -1.0, 1.0)
    return x @ vectors, values[:k] / max(float(values.sum()), 1e-300)


def _umap(points: np.ndarray) -> np.ndarray:
    import umap

    reducer = umap.UMAP(n_components=2, metric="cosine", random_state=0, n_jobs=1)
    return np.asarray(reducer.fit_transform(points.astype(np.float32)), np.float64)


def _classes(samples: Samples, labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Classes by frequency, the rarest put together."""
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = values[np.argsort(-counts, kind="stable")]
    kept = order if len(order) <= MOST_GROUPS else order[: MOST_GROUPS - 1]
    kept = np.sort(kept)
    groups = np.full(len(labels), len(kept))
    for g, value in enumerate(kept):
        groups[labels == value] = g
    names = [clean(samples.classes[v], 40) for v in kept]
    if (groups == len(kept)).any():
        names.append("other classes" if len(order) > MOST_GROUPS else "no label")
    return groups, names


def _clusters(points: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """k-means on the unit sphere, largest cluster first."""
    from sklearn.cluster import KMeans

    k = int(np.clip(len(points) // 20, 1, 8))
    flat, _ = principal(_unit(points), min(32, *points.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a collapsed encoder has fewer points than clusters
        found = KMeans(k, n_init=3, random_state=0).fit_predict(flat)
    counts = np.bincount(found, minlength=k)
    rank = np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
    return rank[found], [f"cluster {i + 1}" for i in range(int((counts > 0).sum()))]


def _thumbnails(
    studio: Studio, flat: np.ndarray, cells: int = 12
) -> list[tuple[float, float, Markup]]:
    """Pictures at their places, one for each cell of a grid that has a point in it."""
    low, high = flat.min(0), flat.max(0)
    span = max(float((high - low).max()), 1e-12)
    cell = np.minimum(((flat - low) / span * cells).astype(int), cells - 1)
    _, first = np.unique(cell, axis=0, return_index=True)
    found = []
    for i, picture in zip(first, studio.pictures(first, 48), strict=True):
        if (uri := studio.album.uri(picture, 48)) is not None:
            found.append((float(flat[i, 0]), float(flat[i, 1]), uri))
    return found


# ---- neighbours ------------------------------------------------------------------------------


def _unit(points: np.ndarray) -> np.ndarray:
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)


def _neighbours(studio: Studio) -> Markup:
    samples, points = studio.samples, studio.points
    title = "Nearest neighbours"
    unit = _unit(points - points.mean(0))
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    k = min(NEIGHBOURS, len(points) - 1)
    if k < 1:
        return section("neighbours", title, tag("p", "There is only one sample."))
    near = np.argsort(-alike, axis=1, kind="stable")[:, :k]  # (n, k)
    score = np.take_along_axis(alike, near, 1)  # (n, k)
    lead = "The first picture of a row was looked up; the others are the samples nearest to it. "
    if samples.labels is not None:
        same = samples.labels[near] == samples.labels[:, None]
        agree = same.mean(1)
        shares = np.bincount(samples.labels[samples.labels >= 0]) / len(points)
        lead += (
            f"{100 * agree.mean():.0f} % of the {k} nearest are of the same class; "
            f"by chance it would be {100 * float(shares @ shares):.0f} %."
        )
        best = _apart(np.lexsort((-score.mean(1), -agree)), samples.labels, 4)
        worst = np.lexsort((-score.mean(1), agree))[:4]
        sheets = [
            ("Best cases", "The most neighbours of its own class; one row for each class.", best),
            (
                "Worst cases",
                "Very near, and yet of another class: confusions, or wrong labels.",
                worst,
            ),
        ]
    else:
        lead += "Without labels, whether they belong together is for you to judge."
        groups, _ = _clusters(points)
        best = _apart(np.argsort(-score.mean(1), kind="stable"), groups, 4)
        usual = np.argsort(np.abs(score.mean(1) - np.median(score.mean(1))), kind="stable")
        sheets = [
            ("Best cases", "The closest neighbours of all; one row for each cluster.", best),
            ("Usual cases", "From the middle of the range.", _apart(usual, groups, 3)),
        ]
    lonely = np.argsort(score[:, 0], kind="stable")[:3]
    far = "Nothing is near to these: outliers, damage, or what the encoder does not understand."
    sheets.append(("Alone" if samples.labels is not None else "Worst cases", far, lonely))
    parts = [_sheet(studio, name, note, rows, near, score) for name, note, rows in sheets]
    return section("neighbours", title, parts, lead=lead)


def _apart(order: np.ndarray, groups: np.ndarray, most: int) -> np.ndarray:
    """The first of each group in this order, then whatever comes next."""
    _, first = np.unique(groups[order], return_index=True)
    chosen = order[np.sort(first)][:most]
    rest = order[~np.isin(order, chosen)][: most - len(chosen)]
    return np.concatenate([chosen, rest])


def _sheet(
    studio: Studio,
    title: str,
    note: str,
    rows: np.ndarray,
    near: Int64[np.ndarray, "n k"],
    score: Float[np.ndarray, "n k"],
) -> Markup:
    """One strip for each row of `rows`: the sample, then its neighbours."""
    samples, strips = studio.samples, []
    for row in rows:
        shown = [int(row), *map(int, near[row])]
        tiles = []
        for place, (i, picture) in enumerate(zip(shown, studio.pictures(shown), strict=True)):
            kind, below = "query" if place == 0 else "", ""
            if samples.labels is not None:
                below = samples.class_of(i)
                if place:
                    kind = "same" if samples.labels[i] == samples.labels[row] else "other"
            elif place:
                below = f"cosine {score[row, place - 1]:.2f}"
            tiles.append(Tile(picture, short(samples.name(i)), below, kind))
        strips.append(strip(studio.album, tiles, label=f"Neighbours of {samples.name(int(row))}"))
    return tag("div", tag("h3", title), tag("p", note, class_="note"), strips)


# ---- inside ----------------------------------------------------------------------------------


def _inside(studio: Studio) -> Markup | None:
    """Where tokens look alike, and where they look; of clips, which moments look alike."""
    encoder: Any = studio.loaded.encoder
    shape = tuple(getattr(encoder, "grid", ()))
    if len(shape) == 3:
        return _moments(studio, shape[0])
    if len(shape) != 2 or prod(shape) < 16:
        return None  # a grid of a few cells shows nothing
    rows = studio.some(SHOWN, purpose=1)
    x = studio.modality.plain(studio.batch(rows), studio.card.size)
    with torch.no_grad():
        tokens = encoder.features(x).float().cpu().numpy()
        weights = encoder.attention(x).float().cpu() if hasattr(encoder, "attention") else None
    pictures = studio.pictures(rows)
    lines: list[tuple[str, Any]] = [("picture", pictures), ("patches", as_colours(tokens, shape))]
    words = (
        "The first three principal components of the features of all patches, as red, green and "
        "blue: patches of one colour are alike to the encoder, in all pictures."
    )
    if weights is not None:
        seen, how = attention_map(weights, prod(shape), bool(studio.card.kwargs.get("cls")))
        maps = seen.reshape(len(x), *shape).numpy()
        lines.append(("attention", [heat(p, m) for p, m in zip(pictures, maps, strict=True)]))
        words += f" Attention in the last block, mean over heads: {how}; "
        words += "yellow is much, dark blue little."
    names = [short(studio.samples.name(i)).rsplit("/", 1)[-1] for i in rows]
    about = "Pictures, the features of their patches" + (" and attention" if len(lines) > 2 else "")
    table = grid(studio.album, names, lines, caption=about, exact=("patches",))
    return section("inside", "Inside the encoder", table, lead=words)


def _moments(studio: Studio, count: int) -> Markup | None:
    """Single moments of clips, and those of other clips that are nearest by their features."""
    encoder: Any = studio.loaded.encoder
    rows = studio.some(CLIPS, purpose=3)
    if len(rows) < 2:
        return None
    found, frames = [], []
    for some in np.array_split(rows, -(-len(rows) // 8)):
        x = studio.modality.plain(studio.batch(some), studio.card.size)
        with torch.no_grad():
            places = encoder.features(x).float().cpu().unflatten(1, (count, -1))
        found.append(places.mean(2).double().numpy())  # (b, t, d)
        first = range(0, x.shape[2], x.shape[2] // count)  # frames of the moments
        each = (as_pictures(studio.modality, x[:, :, i : i + 1]) for i in first)
        # a sheet shows four frames, here one frame four times
        frames.append(np.stack([p[:, : p.shape[1] // 2, : p.shape[2] // 2] for p in each], 1))
    moments, pictures = np.concatenate(found), np.concatenate(frames)
    unit = _unit((moments - moments.mean((0, 1))).reshape(-1, moments.shape[2]))
    strips = []
    for clip in range(min(4, len(rows))):
        alike = (unit @ unit[clip * count + count // 2]).reshape(-1, count)
        alike[clip] = -np.inf
        tiles = [_moment(studio, rows[clip], pictures[clip], count // 2)]
        for other in np.argsort(-alike.max(1), kind="stable")[: min(NEIGHBOURS, len(rows) - 1)]:
            at = int(alike[other].argmax())
            score = f"cosine {alike[other, at]:.2f}"
            tiles.append(_moment(studio, rows[other], pictures[other], at, score))
        strips.append(strip(studio.album, tiles, label=f"Moments like one of {tiles[0].name}"))
    words = (
        f"The middle moment of some clips, and of {len(rows) - 1} others the one that is nearest "
        f"by the mean of its features, nearest first. A clip has {count} moments."
    )
    return section("inside", "Moments that look alike", strips, lead=words)


def _moment(studio: Studio, row: Any, pictures: np.ndarray, at: int, score: str = "") -> Tile:
    name, place = short(studio.samples.name(int(row))), f"moment {at + 1}"
    below = f"{place}, {score}" if score else place
    return Tile(pictures[at], name, below, "" if score else "query")


def attention_map(
    weights: Float[torch.Tensor, "b h m m"], n: int, cls: bool
) -> tuple[Float[torch.Tensor, "b n"], str]:
    """What the cls token looks at; without one, how much each patch is looked at by all others."""
    mean = weights.mean(1)  # (b, m, m)
    first = mean.shape[-1] - n  # cls token and registers come first
    if cls:
        return mean[:, 0, first:], "what the cls token looks at"
    return mean[:, first:, first:].mean(1), "how much each patch is looked at by all the others"
