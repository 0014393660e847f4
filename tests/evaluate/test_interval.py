import numpy as np
import pytest

from selfsup.evaluate import interval
from selfsup.evaluate.interval import difference, over_both, over_samples, over_seeds


def test_student_t_of_known_numbers():
    found = over_seeds([1.0, 2.0, 3.0])
    # t(0.975, 2 degrees) = 4.302653; standard error 1 / sqrt(3)
    assert found.value == 2.0
    assert found.half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert over_seeds([0.5, 0.5]).half == 0.0


@pytest.mark.parametrize("binary", [True, False])
def test_95_percent_intervals_cover_the_truth_about_95_percent_of_the_time(binary):
    generator = np.random.default_rng(0)
    inside = 0
    for i in range(200):
        x = generator.random(150)
        x = (x < 0.3).astype(float) if binary else x
        found = over_samples(x, seed=i)
        inside += found.low <= (0.3 if binary else 0.5) <= found.high
    assert 0.89 <= inside / 200 <= 0.99


def test_few_different_values_are_drawn_at_once_and_alike(monkeypatch):
    generator = np.random.default_rng(2)
    gain = (generator.random(500) < 0.8) - (generator.random((3, 500)) < 0.7).mean(0)
    at_once = over_samples(gain)
    monkeypatch.setattr(interval, "FEW_VALUES", 0)
    one_by_one = over_samples(gain)
    assert at_once != one_by_one and at_once.value == one_by_one.value
    assert at_once.half == pytest.approx(one_by_one.half, rel=0.1)
    assert at_once.low == pytest.approx(one_by_one.low, abs=0.01)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_handful_of_samples_makes_nothing_certain(n):
    """All right on a few samples, where the control is wrong: no gain that is certain."""
    assert over_samples(np.ones(n))[:3] == (1.0, 0.0, 1.0)
    assert over_samples(np.zeros(n))[:3] == (0.0, 0.0, 1.0)
    assert difference(np.ones(n), np.zeros((3, n)))[:3] == (1.0, -1.0, 1.0)
    assert difference(np.full(n, 7.0), np.zeros((1, n))).low < 0  # no shares
    assert difference(np.ones(5), np.zeros((1, 5))).low == 1.0


def test_a_difference_is_paired():
    """Two classifiers that err on the same samples differ more surely than their scores tell."""
    generator = np.random.default_rng(1)
    theirs = (generator.random(1000) < 0.5).astype(float)
    ours = theirs.copy()
    ours[np.flatnonzero(theirs == 0)[:30]] = 1.0
    found = difference(ours, theirs[None])
    assert found.value == pytest.approx(0.03) and found.low > 0.015
    assert over_samples(ours).half > 0.025  # unpaired, three points would drown


def test_several_control_networks_widen_a_difference():
    ours = np.ones(400)
    steady = np.stack([np.arange(400) % 2] * 3).astype(float)
    moving = np.stack([np.arange(400) < n for n in (100, 200, 300)]).astype(float)
    assert difference(ours, steady).value == pytest.approx(difference(ours, moving).value)
    assert difference(ours, moving).half > 5 * difference(ours, steady).half


def test_of_several_intervals_the_best_is_no_surer_than_one():
    """Three counts of labels, none of which brings anything."""
    p = 1 - 0.025 / 3
    t = (2 * p - 1) / (2 * p * (1 - p)) ** 0.5  # of two degrees
    assert over_seeds([1.0, 2.0, 3.0], 3).half == pytest.approx(t / 3**0.5)
    draws, certain = np.random.default_rng(3), np.zeros(2)
    for _ in range(400):
        three = draws.normal(size=(3, 4))
        certain += [any(over_seeds(list(x), n).low > 0 for x in three) for n in (1, 3)]
    assert certain[1] / 400 < 0.04 < certain[0] / 400
    x = draws.normal(size=(4, 200))
    for one, several in (over_samples(x[0]), over_samples(x[0], among=3)), (
        over_both(x), over_both(x, among=3)
    ):  # fmt: skip
        assert one.value == several.value and several.half > 1.1 * one.half


def test_few_labels_and_few_test_samples_are_both_chance():
    """Two encoders that are equally good, the same 40 test samples for all five draws."""
    draws, certain = np.random.default_rng(0), 0
    for _ in range(300):
        hard = draws.random((2, 1, 40))  # how hard each sample is for each of them
        right = (draws.random((2, 5, 40)) * 0.3 + hard < 0.7).astype(float)
        certain += over_both(right[0] - right[1]).low > 0
    assert certain / 300 < 0.05
