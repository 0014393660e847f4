"""Series: what is missing is never taken for a value, and views are functions of the sample."""

import datetime

import numpy as np
import pytest
import torch

from selfsup.data import open_store
from selfsup.data.arrays import ArraySource
from selfsup.data.fields import pack
from selfsup.data.outcome import BadSample
from selfsup.data.series import Piece, timed
from selfsup.inference import assemble
from selfsup.method import Views
from selfsup.methods import MAE
from selfsup.modalities.series import Series, _coarser, calendar, patch_for
from selfsup.randomness import Draws
from selfsup.views import series as looks

SIZE = 32
EVERY = Views(light=2, strong=2, local=1, share=(0.5, 1.0), local_share=(0.2, 0.5))


def samples(lengths=(32, 32, 32), channels=2, holes=0.0, seed=0):
    generator = np.random.Generator(np.random.Philox(seed))
    made = []
    for n in lengths:
        x = generator.normal(size=(n, channels)).cumsum(0).astype(np.float32) + 5
        x[generator.random(x.shape) < holes] = np.nan
        made.append(x)
    return made


def batch_of(arrays, piece=False):
    return assemble([pack({"values": x, "piece": np.array([piece])}) for x in arrays])


def learned(channels=2):
    modality = Series()
    modality.restore({"level": [5.0] * channels, "spread": [2.0] * channels})
    return modality


def test_scale_is_of_each_channel_over_what_is_there():
    x = np.stack(samples((50,) * 9, holes=0.2))
    x[:, :, 1] = 7.0  # never changes
    x = np.concatenate([x, np.full((9, 50, 1), np.nan, np.float32)], 2)
    modality = Series()
    modality.learn(ArraySource(x))
    first = x[:, :, 0].astype(np.float64)
    assert modality.state["level"][0] == pytest.approx(np.nanmean(first), rel=1e-5)
    assert modality.state["spread"][0] == pytest.approx(np.nanstd(first), rel=1e-5)
    assert modality.state["spread"][1:] == [1.0, 1.0] and modality.state["level"][2] == 0.0
    other = Series()
    other.restore(modality.state)
    assert other.state == modality.state
    scale = {"level": [1.0], "spread": [1.0]}
    for bad in (scale | {"spread": []}, scale | {"spread": [0.0]}, scale | {"columns": [1]}, {}):
        with pytest.raises(ValueError):
            Series().restore(bad)


@pytest.mark.parametrize("lengths", [(32, 32, 32), (20, 45, 32)])
@pytest.mark.parametrize("piece", [False, True])
def test_no_view_has_a_missing_number_and_marks_tell_what_is_there(lengths, piece):
    modality = learned()
    batch = batch_of(samples(lengths, holes=0.3), piece)
    views = modality.views(batch, EVERY, Draws(0, batch.samples), SIZE)
    for x in [*views, modality.plain(batch, SIZE)]:
        assert x.isfinite().all() and x.shape[1] == 4
        marks = x[:, 2:]
        assert ((marks == 0) | (marks == 1)).all() and 0 < marks.mean() < 1
    assert [x.shape[2] for x in views] == [32, 32, 32, 32, modality.local_size(SIZE)]
    assert modality.baseline(batch).isfinite().all()
    whole = batch_of(samples(), piece)
    assert (modality.plain(whole, SIZE)[:, 2:] == 1).all()


@pytest.mark.parametrize("name", ["dilated_small", "vit_tiny"])
def test_encoders_never_see_what_stands_for_a_missing_value(name):
    torch.manual_seed(0)
    encoder = learned().encoder(name, SIZE, depth=2).eval()
    x = learned().plain(batch_of(samples(holes=0.3)), SIZE)
    other = x.clone()
    other[:, :2] += (1 - x[:, 2:]) * 100
    assert torch.equal(encoder(x), encoder(other))
    assert torch.equal(encoder.features(x), encoder.features(other))
    other[:, :2] += x[:, 2:]
    assert not torch.allclose(encoder(x), encoder(other))


def test_a_step_without_any_value_takes_no_part_in_the_vector():
    torch.manual_seed(0)
    encoder = learned().encoder("dilated_small", SIZE, depth=1).eval()
    arrays = samples((32,))
    x = learned().plain(batch_of([arrays[0][-20:]], piece=True), SIZE)
    assert (x[:, 2:, :12] == 0).all() and (x[:, 2:, 12:] == 1).all()
    pooled = encoder.features(x)[:, 12:].amax(1)
    assert torch.equal(encoder(x), pooled)


