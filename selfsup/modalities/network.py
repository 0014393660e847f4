"""One large graph: citations, friends, roads. A sample is a node; its views are those of the graph.

The graph itself stays with the data: encoders are for nodes of any graph of which the same numbers
are known. Read from files as docs/modalities/graph.md says.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..data.base import Source
from ..data.batch import Batch
from ..data.fields import pack, unpack_one
from ..data.graphs import canonical
from ..data.outcome import BadSample
from ..errors import SelfsupError
from ..graph import Graphs, network
from ..method import Views
from ..randomness import Draws
from ..views import graph as looks
from ..views.graph_picture import picture
from .base import Modality


class Network(Modality):
    """Nodes of one graph.

    `normalise` divides what is known of a node by its sum where no number is negative (counts of
    words), and else brings each column to mean 0 and deviation 1. `without` names what views leave
    out, such as "columns".
    """

    name = "network"
    contents = ("nodes",)
    unit = "nodes"
    raw_unit = unit
    baseline_name = "raw node features"
    default_method = "graphmae"
    encoders = ("gcn", "gat", "gin")
    mean, std = (0.0,), (1.0,)
    divisible = False  # each view is of the whole graph
    operations = ("edges", "columns", "attributes")

    def __init__(self, *, normalise: bool = True, without: str = ""):
        self.normalise, self.without = normalise, self.left_out(without)
        self.width = 0
        self.scale: tuple[list[float], list[float]] | None = None  # mean, deviation of columns
        self._graph: Graphs | None = None

    # -------------------------------------------------------------------------- what is known

    def learn(self, source: Source) -> None:
        rows = getattr(source, "rows", None)
        if rows is None:
            return
        self.width = rows.width
        if self.normalise and (rows.values < 0).any():
            n = len(rows.starts)
            total = np.bincount(rows.columns, rows.values, self.width)
            squares = np.bincount(rows.columns, rows.values.astype(float) ** 2, self.width)
            mean = total / n
            deviation = np.sqrt(np.maximum(squares / n - mean**2, 0))
            deviation[deviation < 1e-6 * max(deviation.max(), 1e-30)] = 1.0
            self.scale = mean.tolist(), deviation.tolist()
        self.meet(source)

    @property
    def state(self) -> dict[str, Any]:
        return {"width": self.width, "scale": self.scale}

    def restore(self, state: dict[str, Any]) -> None:
        width, scale = state["width"], state["scale"]
        if not isinstance(width, int) or not 0 < width <= 1 << 24:
            raise ValueError(f"width is {width!r}")
        self.width = width
        if scale is not None:
            mean, deviation = ([float(v) for v in part] for part in scale)
            if len(mean) != width or len(deviation) != width or min(deviation) <= 0:
                raise ValueError(f"scale is not of {width} columns")
            self.scale = mean, deviation

    def meet(self, source: Source) -> None:
        """Take up the graph of the nodes. Raises SelfsupError E105 for one with other columns."""
        rows = getattr(source, "rows", None)
        if rows is None:
            return
        if self.width and rows.width != self.width:
            raise SelfsupError(
                "E105",
                f"{rows.width} numbers are known of each node; the encoder is for {self.width}",
                where=source.place,
                do="give a graph of whose nodes the same is known, in the same order",
            )
        starts, columns, values = (torch.from_numpy(np.asarray(a)) for a in rows[:3])
        n = len(starts)
        x = Graphs(
            starts, columns, values, rows.width, torch.from_numpy(source.edges),  # type: ignore
            torch.zeros(n, dtype=torch.long), 1,
        )  # fmt: skip
        if self.scale is not None:
            mean, deviation = (torch.tensor(part) for part in self.scale)
            dense = (x.dense() - mean) / deviation
            first = torch.arange(n) * rows.width
            every = torch.arange(rows.width).repeat(n)
            self._graph = replace(x, starts=first, columns=every, values=dense.flatten())
            return
        if self.normalise:
            total = torch.zeros(n).index_add_(0, x.owner, values)
            values = values / total.clamp(min=1e-12)[x.owner]
        self._graph = replace(x, values=values)

    # -------------------------------------------------------------------------- samples

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "n 1 1"]:
        """The number of a node. Raises BadSample: not_a_node."""
        if not isinstance(raw, np.ndarray | np.integer | int) or np.ndim(raw) != 0:
            raise BadSample("not_a_node", f"{type(raw).__name__} is no node of a graph")
        return pack({"node": np.array(int(raw), "<i8")})

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Graphs]:  # type: ignore[override]
        """The whole graph each time, with the nodes of the batch as its samples.

        Light views lose edges and columns, strong ones also what is known of some nodes.
        """
        x = self._of(batch)
        made = []
        for number in range(spec.count):
            own = draws.of_view(number)
            local = number >= spec.light + spec.strong
            low, high = spec.local_share if local else spec.share
            if number >= spec.light:  # a graph that has lost most of its edges is none any more
                low, high = looks.milder(low, local), looks.milder(high, local)
            if not spec.alike:  # the first loses least
                low = high = low if number % 2 else high
            view = x
            if low < 1:
                shares = [
                    looks.kept(low + (high - low) * looks.one_each(own, x), name, self.without)
                    for name in self.operations
                ]
                view = looks.fewer_edges(view, own, shares[0])
                view = looks.fewer_columns(view, own, shares[1])
                if number >= spec.light:
                    view = looks.fewer_known(view, own, shares[2])
            made.append(view)
        return made

    def plain(self, batch: Batch, size: int) -> Graphs:  # type: ignore[override]
        return self._of(batch)

    def _of(self, batch: Batch) -> Graphs:
        assert self._graph is not None, "no source was met"
        if self._graph.device != batch.pixels.device:
            self._graph = self._graph.to(batch.pixels.device)
        # the number ends what `pack` makes of it; unpacking them one by one takes as long as a step
        last = batch.pixels[:, 0, -8:, 0].clone(memory_format=torch.contiguous_format)  # aligned
        return replace(self._graph, rows=last.view(torch.int64)[:, 0])

    def picture(self, x: Graphs) -> UInt8[Tensor, "b 3 h w"]:  # type: ignore[override]
        return picture(x)

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]]:
        return "node", f"{self.width} numbers known", (1, 1)

    def thumbnail(self, sample: UInt8[np.ndarray, "n 1 1"]) -> UInt8[np.ndarray, "h w 3"]:
        node = torch.from_numpy(unpack_one(sample.ravel())["node"].astype(np.int64))
        assert self._graph is not None, "no source was met"
        shown = picture(replace(self._graph, rows=node.reshape(1)))
        return shown[0].permute(1, 2, 0).numpy()

    def examples(self) -> list[Any]:
        """The nodes of a ring, which takes the place of a graph where none was met."""
        if self._graph is None:
            ring = np.arange(6)
            edges = torch.from_numpy(canonical(np.stack([ring, (ring + 1) % 6]), 6))
            one = torch.arange(6)
            self._graph = Graphs(
                one, one % self.width, torch.ones(6), self.width, edges, torch.zeros_like(one), 1
            )
        return [0, 1, 2]

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        x = self._of(batch)
        keep = torch.zeros(x.nodes, dtype=torch.bool, device=x.device)
        assert x.rows is not None
        keep[x.rows] = True
        number = keep.cumsum(0) - 1
        return x.subgraph(keep).dense()[number[x.rows]]

    # -------------------------------------------------------------------------- sizes

    def extent(self, source: Source) -> int:
        return len(source)

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        return max(4, extent), "the graph is seen as a whole"

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        return network(name, self.width, **keywords)
