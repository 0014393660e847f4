"""What can be looked at: the encoder's map of the data, neighbours, its inner maps, its views.

Everything here needs the data, most of it a checkpoint as well. Each part that cannot be made says
why, and the others are made all the same.
"""

import importlib.util
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file

from .. import randomness
from ..data import BadSample, Batch, Source, open_source
from ..data.seen import seen_as
from ..errors import SelfsupError
from ..inference import Fast, assemble
from ..load import CARD, Card, LoadedEncoder, load, load_method, modality_of
from ..method import Method
from ..modalities import Modality
from ..randomness import Draws
from ..shown import Groups
from ..stop import stop
from . import plots
from .made import coloured, in_use, told
from .page import Markup, clean, missing, section, tag
from .partners import partners
from .pictures import Album, Tile, as_colours, grid, heat, strip
from .reading import Folder

SEED = 0x7265706F7274  # which samples a report shows: the same ones each time
NEIGHBOURS = 6
SHOWN = 8  # pictures in the inner maps
CLIPS = 24  # whose moments are compared
LOOKED_AT = 5  # samples whose views are shown
MOST_GROUPS = 12
MOST_VIEWS = 8


@dataclass
class Samples:
    """Samples of one source: their numbers (n,), and their classes (n,), -1 for none, if known."""

    where: str
    source: Source
    indices: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"] | None
    classes: list[str]
    of: str = "training data"

    def name(self, row: int) -> str:
        return self.source.name(int(self.indices[row]))

    def class_of(self, row: int) -> str:
        if self.labels is None or self.labels[row] < 0:
            return "no label"
        return clean(self.classes[self.labels[row]], 30)


