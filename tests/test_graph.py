"""Batches of graphs, and networks on them, against slow readings with dense matrices."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, leaky_relu, relu

from selfsup.data.graphs import canonical
from selfsup.errors import SelfsupError
from selfsup.graph import GAT, GCN, GIN, Rows, network
from selfsup.sparse import Graphs, listen, pool

WIDTH = 6


def graphs(sizes=(5, 1, 7), seed=0, rows=None) -> Graphs:
    """Random graphs with about as many edges as nodes; some nodes of which nothing is known."""
    random = np.random.default_rng(seed)
    edges, before = [], 0
    for n in sizes:
        edges.append(canonical(random.integers(0, n, (2, n)), n) + before)
        before += n
    lengths = torch.from_numpy(random.integers(0, 4, before))
    total = int(lengths.sum())
    return Graphs(
        lengths.cumsum(0) - lengths,
        torch.from_numpy(np.arange(total) % WIDTH),  # no column twice in a row
        torch.from_numpy(random.random(total, np.float32)) + 0.1,
        WIDTH,
        torch.from_numpy(np.concatenate(edges, 1)),
        torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        len(sizes),
        rows,
    )


def adjacency(x: Graphs) -> torch.Tensor:
    """With each node itself: (n, n), rows hear columns."""
    a = torch.eye(x.nodes)
    a[x.edges[1], x.edges[0]] = 1.0
    return a


def test_batches_are_joined_cut_and_moved():
    x, y = graphs(), graphs((3, 4), seed=1)
    both = torch.cat([x, y])
    assert (len(both), both.nodes) == (5, 20) and both.shape == (5, WIDTH)
    assert torch.equal(both.dense(), torch.cat([x.dense(), y.dense()]))
    assert torch.equal(adjacency(both), torch.block_diag(adjacency(x), adjacency(y)))
    part = both[[1, 3]]
    assert torch.equal(part.dense(), torch.cat([x.dense()[5:6], y.dense()[:3]]))
    assert part.graph.tolist() == [0, 1, 1, 1] and len(both[2:]) == 3
    assert both.to(torch.bfloat16).values.dtype == torch.bfloat16
    links = both.links
    assert torch.equal(links.source[links.back], links.target)
    with pytest.raises(TypeError):
        torch.stack([x, y])


def test_nodes_as_samples_follow_their_graph():
    x = graphs((8,), rows=torch.tensor([5, 2]))
    both = torch.cat([x, x])
    assert len(both) == 4 and both.rows.tolist() == [5, 2, 13, 10]
    assert both[1:3].rows.tolist() == [2, 13]


def test_subgraphs_keep_what_is_among_their_nodes():
    x = graphs()
    keep = torch.tensor([1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1], dtype=torch.bool)
    part = x.subgraph(keep)
    assert torch.equal(part.dense(), x.dense()[keep])
    assert torch.equal(adjacency(part), adjacency(x)[keep][:, keep])
    assert part.count == 3  # the second graph has lost its only node and is still counted
    order = torch.randperm(x.nodes)
    assert torch.equal(x.exchanged(order).dense(), x.dense()[order])


@pytest.mark.parametrize("sparse", [True, False])
def test_sums_over_links_and_their_gradients(sparse, monkeypatch):
    monkeypatch.setattr("selfsup.sparse._SPARSE", sparse and torch.backends.mkl.is_available())
    x = graphs().links
    e, n = len(x.source), len(x.degree)
    weight = torch.rand(e, 2, requires_grad=True)
    h = torch.randn(n, 6, requires_grad=True)
    slow = []
    for head, part in zip(weight.T, h.chunk(2, 1), strict=True):
        matrix = torch.zeros(n, n).index_put((x.target, x.source), head)
        slow.append(matrix @ part)
    expected, found = torch.cat(slow, 1), listen(x, weight, h)
    torch.testing.assert_close(found, expected)
    dy = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad(found, (weight, h), dy),
        torch.autograd.grad(expected, (weight, h), dy),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_gcn_is_equation_2():
    x, z, layer = graphs(), torch.randn(13, 4), GCN(4)
    a = adjacency(x)
    root = a.sum(1).rsqrt().diag()
    torch.testing.assert_close(layer(z, x.links), root @ a @ root @ z + layer.bias)


def test_gin_is_equation_4_1():
    x, h = graphs(), torch.randn(13, 3)
    layer, project = GIN(4), torch.nn.Linear(3, 4, bias=False)
    expected = layer.mlp(relu(layer.norm(project(adjacency(x) @ h))))
    torch.testing.assert_close(layer(project(h), x.links), expected)


def test_gat_is_equations_1_to_5():
    x, z, layer = graphs(), torch.randn(13, 6), GAT(6, heads=2)
    a, parts = adjacency(x), []
    for head in range(2):
        own = z[:, 3 * head : 3 * head + 3]
        hears, says = own @ layer.hears[head], own @ layer.says[head]
        score = leaky_relu(hears[:, None] + says[None], 0.2).masked_fill(a == 0, -torch.inf)
        parts.append(score.softmax(1) @ own)
    torch.testing.assert_close(layer(z, x.links), torch.cat(parts, 1) + layer.bias)


def test_first_layer_on_sparse_rows_and_hidden_nodes():
    x, layer, token = graphs(), Rows(WIDTH, 4), torch.randn(WIDTH)
    hidden = torch.arange(13) % 3 == 0
    shown = x.dense()
    torch.testing.assert_close(layer(x), shown @ layer.weight)
    shown[hidden] = token
    torch.testing.assert_close(layer(x, hidden, token), shown @ layer.weight)


@pytest.mark.parametrize("kind", ["gcn", "gin", "gat"])
def test_cosines_of_a_decoder_are_those_of_its_output(kind):
    x = graphs()
    encoder = network(kind, WIDTH, dim=8, heads=2)
    decoder = encoder.layer(WIDTH)
    torch.nn.init.normal_(decoder.project.bias)
    h = encoder.nodes(x)
    expected = cosine_similarity(decoder(h, x), x.dense())
    torch.testing.assert_close(decoder.cosine(h, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gcn", "gin", "gat"])
@pytest.mark.parametrize("how", ["sum", "mean", "max"])
def test_a_graph_has_the_same_vector_in_any_batch(kind, how):
    x, y = graphs(), graphs((4,), seed=3)
    encoder = network(kind, WIDTH, dim=8, heads=2, pool=how, norm=True, jump=True).eval()
    assert encoder.dim == {"gcn": 16, "gat": 16, "gin": 24}[kind]
    together = encoder(torch.cat([y, x]))
    torch.testing.assert_close(together[1:], encoder(x))
    torch.testing.assert_close(together[3], encoder(x[[2]])[0])
    features = encoder.features(x)
    assert features.shape == (3, 7, encoder.dim) and not features[1, 1:].any()


def test_pooling_graphs_without_nodes():
    graph, h = torch.tensor([0, 0, 2]), torch.tensor([[1.0], [3.0], [-5.0]])
    assert pool(h, graph, 3, "sum").flatten().tolist() == [4, 0, -5]
    assert pool(h, graph, 3, "mean").flatten().tolist() == [2, 0, -5]
    assert pool(h, graph, 3, "max").flatten().tolist() == [3, 0, -5]


def test_a_hub_of_a_million_neighbours_takes_memory_for_its_edges_alone():
    n = 1_000_001
    leaves = torch.arange(1, n)
    hub = torch.zeros_like(leaves)
    edges = torch.stack([torch.cat([leaves, hub]), torch.cat([hub, leaves])])
    one = torch.arange(n)
    x = Graphs(one, one % WIDTH, torch.ones(n), WIDTH, edges, torch.zeros_like(one), 1)
    encoder = network("gcn", WIDTH, dim=2, depth=1)
    assert encoder(x).isfinite().all()


def test_settings_that_cannot_be_are_refused():
    for settings in ({"pool": "first"}, {"act": "step"}, {"dim": 7, "heads": 2}):
        with pytest.raises(SelfsupError, match="E202"):
            network("gat", WIDTH, **settings)
