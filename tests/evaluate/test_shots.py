import numpy as np
import torch

from selfsup.evaluate import linear, shots


def test_draws_are_of_every_class_and_fewer_are_part_of_more():
    labels = np.repeat([0, 1, 2], [30, 20, 4])
    few, more = shots.draw(labels, 2, seed=5), shots.draw(labels, 10, seed=5)
    assert np.bincount(labels[few]).tolist() == [2, 2, 2]
    assert np.bincount(labels[more]).tolist() == [10, 10, 4]  # as many as there are
    assert set(few) <= set(more) and len(set(more)) == len(more)
    assert np.array_equal(few, shots.draw(labels, 2, seed=5))
    assert not np.array_equal(few, shots.draw(labels, 2, seed=6))


def test_counts_that_most_classes_cannot_give_are_left_out():
    labels = np.repeat([0, 1, 2], [30, 20, 4])
    assert shots.possible(labels, (1, 10, 25, 100)) == ([1, 10], [25, 100])
    assert shots.possible(np.repeat([0, 1], 10), (10,)) == ([], [10])  # that is all labels


def test_more_labels_help_where_classes_overlap():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(600) % 3
    x = torch.randn(600, 10, generator=generator) + 1.5 * torch.eye(10)[y]
    train, test = slice(0, 400), slice(400, 600)
    scale = linear.scale_of(x[train])
    found = [
        np.mean(
            [
                shots.few_labels(x[train], y[train], x[test], y[test], 3, count, seed, scale)
                for seed in range(5)
            ]
        )
        for count in (1, 5, 50)
    ]
    assert found[0] < found[1] < found[2]
