"""DGI against a slow reading of equations 1 and 4, and what corruption may do."""

import pytest
import torch
from fixed import ONE, OTHER, waves
from test_graph import WIDTH, graphs

from selfsup.graph import network
from selfsup.methods import DGI
from selfsup.methods.dgi import corruption, discrimination


def method(**settings) -> DGI:
    torch.manual_seed(0)
    return DGI(network("gcn", WIDTH, dim=8, depth=1, **settings))


def test_loss_against_a_slow_reading():
    model, x = method(), graphs((5, 1, 7))
    torch.manual_seed(3)
    found = model([x], 0.0)["discrimination"]
    torch.manual_seed(3)
    h = model.encoder.nodes(x)
    wrong = model.encoder.nodes(x.exchanged(corruption(x)))
    total = 0.0
    for g in range(3):
        mine = [i for i in range(x.nodes) if x.graph[i] == g]
        s = torch.sigmoid(sum(h[i] for i in mine) / len(mine))
        for i in mine:
            total -= torch.log(torch.sigmoid(h[i] @ model.weight @ s))
            total -= torch.log(1 - torch.sigmoid(wrong[i] @ model.weight @ s))
    torch.testing.assert_close(found, total / (2 * x.nodes), atol=1e-5, rtol=1e-5)


def test_discrimination_against_another_implementation():
    """torch_geometric 2.8.1, nn/models/deep_graph_infomax.py, which adds the two means."""
    summary = ONE.mean(0).sigmoid().expand(6, 4)
    found = discrimination(ONE, OTHER, summary, waves(1.3, 4, 4)) / 6
    torch.testing.assert_close(found, torch.tensor(1.3611094952), atol=1e-5, rtol=1e-5)


def test_corruption_reorders_within_graphs_and_every_order_is_as_likely():
    x = graphs((3, 1, 7))
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(600):
        torch.manual_seed(seed)
        order = corruption(x)
        assert torch.equal(x.graph[order], x.graph)
        assert torch.equal(order.sort().values, torch.arange(11))
        first = tuple(order[:3].tolist())
        seen[first] = seen.get(first, 0) + 1
    assert len(seen) == 6 and min(seen.values()) > 60


def test_the_corrupted_graph_keeps_its_edges():
    x = graphs((9,))
    wrong = x.exchanged(corruption(x))
    assert torch.equal(wrong.edges, x.edges) and not torch.equal(wrong.dense(), x.dense())


def test_graphs_that_share_a_batch_do_not_share_a_summary():
    model = method().eval()
    x, y = graphs((6,)), graphs((6,), seed=1)
    torch.manual_seed(3)
    both = model([torch.cat([x, y])], 0.0)["discrimination"]
    torch.manual_seed(3)
    order = corruption(torch.cat([x, y]))
    parts = []
    for one, mine in ((x, order[:6]), (y, order[6:] - 6)):
        h, wrong = model.encoder.nodes(one), model.encoder.nodes(one.exchanged(mine))
        asked = model.weight @ h.mean(0).sigmoid()
        parts += [
            -(h @ asked).sigmoid().log().mean(),
            -(1 - (wrong @ asked).sigmoid()).log().mean(),
        ]
    torch.testing.assert_close(both, sum(parts) / 4, atol=1e-5, rtol=1e-5)


def test_a_summary_that_says_nothing_is_at_chance():
    model = method()
    with torch.no_grad():
        model.weight.zero_()
    found = model([graphs((9,))], 0.0)["discrimination"]
    assert found.item() == pytest.approx(model.chance["discrimination"])