def test_views_are_functions_of_the_sample_alone():
    modality = learned()
    arrays = samples((32, 20, 45, 32), holes=0.2)
    batch = batch_of(arrays)
    together = modality.views(batch, EVERY, Draws(3, batch.samples), SIZE)
    again = modality.views(batch, EVERY, Draws(3, batch.samples), SIZE)
    for x, y in zip(together, again, strict=True):
        assert torch.equal(x, y)
    for i in range(4):
        alone = batch_of(arrays[i : i + 1])
        views = modality.views(alone, EVERY, Draws(3, batch.samples[i : i + 1]), SIZE)
        for x, y in zip(together, views, strict=True):
            torch.testing.assert_close(x[i : i + 1], y, atol=1e-5, rtol=1e-5)
    other = modality.views(batch, EVERY, Draws(4, batch.samples), SIZE)
    assert not any(torch.equal(x, y) for x, y in zip(together, other, strict=True))


@pytest.mark.parametrize("piece", [False, True])
def test_operations_of_views_can_be_left_out(piece):
    batch = batch_of(samples((45, 32, 40, 60) * 4), piece)

    def made(names):
        modality = Series(without=",".join(names))
        modality.restore(learned().state)
        return modality.views(batch, Views(strong=1), Draws(0, batch.samples), SIZE)[0]

    names, plain = set(Series.operations), learned().plain(batch, SIZE)
    torch.testing.assert_close(made(names), plain)
    for name in names:  # each of them alone changes some samples
        assert not torch.allclose(made(names - {name}), plain), name


def test_pieces_of_recordings_are_shown_as_they_are():
    modality = learned()
    arrays = samples((48, 48))
    batch = batch_of(arrays, piece=True)
    scaled = torch.from_numpy((np.stack(arrays) - 5) / 2).transpose(1, 2)
    torch.testing.assert_close(modality.plain(batch, SIZE)[:, :2], scaled[:, :, -SIZE:])
    (light,) = modality.views(batch, Views(light=1), Draws(0, batch.samples), SIZE)
    for i in range(2):
        starts = [s for s in range(17) if torch.equal(light[i, :2], scaled[i, :, s : s + SIZE])]
        assert len(starts) == 1


def test_a_long_series_becomes_coarser_by_means_and_a_piece_is_cut():
    x = np.arange(12, dtype=np.float32)[:, None]
    np.testing.assert_allclose(_coarser(x, 4)[:, 0], [1, 4, 7, 10])
    np.testing.assert_allclose(_coarser(x, 5).mean(), x.mean())
    x[3:6] = np.nan
    assert np.isnan(_coarser(x, 4)).tolist() == [[False], [True], [False], [False]]
    modality = Series()
    whole, piece = (modality.read(a, 6) for a in (x, x.view(Piece)))
    batch = assemble([whole, piece])
    shown = modality.plain(batch, 6)
    assert shown[1, 0].tolist()[-6:] == [6, 7, 8, 9, 10, 11]


def test_between_neighbours_missing_is_a_line():
    values = torch.tensor([[[0.0, 9, 9, 3, 9]], [[9.0, 9, 9, 9, 9]]])
    here = torch.tensor([[[True, False, False, True, False]], [[False] * 5]])
    found = looks.bridged(values, here)
    assert found[0, 0].tolist() == [0, 1, 2, 3, 3] and found[1, 0].tolist() == [0] * 5


def test_instance_scales_each_channel_of_each_sample():
    modality = Series(instance=True)
    modality.restore(learned().state)
    x = modality.plain(batch_of(samples(holes=0.2)), SIZE)
    values, here = x[:, :2], x[:, 2:]
    mean = (values * here).sum(2) / here.sum(2)
    assert mean.abs().max() < 1e-5
    square = (values.square() * here).sum(2) / here.sum(2)
    torch.testing.assert_close(square, torch.ones_like(square))


def test_what_is_no_series_is_refused_with_a_reason():
    modality = learned()
    for raw, code in (
        (np.zeros((1, 2)), "too_short"),
        (np.zeros((9, 3)), "channels"),
        (np.full((9, 2), np.inf), "no_values"),
        (np.array(["a", "b"]), "not_a_series"),
        (b"1,2", "not_a_series"),
    ):
        with pytest.raises(BadSample) as error:
            modality.read(raw)
        assert error.value.code == code


