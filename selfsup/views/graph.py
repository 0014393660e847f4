"""Looks at graphs: some edges, some nodes, some of what is known, each drawn for a whole batch."""

from collections.abc import Collection
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..randomness import Draws
from ..sparse import Graphs

ROUNDS = 64  # hops from the first node of a part; what is farther counts as far


def drawn(draws: Draws, x: Graphs, graph: Tensor, lane: Tensor) -> Float[Tensor, " m"]:
    """A number in [0, 1) for each (graph, lane): the same for the two directions of an edge.

    Where samples are nodes of one graph, all numbers are those of the first sample.
    """
    return draws.each(torch.zeros_like(graph) if x.rows is not None else graph, lane)


def one_each(draws: Draws, x: Graphs) -> Float[Tensor, " count"]:
    """A number for each graph."""
    number = draws.uniform()
    return number[:1].expand(x.count) if x.rows is not None else number


def kept(share: Tensor, operation: str, without: Collection[str]) -> Tensor:
    """The share of each graph that an operation keeps: all of it where it is left out."""
    return torch.ones_like(share) if operation in without else share


def edge_lanes(x: Graphs) -> Int64[Tensor, " e"]:
    """The same number for both directions of an edge, whatever batch its graph is in."""
    local = x.place[x.edges]
    return local.amin(0) * (1 << 31) + local.amax(0)


def fewer_edges(x: Graphs, draws: Draws, share: Float[Tensor, " count"]) -> Graphs:
    """Each edge stays with the probability that its graph has."""
    graph = x.graph[x.edges[1]]
    keep = drawn(draws, x, graph, edge_lanes(x)) < share[graph]
    return replace(x, edges=x.edges[:, keep])


def fewer_columns(x: Graphs, draws: Draws, share: Float[Tensor, " count"]) -> Graphs:
    """Each column stays, for all nodes of a graph, with the probability that the graph has."""
    if x.rows is not None and x.count == 1 and x.width <= len(x.columns):
        column = torch.arange(x.width, device=x.device)  # one number each, not one for each value
        keep = (drawn(draws, x, column, column) < share)[x.columns]
    else:
        graph = x.graph[x.owner]
        keep = drawn(draws, x, graph, x.columns) < share[graph]
    return replace(x, values=x.values * keep)


def fewer_known(x: Graphs, draws: Draws, share: Float[Tensor, " count"]) -> Graphs:
    """Nothing is known any more of some nodes."""
    keep = drawn(draws, x, x.graph, x.place) < share[x.graph]
    return replace(x, values=x.values * keep[x.owner])


def scattered(x: Graphs, draws: Draws, share: Float[Tensor, " count"]) -> Bool[Tensor, " n"]:
    """Nodes drawn one by one, at least one of a graph."""
    return _first(x, drawn(draws, x, x.graph, x.place), share)


def connected(x: Graphs, draws: Draws, share: Float[Tensor, " count"]) -> Bool[Tensor, " n"]:
    """The nodes around one of them, nearest first: a part that hangs together."""
    number = drawn(draws, x, x.graph, x.place)
    first = _first(x, number, torch.zeros_like(share))
    far = torch.where(first, 0, ROUNDS)
    source, target = x.edges[:, (share < 1)[x.graph[x.edges[1]]]]  # of the others all nodes stay
    for _ in range(ROUNDS):
        nearer = far.scatter_reduce(0, target, far[source] + 1, "amin")
        if torch.equal(nearer, far):
            break
        far = nearer
    return _first(x, far + number, share)


def _first(
    x: Graphs, score: Float[Tensor, " n"], share: Float[Tensor, " count"]
) -> Bool[Tensor, " n"]:
    """The share of each graph's nodes with the lowest scores, at least one."""
    by_score = score.argsort(stable=True)
    order = by_score[x.graph[by_score].argsort(stable=True)]  # by graph, then by score
    wanted = (share * x.sizes).ceil().clamp(min=1)
    rank = torch.empty_like(order)
    rank[order] = x.place  # graphs are ascending, so places in them are too
    return rank < wanted[x.graph]


def milder(share: float, local: bool) -> float:
    """What methods ask for is meant for pictures; a graph loses its meaning sooner.

    >>> milder(0.2, local=False), milder(0.25, local=True)
    (0.6, 0.5)
    """
    return share**0.5 if local else (1 + share) / 2
