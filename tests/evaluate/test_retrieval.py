import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn.functional import normalize

from selfsup.evaluate import retrieval


@pytest.fixture
def space():
    torch.manual_seed(0)
    return torch.randn(23, 6), torch.arange(23) % 4, torch.randn(80, 6), torch.arange(80) % 5


def test_average_precision_agrees_with_scikit_learn(space):
    queries, y, gallery, z = space
    similarity = normalize(queries, dim=1) @ normalize(gallery, dim=1).T
    expected = [average_precision_score(z == label, s) for label, s in zip(y, similarity)]
    found = retrieval.average_precision(*space)
    torch.testing.assert_close(
        found.double(), torch.tensor(expected).double(), atol=1e-5, rtol=1e-5
    )


def test_recall_counts_queries_with_a_hit_among_the_first(space):
    queries, y, gallery, z = space
    found = retrieval.retrieval(*space)
    order = (normalize(queries, dim=1) @ normalize(gallery, dim=1).T).argsort(1, descending=True)
    for k in (1, 5, 10):
        expected = sum(bool((z[row[:k]] == label).any()) for row, label in zip(order, y)) / 23
        assert found.recall[k] == pytest.approx(expected)
    assert found.recall[1] <= found.recall[5] <= found.recall[10]


def test_best_cases_hit_and_worst_cases_miss_and_are_sure_of_it():
    gallery, z = torch.eye(4).repeat(8, 1), torch.arange(4).repeat(8)
    queries = torch.cat([torch.eye(4), torch.eye(4) + 0.1])
    y = torch.tensor([0, 1, 2, 0, 0, 1, 2, 0])  # the fourth of each four lies among class 3
    found = retrieval.retrieval(queries, y, gallery, z)
    assert all(found.best[0].same_class) and not any(found.worst[0].same_class)
    assert found.worst[0].query == 3 and found.worst[1].query == 7  # the surer one first
    assert found.worst[0].similarity[0] == pytest.approx(1.0)
    assert {3, 7} == {case.query for case in found.worst[:2]}


def test_queries_are_spread_where_there_are_too_many_to_sort(space, monkeypatch):
    whole = retrieval.retrieval(*space).average_precision
    monkeypatch.setattr(retrieval, "PAIRS", 80 * 5)
    part = retrieval.retrieval(*space).average_precision
    torch.testing.assert_close(part, whole[[0, 4, 9, 13, 18]])