def test_masked_patches_rebuild_values_and_not_marks():
    torch.manual_seed(0)
    encoder = learned().encoder("vit_tiny", SIZE, depth=1, patch=4)
    method = MAE(encoder, decoder_dim=16, decoder_depth=1, decoder_heads=2)
    x = learned().plain(batch_of(samples(holes=0.2)), SIZE)
    assert encoder.stem.patch_dim == 8 and method.values.out_features == 8
    torch.testing.assert_close(encoder.stem.unpatch(encoder.stem.patches(x)), x[:, :2])
    sum(method.loss([x], 0.0).values()).backward()
    assert encoder.stem.marks.grad.abs().sum() > 0
    for shown in method.show([x]).values():
        assert learned().picture(shown).shape == (3, 3, 64, 128)


def test_arrays_are_read_where_the_modality_is_named(tmp_path):
    x = np.stack(samples((32,) * 6))
    with open_store(ArraySource(x), learned(), 48, cache=tmp_path) as store:
        batch = store.batch(np.arange(6))
        torch.testing.assert_close(
            learned().plain(batch, SIZE)[:, :2],
            torch.from_numpy((x - 5) / 2).transpose(1, 2),
        )


@pytest.mark.parametrize(("size", "patch"), [(24, 1), (248, 8), (96, 4), (512, 16), (13, 1)])
def test_patches_tile_the_view(size, patch):
    assert patch_for(size) == patch


# ---- calendar --------------------------------------------------------------------------------


def dated(steps=60, channels=2, step=3600.0 * 7):
    (x,) = samples((steps,), channels)
    return timed(x, 1.6e9 + step * np.arange(steps))


def test_calendar_is_that_of_python():
    time = np.random.Generator(np.random.Philox(6)).uniform(-1e9, 4e9, 400)
    expected = []
    for seconds in time:
        at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
        expected.append([at.minute, at.hour, at.weekday(), at.day, at.timetuple().tm_yday,
                         at.month, at.isocalendar()[1]])  # fmt: skip
    np.testing.assert_array_equal(calendar(time), expected)


def test_calendar_channels_come_behind_are_scaled_and_never_disturbed():
    modality, raw = Series(calendar=True), dated()
    modality.learn(OneSeries(raw))
    assert len(modality.level) == 2 + 7 and modality.own == 2 and "calendar" in modality.rules
    added = calendar(raw.time)
    np.testing.assert_allclose(modality.level[2:], added.mean(0), rtol=1e-4)
    raw[30] = np.nan  # no value: the step must stay unseen
    batch = assemble([modality.read(raw)])
    plain = modality.plain(batch, 60)
    values, here = plain.chunk(2, 1)
    assert values.shape[1] == 9 and not here[0, :, 30].any() and here[0, :, 29].all()
    scaled = (added - modality.level[2:].numpy()) / modality.spread[2:].numpy()
    np.testing.assert_allclose(values[0, 2:, :30], scaled[:30].T, atol=1e-4)
    own = looks.Series(values[:, :2], here[:, :2] > 0.5)
    shown = looks.Series(values, here > 0.5)
    for change in (looks.leveled, lambda s: looks.disturb(s, Draws(0, batch.samples))):
        new = modality._changed(shown, change)
        assert torch.equal(new.values[:, :2], change(own).values)
        assert torch.equal(new.values[:, 2:], values[:, 2:])
        assert torch.equal(new.here.any(1), new.here[:, :2].any(1))
    encoder = modality.encoder("dilated_small", 60, depth=1, dim=8, hidden=8)
    assert encoder.channels == 9 and encoder(plain).shape == (1, 8)
    bare = Series()
    bare.restore({"level": modality.level[:2].tolist(), "spread": modality.spread[:2].tolist()})
    classical = bare.baseline(assemble([bare.read(raw)]))
    assert torch.equal(modality.baseline(batch), classical)  # the control sees values alone
    assert len(modality.examples()[0].T) == 2 and modality.picture(plain).shape[0] == 1


def test_calendar_needs_dates():
    with pytest.raises(BadSample) as caught:
        Series(calendar=True).read(np.zeros((30, 2), np.float32))
    assert caught.value.code == "no_dates"


class OneSeries:
    def __init__(self, raw):
        self.raw = raw

    def __len__(self):
        return 1

    def read(self, i):
        return self.raw
