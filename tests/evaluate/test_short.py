"""Forecasts of many short series: parts, what is known, and errors by a slow reading."""

import json

import numpy as np
import pytest

from selfsup import machine
from selfsup.console import Console
from selfsup.data import open_source
from selfsup.errors import SelfsupError
from selfsup.evaluate import forecast, tasks
from selfsup.evaluate.interval import over_seeds
from selfsup.evaluate.short import VELOCITY, Short
from selfsup.finetune import finetune
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities.series import Series
from selfsup.transfer import model
from selfsup.transfer.forecast import last_known

QUIET = Console(quiet=True)


def written(folder, tracks, name="tracks.csv"):
    """Walkers in the plane, nearly straight, anywhere."""
    generator = np.random.Generator(np.random.Philox(len(name) + tracks))
    lines = ["frame,pedestrian,x,y"]
    for i in range(tracks):
        place, speed = generator.normal(size=2) * 10, generator.normal(size=2)
        for step in range(10 if i else 4):  # the first one is too short
            x, y = place + step * speed + 0.05 * generator.normal(size=2)
            lines.append(f"{10 * step},{i},{x:.4f},{y:.4f}")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def encoder(source, **options) -> LoadedEncoder:
    modality = Series(**options)
    modality.learn(source.for_training())
    small = {"depth": 2, "dim": 8, "hidden": 8}
    card = Card("series", "dilated_small", 8, small, (0.0,), (1.0,), state=modality.state,
                options=options)  # fmt: skip
    return LoadedEncoder(rebuild(card, modality, 0), card, modality)


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    home = tmp_path_factory.mktemp("tracks")
    for part, tracks in (("train", 60), ("valid", 9), ("test", 20)):
        written(home, tracks, f"{part}/scene.csv")
    return open_source(str(home))


def test_parts_are_taken_and_only_train_is_pretrained_on(parted):
    judge = Short(encoder(parted), parted, (), 2, QUIET)
    assert [len(n) for n in judge.numbers] == [59, 8, 19] and judge.left_out == 3
    assert (judge.context, judge.ahead, judge.horizons) == (4, 6, (2, 6))
    for numbers, part in zip(judge.numbers, ("train", "valid", "test"), strict=True):
        assert all(parted.names[i].startswith(part) for i in numbers)
    own = parted.for_training()
    assert len(own) == 60 and all(name.startswith("train") for name in own.names)
    np.testing.assert_array_equal(own.read(7), parted.read(parted.names.index(own.names[7])))
    assert tasks.suggested("series", parted.place, None) == "forecast"


def test_errors_are_those_of_a_slow_reading(parted):
    judge = Short(encoder(parted), parted, (2, 6), 2, QUIET)
    told = forecast.Forecast(judge.found())
    teaching = np.concatenate([parted.series[i] for i in judge.numbers[0]])
    mean, spread = teaching.mean(0), teaching.std(0)
    for horizon in (2, 6):
        still, moving = [], []
        for i in judge.numbers[2]:
            x = (parted.series[i] - mean) / spread
            for step in range(horizon):
                truth, speed = x[4 + step], x[3] - x[2]
                still.append((truth - x[3]) ** 2)
                moving.append((truth - x[3] - (step + 1) * speed) ** 2)
        assert told.error(horizon, forecast.LAST) == pytest.approx(np.mean(still), rel=1e-4)
        assert told.error(horizon, VELOCITY) == pytest.approx(np.mean(moving), rel=1e-4)
        # the mean of differences is less disturbed than the last one
        assert told.error(horizon, forecast.LINEAR) < told.error(horizon, VELOCITY)
    gain = told.to_json()["gains"][1]
    assert gain["blocks"] == 19 and gain["control"] == forecast.LINEAR and not told.gain
    assert "constant velocity" in str(told) and "'train' and 'test'" in str(told)


def test_the_interval_is_over_series(parted):
    judge = Short(encoder(parted), parted, (6,), 2, QUIET)
    gain = np.random.default_rng(0).normal(size=(1, 19))
    found = forecast.over_blocks(gain, judge.origins(2, 6), 6, judge.blocks(6))
    assert found["high"] - found["value"] == pytest.approx(over_seeds(gain[0].tolist()).half)


