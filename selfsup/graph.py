"""Graphs: many of them in one batch, networks that pass messages along their edges.

Sums over neighbours are products with sparse matrices: memory grows with the edges, not with
edges times width, and a node with a million neighbours costs no more than a million nodes with one.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from . import distributed
from .errors import SelfsupError
from .randomness import Draws, _hash

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


def dropout(x: Tensor, p: float) -> Tensor:
    """Like torch's own but six times as fast on a processor; p is rounded to 1/256.

    torch draws one number after the other; here eight at once, from a hash of their places.
    """
    threshold = round(256 * p)
    if threshold == 0 or x.is_cuda:
        return functional.dropout(x, p)
    seed = torch.randint(1 << 62, ())
    draws = _hash(torch.arange(-(-x.numel() // 8)) + seed).view(torch.uint8)[: x.numel()]
    return x * ((draws >= threshold).view(x.shape) * (256 / (256 - threshold)))


# ------------------------------------------------------------------------------ layers


class Rows(nn.Module):
    """A linear layer without bias on sparse rows: what is known of a node -> (n, out).

    With `hidden`, these nodes show `token` instead.
    """

    def __init__(self, width: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, out))
        nn.init.xavier_uniform_(self.weight)

    def forward(
        self,
        x: Graphs,
        hidden: Bool[Tensor, " n"] | None = None,
        token: Float[Tensor, " width"] | None = None,
        drop: float = 0.0,
    ) -> Float[Tensor, "n out"]:
        values = x.values.to(self.weight.dtype)
        if hidden is not None:
            values = values * ~hidden[x.owner]
        if drop:
            values = dropout(values, drop)
        y = functional.embedding_bag(
            x.columns, self.weight, x.starts, mode="sum", per_sample_weights=values
        )
        if hidden is not None and token is not None:
            y = y + hidden[:, None] * (token.to(y.dtype) @ self.weight)
        return y


class GCN(nn.Module):
    """Kipf and Welling, https://arxiv.org/abs/1609.02907, equation 2."""

    def __init__(self, out: int, heads: int = 1, drop: float = 0.0):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, z: Float[Tensor, "n out"], links: Links) -> Float[Tensor, "n out"]:
        root = links.degree.rsqrt()
        weight = root[links.source] * root[links.target]
        return listen(links, weight[:, None], z) + self.bias


class GIN(nn.Module):
    """Xu et al., https://arxiv.org/abs/1810.00826, equation 4.1 with epsilon 0.

    The first layer of the MLP is linear, and so is the sum: here it comes before the sum.
    """

    def __init__(self, out: int, heads: int = 1, drop: float = 0.0):
        super().__init__()
        self.norm = nn.BatchNorm1d(out)
        self.mlp = nn.Linear(out, out)

    def forward(self, z: Float[Tensor, "n out"], links: Links) -> Float[Tensor, "n out"]:
        total = listen(links, torch.ones_like(links.source, dtype=z.dtype)[:, None], z)
        inner = functional.relu(self.norm(total))
        return self.mlp(inner.to(self.mlp.weight.dtype))


