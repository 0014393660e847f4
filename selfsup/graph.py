"""Networks that pass messages along the edges of graphs: the encoders of nodes and of graphs."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from .errors import SelfsupError
from .randomness import dropout, droppable
from .sparse import Graphs, Links, listen, pool, softmax


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
                 droppable(drop), droppable(attention_drop), ACTS[act]())
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
