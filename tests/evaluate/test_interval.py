import numpy as np
import pytest

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


def test_few_labels_and_few_test_samples_are_both_chance():
    """Two encoders that are equally good, the same 40 test samples for all five draws."""
    draws, certain = np.random.default_rng(0), 0
    for _ in range(300):
        hard = draws.random((2, 1, 40))  # how hard each sample is for each of them
        right = (draws.random((2, 5, 40)) * 0.3 + hard < 0.7).astype(float)
        certain += over_both(right[0] - right[1]).low > 0
    assert certain / 300 < 0.05