class GAT(nn.Module):
    """Velickovic et al., https://arxiv.org/abs/1710.10903, equations 1 to 5."""

    def __init__(self, out: int, heads: int = 1, drop: float = 0.0):
        super().__init__()
        self.heads, self.drop = heads, drop
        self.bias = nn.Parameter(torch.zeros(out))
        bound = (6 / (1 + out // heads)) ** 0.5 / 2**0.5
        self.hears, self.says = (
            nn.Parameter(torch.empty(heads, out // heads).uniform_(-bound, bound)) for _ in "ab"
        )

    def forward(self, z: Float[Tensor, "n out"], links: Links) -> Float[Tensor, "n out"]:
        each = z.unflatten(1, (self.heads, -1))  # (n, h, d)
        hears = (each * self.hears).sum(-1).float()  # (n, h)
        says = (each * self.says).sum(-1).float()
        score = functional.leaky_relu(hears[links.target] + says[links.source], 0.2)  # (e, h)
        weight = softmax(score, links)
        if self.training:
            weight = functional.dropout(weight, self.drop)
        return listen(links, weight, z) + self.bias


def softmax(score: Float[Tensor, "e h"], links: Links) -> Float[Tensor, "e h"]:
    """Over the links of each target."""
    place = links.target[:, None].expand_as(score)
    blank = score.new_full((len(links.degree), score.shape[1]), -torch.inf)
    top = blank.scatter_reduce(0, place, score.detach(), "amax")
    raised = (score - top[links.target]).exp()
    total = torch.zeros_like(blank).index_add(0, links.target, raised)
    return raised / total[links.target]


ACTS: dict[str, Callable[[], nn.Module]] = {"prelu": nn.PReLU, "relu": nn.ReLU, "elu": nn.ELU}
LAYERS: dict[str, Callable[..., nn.Module]] = {"gcn": GCN, "gin": GIN, "gat": GAT}


class Step(nn.Module):
    """A linear layer, the messages, and what follows."""

    def __init__(
        self, kind: str, first: int | None, inner: int, out: int, heads: int,
        drop: float, attention_drop: float, act: nn.Module,
    ):  # fmt: skip
        super().__init__()
        self.project = Rows(first, out) if first else nn.Linear(inner, out, bias=False)
        if not first:
            nn.init.xavier_uniform_(self.project.weight)
        self.messages = LAYERS[kind](out, heads, attention_drop)
        self.drop, self.act = drop, act

    def forward(self, h: Tensor | Graphs, x: Graphs, *hide: Any) -> Float[Tensor, "n out"]:
        drop = self.drop if self.training else 0.0
        if isinstance(h, Graphs):
            z = self.project(h, *(hide or (None, None)), drop)
        else:
            h = h.to(self.project.weight.dtype)  # sums are in float32 whatever the weights are
            z = self.project(dropout(h, drop) if drop else h)
        return self.act(self.messages(z, x.links).to(self.project.weight.dtype))


class Network(nn.Module):
    """Layers of messages: one vector for each node, or pooled, for each graph.

    `pool` is "sum", "mean" or "max" over the nodes; with `jump` the output of every layer is kept,
    one beside the other (InfoGraph, GraphCL), else that of the last.
    """

    def __init__(
        self, kind: str, width: int, *, dim: int, hidden: int, depth: int, heads: int, pool: str,
        jump: bool, norm: bool, drop: float, attention_drop: float, act: str,
    ):  # fmt: skip
        super().__init__()
        if pool not in ("sum", "mean", "max"):
            raise SelfsupError(
                "E202", f"pool={pool!r}", why="nodes are pooled by sum, mean or max",
                do="--set encoder.pool=mean",
            )  # fmt: skip
        if act not in ACTS:
            raise SelfsupError("E202", f"act={act!r}", do=f"one of {', '.join(ACTS)}")
        if dim % heads or hidden % heads:
            raise SelfsupError(
                "E202", f"{dim} and {hidden} wide layers with {heads} heads",
                why="every head has an equal share", do="--set encoder.heads=4",
            )  # fmt: skip
        self.kind, self.width, self.pool, self.jump = kind, width, pool, jump
        sizes = [hidden] * (depth - 1) + [dim]
        inputs = [width, *sizes[:-1]]
        self.steps = nn.ModuleList(
            Step(kind, width if i == 0 else None, inputs[i], out, heads if kind == "gat" else 1,
                 drop, attention_drop, ACTS[act]())
            for i, out in enumerate(sizes)
        )  # fmt: skip
        self.norms = nn.ModuleList(nn.BatchNorm1d(out) if norm else nn.Identity() for out in sizes)
        self.dim = sum(sizes) if jump else dim

    def nodes(
        self,
        x: Graphs,
        hidden: Bool[Tensor, " n"] | None = None,
        token: Float[Tensor, " width"] | None = None,
    ) -> Float[Tensor, "n d"]:
        """One vector for each node. Nodes that are `hidden` show `token` for what is known."""
        h: Any = x
        found = []
        for step, norm in zip(self.steps, self.norms, strict=True):
            h = norm(step(h, x, hidden, token) if h is x else step(h, x))
            found.append(h)
        return torch.cat(found, 1) if self.jump else h

    def layer(self, out: int) -> "Decoder":
        """One more layer of the same kind on top of `nodes`."""
        return Decoder(self.kind, self.dim, out)

    def features(self, x: Graphs) -> Float[Tensor, "b n d"]:
        """One vector for each node of each graph, zeros where a graph has fewer nodes.

        Where samples are nodes, the node alone: (b, 1, d).
        """
        h = self.nodes(x)
        if x.rows is not None:
            return h[x.rows][:, None]
        out = h.new_zeros(x.count, max(1, int(x.sizes.max())), h.shape[1])
        return out.index_put((x.graph, x.place), h)

    def forward(self, x: Graphs) -> Float[Tensor, "b d"]:
        h = self.nodes(x)
        return h[x.rows] if x.rows is not None else pool(h, x.graph, x.count, self.pool)


class Decoder(nn.Module):
    """One layer, one head, that says for each node what may be known of it, (n, width).

    Messages are linear in what is said, so they are summed first, while they are narrow.
    """

    def __init__(self, kind: str, inner: int, width: int):
        super().__init__()
        self.kind = kind
        self.project = nn.Linear(inner, width)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        if kind == "gat":
            bound = (6 / (1 + width)) ** 0.5 / 2**0.5
            self.says = nn.Parameter(torch.empty(width).uniform_(-bound, bound))

    def forward(
        self, h: Float[Tensor, "n d"], x: Graphs, nodes: Any = slice(None)
    ) -> Float[Tensor, "k width"]:
        """Of some nodes, or of all."""
        return self.project(self._heard(h, x)[nodes])

    def cosine(self, h: Float[Tensor, "n d"], x: Graphs) -> Float[Tensor, " n"]:
        """Cosine of what is said of each node and what is known of it, 0 where nothing is.

        Of z = W a + b only |z| and z . x are needed: a quadratic form of a, and a sum over the few
        numbers of x that are not zero. The output, 1,433 wide for Cora, is never written.
        """
        a = self._heard(h, x)
        with torch.autocast(a.device.type, enabled=False):
            weight, bias, values = self.project.weight, self.project.bias, x.values.float()
            known = functional.embedding_bag(
                x.columns, weight, x.starts, mode="sum", per_sample_weights=values
            )
            level = torch.zeros_like(a[:, 0]).index_add(0, x.owner, values * bias[x.columns])
            dot = (a * known).sum(1) + level
            square = ((a @ (weight.T @ weight) + 2 * bias @ weight) * a).sum(1)
            square = square + bias.square().sum()
            size = torch.zeros_like(level).index_add(0, x.owner, values.square()).sqrt()
            return dot / (square.clamp(min=1e-12).sqrt() * size.clamp(min=1e-6))

    def _heard(self, h: Float[Tensor, "n d"], x: Graphs) -> Float[Tensor, "n d"]:
        links = x.links
        if self.kind == "gat":
            # those who are asked are blank, so that only who speaks makes a difference
            says = h @ (self.says @ self.project.weight)
            score = functional.leaky_relu(says[links.source].float(), 0.2)
            weight = softmax(score[:, None], links)
        else:
            root = links.degree.rsqrt() if self.kind == "gcn" else torch.ones_like(links.degree)
            weight = (root[links.source] * root[links.target])[:, None]
        return listen(links, weight, h)


NETWORKS = {
    "gcn": {"dim": 256, "depth": 2},
    "gat": {"dim": 512, "depth": 2, "heads": 4},
    "gin": {"dim": 64, "depth": 3},
}


def network(
    name: str,
    width: int,
    *,
    dim: int | None = None,
    hidden: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    pool: str = "mean",
    jump: bool = False,
    norm: bool = False,
    drop: float = 0.0,
    attention_drop: float = 0.0,
    act: str = "prelu",
) -> Network:
    """A graph network for nodes of which `width` numbers are known."""
    shape = {"heads": 1, **NETWORKS[name]}
    shape |= {k: v for k, v in {"dim": dim, "depth": depth, "heads": heads}.items() if v}
    return Network(
        name, width, **shape, hidden=hidden or shape["dim"], pool=pool, jump=jump, norm=norm,
        drop=drop, attention_drop=attention_drop, act=act,
    )  # fmt: skip
