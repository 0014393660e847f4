"""The area under the ROC curve, where accuracy would call an encoder good that names one class."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from selfsup.evaluate.interval import difference, over_samples
from selfsup.evaluate.measure import ACCURACY, AUROC, auroc, measure_for


def drawn(n=400, rare=40, seed=0):
    draws = np.random.default_rng(seed)
    positive = np.arange(n) < rare
    return np.round(draws.normal(positive * 1.0), 1), positive  # rounded: some are equal


def test_its_mean_is_the_area_with_ties():
    score, positive = drawn()
    assert np.isclose(auroc(score, positive).mean(), roc_auc_score(positive, score))
    pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    assert np.isclose(auroc(score, positive).mean(), np.mean(pairs))


def test_its_interval_is_that_of_the_area():
    """As wide as from drawing the samples anew and ranking again."""
    score, positive = drawn()
    found = over_samples(auroc(score, positive))
    draws = np.random.default_rng(1)
    again = []
    for _ in range(1000):
        rows = draws.integers(0, len(score), len(score))
        again.append(roc_auc_score(positive[rows], score[rows]))
    low, high = np.quantile(again, [0.025, 0.975])
    assert abs(found.low - low) < 0.012 and abs(found.high - high) < 0.012
    assert 0.05 < found.half < 0.12


def test_when_accuracy_is_no_measure():
    def labels(*counts):
        return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    assert measure_for(labels(90, 10), 2) is AUROC
    assert measure_for(labels(70, 30), 2) is ACCURACY
    assert measure_for(labels(98, 1, 1), 3) is ACCURACY
    assert measure_for(labels(100, 0), 2) is ACCURACY  # nothing to rank against
    assert measure_for(labels(100, 4), 2) is ACCURACY  # too few to tell an interval
    assert measure_for(torch.tensor([0, 0, 0, 0, 0, 1, -1]), 2) is ACCURACY


def test_accuracy_is_who_was_found():
    logits = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.5, 0.0]])
    assert ACCURACY(logits, torch.tensor([1, 1, 0])).tolist() == [1, 0, 1]
    assert AUROC(logits, torch.tensor([1, 0, 0])).mean() == 1


def test_few_of_a_class_do_not_make_a_claim_certain():
    """Two scorers that are equally good: gains are called certain in one case of forty, no more."""
    draws, certain = np.random.default_rng(3), 0
    for _ in range(400):
        positive = np.arange(60) < 5
        ours, theirs = (auroc(draws.normal(positive * 1.0), positive) for _ in range(2))
        certain += difference(ours, theirs[None]).low > 0
    assert certain / 400 < 0.06
