"""What the answers of each task are worth, against slow readings."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from selfsup.data import open_source
from selfsup.errors import SelfsupError
from selfsup.evaluate.ridge import STRENGTHS, ridge, solutions
from selfsup.finetune import difference, interval
from selfsup.finetune.asked import _continuous
from selfsup.transfer.find import TASKS, task_class
from selfsup.transfer.forecast import Forecast
from selfsup.transfer.segment import Segment, keep_masks_apart, masks, middle, values_of
from selfsup.transfer.tasks import Classify, Network, Part, Regress


def test_numbers_come_back_in_their_own_unit():
    numbers = np.array([10.0, 20.0, 40.0])
    task = Regress.of(numbers)
    y = task.targets(Part(None, np.arange(3), numbers), np.arange(3), torch.device("cpu"))
    torch.testing.assert_close(y.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    said = torch.tensor([[0.1], [0.2], [0.3]])
    found = task.outcome(said, y)
    np.testing.assert_allclose(found[:, 0], numbers, rtol=1e-6)
    np.testing.assert_allclose(task.tell(said, None)["number"], found[:, 1])
    assert task.summary(found) == pytest.approx(r2_score(found[:, 0], found[:, 1]))


def test_iou_against_a_slow_reading():
    random = np.random.default_rng(0)
    task = Segment([0, 3, 7, 9], (2, 2), 6)
    truth = np.array([0, 3, 7, 255], np.uint8)[random.integers(0, 4, (5, 6, 6))]
    said = random.integers(0, 4, (5, 6, 6))
    noted = task.counts(said, task.classes(truth))
    assert noted.shape == (5, 3, 4)  # and not a number for each pair of classes
    found = task.summary(noted)
    shares = []
    for k, value in enumerate(task.values):
        both = either = 0
        for picture in range(5):
            for row in range(6):
                for column in range(6):
                    true = truth[picture, row, column]
                    if true == 255:
                        continue
                    is_it, says_it = true == value, said[picture, row, column] == k
                    both += is_it and says_it
                    either += is_it or says_it
        shares.append(both / either)
    assert found == pytest.approx(np.mean(shares))


def test_scores_of_places_are_enlarged_bilinearly():
    class Places(torch.nn.Module):
        dim = 3

        def features(self, x):
            return x

    task = Segment([0, 1], (2, 3), 6)
    network = Network(Places(), task)
    torch.nn.init.normal_(network.head.weight)
    x = torch.randn(1, 6, 3)
    with torch.no_grad():
        found, scores = network(x), network.head(x)[0].reshape(2, 3, 2)
    for row in range(6):
        for column in range(6):
            high = min(max((row + 0.5) * 2 / 6 - 0.5, 0), 1)
            wide = min(max((column + 0.5) * 3 / 6 - 0.5, 0), 2)
            expected = torch.zeros(2)
            for i in range(2):
                for j in range(3):
                    share = max(0, 1 - abs(high - i)) * max(0, 1 - abs(wide - j))
                    expected += share * scores[i, j]
            torch.testing.assert_close(found[0, :, row, column], expected, atol=1e-5, rtol=1e-5)


def test_a_class_that_is_nowhere_does_not_count():
    task = Segment([0, 1, 2], (2, 2), 2)
    truth = np.array([[[0, 1], [1, 0]]])
    assert task.summary(task.counts(truth, truth)) == 1.0


def test_void_pixels_teach_nothing():
    task = Segment([0, 1], (2, 2), 4)
    out = torch.randn(1, 2, 4, 4, requires_grad=True)
    mask = np.full((1, 4, 4), 255, np.uint8)
    mask[0, 0] = 1
    task.loss(out, torch.from_numpy(task.classes(mask))).backward()
    assert (out.grad[0, :, 0] != 0).all() and not out.grad[0, :, 1:].any()


def test_masks_are_found_by_name_and_cut_as_pictures_are(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "masks").mkdir()
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 15:] = 2
    for name in ("a/1.jpg", "2.png", "3.png", "4.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / "in" / name)
    for name in ("1", "2"):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "masks" / "4.png").write_bytes(b"no picture")
    source = open_source(tmp_path / "in")
    found, known, notes = masks(source, tmp_path / "masks", 10)
    assert known.tolist() == [source.name(i) in ("2.png", "a/1.jpg") for i in range(4)]
    assert "1 masks" in notes[0]
    assert np.array_equal(found[known][0], np.tile([0] * 5 + [2] * 5, (10, 1)))
    Image.new("RGB", (30, 20)).save(tmp_path / "masks" / "3.png")
    with pytest.raises(SelfsupError, match="no mask"):
        masks(source, tmp_path / "masks", 10)


def test_a_mask_with_the_path_of_a_picture_is_of_no_other(tmp_path):
    names = ("test/1", "train/1", "train/2")
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / f"{name}.jpg")
    (tmp_path / "masks" / "test").mkdir(parents=True)
    for name in ("test/1", "2"):
        Image.new("L", (8, 8)).save(tmp_path / "masks" / f"{name}.png")
    source = open_source(tmp_path / "in")
    found, known, _ = masks(source, tmp_path / "masks", 8)
    has = [source.name(i) for i in range(3) if known[i]]
    assert has == ["test/1.jpg", "train/2.jpg"] and not found.any()


def test_masks_that_a_name_alone_does_not_tell_apart_are_refused(tmp_path):
    for name in ("in/a/1.jpg", "in/b/1.jpg", "masks/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    source = open_source(tmp_path / "in")
    with pytest.raises(SelfsupError, match="E105") as caught:
        masks(source, tmp_path / "masks", 8)
    assert "a/1, b/1 may have" in caught.value.why and "masks/a/1.png" in caught.value.do
    for name in ("a", "b"):
        (tmp_path / "masks" / name).mkdir()
        Image.new("L", (8, 8), ord(name)).save(tmp_path / "masks" / name / "1.png")
    found, known, _ = masks(source, tmp_path / "masks", 8)
    assert known.all() and found[:, 0, 0].tolist() == [ord("a"), ord("b")]
    one = open_source([tmp_path / "in" / "a" / "1.jpg"])  # two masks of its name
    (tmp_path / "masks" / "1.png").unlink()
    with pytest.raises(SelfsupError, match="which mask"):
        masks(one, tmp_path / "masks", 8)


def test_masks_are_those_of_the_nearest_folder_and_of_one_picture_each(tmp_path):
    for part, value in (("train", 1), ("test", 2)):
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / part / "images" / "a.png")
        Image.new("L", (8, 8), value).save(tmp_path / part / "masks" / "a.png")
    table = tmp_path / "both.csv"
    table.write_text("path\ntrain/images/a.png\ntest/images/a.png\n")
    found, known, _ = masks(open_source(table), tmp_path, 8)
    assert known.all() and found[:, 0, 0].tolist() == [1, 2]
    teach, test = (open_source(tmp_path / part / "images") for part in ("train", "test"))
    assert [masks(one, tmp_path, 8)[0].max() for one in (teach, test)] == [1, 2]
    keep_masks_apart(teach, test, tmp_path)
    with pytest.raises(SelfsupError, match="E105") as caught:
        keep_masks_apart(teach, test, tmp_path / "train" / "masks")
    assert "root/images --labels root/masks" in caught.value.do
    whole = open_source(tmp_path)
    assert not masks(whole, tmp_path, 8)[1].any()  # no picture is its own mask
    with pytest.raises(SelfsupError, match="E105"):  # nor is one a mask that has one
        masks(whole, tmp_path / "train", 8)


def test_the_middle_and_its_nearest_pixels():
    mask = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert np.array_equal(middle(mask, 4), mask[:, 1:5])
    assert np.array_equal(middle(mask, 2), mask[1::2, 2:6:2])
    assert values_of(np.array([0, 255], np.uint8)) == [0, 255]
    assert values_of(np.array([0, 1, 255], np.uint8)) == [0, 1]


@pytest.mark.parametrize(("instance", "last"), [(False, False), (True, False), (False, True)])
def test_forecasts_are_learned_relative_and_told_in_their_own_unit(instance, last):
    """What the loss calls perfect is, as an answer, the future itself; missing values weigh 0."""
    from selfsup.data.fields import pack
    from selfsup.inference import assemble
    from selfsup.transfer.forecast import level_of

    random = np.random.default_rng(0)
    past = random.normal(50, 5, (3, 8, 2)).astype(np.float32)
    future = random.normal(50, 5, (3, 4, 2))
    task = Forecast(4, ["a", "b"], [50.0, 49.0], [5.0, 4.0], instance, 8, last)
    values = [(p - task.mean) / task.deviation for p in past]
    level, spread = level_of(values, instance, last)
    scaled = (future - task.mean) / task.deviation
    y = torch.from_numpy(np.concatenate([scaled, level, spread], 1).astype(np.float32))
    out = torch.from_numpy((scaled - level) / spread).float()
    assert task.loss(out, y).item() == pytest.approx(0, abs=1e-9)
    batch = assemble([pack({"values": p, "piece": np.array([True])}) for p in past])
    told = task.tell(out, batch)
    assert list(told)[:3] == ["a+1", "b+1", "a+2"]
    np.testing.assert_allclose(told["b+3"], future[:, 2, 1], rtol=1e-4)
    y[0, 0, 0] = torch.nan
    assert task.loss(out + 1, y).item() == pytest.approx(1.0, abs=1e-5)
    assert task.outcome(out, y)[:, 2].tolist() == [7, 8, 8]


def test_ridge_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    x = random.normal(3, 2, (40, 5))
    y = x @ random.normal(size=(5, 2)) + random.normal(size=(40, 2))
    weight, bias = ridge(torch.from_numpy(x), torch.from_numpy(y))
    said = x @ weight.numpy() + bias.numpy()
    scaled = (x - x.mean(0)) / x.std(0)
    close = [np.abs(Ridge(alpha=a).fit(scaled, y).predict(scaled) - said).max() for a in STRENGTHS]
    assert min(close) < 1e-6


@pytest.mark.parametrize(
    ("d", "missing", "strength"), [(5, 0.4, 2.0), (5, 0.8, 1e-4), (50, 0.4, 0.1)]
)
def test_ridge_takes_of_each_column_what_is_known(d, missing, strength):
    random = np.random.default_rng(0)
    x = random.normal(size=(60, d))
    y = x @ random.normal(size=(d, 3)) + random.normal(size=(60, 3))
    y[random.random((60, 3)) < missing] = np.nan  # few rows are whole
    y[:, 2] = np.nan  # nothing is known of it
    centred = torch.from_numpy(x - x.mean(0))
    (found,) = solutions(centred, torch.from_numpy(y), (strength,))
    weight, bias = (part.numpy() for part in found)
    for k in range(2):
        known = np.isfinite(y[:, k])
        true = Ridge(alpha=strength).fit(centred[known], y[known, k])
        np.testing.assert_allclose(weight[:, k], true.coef_, atol=1e-4)
        np.testing.assert_allclose(bias[k], true.intercept_, atol=1e-4)
    assert not weight[:, 2].any() and bias[2] == 0
    assert all(part.isfinite().all() for part in ridge(torch.from_numpy(x), torch.from_numpy(y)))


def test_labels_that_are_numbers_are_told_from_names_of_classes():
    def found(values):
        names = sorted(set(values))
        return np.array([names.index(v) for v in values]), names

    few = [str(i % 10) for i in range(100)]
    assert not _continuous(np.array(few, float), found(few))
    parts = [str(i / 7) for i in range(100)]
    assert _continuous(np.array(parts, float), found(parts))
    whole = [str(i) for i in range(100)]
    assert _continuous(np.array(whole, float), found(whole))


def test_gains_point_the_right_way_where_less_is_better():
    task = task_class("forecast")
    ours, theirs = np.tile([1.0, 1, 1], (40, 1)), np.tile([3.0, 1, 1], (40, 1))
    found = difference(Forecast(1, ["a"], [0.0], [1.0], False, 8), ours, theirs, 0)
    assert found[:3] == (2, 2, 2) and task.better == -1
    assert interval(lambda x: float(x.mean()), np.arange(10.0), 0).value == 4.5


def test_few_test_samples_make_nothing_certain():
    task, right = Classify(["a", "b"]), np.ones(4)
    assert interval(task.summary, right, 0)[:3] == (1.0, 0.0, 1.0)
    assert difference(task, right, np.zeros(4), 0)[:3] == (1.0, -1.0, 1.0)
    assert difference(task, np.ones(5), np.zeros(5), 0).low == 1.0


@pytest.mark.filterwarnings("error")
def test_draws_of_equal_numbers_say_nothing_of_what_is_explained():
    task, random = Regress(3.0, 2.0), np.random.default_rng(0)
    truth = np.r_[np.zeros(18), 5.0, 9.0]
    both = np.stack([truth, truth + random.normal(0, 0.1, 20)], 1)
    found = interval(task.summary, both, 0)
    assert -10 < found.low <= found.value <= found.high <= 1
    assert np.isnan(task.summary(both[:18]))
    assert np.isnan(interval(task.summary, both[:18], 0)[:3]).all()  # and nothing is warned of


CARDS = {
    "classify": {"classes": ["a", "b"]},
    "regress": {"mean": 1.0, "deviation": 2.0},
    "transcribe": {"letters": [" ", "a"], "size": 80},
    "segment": {"values": [0, 1], "grid": [2, 2], "size": 8},
    "forecast": {"horizon": 2, "channels": ["x"], "mean": [0.0], "deviation": [1.0],
                 "instance": False, "context": 8, "last": True},
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_cards_come_back_and_bad_ones_are_refused(name):
    told = CARDS[name]
    assert task_class(name).parse(told).to_json() == told
    for key, value in told.items():
        for bad in (None, [], -1e9, "x", [float("nan")], {"a": 1}):
            if bad != value and (name, key, bad) != ("regress", "mean", -1e9):  # any mean will do
                with pytest.raises((ValueError, KeyError, TypeError)):
                    task_class(name).parse(told | {key: bad})
    assert Classify(["a"]).outputs == 1


def test_an_unknown_task_is_named():
    with pytest.raises(SelfsupError, match="segmnt") as caught:
        task_class("segmnt")
    assert "segment" in caught.value.do


def test_what_chooses_holds_no_clips_of_recordings_that_teach():
    recordings = np.arange(120) // 6
    store = SimpleNamespace(source=SimpleNamespace(groups=lambda: recordings))
    rows = np.arange(120)
    for task, targets in ((Regress(0.0, 1.0), rows / 1.0), (Classify(["a", "b"]), recordings % 2)):
        held = task.held(Part(store, rows, targets), 0)
        assert held.sum() == 24
        assert not set(recordings[held]) & set(recordings[~held])
        assert task.held(Part(store, rows[:48], targets[:48]), 0) is None  # of 8 recordings
