"""Graphs side by side in one batch, and sums along their edges.

Sums over neighbours are products with sparse matrices: memory grows with the edges, not with
edges times width, and a node with a million neighbours costs no more than a million nodes with one.
"""

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from . import distributed
from .randomness import Draws

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


class Links(NamedTuple):
    """Who hears whom, each node itself too: rows of a sparse matrix with symmetric structure."""

    starts: Int64[Tensor, " n+1"]  # where a node's own links begin
    source: Int64[Tensor, " e"]
    target: Int64[Tensor, " e"]  # ascending
    back: Int64[Tensor, " e"]  # the number of the same link the other way round
    degree: Float[Tensor, " n"]  # with itself


@dataclass(frozen=True, eq=False)
class Graphs:
    """Graphs side by side, as one graph whose parts are not connected.

    What is known of a node is a sparse row: `values` in `columns`, from `starts` of the node on.
    `edges` hold each edge in both directions, sorted by target and then source, none to itself.
    `graph` says which of `count` graphs a node is of, ascending. Samples are the graphs or, where
    `rows` is given, these nodes. Behaves like a tensor where methods treat views alike whatever
    they hold: `torch.cat`, `len`, samples by index, `to`, `shape`.
    """

    starts: Int64[Tensor, " n"]
    columns: Int64[Tensor, " v"]
    values: Float[Tensor, " v"]
    width: int  # of the rows
    edges: Int64[Tensor, "2 e"]
    graph: Int64[Tensor, " n"]
    count: int
    rows: Int64[Tensor, " b"] | None = None

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function is not torch.cat or not set(kwargs or {}) <= {"dim"}:
            return NotImplemented
        parts: list[Graphs] = list(args[0])
        nodes = _offsets([part.nodes for part in parts])
        values = _offsets([len(part.values) for part in parts])
        graphs = _offsets([part.count for part in parts])
        rows = [
            part.rows + n for part, n in zip(parts, nodes, strict=True) if part.rows is not None
        ]
        assert len(rows) in (0, len(parts)), "nodes and graphs cannot be in one batch"
        return cls(
            torch.cat([part.starts + n for part, n in zip(parts, values, strict=True)]),
            torch.cat([part.columns for part in parts]),
            torch.cat([part.values for part in parts]),
            parts[0].width,
            torch.cat([part.edges + n for part, n in zip(parts, nodes, strict=True)], 1),
            torch.cat([part.graph + n for part, n in zip(parts, graphs, strict=True)]),
            sum(part.count for part in parts),
            torch.cat(rows) if rows else None,
        )

    def __len__(self) -> int:
        return self.count if self.rows is None else len(self.rows)

    def __getitem__(self, index: Any) -> "Graphs":
        """Samples by slice or numbers; graphs come in ascending order, each once."""
        if self.rows is not None:
            return replace(self, rows=self.rows[index])
        keep = torch.zeros(self.count, dtype=torch.bool, device=self.device)
        keep[index] = True
        part = self.subgraph(keep[self.graph])
        return replace(part, graph=(keep.cumsum(0) - 1)[part.graph], count=int(keep.sum()))

    def to(self, *args: Any, **kwargs: Any) -> "Graphs":
        values = self.values.to(*args, **kwargs)
        moved = {
            name: getattr(self, name).to(values.device)
            for name in ("starts", "columns", "edges", "graph")
        }
        rows = None if self.rows is None else self.rows.to(values.device)
        return replace(self, values=values, rows=rows, **moved)

    def float(self) -> "Graphs":
        return self.to(torch.float32)

    @property
    def nodes(self) -> int:
        return len(self.starts)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), self.width))

    @property
    def ndim(self) -> int:
        return 2

    @property
    def device(self) -> torch.device:
        return self.values.device

    def is_floating_point(self) -> bool:
        return self.values.is_floating_point()

    @cached_property
    def lengths(self) -> Int64[Tensor, " n"]:
        """How many values a node has."""
        end = self.starts.new_tensor([len(self.values)])
        return torch.cat([self.starts, end]).diff()

    @cached_property
    def owner(self) -> Int64[Tensor, " v"]:
        """Which node a value belongs to."""
        return torch.arange(self.nodes, device=self.device).repeat_interleave(self.lengths)

    @cached_property
    def sizes(self) -> Int64[Tensor, " count"]:
        """How many nodes a graph has."""
        return torch.bincount(self.graph, minlength=self.count)

    @cached_property
    def place(self) -> Int64[Tensor, " n"]:
        """Places of nodes in their graphs."""
        first = self.sizes.cumsum(0) - self.sizes
        return torch.arange(self.nodes, device=self.device) - first[self.graph]

    @cached_property
    def links(self) -> Links:
        n, itself = self.nodes, torch.arange(self.nodes, device=self.device)
        source, target = torch.cat([self.edges, itself.expand(2, -1)], 1)
        order = (target * n + source).argsort()
        source, target = source[order], target[order]
        # the k-th link by (source, target) is the k-th by (target, source) turned round
        back = (source * n + target).argsort()
        degree = torch.bincount(target, minlength=n)
        starts = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        return Links(starts, source, target, back, degree.float())

    def dense(self) -> Float[Tensor, "n width"]:
        """What is known of each node."""
        x = torch.zeros(self.nodes, self.width, device=self.device)
        return x.index_put_((self.owner, self.columns), self.values.float(), accumulate=True)

    def exchanged(self, nodes: Int64[Tensor, " n"]) -> "Graphs":
        """Each node shows what is known of another one; the edges stay."""
        lengths = self.lengths[nodes]
        taken = _ranges(self.starts[nodes], lengths)
        return replace(
            self,
            starts=lengths.cumsum(0) - lengths,
            columns=self.columns[taken],
            values=self.values[taken],
        )

    def subgraph(self, keep: Bool[Tensor, " n"]) -> "Graphs":
        """These nodes and the edges among them. Graphs may be left empty; samples keep theirs."""
        number = keep.cumsum(0) - 1
        lengths = self.lengths[keep]
        taken = _ranges(self.starts[keep], lengths)
        edges = self.edges[:, keep[self.edges].all(0)]
        return replace(
            self,
            starts=lengths.cumsum(0) - lengths,
            columns=self.columns[taken],
            values=self.values[taken],
            edges=number[edges],
            graph=self.graph[keep],
            rows=None if self.rows is None else number[self.rows],
        )