def test_futures_are_not_seen(parted):
    judge = Short(encoder(parted), parted, (6,), 2, QUIET)
    origins = judge.origins(2, 6)
    before = judge.features(judge.encoder, origins, {}, "a")
    judge.inputs = [np.concatenate([x[:4], x[4:] + 7]) for x in judge.inputs]
    np.testing.assert_array_equal(before, judge.features(judge.encoder, origins, {}, "b"))


def test_series_without_parts_are_drawn(tmp_path):
    written(tmp_path, 41)
    source = open_source(str(tmp_path / "tracks.csv"))
    assert source.for_training() is source
    for instance in (False, True):
        judge = Short(encoder(source, instance=instance), source, (), 2, QUIET)
        assert [len(n) for n in judge.numbers] == [28, 4, 8]
        assert sorted(np.concatenate(judge.numbers)) == list(range(1, 41))
        assert np.isfinite(forecast.Forecast(judge.found()).error(6))
    told = forecast.evaluate_task(encoder(source), source.place, horizons=(3,), console=QUIET)
    assert told.to_json()["horizons"] == [3] and "drawn at random" in str(told)
    with pytest.raises(SelfsupError, match="E503"):
        forecast.evaluate_task(encoder(source), source.place, horizons=(9,), console=QUIET)


def test_last_known_values():
    past = np.array([[[1, np.nan], [2, np.nan], [np.nan, np.nan]]])
    assert last_known(past).tolist() == [[[2.0, 0.0]]]


@pytest.mark.parametrize("instance", [False, True])
def test_a_model_goes_on_from_the_end_of_each(parted, tmp_path, monkeypatch, instance):
    monkeypatch.setattr(model, "compare", lambda *_: (0.0, 0.0))  # without a fresh process
    monkeypatch.setattr(machine, "choose_precision", lambda *_: "fp32")
    found = finetune(encoder(parted, instance=instance), parted, tmp_path / "m", train="head",
                     minutes=0.01, console=QUIET)  # fmt: skip
    told = found.to_json()
    assert told["task"] == "forecast" and "what comes next" in told["reason"]
    assert "59 series teach, 19 test: the parts 'train' and 'test' of the data. 4 st" in str(found)
    # the same errors as beside an evaluation's frozen features
    judge = forecast.Forecast(Short(encoder(parted), parted, (6,), 1, QUIET).found())
    for of in (forecast.LAST, VELOCITY, forecast.LINEAR):
        assert found.score(of) == pytest.approx(judge.error(6, of), rel=1e-3)
    assert found.score("frozen linear probe") < found.score(forecast.LAST)
    # told from the known steps alone, whatever was before them, it is as wrong as was said
    tracks = [parted.series[i] for i in Short(encoder(parted), parted, (6,), 1, QUIET).numbers[2]]
    lines = ["frame,pedestrian,x,y"]
    for walker, track in enumerate(tracks):
        steps = [(-7, 0), (9, walker), *track[:4].tolist()]
        lines += [f"{frame},{walker},{x!r},{y!r}" for frame, (x, y) in enumerate(steps)]
    (tmp_path / "known.csv").write_text("\n".join(lines) + "\n")
    said = found.model.predict(tmp_path / "known.csv")
    ahead = np.stack([[said[f"{c}+{k + 1}"] for c in "xy"] for k in range(6)]).transpose(2, 0, 1)
    off = (ahead - np.stack([track[4:] for track in tracks])) / found.model.task.deviation
    assert np.square(off).mean() == pytest.approx(found.score("frozen linear probe"), rel=1e-3)


def test_what_a_run_has_learned_from_is_said(tmp_path):
    written(tmp_path, 41)
    source = open_source(str(tmp_path / "tracks.csv"))
    names = {"method": "simclr", "modality": "series", "encoder": "dilated_small"}
    own = {f"{section}.name": name for section, name in names.items()}
    own |= {"data.path": source.place, "data.resolution": 8, "train.steps": 1, "train.batch": 8}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in own.items()]
    (tmp_path / "resolved.toml").write_text("".join(lines))
    judge = Short(encoder(source), source, (), 2, QUIET)
    assert judge.seen(tmp_path) and not judge.seen(judge.encoder)
