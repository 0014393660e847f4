"""Graphs and nodes as samples: what is read, which looks there are, and what every control sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_graph import adjacency

from selfsup import randomness
from selfsup.data import open_source, open_store
from selfsup.data.graphs import canonical
from selfsup.data.outcome import BadSample
from selfsup.errors import SelfsupError
from selfsup.inference import assemble
from selfsup.method import Views
from selfsup.modalities import find, of_content
from selfsup.modalities.graph import Graph
from selfsup.modalities.network import Network
from selfsup.randomness import Draws
from selfsup.sparse import Graphs
from selfsup.views import graph as looks

STRONG = Views(strong=2, local=1)


@pytest.fixture
def rings(tmp_path):
    """Twelve rings and lines of 4 to 9 nodes of three kinds, in the TU layout."""
    random, lines, owner = np.random.default_rng(0), [], []
    for graph in range(12):
        n, first = 4 + graph % 6, len(owner) + 1
        owner += [graph + 1] * n
        ends = range(n if graph % 2 else n - 1)
        lines += [f"{first + i}, {first + (i + 1) % n}" for i in ends]
    (tmp_path / "R_A.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "R_graph_indicator.txt").write_text("\n".join(map(str, owner)) + "\n")
    (tmp_path / "R_graph_labels.txt").write_text("\n".join(str(g % 2) for g in range(12)) + "\n")
    kinds = random.integers(0, 3, len(owner)) * 5
    (tmp_path / "R_node_labels.txt").write_text("\n".join(map(str, kinds)) + "\n")
    return tmp_path


def batch_of(source, modality):
    modality.learn(source)
    return assemble([modality.read(source.read(i)) for i in range(len(source))])


def test_content_finds_the_modality(rings):
    assert of_content(open_source(rings).content) == "graph"
    assert of_content("nodes") == "network" and find("network") is Network


def test_a_batch_is_what_the_files_say(rings):
    source, modality = open_source(rings), Graph()
    x = modality.plain(batch_of(source, modality), 8)
    assert (len(x), x.width, x.nodes) == (12, 3, sum(4 + g % 6 for g in range(12)))
    for i in range(12):
        raw = source.read(i)
        one = x[[i]]
        place = np.searchsorted(modality.kinds, raw["labels"])
        assert torch.equal(one.dense(), torch.eye(3)[place])
        assert torch.equal(one.edges, torch.from_numpy(raw["edges"]))
    again = Graph()
    again.restore(modality.state)
    assert again.width == 3 and again.rules == modality.rules


def test_a_view_depends_on_its_sample_alone(rings):
    modality = Graph()
    batch = batch_of(open_source(rings), modality)
    whole = modality.views(batch, STRONG, Draws(7, torch.arange(12)), 8)
    part = assemble([batch.pixels[i, 0, :, 0].numpy().reshape(-1, 1, 1) for i in (3, 8)])
    alone = modality.views(part, STRONG, Draws(7, torch.tensor([3, 8])), 8)
    for a, b in zip(whole, alone, strict=True):
        a = a[[3, 8]]
        assert torch.equal(a.dense(), b.dense()) and torch.equal(a.edges, b.edges)
    other = modality.views(batch, STRONG, Draws(8, torch.arange(12)), 8)[0]
    assert other.nodes != whole[0].nodes or not torch.equal(other.dense(), whole[0].dense())


def test_light_views_keep_every_node_and_all_where_nothing_is_asked(rings):
    modality = Graph()
    batch = batch_of(open_source(rings), modality)
    plain = modality.plain(batch, 8)
    draws = Draws(0, torch.arange(12))
    (same,) = modality.views(batch, Views(light=1, share=(1.0, 1.0)), draws, 8)
    assert torch.equal(same.dense(), plain.dense()) and torch.equal(same.edges, plain.edges)
    (less,) = modality.views(batch, Views(light=1, share=(0.5, 0.5)), draws, 8)
    assert torch.equal(less.graph, plain.graph)
    assert less.edges.shape[1] < plain.edges.shape[1]
    assert torch.equal(adjacency(less), adjacency(less).T)  # an edge goes both ways or not at all


def test_parts_of_graphs_hang_together():
    sizes = torch.tensor([30, 1, 9])
    x = rings_of(sizes)
    draws, share = Draws(0, torch.arange(3)), torch.full((3,), 0.4)
    keep = looks.connected(x, draws, share)
    assert [int(keep[x.graph == g].sum()) for g in range(3)] == [12, 1, 4]
    part = x.subgraph(keep)
    reach = torch.matrix_power(adjacency(part), 30) > 0  # a piece of a ring is a line
    assert torch.equal(reach, part.graph[:, None] == part.graph)
    scattered = looks.scattered(x, draws, share)
    assert [int(scattered[x.graph == g].sum()) for g in range(3)] == [12, 1, 4]
    assert not torch.equal(scattered, keep)


def test_columns_of_one_graph_are_drawn_once(monkeypatch):
    x = rings_of(torch.tensor([3000]))  # 3 columns
    x, graph = replace(x, rows=torch.arange(4)), x.graph[x.owner]
    share = torch.tensor([0.5])
    keep = Draws(1, torch.arange(4)).each(graph, x.columns) < share[graph]
    hashed, hash = [], randomness._hash
    draws = Draws(1, torch.arange(4))
    monkeypatch.setattr(randomness, "_hash", lambda z: hashed.append(z.numel()) or hash(z))
    assert torch.equal(looks.fewer_columns(x, draws, share).values, x.values * keep)
    assert 0 < keep.sum() < len(keep) and max(hashed) < 10 and draws.calls == 1


def test_graphs_that_stay_whole_are_not_walked(monkeypatch):
    x = rings_of(torch.tensor([30, 500, 9]))
    draws, share = Draws(0, torch.arange(3)), torch.tensor([0.4, 1.0, 0.4])
    walked, scatter = [], torch.Tensor.scatter_reduce

    def counting(far, dim, target, *rest):
        walked.append(len(target))
        return scatter(far, dim, target, *rest)

    monkeypatch.setattr(torch.Tensor, "scatter_reduce", counting)
    keep = looks.connected(x, draws, share)
    assert [int(keep[x.graph == g].sum()) for g in range(3)] == [12, 500, 4]
    assert set(walked) == {2 * 39}
    each = looks.connected(x, Draws(0, torch.arange(3)), torch.full((3,), 0.4))
    assert torch.equal(each[x.graph != 1], keep[x.graph != 1])


def rings_of(sizes: torch.Tensor) -> Graphs:
    n, graph = int(sizes.sum()), torch.arange(len(sizes)).repeat_interleave(sizes)
    here, first = torch.arange(n), (sizes.cumsum(0) - sizes)[graph]
    edges = torch.stack([here, first + (here - first + 1) % sizes[graph]])
    edges = torch.from_numpy(canonical(edges.numpy(), n))
    return Graphs(here, here % 3, torch.ones(n), 3, edges, graph, len(sizes))


def test_baseline_counts_kinds_and_degrees(rings):
    modality = Graph()
    found = modality.baseline(batch_of(open_source(rings), modality)).square()
    sizes = torch.tensor([4.0 + g % 6 for g in range(12)])
    torch.testing.assert_close(found[:, :3].sum(1), sizes)
    torch.testing.assert_close(found[1, 3 + 2], torch.tensor(5.0))  # a ring: two neighbours each
    torch.testing.assert_close(found[0, 3 + 1], torch.tensor(2.0))  # a line: two ends


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ({"edges": np.array([[0], [9]]), "labels": np.zeros(2, int)}, "not_a_graph"),
        ({"edges": np.array([[0], [-1]]), "labels": np.zeros(2, int)}, "not_a_graph"),
        ({"edges": np.empty((2, 0), int), "labels": np.empty(0, int)}, "empty"),
        ({"edges": np.empty((2, 0), int), "labels": np.zeros(100_001, int)}, "too_large"),
        ("CCO", "not_a_graph"),
        (3.0, "not_a_graph"),
    ],
)
def test_hostile_graphs_are_set_aside(rings, raw, code):
    modality = Graph()
    modality.learn(open_source(rings))
    with pytest.raises(BadSample) as bad:
        modality.read(raw)
    assert bad.value.code == code


def test_numbers_of_nodes_are_scaled_and_must_be_finite(rings):
    n = len((rings / "R_graph_indicator.txt").read_text().split())
    numbers = np.random.default_rng(0).normal(5, 3, (n, 2))
    numbers[2, 1] = np.nan
    lines = "\n".join(", ".join(map(str, row)) for row in numbers)
    (rings / "R_node_attributes.txt").write_text(lines + "\n")
    source, modality = open_source(rings), Graph()
    modality.learn(source)
    with pytest.raises(BadSample, match="not finite, of nodes 2"):
        modality.read(source.read(0))
    x = modality.plain(assemble([modality.read(source.read(i)) for i in range(1, 12)]), 8)
    dense = x.dense()
    assert dense.shape[1] == 5 and dense[:, 3:].mean().abs() < 0.2


def test_molecules(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("smiles,y\nCCO,1\nnope,0\nc1ccccc1O,0\n")
    source, modality = open_source(path), Graph()
    modality.learn(source)
    with open_store(source, modality, 16, cache=tmp_path / "c", max_skipped=1.0) as store:
        batch = store.batch(np.arange(3))
    x = modality.plain(batch, 16)
    assert (len(x), x.nodes) == (2, 10)
    assert modality.picture(x).shape == (2, 3, 128, 128)


@pytest.fixture
def town(tmp_path):
    """A network of thirty nodes with words."""
    random = np.random.default_rng(1)
    edges = random.integers(0, 30, (60, 2))
    (tmp_path / "edges.csv").write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in edges) + "\n")
    np.save(tmp_path / "features.npy", random.integers(0, 3, (30, 8)).astype(float))
    return tmp_path


def test_nodes_are_samples_of_the_whole_graph(town):
    source, modality = open_source(town), Network()
    batch = batch_of(source, modality)
    assert batch is not None
    x = modality.plain(batch, 30)
    assert len(x) == 30 and torch.equal(x.rows, torch.arange(30))
    known = torch.from_numpy(source.rows.values)  # words are divided by how many there are
    assert known.sum() > 30 and torch.allclose(x.dense().sum(1), torch.ones(30))
    views = modality.views(batch, STRONG, Draws(0, torch.arange(30)), 30)
    assert all(v.nodes == 30 and torch.equal(v.rows, x.rows) for v in views)
    assert views[0].edges.shape[1] < x.edges.shape[1] and views[2].edges.shape[1] > 0
    torch.testing.assert_close(modality.baseline(batch), x.dense())
    assert modality.picture(x[:2]).shape == (2, 3, 128, 128)


def test_a_network_with_other_columns_is_refused(town, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "edges.csv").write_text("0,1\n")
    modality = Network()
    modality.learn(open_source(town))
    with pytest.raises(SelfsupError, match="32 numbers"):
        modality.meet(open_source(other))
    again = Network()
    again.restore(modality.state)
    again.meet(open_source(town))
    assert again.width == 8


def test_numbers_below_zero_are_standardised(town):
    random = np.random.default_rng(1)
    np.save(town / "features.npy", random.normal(3, 2, (30, 4)))
    modality = Network()
    x = modality.plain(batch_of(open_source(town), modality), 30).dense()
    torch.testing.assert_close(x.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(4))