def _offsets(sizes: list[int]) -> list[int]:
    found = [0]
    for size in sizes[:-1]:
        found.append(found[-1] + size)
    return found


def _ranges(starts: Int64[Tensor, " n"], lengths: Int64[Tensor, " n"]) -> Int64[Tensor, " m"]:
    """starts[0], starts[0] + 1 ... (lengths[0] numbers), starts[1] ..."""
    before = lengths.cumsum(0) - lengths
    shift = (starts - before).repeat_interleave(lengths)
    return shift + torch.arange(len(shift), device=starts.device)


# ------------------------------------------------------------------------------ chance


def numbers(x: Graphs) -> Float[Tensor, " n"]:
    """A number in [0, 1) for each node, whatever rank its graph is on."""
    seed = int(torch.randint(1 << 62, ()))  # the same on all ranks
    first = distributed.rank() * x.count
    graphs = torch.arange(first, first + x.count, device=x.device)
    return Draws(seed, graphs).each(x.graph, x.place)


def shuffled(x: Graphs) -> tuple[Int64[Tensor, " n"], int]:
    """The turn of each node in a random order of the nodes of all ranks, and how many those are."""
    everyone, own = distributed.gather_ragged(numbers(x))
    return everyone.argsort(stable=True).argsort()[own], len(everyone)


# ------------------------------------------------------------------------------ sums over links


def listen(
    links: Links, weight: Float[Tensor, "e h"], x: Float[Tensor, "n hd"]
) -> Float[Tensor, "n hd"]:
    """Sum over links to a node of weight times what the source says; one weight for each head."""
    with torch.autocast(x.device.type, enabled=False):
        return _Listen.apply(links, weight.float(), x.float())


class _Listen(torch.autograd.Function):
    """As products of sparse matrices, forwards and backwards.

    The structure is symmetric, so that the transposed matrix has the values of `back`.
    """

    @staticmethod
    def forward(ctx, links, weight, x):
        ctx.links = links
        ctx.save_for_backward(weight, x)
        return _heads(links, weight, x)

    @staticmethod
    def backward(ctx, dy):
        links, (weight, x) = ctx.links, ctx.saved_tensors
        dweight = dx = None
        if ctx.needs_input_grad[1]:
            dweight = torch.stack(
                [
                    _dots(links, a, b)
                    for a, b in zip(
                        dy.chunk(weight.shape[1], 1), x.chunk(weight.shape[1], 1), strict=True
                    )
                ],
                1,
            )
        if ctx.needs_input_grad[2]:
            dx = _heads(links, weight[links.back], dy)
        return None, dweight, dx


# PyTorch multiplies sparse rows on processors by MKL alone, which not every machine has
_SPARSE = torch.backends.mkl.is_available()


def _heads(links: Links, weight: Tensor, x: Tensor) -> Tensor:
    heads = weight.shape[1]
    if not (_SPARSE or x.is_cuda):
        spoken = x.unflatten(1, (heads, -1))[links.source] * weight[:, :, None]
        return torch.zeros_like(x).index_add_(0, links.target, spoken.flatten(1))
    parts = [_matrix(links, w) @ part for w, part in zip(weight.T, x.chunk(heads, 1), strict=True)]
    return parts[0] if heads == 1 else torch.cat(parts, 1)


def _dots(links: Links, a: Tensor, b: Tensor) -> Float[Tensor, " e"]:
    """a[target] . b[source] for each link."""
    if not (_SPARSE or a.is_cuda):
        return (a[links.target] * b[links.source]).sum(1)
    blank = _matrix(links, a.new_zeros(len(links.source)))
    return torch.sparse.sampled_addmm(blank, a.contiguous(), b.T.contiguous(), beta=0).values()


def _matrix(links: Links, weight: Tensor) -> Tensor:
    n = len(links.degree)
    return torch.sparse_csr_tensor(
        links.starts, links.source, weight.contiguous(), (n, n), check_invariants=False
    )


def softmax(score: Float[Tensor, "e h"], links: Links) -> Float[Tensor, "e h"]:
    """Over the links of each target."""
    place = links.target[:, None].expand_as(score)
    blank = score.new_full((len(links.degree), score.shape[1]), -torch.inf)
    top = blank.scatter_reduce(0, place, score.detach(), "amax")
    raised = (score - top[links.target]).exp()
    total = torch.zeros_like(blank).index_add(0, links.target, raised)
    return raised / total[links.target]


def pool(
    h: Float[Tensor, "n d"], graph: Int64[Tensor, " n"], count: int, how: str
) -> Float[Tensor, "count d"]:
    """Sum, mean or largest over the nodes of each graph; zeros for a graph without nodes."""
    if how == "max":
        blank = h.new_zeros(count, h.shape[1])
        return blank.scatter_reduce(0, graph[:, None].expand_as(h), h, "amax", include_self=False)
    total = h.new_zeros(count, h.shape[1]).index_add(0, graph, h)
    if how == "mean":
        sizes = torch.bincount(graph, minlength=count).clamp(min=1)
        return total / sizes[:, None]
    return total
