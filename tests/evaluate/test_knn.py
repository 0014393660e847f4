import math

import pytest
import torch

from selfsup.evaluate import knn


def test_against_a_slow_reading_of_section_3_4():
    torch.manual_seed(0)
    gallery, queries = torch.randn(40, 5), torch.randn(9, 5)
    labels, k, t = torch.randint(0, 4, (40,)), 7, 0.3
    slow = []
    for q in queries:
        similar = [(float(q @ g / q.norm() / g.norm()), i) for i, g in enumerate(gallery)]
        votes = [0.0] * 4
        for s, i in sorted(similar, reverse=True)[:k]:
            votes[int(labels[i])] += math.exp(s / t)
        slow.append(votes.index(max(votes)))
    assert knn.predict(queries, gallery, labels, 4, k=k, temperature=t).tolist() == slow


def test_blocks_change_nothing(monkeypatch):
    torch.manual_seed(1)
    gallery, queries = torch.randn(101, 6), torch.randn(33, 6)
    whole = knn.nearest(queries, gallery, 9)
    monkeypatch.setattr(knn, "BLOCK", 7)
    monkeypatch.setattr(knn, "GALLERY_BLOCK", 5)  # smaller than k: blocks give fewer than asked for
    parts = knn.nearest(queries, gallery, 9)
    torch.testing.assert_close(parts[0], whole[0])
    assert torch.equal(parts[1], whole[1])


@pytest.mark.parametrize("block", [4, 1000])
def test_none_is_its_own_neighbour(monkeypatch, block):
    monkeypatch.setattr(knn, "BLOCK", 5)
    monkeypatch.setattr(knn, "GALLERY_BLOCK", block)
    x = torch.randn(17, 3)
    _, rows = knn.nearest(x, x, 16, apart=torch.arange(len(x)))
    for own, found in enumerate(rows.tolist()):
        assert sorted(found) == [i for i in range(17) if i != own]


def test_k_is_cut_to_the_gallery_and_no_temperature_overflows():
    x = torch.eye(3)
    similarity, rows = knn.nearest(x, x, 20)
    assert rows.shape == (3, 3)
    votes = knn.vote(similarity, torch.tensor([[0, 1, 1]] * 3), 2, temperature=1e-4)
    assert votes.isfinite().all() and votes.argmax(1).tolist() == [0, 0, 0]
