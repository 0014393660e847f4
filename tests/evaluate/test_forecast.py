"""Forecasts: the regression against scikit-learn's, and numbers that are known beforehand."""

import json
import shutil

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from selfsup.console import Console
from selfsup.data import open_source, sources
from selfsup.errors import SelfsupError
from selfsup.evaluate import forecast, tasks
from selfsup.evaluate.interval import over_seeds
from selfsup.finetune.intervals import over_stretches
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities.series import Series
from selfsup.transfer.find import task_class

open_folder = sources._open_folder


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """Two channels: a wave that anyone who sees the past can go on with, and noise."""
    generator = np.random.Generator(np.random.Philox(0))
    t = np.arange(1500)
    wave = 10 + 3 * np.sin(2 * np.pi * t / 24)
    noise = generator.normal(size=len(t))
    path = tmp_path_factory.mktemp("waves") / "waves.csv"
    path.write_text(
        "wave,noise\n" + "".join(f"{a},{b}\n" for a, b in zip(wave, noise, strict=True))
    )
    return str(path)


def encoder(waves) -> LoadedEncoder:
    modality = Series()
    modality.learn(open_source(waves).for_training())
    card = Card("series", "dilated_small", 48, {"depth": 3}, (0.0,), (1.0,), state=modality.state)
    return LoadedEncoder(rebuild(card, modality, 0), card, modality)


def test_regression_is_ridge_at_the_strength_that_suits_the_middle_part():
    generator = np.random.Generator(np.random.Philox(1))
    weight = generator.normal(size=(5, 6))
    x = [generator.normal(size=(n, 5)).astype(np.float32) for n in (60, 30, 20)]
    y = [(f @ weight + generator.normal(size=(len(f), 6))).reshape(-1, 3, 2).astype(np.float32)
         for f in x]  # fmt: skip
    found = forecast.regress(x, y)
    mean, spread = x[0].mean(0), x[0].std(0)
    scaled = [(f - mean) / spread for f in x]
    best = None
    for strength in forecast.STRENGTHS:
        ridge = Ridge(alpha=strength).fit(scaled[0], y[0].reshape(60, -1))
        off = ridge.predict(scaled[1]) - y[1].reshape(30, -1)
        error = np.sqrt((off**2).mean()) + np.abs(off).mean()
        if best is None or error < best[0]:
            best = error, ridge.predict(scaled[2]).reshape(20, 3, 2)
    np.testing.assert_allclose(found, best[1], atol=1e-5)


def test_errors_are_on_values_scaled_by_the_training_part(waves, monkeypatch):
    monkeypatch.setattr(forecast, "TEACH", 200)
    monkeypatch.setattr(forecast, "TEST", 60)
    source = open_source(waves)
    judge = forecast.Judge(encoder(waves), source, (12, 24), 2, Console(quiet=True))
    teaching = source.series[0][:1050]
    expected = (source.series[0] - teaching.mean(0)) / teaching.std(0)
    np.testing.assert_allclose(judge.series[0], expected, atol=1e-5)
    for part, (low, high) in enumerate([(48, 1050), (1050, 1200), (1200, 1500)]):
        steps = [t for _, t in judge.origins(part, 24)]
        assert low <= steps[0] and steps[-1] <= high - 24 and steps == sorted(set(steps))
        assert len(steps) > 20 and len({t % 24 for t in steps}) > 15  # at all hours of a day
        assert set(judge.origins(part, 100)) < set(judge.origins(part, 24))
    found = forecast.Forecast(judge.found())
    # a day later the wave is where it was, half a day later on the other side: mean of 2 * 2 * sin²
    day = judge.future(judge.origins(2, 24), 24)[:, :, :1]
    assert found.error(24, forecast.LINEAR) == pytest.approx(0.5, abs=0.1)  # the noise alone
    last = judge.values(judge.origins(2, 24), 1)[:, :, :1]
    wave = ((last - day) ** 2).mean()
    noise = found.error(24, forecast.LAST) * 2 - wave
    assert noise == pytest.approx(2.0, abs=0.7) and wave == pytest.approx(2.0, abs=0.4)
    assert found.error(24, "untrained") < 0.75  # even untrained features hold the phase
    assert found.error(24) < 0.75 and "MSE" in found.verdict and "24" in str(found)
    cases = json.loads(json.dumps(found.to_json()))["cases"]
    for case in cases:
        past, future = case["past"], case["future"]
        shown = judge.series[0][case["step"] - 24 : case["step"] + 12, 0]
        np.testing.assert_allclose([*past, *future], shown, atol=1e-4)
        ours, last = (row["values"] for row in case["guesses"])
        assert last == [past[-1]] * 12 and np.abs(np.subtract(ours, future)).mean() < 0.3
    assert [case["channel"] for case in cases] == ["wave"] * 3
    assert cases[0]["step"] < cases[1]["step"] < cases[2]["step"]