class Studio:
    """What the pictures are made of. `why` tells what is not there: encoder or samples.

    `points` (n, d) are the embeddings of the samples: those that the evaluation kept, where they
    belong to this encoder, or new ones.
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        self.album = Album()
        self.why: dict[str, str] = {}
        self.loaded: LoadedEncoder  # this and the next two only where `why` has no reason against
        self.samples: Samples
        self.points: Float[np.ndarray, "n d"]
        self._read: dict[int, np.ndarray | None] = {}
        try:
            self.card = Card.read(folder.path / CARD)
            self.modality = modality_of(self.card, folder.path / CARD)
        except SelfsupError as error:
            self.why["encoder"] = self.why["samples"] = _told(error)
            return
        try:
            self.loaded = load(folder.path)
        except SelfsupError as error:
            self.why["encoder"] = _told(error)
        try:
            evaluated = self._evaluated()
            self.samples = self._trained() if evaluated is None else evaluated[0]
        except SelfsupError as error:
            self.why["samples"] = _told(error)
            return
        self.modality.meet(self.samples.source)
        if evaluated is not None:
            self.points = evaluated[1]
        elif "encoder" not in self.why:
            self._embed()

    # -- data -----------------------------------------------------------------------------------

    @property
    def most(self) -> int:
        """Samples on the map: what a minute embeds of large pictures, enough of small ones."""
        return int(np.clip(1500 * (64 / self.card.size) ** 2, 300, 1500))

    def _evaluated(self) -> tuple[Samples, np.ndarray] | None:
        """The test samples of the evaluation and their vectors, where they are there."""
        told = self.folder.evaluation
        data, encoder = told.get("data"), told.get("encoder")
        path = self.folder.path / "evaluation.safetensors"
        if not isinstance(data, dict) or not isinstance(encoder, dict) or "encoder" in self.why:
            return None
        if encoder.get("fingerprint") != self.loaded.fingerprint() or not path.is_file():
            return None
        place, classes = data.get("place"), data.get("classes")
        if not isinstance(place, str) or not isinstance(classes, list):
            return None
        try:
            source = seen_as(open_source(place), self.modality)
            kept = load_file(path)
            vectors = kept["vectors"].double().numpy()
            labels, indices = kept["labels"].long().numpy(), kept["samples"].long().numpy()
        except (SelfsupError, SafetensorError, OSError, KeyError, ValueError):
            return None  # moved, or not what was written: the training data will do
        whole = vectors.ndim == 2 and labels.shape == indices.shape == vectors.shape[:1]
        if not whole or source.fingerprint() != data.get("fingerprint") or len(vectors) < 2:
            return None
        chosen = np.sort(randomness.order(SEED, 0, len(vectors))[: self.most])
        names = [clean(c, 60) for c in classes]
        labels = np.where(labels < len(names), labels, -1)
        return Samples(place, source, indices[chosen], labels[chosen], names), vectors[chosen]

    def _trained(self) -> Samples:
        if (other := self._new_text()) is not None:
            return other
        place = self.folder.setting("data.path")
        if not place or place == "none":
            raise SelfsupError("E101", "the run was not made from files that could be opened")
        links = self.folder.setting("data.follow_links") == "true"
        source = seen_as(open_source(place, follow_links=links), self.modality)
        chosen = np.sort(randomness.order(SEED, 0, len(source))[: self.most])
        return Samples(place, source, chosen, None, [])

    def _new_text(self) -> Samples | None:
        """The text whose perplexity was measured, which was not trained on."""
        data = self.folder.tasks.get("perplexity", {}).get("data")
        if not isinstance(data, dict) or not isinstance(place := data.get("place"), str):
            return None
        try:
            source = seen_as(open_source(place), self.modality)
        except SelfsupError:
            return None  # moved: the training data will do
        if source.fingerprint() != data.get("fingerprint"):
            return None
        chosen = np.sort(randomness.order(SEED, 0, len(source))[: self.most])
        return Samples(place, source, chosen, None, [], "text that was not trained on")

    def _decode(self, row: int) -> np.ndarray | None:
        """The middle square of a sample, or None: it is in skipped.jsonl, or has changed since."""
        if row not in self._read:
            if stop.requested:
                return None
            source, size = self.samples.source, self.card.size
            try:
                array = self.modality.read(source.read(int(self.samples.indices[row])), size)
                array = self.modality.shrink(array, size)
                self._read[row] = _middle(array) if array.shape[2] == 3 else array
            except BadSample:
                self._read[row] = None
        return self._read[row]

    def batch(self, rows: Any) -> Batch:
        """Samples by row; one that cannot be read is grey, or any other where that is no sample."""
        with ThreadPoolExecutor(2, "report") as threads:
            arrays = list(threads.map(self._decode, map(int, rows)))
        stop.check()
        grey = np.full((self.card.size, self.card.size, 3), 128, np.uint8)
        blank = next((a for a in arrays if a is not None and a.shape[2] != 3), grey)
        return assemble([blank if array is None else array for array in arrays])

    def pictures(self, rows: Any, side: int = 128) -> np.ndarray:
        """The middle square of samples as the encoder gets it, (n, h, w, 3) uint8."""
        plain = self.modality.plain(self.batch(rows), min(self.card.size, side))
        return _pictures(self.modality, plain)

    def some(self, count: int, purpose: int) -> np.ndarray:
        """Rows of samples that can be read, the same ones each time."""
        order = randomness.order(SEED, purpose, len(self.samples.indices))
        return np.array(
            [row for row in order[: 4 * count] if self._decode(int(row)) is not None][:count]
        )

    def _embed(self) -> None:
        """Embed the samples, and forget those that cannot be read."""
        fast, found, good = Fast(self.loaded.encoder), [], []
        for start in range(0, len(self.samples.indices), 64):
            stop.check()
            rows = range(start, min(start + 64, len(self.samples.indices)))
            part = self.batch(rows)
            found.append(fast(self.modality.plain(part, self.card.size)))
            good += [row for row in rows if self._read.get(row) is not None]
        if not good:
            self.why["samples"] = "None of the samples that were tried can be read."
            return
        self.points = torch.cat(found).cpu().double().numpy()[good]
        self._read = {new: self._read[old] for new, old in enumerate(good)}
        labels = None if self.samples.labels is None else self.samples.labels[good]
        self.samples = replace(self.samples, indices=self.samples.indices[good], labels=labels)

    # -- method ---------------------------------------------------------------------------------

    def method(self) -> tuple[Method, bool]:
        """The method of the run, and whether it has its trained weights. Raises SelfsupError."""
        return load_method(self.folder.path, self.card, self.modality)


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
    sections.append(("views", "Views", _views(studio, again)))
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
            tiles.append(Tile(picture, _short(samples.name(i)), below, kind))
        strips.append(strip(studio.album, tiles, label=f"Neighbours of {samples.name(int(row))}"))
    return tag("div", tag("h3", title), tag("p", note, class_="note"), strips)


def _short(name: str) -> str:
    """The file and the folder it is in."""
    return "/".join(name.rsplit("/", 2)[-2:])


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
    names = [_short(studio.samples.name(i)).rsplit("/", 1)[-1] for i in rows]
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
        each = (_pictures(studio.modality, x[:, :, i : i + 1]) for i in first)
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
    name, place = _short(studio.samples.name(int(row))), f"moment {at + 1}"
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


# ---- views -----------------------------------------------------------------------------------


def _views(studio: Studio, again: str) -> Markup:
    title = "What the network saw"
    if "samples" in studio.why:
        return section("views", title, missing("views;", again, studio.why["samples"]))
    try:
        method, trained = studio.method()
    except SelfsupError as error:
        return section("views", title, missing("views;", again, _told(error)))
    modality, size = studio.modality, studio.card.size
    rows = studio.some(LOOKED_AT, purpose=2)
    if not len(rows):
        return section("views", title, missing("views;", again, "The samples cannot be read."))
    part = studio.batch(rows)
    spec = method.views
    with torch.no_grad():
        views = modality.views(part, spec, Draws(SEED, part.samples), size)[:MOST_VIEWS]
    kinds = (
        [f"light {i + 1}" if spec.light > 1 else "light" for i in range(spec.light)]
        + [f"strong {i + 1}" for i in range(spec.strong)]
        + [f"local {i + 1}" for i in range(spec.local)]
    )[:MOST_VIEWS]
    columns = ["whole", *kinds]
    shown = [studio.pictures(rows), *(_pictures(modality, v) for v in views)]
    names = [_short(studio.samples.name(i)) for i in rows]
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
            drawn.append((caption, _pictures(modality, found)))
        else:
            rest.append((caption, found))
    return drawn, groups, rest


# ---- small things ----------------------------------------------------------------------------


def _told(error: SelfsupError) -> str:
    return clean(f"{error.what}{': ' + error.why if error.why else ''}.", 300)


def _middle(array: np.ndarray) -> np.ndarray:
    """The middle square, so that the samples of a report take little memory."""
    h, w = array.shape[:2]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    return array[top : top + side, left : left + side]


def _pictures(modality: Modality, x: torch.Tensor) -> np.ndarray:
    """Views as (n, h, w, 3) uint8."""
    x = x.float() if x.is_floating_point() else x
    return modality.picture(x).permute(0, 2, 3, 1).cpu().numpy()
