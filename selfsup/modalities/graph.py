"""Many small graphs: molecules, proteins, neighbourhoods. A sample is a graph.

Read from the text layout of the TU collection or from SMILES as docs/modalities/graph.md says.
"""

import json
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..data import smiles
from ..data.base import Source
from ..data.batch import Batch
from ..data.fields import pack, unpack, unpack_one
from ..data.graphs import canonical
from ..data.outcome import BadSample
from ..graph import Graphs, network, pool
from ..method import Views
from ..randomness import Draws
from ..views import graph as looks
from ..views.graph_picture import picture
from .base import Modality

MOST_NODES, MOST_EDGES = 100_000, 2_000_000  # of one graph
DEGREES = 16  # neighbours that are counted apart, where nothing else is known of nodes
PEEKED = 256  # graphs that tell the usual size
STRONG = ("nodes", "edges", "attributes", "subgraph")  # of which a strong view has one


class Graph(Modality):
    """Graphs whose nodes have a kind, numbers, or nothing but neighbours.

    `notes` counts what was odd about graphs that were used all the same. `without` names what views
    leave out, such as "nodes,subgraph".
    """

    name = "graph"
    contents = ("graphs",)
    unit = "nodes"
    raw_unit = unit
    baseline_name = "kinds and degrees"
    default_method = "graphmae"
    encoders = ("gin", "gcn", "gat")
    mean, std = (0.0,), (1.0,)
    operations = (*STRONG, "columns")

    def __init__(self, *, without: str = ""):
        self.without = self.left_out(without)
        self.molecules = False
        self.kinds: list[int] = []
        self.scale: tuple[list[float], list[float]] | None = None  # of numbers of nodes

    # -------------------------------------------------------------------------- what is known

    def learn(self, source: Source) -> None:
        self.molecules = bool(getattr(source, "molecules", False))
        kinds, numbers = (getattr(source, k, None) for k in ("node_labels", "attributes"))
        self.kinds = [] if kinds is None else np.unique(kinds).tolist()
        if numbers is not None:
            finite = numbers[np.isfinite(numbers).all(1)]
            mean, deviation = finite.mean(0), finite.std(0)
            deviation[deviation < 1e-6 * max(deviation.max(initial=0), 1e-30)] = 1.0
            self.scale = mean.tolist(), deviation.tolist()

    @property
    def state(self) -> dict[str, Any]:
        return {"molecules": self.molecules, "kinds": self.kinds, "scale": self.scale}

    def restore(self, state: dict[str, Any]) -> None:
        self.molecules = bool(state["molecules"])
        self.kinds = [int(v) for v in state["kinds"]]
        if self.kinds != sorted(set(self.kinds)) or len(self.kinds) > 1 << 20:
            raise ValueError("kinds of nodes are not in order")
        if state["scale"] is not None:
            mean, deviation = ([float(v) for v in part] for part in state["scale"])
            if len(mean) != len(deviation) or not all(v > 0 for v in deviation):
                raise ValueError("scale is not of as many numbers as it has deviations")
            self.scale = mean, deviation

    @property
    def rules(self) -> str:
        return f"graph 1 {json.dumps(self.state)}"

    @property
    def width(self) -> int:
        """How many columns there are for what is known of a node."""
        if self.molecules:
            return smiles.WIDTH
        return len(self.kinds) + (len(self.scale[0]) if self.scale else 0) or DEGREES + 1

    # -------------------------------------------------------------------------- one sample

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "n 1 1"]:
        """SMILES, or {"edges" (2, e), "labels" (n,), "attributes" (n, k)} of a graph.

        Raises BadSample: empty, too_large, not_smiles, not_a_graph, not_finite.
        """
        if isinstance(raw, bytes | bytearray):
            raw = bytes(raw).decode("utf-8", "replace")
        if isinstance(raw, np.ndarray) and raw.ndim == 2 and raw.dtype.kind in "iu":
            raw = {"edges": raw}
        if isinstance(raw, str):
            edges, rows = smiles.described(smiles.parse(raw))
            if not self.molecules:
                raise BadSample("not_a_graph", "SMILES, but the encoder is for other graphs")
            lengths = np.array([len(row) for row in rows])
            columns = np.concatenate([np.array(row, np.int64) for row in rows])
            values = np.ones(len(columns), np.float32)
        elif isinstance(raw, dict) and "edges" in raw and not self.molecules:
            edges, lengths, columns, values = self._described(raw)
        else:
            raise BadSample("not_a_graph", f"{type(raw).__name__} is no graph of the kind learned")
        n = len(lengths)
        if n > MOST_NODES or edges.shape[1] > MOST_EDGES:
            raise BadSample("too_large", f"{n} nodes and {edges.shape[1]} edges")
        return pack(
            {
                "edges": canonical(edges, n).astype("<u4"),
                "lengths": lengths.astype("<u4"),
                "columns": columns.astype("<u4"),
                "values": values.astype("<f4"),
            }
        )

    def _described(self, raw: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        edges = np.asarray(raw["edges"], np.int64).reshape(2, -1)
        kinds, numbers = raw.get("labels"), raw.get("attributes")
        known = [len(part) for part in (kinds, numbers) if part is not None]
        n = known[0] if known else int(edges.max(initial=-1)) + 1
        if n == 0:
            raise BadSample("empty", "a graph without nodes")
        bad = np.flatnonzero(((edges < 0) | (edges >= n)).any(0))
        if len(bad):
            a, b = edges[:, bad[0]]
            raise BadSample("not_a_graph", f"an edge of nodes {a} and {b}, of {n} nodes")
        node, column, value = [], [], []
        if self.kinds and kinds is not None:
            place = np.searchsorted(self.kinds, kinds).clip(0, len(self.kinds) - 1)
            found = np.asarray(self.kinds)[place] == kinds
            if not found.all():
                self.notes["nodes of a kind that was not learned: nothing is known of them"] += 1
            node.append(np.flatnonzero(found))
            column.append(place[found])
            value.append(np.ones(len(place[found]), np.float32))
        if self.scale is not None and numbers is not None:
            if not np.isfinite(numbers).all():
                rows = np.flatnonzero(~np.isfinite(numbers).all(1))
                listed = ", ".join(str(v) for v in rows[:5])
                raise BadSample("not_finite", f"numbers that are not finite, of nodes {listed}")
            k = numbers.shape[1]
            scaled = (numbers - np.array(self.scale[0])) / np.array(self.scale[1])
            node.append(np.repeat(np.arange(n), k))
            column.append(np.tile(np.arange(k), n) + len(self.kinds))
            value.append(scaled.astype(np.float32).ravel())
        if not self.kinds and self.scale is None:
            degree = np.bincount(canonical(edges, n)[1], minlength=n)
            node.append(np.arange(n))
            column.append(degree.clip(0, DEGREES))
            value.append(np.ones(n, np.float32))
        if not node:  # a graph without kinds, where others have them
            nothing = np.empty(0, np.int64)
            return edges, np.zeros(n, np.int64), nothing, nothing
        nodes = np.concatenate(node)
        order = np.argsort(nodes, kind="stable")
        lengths = np.bincount(nodes, minlength=n)
        return edges, lengths, np.concatenate(column)[order], np.concatenate(value)[order]

    # -------------------------------------------------------------------------- batches

    def _of(self, batch: Batch) -> Graphs:
        return self._joined(unpack(batch.to("cpu"))).to(batch.pixels.device)

    def _joined(self, found: list[dict[str, np.ndarray]]) -> Graphs:
        sizes = np.array([len(f["lengths"]) for f in found])
        before = sizes.cumsum() - sizes
        lengths = np.concatenate([f["lengths"] for f in found]).astype(np.int64)
        edges = [f["edges"].astype(np.int64) + b for f, b in zip(found, before, strict=True)]
        return Graphs(
            torch.from_numpy(lengths.cumsum() - lengths),
            torch.from_numpy(np.concatenate([f["columns"] for f in found]).astype(np.int64)),
            torch.from_numpy(np.concatenate([f["values"] for f in found])),
            self.width,
            torch.from_numpy(np.concatenate(edges, 1)),
            torch.from_numpy(np.arange(len(found)).repeat(sizes)),
            len(found),
        )

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Graphs]:  # type: ignore[override]
        """Light views lose edges and columns and keep all nodes. Strong ones are GraphCL's.

        A strong view of a graph loses nodes, edges, what is known of nodes, or all that is far
        from one node (You et al., https://arxiv.org/abs/2010.13902), each as often as the others
        that are not left out; a local one is such a part.
        """
        x = self._of(batch)
        made = []
        for number in range(spec.count):
            own = draws.of_view(number)
            local = number >= spec.light + spec.strong
            low, high = spec.local_share if local else spec.share
            if number >= spec.light:
                low, high = looks.milder(low, local), looks.milder(high, local)
            elif not spec.alike:  # the first loses least
                low = high = low if number % 2 else high
            share = low + (high - low) * looks.one_each(own, x)
            if number < spec.light:
                if low < 1:
                    x2 = looks.fewer_edges(x, own, looks.kept(share, "edges", self.without))
                    share = looks.kept(share, "columns", self.without)
                    made.append(looks.fewer_columns(x2, own, share))
                else:
                    made.append(x)
            elif local:
                share = looks.kept(share, "subgraph", self.without)
                made.append(x.subgraph(looks.connected(x, own, share)))
            else:
                made.append(_strong(x, own, share, self.without))
        return made

    def plain(self, batch: Batch, size: int) -> Graphs:  # type: ignore[override]
        return self._of(batch)

    def picture(self, x: Graphs) -> UInt8[Tensor, "b 3 h w"]:  # type: ignore[override]
        return picture(x)

    def words(self, numbers: Iterable[int]) -> str:
        return ", ".join(self._word(number) for number in numbers)

    def _word(self, column: int) -> str:
        if self.molecules:
            return smiles.said(column)
        if column < len(self.kinds):
            return f"kind {self.kinds[column]}"
        if self.scale is not None:
            return f"number {column - len(self.kinds) + 1}"
        return f"{column} neighbours"

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]]:
        n = _nodes(raw)
        kinds = f"{len(self.kinds)} kinds of nodes" if self.kinds else "nodes"
        form, mode = ("SMILES", "atoms") if isinstance(raw, str | bytes) else ("graph", kinds)
        return form, mode, (n, n)

    def thumbnail(self, sample: UInt8[np.ndarray, "n 1 1"]) -> UInt8[np.ndarray, "h w 3"]:
        return picture(self._joined([unpack_one(sample.ravel())]))[0].permute(1, 2, 0).numpy()

    def examples(self) -> list[Any]:
        if self.molecules:
            return [b"CCO", b"c1ccccc1C(=O)[O-]", b"NCC1CCN(C)C1"]
        ring = np.arange(6)
        return [np.stack([ring, (ring + 1) % n % 6]) for n in (6, 5, 4)]

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """How many nodes there are of each kind and of each degree, as square roots."""
        x = self._of(batch)
        degree = torch.bincount(x.edges[1], minlength=x.nodes).clamp(max=DEGREES)
        degrees = torch.zeros(x.nodes, DEGREES + 1, device=x.device)
        degrees.scatter_(1, degree[:, None], 1.0)
        counts = pool(torch.cat([x.dense(), degrees], 1), x.graph, x.count, "sum")
        return counts.sign() * counts.abs().sqrt()

    # -------------------------------------------------------------------------- sizes

    def extent(self, source: Source) -> int:
        sizes = []
        for i in np.unique(np.linspace(0, len(source) - 1, PEEKED).astype(int)).tolist():
            try:
                sizes.append(_nodes(source.read(i)))
            except BadSample:
                continue
        return sorted(sizes)[len(sizes) // 2] if sizes else 0

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        return max(4, extent), f"a graph has about {extent} nodes; all are used"

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        return network(name, self.width, **keywords)


def _strong(x: Graphs, draws: Draws, share: Tensor, without: Collection[str]) -> Graphs:
    names = [name for name in STRONG if name not in without]
    kind = (len(names) * looks.one_each(draws, x)).long()
    of = dict.fromkeys(STRONG, torch.ones_like(share))
    of |= {name: torch.where(kind == k, share, 1.0) for k, name in enumerate(names)}
    x = looks.fewer_edges(x, draws, of["edges"])
    x = looks.fewer_known(x, draws, of["attributes"])
    scattered = looks.scattered(x, draws, of["nodes"])
    return x.subgraph(scattered & looks.connected(x, draws, of["subgraph"]))


def _nodes(raw: Any) -> int:
    if isinstance(raw, str | bytes):
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        return len(smiles.parse(text).elements)
    if isinstance(raw, np.ndarray):
        return int(raw.max(initial=-1)) + 1
    known = [raw[k] for k in ("labels", "attributes") if k in raw]
    return len(known[0]) if known else int(np.max(raw["edges"], initial=-1)) + 1