def test_level_and_deviation_before_an_origin_are_given_back():
    generator = np.random.Generator(np.random.Philox(2))
    n = [40, 20, 10]
    x = [generator.normal(size=(k, 3)).astype(np.float32) for k in n]
    level = [(generator.normal(size=(k, 1, 2)) * 50, np.full((k, 1, 2), 3.0)) for k in n]
    y = [(f[:, None, :2] * s + m).astype(np.float32) for f, (m, s) in zip(x, level, strict=True)]
    np.testing.assert_allclose(forecast.regress(x, y, level), y[2], atol=0.5)
    assert np.abs(forecast.regress(x, y) - y[2]).mean() > 5


def test_missing_futures_are_neither_learned_nor_counted():
    generator = np.random.Generator(np.random.Philox(3))
    x = [generator.normal(size=(40, 2)).astype(np.float32) for _ in range(3)]
    y = [f[:, None, :].copy() for f in x]
    y[0][3], y[2][4] = np.nan, np.nan
    guess = forecast.regress(x, y)
    assert np.isfinite(guess).all()
    mse, mae = forecast.wrong(guess, y[2])
    assert np.isnan(mse).tolist() == [i == 4 for i in range(40)] and np.nanmax(mae) < 0.1


@pytest.mark.parametrize("horizon", [168, 720])
def test_noise_is_not_certain_at_long_horizons(horizon):
    """500 stretches of 2,880 steps share most of their futures: a gain by chance is in all."""
    generator, claims = np.random.default_rng(0), 0
    for _ in range(400):
        sums = np.concatenate([[0], np.cumsum(generator.normal(size=2880))])
        t = np.sort(generator.choice(2880, 500, replace=False))
        t = t[t + horizon <= 2880]
        gain = (sums[t + horizon] - sums[t])[None] / horizon
        origins = [(0, step) for step in t.tolist()]
        found = forecast.over_blocks(gain, origins, horizon, min(20, 2880 // horizon))
        claims += found["low"] > 0 or found["high"] < 0
    assert 2 <= claims <= 32  # 5 % are 20


def test_fine_tuning_judges_forecasts_over_the_same_blocks(waves):
    judge = forecast.Judge(encoder(waves), open_source(waves), (12, 120), 0, Console(quiet=True))
    generator = np.random.default_rng(0)
    for horizon, sure in ((12, True), (120, False)):  # 300 steps test: 20 blocks and 2
        task = task_class("forecast")(horizon, ["a"], [0.0], [1.0], False, judge.context)
        n = len(judge.origins(2, horizon))
        known = generator.integers(1, horizon + 1, n).astype(float)
        known[0] = 0  # nothing is known of what follows
        ours = np.stack([known, known, known], 1)
        theirs = np.stack([known * generator.uniform(1.5, 2.5, n), known, known], 1)
        gain = over_stretches(task, judge, ours, theirs)
        assert gain.value == pytest.approx(task.summary(theirs) - task.summary(ours))
        assert gain.low < gain.value < gain.high and (gain.low > 0) is sure
        assert over_stretches(task, judge, ours).value == pytest.approx(1)


def test_a_gain_over_several_networks_holds_their_spread():
    generator = np.random.default_rng(0)
    stretches, origins = generator.normal(size=200), [(0, 50 * i) for i in range(200)]
    alike = forecast.over_blocks(np.stack([stretches] * 3), origins, 10, 20)
    apart = forecast.over_blocks(np.stack([stretches + k for k in (-1, 0, 1)]), origins, 10, 20)
    means = [block.mean() for block in np.array_split(stretches, 20)]
    # stretches that share nothing: plain Student's t; t(0.975, 2 degrees) = 4.302653
    plain = over_seeds(means).half
    assert alike["high"] - alike["value"] == pytest.approx(plain)
    expected = np.hypot(plain, 4.302653 / 3**0.5)
    assert apart["value"] - apart["low"] == pytest.approx(expected, rel=1e-6)


def test_too_few_blocks_say_nothing_for_certain(waves, monkeypatch):
    monkeypatch.setattr(forecast, "TEACH", 200)
    judge = forecast.Judge(encoder(waves), open_source(waves), (12, 120), 2, Console(quiet=True))
    assert [judge.blocks(h) for h in (12, 24, 100, 120)] == [20, 12, 3, 2]  # of 300 steps
    found = forecast.Forecast(judge.found())
    near, far = found.to_json()["gains"]
    assert (near["blocks"], far["blocks"]) == (20, 2) and near["low"] < near["value"] < near["high"]
    for gain in (far, far["over_untrained"]):
        assert gain["low"] is None and gain["high"] is None and np.isfinite(gain["value"])
    assert "no interval" in str(found) and "20 at 12, 2 at 120" in str(found)
    none = {"value": 9.0, "low": None, "high": None}
    told = {**none, "horizon": 120, "control": forecast.LINEAR, "over_untrained": none}
    scores = [{"horizon": 120, "of": "pretrained", "mse": 0.5}]
    said = forecast.verdict([told], scores)
    assert not said["gain"] and "helps" not in said["sentence"] and "better" not in said["sentence"]
    own = {"value": 1.0, "low": 0.5, "high": 1.5}
    lost = [{**told, "high": -0.1, "control": of} for of in (forecast.LINEAR, "untrained")]
    assert "untrained are better" in forecast.verdict(lost, scores)["sentence"]
    assert "DLinear) is better" in forecast.verdict(lost[:1], scores)["sentence"]
    said = forecast.verdict([told | {"over_untrained": own}], scores)
    assert not said["gain"] and f"not certainly over {forecast.LINEAR} (MSE" in said["sentence"]


def test_the_task_is_suggested_by_the_data_and_short_ones_are_refused(waves, tmp_path):
    assert tasks.suggested("series", waves, None) == "forecast"
    assert tasks.suggested("series", waves, "labels.csv") == "classify"
    assert tasks.suggested("series", str(tmp_path), None) == "classify"
    for modality in ("text", "pairs", "image"):  # nothing is there: told when it is read
        assert tasks.suggested(modality, str(tmp_path), None) == "classify"
    (tmp_path / "away").mkdir()
    shutil.copy(waves, tmp_path / "away" / "waves.csv")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "waves.csv").symlink_to(tmp_path / "away" / "waves.csv")
    linked, opened = str(tmp_path / "linked"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_open_folder", lambda *a: opened.append(a) or open_folder(*a))
        assert tasks.suggested("series", linked, None, follow_links=True) == "forecast"
    assert opened == [(linked, True)]  # once
    with pytest.raises(SelfsupError, match="E201"):
        tasks.find("forcast")
    short = tmp_path / "short.csv"
    short.write_text("wave,noise\n" + "1,2\n2,1\n" * 50)
    with pytest.raises(SelfsupError, match="E503"):
        forecast.evaluate_task(encoder(waves), str(short))


def test_horizons_that_choose_nothing_are_left_out(waves):
    """The middle part is half as long as the one that tests."""
    source, given = open_source(waves), (24, 168)
    judge = forecast.Judge(encoder(waves), source, given, 0, Console(quiet=True))
    assert [len(judge.origins(2, h)) > forecast.BLOCKS for h in given] == [True, True]
    assert judge.horizons == (24,) and judge.origins(1, 24)


def test_calendar_channels_are_seen_and_never_foretold(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "TEACH", 60)
    monkeypatch.setattr(forecast, "TEST", 30)
    times = np.datetime64("2024-01-01T00:00:00") + np.arange(900) * np.timedelta64(1, "h")
    path = tmp_path / "dated.csv"
    path.write_text("date,x\n" + "".join(f"{t},{i % 24}\n" for i, t in enumerate(times)))
    source, modality = open_source(str(path)), Series(calendar=True)
    modality.learn(source.for_training())
    card = Card("series", "dilated_small", 48, {"depth": 2, "dim": 8, "hidden": 8}, (0.0,), (1.0,),
                state=modality.state)  # fmt: skip
    loaded = LoadedEncoder(rebuild(card, modality, 0), card, modality)
    judge = forecast.Judge(loaded, source, (12,), 1, Console(quiet=True))
    assert judge.inputs[0].shape == (900, 8) and judge.series[0].shape == (900, 1)
    assert np.isfinite(forecast.Forecast(judge.found()).error(12))
    assert loaded.embed(str(path)).shape == (len(source), 8)
    undated = tmp_path / "undated.csv"
    undated.write_text("t,x\n" + "".join(f"{i},{i % 24}\n" for i in range(900)))
    with pytest.raises(SelfsupError, match="E503"):
        forecast.Judge(loaded, open_source(str(undated)), (12,), 1, Console(quiet=True))
