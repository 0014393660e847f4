import torch
from torch.nn.functional import one_hot

from selfsup.clusters import Clusters


def blobs(n=300, groups=5):
    torch.manual_seed(0)
    group = torch.arange(n) % groups
    return 100 + 3 * torch.randn(groups, 4)[group] + 0.1 * torch.randn(n, 4), group


def test_fit_finds_groups_and_scale_does_not_matter():
    x, group = blobs()
    for scale in (1.0, torch.tensor([1.0, 100.0, 1e-3, 1.0])):
        clusters = Clusters(5, 4)
        clusters.fit(x * scale)
        found = clusters(x * scale)
        pairs = one_hot(found, 5).T @ one_hot(group, 5)
        assert (pairs > 0).sum() == 5 and clusters.counts.tolist() == [60.0] * 5


def test_groups_that_no_start_lies_in_are_found():
    x = torch.zeros(100, 2)
    x[1], x[2] = torch.tensor([5.0, 0.0]), torch.tensor([0.0, 5.0])  # all starts are at zero
    clusters = Clusters(3, 2)
    clusters.fit(x)
    assert len({int(c) for c in clusters(x[:3])}) == 3


def test_what_never_differed_when_fitted_counts_no_more_than_the_rest_later():
    x, _ = blobs()
    clusters = Clusters(5, 4)
    clusters.fit(x * torch.tensor([1.0, 1.0, 1.0, 0.0]))
    found = clusters.distances(x * torch.tensor([1.0, 1.0, 1.0, 0.0]) + torch.eye(4)[3])
    torch.testing.assert_close(found.amin(1), torch.ones(300), atol=0.2, rtol=0.0)


def test_more_centres_than_vectors():
    clusters = Clusters(8, 4)
    clusters.fit(torch.randn(3, 4))
    assert clusters.centres.isfinite().all() and clusters(torch.randn(3, 4)).max() < 8


def test_a_centre_is_the_mean_of_all_that_it_was_moved_by():
    x, _ = blobs()
    clusters = Clusters(5, 4)
    clusters.fit(x)
    fresh = x[:150] + 0.01
    own = clusters(torch.cat([x, fresh]))
    for part in fresh.split(60):  # in parts as all at once
        clusters.see(part)
    clusters.move()
    for k in range(5):
        mine = torch.cat([x, fresh])[own == k]
        mean = (mine.mean(0) - clusters.mean) / clusters.std
        torch.testing.assert_close(clusters.centres[k], mean, atol=1e-4, rtol=1e-4)
        assert clusters.counts[k] == len(mine)
    before = clusters.centres.clone()
    clusters.move()
    assert torch.equal(clusters.centres, before)
