import pytest

from selfsup.evaluate.interval import Interval
from selfsup.evaluate.verdict import Facts, judge, labels_needed, worth


def interval(value, half):
    return Interval(value, value - half, value + half, "")


def facts(**more):
    return Facts(**{"ours": 0.7, "rank": 60.0, "untrained_rank": 50.0, "dim": 128} | more)


def test_labels_needed_is_linear_in_the_logarithm():
    curve = {10: 0.2, 100: 0.4, 1000: 0.8}
    assert labels_needed(curve, 0.4) == (pytest.approx(100), False)
    assert labels_needed(curve, 0.6) == (pytest.approx(10**2.5), False)
    assert labels_needed(curve, 0.3) == (pytest.approx(10**1.5), False)
    assert labels_needed(curve, 0.9) == (1000, True)
    assert labels_needed(curve, 0.1) == (10, False)


def test_a_dip_in_a_curve_is_noise():
    assert labels_needed({10: 0.5, 100: 0.4, 1000: 0.9}, 0.7)[0] == pytest.approx(10**2.5)


def test_worth_is_against_the_best_control_at_each_count():
    ours = {10: 0.5, 100: 0.7, 1000: 0.9}
    weak, strong = {10: 0.1, 100: 0.2, 1000: 0.3}, {10: 0.3, 100: 0.5, 1000: 0.7}
    found = worth(ours, [weak, strong])
    assert [(w.labels, round(w.factor, 3)) for w in found] == [(10, 10.0), (100, 10.0)]
    assert not any(w.at_least for w in found)
    best = worth({10: 0.95}, [strong])
    assert best[0].factor == 100 and best[0].at_least


def test_a_gain_is_told_with_its_worth():
    worths = worth({10: 0.5, 100: 0.7}, [{10: 0.3, 100: 0.5, 1000: 0.7}])
    found = judge(interval(0.23, 0.02), "untrained", {"untrained": 0.47}, worths, facts())
    assert found.gain and found.control == "untrained"
    assert "+23.0 points over the same network untrained" in found.sentence
    assert "worth about 10 times the labels" in found.sentence
    assert "+21.0 to +25.0" in found.sentence
    bound = worth({10: 0.95}, [{10: 0.3, 1000: 0.7}])
    assert "at least 100 times" in judge(interval(0.2, 0.1), "x", {}, bound, facts()).sentence


def test_an_interval_that_holds_zero_is_no_gain():
    found = judge(interval(0.01, 0.015), "untrained", {"untrained": 0.69}, [], facts())
    assert not found.gain and found.sentence.startswith("No clear gain")
    assert "Likely cause" in found.sentence and "Try:" in found.sentence
    lost = [judge(interval(-0.1, 0.02), of, {}, [], facts()) for of in ("untrained", "TF-IDF")]
    assert lost[0].sentence.startswith("Pretraining hurts: -10.0")
    # against untrained it may well have helped: the harm is not pretraining's
    assert lost[1].sentence.startswith("The classical features are better: -10.0 points against TF")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"rank": 1.1}, "collapsed"),
        ({"rank": 1.2, "untrained_rank": 1.1, "epochs": 0.4}, "too short"),
        ({"ours": 0.99}, "solved"),
        ({"epochs": 2.0}, "too short"),
        ({"samples": 200}, "only 200 samples"),
        ({"rank": 20.0}, "few directions"),
        ({}, "views do not match"),
    ],
)
def test_likely_causes(more, word):
    found = judge(interval(-0.01, 0.005), "untrained", {}, [], facts(**more))
    assert word in found.cause and found.advice


def test_wide_intervals_ask_for_test_samples_and_pixels_for_other_views():
    assert "too few test" in judge(interval(0.01, 0.1), "untrained", {}, [], facts()).cause
    assert "colour" in judge(interval(-0.05, 0.01), "pixels + PCA", {}, [], facts()).cause


def test_fine_tuning_may_gain_where_frozen_features_do_not():
    none = interval(0.0, 0.02)
    found = judge(
        none, "untrained", {}, [], facts(), None, (interval(0.1, 0.03), "from scratch", 500)
    )
    assert found.gain and "+10.0 points over training from scratch with 500" in found.sentence
    same = judge(
        none, "untrained", {}, [], facts(), None, (interval(0.01, 0.03), "from scratch", 500)
    )
    assert not same.gain


def test_a_gain_with_few_labels_alone_is_told_as_such():
    few = [(1, interval(0.2, 0.05), "untrained"), (100, interval(0.0, 0.02), "pixels + PCA")]
    found = judge(interval(-0.01, 0.02), "pixels + PCA", {}, [], facts(), few)
    assert found.gain and "where labels are few: +20.0 points" in found.sentence
    assert "with 1 label per class" in found.sentence and "with all labels -1.0" in found.sentence
    unsure = [(1, interval(0.02, 0.05), "untrained")]
    assert not judge(interval(-0.01, 0.02), "x", {}, [], facts(), unsure).gain
