"""Anomalies: measures against scikit-learn and by hand; what no score and no threshold may see."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from selfsup.data import open_source
from selfsup.data.tables import matched
from selfsup.errors import SelfsupError
from selfsup.evaluate import anomaly, tasks
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities.series import Series

N, CONTEXT = 600, 16


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """An hourly wave with a window of noise in each part, and the steps of it marked."""
    generator = np.random.Generator(np.random.Philox(0))
    t = np.arange(N)
    values = np.sin(t / 4) + 0.05 * generator.normal(size=N)
    marks = np.zeros(N, int)
    for start in (200, 470, 560):
        values[start : start + 12] += 4 * generator.normal(size=12)
        marks[start : start + 12] = 1
    times = np.datetime64("2024-01-01T00:00:00") + t * np.timedelta64(1, "h")
    path = tmp_path_factory.mktemp("watched") / "pump.csv"
    rows = zip(times, values, marks, strict=True)
    path.write_text("time,value,anomaly\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    return path


def encoder_of(path, name="dilated_small", **kwargs) -> LoadedEncoder:
    modality = Series()
    modality.learn(open_source(str(path)).for_training())
    kwargs = kwargs or {"depth": 2, "dim": 8, "hidden": 8}
    card = Card("series", name, CONTEXT, kwargs, (0.0,), (1.0,), state=modality.state)
    return LoadedEncoder(rebuild(card, modality, 0), card, modality)


def later(path) -> anomaly.Later:
    source = open_source(str(path))
    return anomaly.Later(source, source.found_series.marks, CONTEXT, list(source.series))


# ---- measures --------------------------------------------------------------------------------


def test_average_precision_with_equal_scores_and_with_weights_is_scikit_learns():
    generator = np.random.Generator(np.random.Philox(1))
    z = generator.integers(0, 12, 200).astype(float)
    z[:5] = -np.inf  # steps of which nothing is known come last
    truth, weight = generator.random(200) < 0.2, generator.integers(0, 4, 200).astype(float)
    expected = average_precision_score(truth, np.maximum(z, -1), sample_weight=weight)
    assert anomaly.Ranked(z, truth).precision(weight) == pytest.approx(expected, abs=1e-9)
    assert np.isnan(anomaly.Ranked(z, truth).precision(weight * ~truth))


def test_point_adjustment_by_hand():
    truth = np.array([0, 1, 1, 1, 1, 0, 0, 1, 1, 0], bool)
    alarm = np.array([0, 0, 1, 0, 0, 1, 0, 0, 0, 0], bool)
    found = anomaly.runs(truth)
    assert found == [(1, 5), (7, 9)]
    assert anomaly.adjust(alarm, found, 0.0).nonzero()[0].tolist() == [1, 2, 3, 4, 5]
    assert (anomaly.adjust(alarm, found, 0.25) == alarm).all()  # a quarter is not more than that
    assert anomaly.adjust(alarm, found, 0.2)[1:5].all() and not alarm[1]
    assert anomaly.f1(alarm, truth) == pytest.approx(f1_score(truth, alarm))


def test_one_alarm_in_a_long_window_is_nearly_all_that_point_adjustment_asks_for(watched):
    part = later(watched)
    z = np.full(len(part.truth), 0.0)
    z[[start for start, _ in part.windows]] = 10.0
    told = anomaly.measures(z, part)
    assert told["f1_adjusted"] == 1.0 and told["windows_found"] == 1.0
    assert told["f1"] < 0.2 and told["f1_pa_k"] < 0.3 and told["false_alarms"] == 0.0


# ---- scores ----------------------------------------------------------------------------------


def test_relative_scores_and_residuals_read_step_by_step():
    generator = np.random.Generator(np.random.Philox(2))
    x = generator.random((80, 2))
    x[40:43, 1] = np.nan
    raw = x[:, 0].copy()
    raw[:10] = np.nan
    found, off = anomaly.relative(raw), anomaly.residual(x, 60)
    each = np.full((80, 2), np.nan)
    for t in range(1, 80):
        for c in range(2):
            known = [v for v in x[max(0, t - 21) : t, c] if np.isfinite(v)]
            each[t, c] = abs(x[t, c] - np.mean(known))
        known = [v for v in raw[max(0, t - 21) : t] if np.isfinite(v)]
        if known and np.isfinite(raw[t]):
            assert found[t] == pytest.approx((raw[t] - np.mean(known)) / np.mean(known))
        else:
            assert np.isnan(found[t])
    unit = 1.4826 * np.nanmedian(each[:60], 0)
    np.testing.assert_allclose(off[1:], np.nanmax((each / unit)[1:], 1), atol=1e-9)


@pytest.mark.parametrize("name", ["dilated_small", "vit_tiny"])
def test_the_last_place_alone_is_hidden_and_no_later_step_is_seen(watched, name):
    small = {"depth": 1, "dim": 12, **({"heads": 2} if name == "vit_tiny" else {"hidden": 8})}
    encoder, part = encoder_of(watched, name, **small), later(watched)
    quiet = anomaly.Console(quiet=True)
    before = part.watched(encoder, quiet, "x")
    part.inputs[0] = part.inputs[0].copy()
    part.inputs[0][540:] += 3.0
    after, first = part.watched(encoder, quiet, "x"), part.limits[0][0]
    np.testing.assert_allclose(after[: 540 - first], before[: 540 - first], atol=1e-4)
    assert np.abs(after[540 - first :] - before[540 - first :]).max() > 1e-2

    x = torch.randn(2, 2, CONTEXT)
    x[:, 1] = 1.0
    network, asked = encoder.encoder, []
    features = network.features
    network.features = lambda x, hidden=None: asked.append(hidden) or features(x, hidden)
    scores = anomaly.distance(encoder, x)
    assert asked[0] is None and asked[1].sum(1).tolist() == [1, 1] and asked[1][:, -1].all()
    off = (features(x) - features(x, asked[1].clone()))[:, -1].abs().sum(1)
    np.testing.assert_allclose(scores, off.detach().numpy(), rtol=1e-5)
    assert (scores > 0).all()


def test_the_threshold_is_of_the_first_part_and_empty_steps_raise_no_alarm(watched):
    part = later(watched)
    first, end = part.limits[0]
    assert (first, end) == (420, 600) and part.truth.sum() == 24
    score = np.random.Generator(np.random.Philox(3)).random(end)
    z = part.alarming([score])
    np.testing.assert_allclose(z, ((score - score[:first].mean()) / score[:first].std())[first:])
    part.series[0] = part.series[0].copy()
    part.series[0][430] = np.nan
    score[first:] *= 100  # whatever the test part is like
    again = part.alarming([score])
    assert again[10] == -np.inf and again[11] == pytest.approx(
        (score[431] - score[:first].mean()) / score[:first].std()
    )


def test_blocks_keep_windows_whole_and_the_gain_is_of_pairs(watched):
    part = later(watched)
    assert all(len(set(part.blocks[a:b])) == 1 for a, b in part.windows)
    assert 40 < part.blocks.max() <= 50 and (np.diff(part.blocks) >= 0).all()
    z = np.random.Generator(np.random.Philox(4)).normal(size=len(part.truth))
    none = anomaly.gained(z, [z], part.truth, part.blocks)
    assert none.value == none.low == none.high == 0.0
    sure = anomaly.gained(z + 9 * part.truth, [z], part.truth, part.blocks)
    assert 0.5 < sure.low < sure.value < 1.0


def test_windows_that_meet_where_two_recordings_do_are_two(tmp_path):
    for name, start in (("a", 390), ("b", 280)):
        marks = (np.arange(400) // 10 == start // 10).astype(int)
        rows = "".join(f"{i % 9},{m}\n" for i, m in enumerate(marks))
        (tmp_path / f"{name}.csv").write_text("value,anomaly\n" + rows)
    part = later(tmp_path)
    assert part.windows == [(110, 120), (120, 130)]
    assert part.blocks[119] != part.blocks[120]


# ---- what is marked --------------------------------------------------------------------------


def test_windows_come_from_files_in_three_forms(watched, tmp_path):
    source = open_source(str(watched))
    edges = ("2024-01-20 14:00:00.000000", "2024-01-21 01:00:00.000000")
    forms = {
        "nab.json": json.dumps({"plant/pump.csv": [edges], "plant/other.csv": []}),
        "plain.csv": f"start,end\n{edges[0]},{edges[1]}\n",
        "named.csv": f"name,start,end\npump.csv,{edges[0]},{edges[1]}\n",
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert anomaly.suits("series", open_source(str(watched)), tmp_path / name)
        (marks,) = anomaly.windows(tmp_path / name, source)
        assert np.flatnonzero(marks).tolist() == list(range(470, 482))  # both ends are in it
    untimed = tmp_path / "untimed.csv"
    untimed.write_text("a,b\n" + "1,2\n" * 300)
    (tmp_path / "steps.json").write_text("[[3, 5]]")
    (marks,) = anomaly.windows(tmp_path / "steps.json", open_source(str(untimed)))
    assert np.flatnonzero(marks).tolist() == [3, 4, 5]
    for name, text in {"other.json": '{"a.csv": []}', "bad.json": "{", "word.json": '[["x", 2]]',
                       "no.csv": "path,label\npump.csv,1\n"}.items():  # fmt: skip
        (tmp_path / name).write_text(text)
        with pytest.raises(SelfsupError, match="E105"):
            anomaly.windows(tmp_path / name, source)


@pytest.mark.parametrize(
    ("listed", "data", "expected"),
    [
        (["x/a.csv", "x/b.csv"], ["a.csv", "b.csv"], ["x/a.csv", "x/b.csv"]),
        (["x/a.csv", "y/a.csv"], ["data/x/a.csv", "data/y/a.csv"], ["x/a.csv", "y/a.csv"]),
        (["a.csv"], ["x/a.csv", "y/a.csv"], [None, None]),  # which of them?
        (["x/a.csv", "y/a.csv"], ["a.csv"], [None]),
        (["a.csv"], ["a.csv", "x/a.csv"], ["a.csv", None]),
        (["a.csv"], ["ba.csv"], [None]),
    ],
)
def test_windows_and_recordings_are_named_from_other_folders(listed, data, expected):
    assert matched(data, listed) == expected


def test_the_whole_task_beside_its_controls(watched, tmp_path):
    assert tasks.suggested("series", str(watched), None) == "anomaly"
    encoder = encoder_of(watched)
    found = anomaly.evaluate_task(encoder, str(watched), seeds=2)
    rows = {row["of"]: row for row in found.to_json()["scores"]}
    own = rows["pretrained"]
    assert own["low"] <= own["average_precision"] <= own["high"]
    assert list(rows) == ["pretrained", "untrained", anomaly.RESIDUAL, anomaly.RANDOM]
    share = 24 / 180
    assert rows[anomaly.RANDOM]["average_precision"] == pytest.approx(share, abs=0.1)
    assert rows[anomaly.RANDOM]["f1_adjusted"] > rows[anomaly.RANDOM]["f1"]
    assert rows[anomaly.RESIDUAL]["average_precision"] > 3 * share
    assert "average precision" in found.verdict and "point adjustment" in str(found)
    json.dumps(found.to_json())
    first = tmp_path / "first.json"
    first.write_text("[[10, 20]]")
    with pytest.raises(SelfsupError, match="E503"):  # its only window is in the first part
        anomaly.evaluate_task(encoder, str(watched), labels=first)
    plain = tmp_path / "plain.csv"
    plain.write_text("value\n" + "".join(f"{i % 7}\n" for i in range(N)))
    with pytest.raises(SelfsupError, match="E501"):
        anomaly.evaluate_task(encoder, str(plain))
