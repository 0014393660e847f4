"""Graphs as a person can look at them: circles and lines, a colour for what is known of a node."""

import colorsys

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from ..sparse import Graphs

SIDE, MARGIN = 128, 10  # pixels
MOST = 80  # nodes that are drawn of a graph, nearest to its first one


def picture(x: Graphs) -> UInt8[Tensor, "b 3 side side"]:
    """One for each sample: the graph, or the neighbourhood of the node, which is ringed."""
    graph, edges = x.graph.cpu().numpy(), x.edges.cpu().numpy()
    known = np.full(x.nodes, -1)
    owner, columns = x.owner.cpu().numpy(), x.columns.cpu().numpy()
    shown = x.values.cpu().float().numpy() != 0
    known[owner[shown][::-1]] = columns[shown][::-1]  # the first column that a node has
    found = []
    if x.rows is None:
        for number in range(x.count):
            nodes = np.flatnonzero(graph == number)
            found.append(_drawn(nodes, edges[:, graph[edges[0]] == number], known, None))
    else:
        for node in x.rows.cpu().tolist():
            near = np.unique(np.append(edges[0, edges[1] == node], node))
            first = np.concatenate([[node], near[near != node]])[:MOST]
            inside = np.isin(edges, first).all(0)
            found.append(_drawn(np.sort(first), edges[:, inside], known, node))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def _drawn(
    nodes: np.ndarray, edges: np.ndarray, known: np.ndarray, ringed: int | None
) -> UInt8[np.ndarray, "side side 3"]:
    sheet = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    if not len(nodes):
        return np.asarray(sheet)
    place = np.searchsorted(nodes, edges)
    far = _distances(place, len(nodes))
    keep = np.argsort(far[0], kind="stable")[:MOST]
    points = _layout(far[np.ix_(keep, keep)])
    number = np.full(len(nodes), -1)
    number[keep] = np.arange(len(keep))
    draw = ImageDraw.Draw(sheet)
    for a, b in number[place].T:
        if 0 <= a < b:
            draw.line([*points[a], *points[b]], fill=(150, 150, 150), width=2)
    size = 6 if len(keep) <= 30 else 4
    for node, (x, y) in zip(nodes[keep], points, strict=True):
        fill = (225, 225, 225) if known[node] < 0 else colour(int(known[node]))
        outline = (0, 0, 0) if node == ringed else (90, 90, 90)
        box = [x - size, y - size, x + size, y + size]
        draw.ellipse(box, fill=fill, outline=outline, width=3 if node == ringed else 1)
    return np.asarray(sheet)


def colour(number: int) -> tuple[int, int, int]:
    hue = number * 0.618034 % 1  # the golden section keeps neighbours apart
    return tuple(round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.55, 0.92))  # type: ignore


def _distances(edges: np.ndarray, n: int) -> Float[np.ndarray, "n n"]:
    links = coo_array((np.ones(edges.shape[1]), (edges[0], edges[1])), (n, n)).tocsr()
    far = shortest_path(links, unweighted=True)
    most = far[np.isfinite(far)].max(initial=1)
    return np.where(np.isfinite(far), far, most + 2)


def _layout(far: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n 2"]:
    """Classical scaling of distances along edges, then some rounds of stress majorisation."""
    n = len(far)
    if n == 1:
        return np.full((1, 2), SIDE / 2)
    middle = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * middle @ far**2 @ middle)
    points = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 1e-3))
    if points.shape[1] < 2:
        points = np.concatenate([points, np.zeros((n, 1))], 1)
    points = points + 0.05 * np.sin(np.arange(2 * n).reshape(n, 2))  # no two in one place
    weight = 1 / np.maximum(far, 1) ** 2
    np.fill_diagonal(weight, 0)
    for _ in range(30):  # Gansner et al. 2004, the local form
        apart = points[:, None] - points[None]
        length = np.maximum(np.sqrt((apart**2).sum(-1)), 1e-6)
        pulled = points[None] + apart * (far / length)[:, :, None]
        points = (weight[:, :, None] * pulled).sum(1) / weight.sum(1)[:, None]
    points = points - points.min(0)
    span = max(float(points.max()), 1e-6)
    room = SIDE - 2 * MARGIN
    return MARGIN + points / span * room + (room - points.max(0) / span * room) / 2
