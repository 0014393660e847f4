"""Later observations of trajectories: against a slow reading, and where the answer is known."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from sklearn.linear_model import Ridge

import selfsup
from selfsup.console import Console
from selfsup.data import open_source
from selfsup.environments.rooms import Rooms
from selfsup.errors import SelfsupError
from selfsup.evaluate import foretell, tasks
from selfsup.evaluate.ridge import STRENGTHS, ridge
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities.trajectory import Trajectory
from selfsup.report import report

torch.set_num_threads(1)
TURN = np.array([[0.96, 0.28], [-0.28, 0.96]])


def written(folder, names, steps=60):
    """A point that turns and is pushed; a third number is noise."""
    generator = np.random.Generator(np.random.Philox(3))
    for name in names:
        done = generator.normal(size=(steps, 2))
        seen = np.zeros((steps, 3))
        for i in range(1, steps):
            seen[i, :2] = TURN @ seen[i - 1, :2] + done[i - 1]
        seen[:, 2] = generator.normal(size=steps)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, observation=seen.astype(np.float32), action=done.astype(np.float32))
    return open_source(str(folder))


def network(source) -> LoadedEncoder:
    modality = Trajectory()
    modality.learn(source.for_training())
    small = {"dim": 6, "hidden": 16, "depth": 2}
    card = Card("trajectory", "observer_small", 8, small, (0.0,), (1.0,), state=modality.state)
    return LoadedEncoder(rebuild(card, modality, 0), card, modality)


def judge(source, horizons=(1, 4)) -> foretell.Judge:
    encoder = network(source)
    return foretell.Judge(encoder, encoder, source, horizons, 2, Console(quiet=True))


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    names = [f"train/{i}.npz" for i in range(6)] + [f"test/{i}.npz" for i in range(5)]
    return written(tmp_path_factory.mktemp("parted"), names)


def test_errors_are_those_of_a_slow_reading(parted):
    made = judge(parted)
    train = [parted.episode(i) for i, e in enumerate(parted.episodes) if "train/" in e.name]
    test = [parted.episode(i) for i, e in enumerate(parted.episodes) if "test/" in e.name]
    both = np.concatenate([e["observation"] for e in train])
    mean, spread = both.mean(0), both.std(0)

    def pairs(episodes, horizon):
        """From each step: what is seen and then done, what is seen later, and the last seen."""
        x, y, now = [], [], []
        for e in episodes:
            seen = (e["observation"] - mean) / spread
            for s in range(len(seen) - horizon):
                x.append(np.concatenate([seen[s], *e["action"][s : s + horizon]]))
                y.append(seen[s + horizon])
                now.append(seen[s])
        return np.array(x), np.array(y), np.array(now)

    for horizon in (1, 4):
        x_test, y_test, now = pairs(test, horizon)
        # the order of episodes decides which thirds choose the strength: here all are tried
        x, y, _ = pairs(train, horizon)
        scale = x.std(0)
        guesses = [Ridge(alpha=a).fit(x / scale, y).predict(x_test / scale) for a in STRENGTHS]
        slow = [((guess - y_test) ** 2).mean() for guess in guesses]
        found = {of: pairs[0][0] for of, pairs in made.errors(horizon).items()}
        assert min(abs(found[foretell.LINEAR].mean() - s) for s in slow) < 1e-4
        assert found[foretell.LINEAR].mean() < min(slow) * 1.02
        assert found[foretell.LAST].mean() == pytest.approx(((now - y_test) ** 2).mean(), rel=1e-4)
        assert len(found[foretell.LINEAR]) == 5 * (60 - horizon)
    # the point follows from what is done, the noise from nothing
    assert found[foretell.LINEAR].mean() == pytest.approx((y_test[:, 2] ** 2).mean() / 3, abs=0.03)
    told = foretell.Forecast(made.found())
    gain = told.to_json()["gains"][0]
    assert gain["blocks"] == 5 and gain["control"] == foretell.LINEAR and "linear" in told.verdict
    assert "test' of the data" in str(told) and "no predictor" in str(told)


def test_a_model_that_knows_the_world_foretells_it(parted):
    made = judge(parted, (4,))
    mean, spread = made.parts[0].seen.mean(0), made.parts[0].seen.std(0)
    level, deviation = (np.array(v) for v in made.encoder.modality.scales["action"])

    class Truth(torch.nn.Module):
        def rollout(self, z, actions):
            z, u = z.numpy() * spread + mean, actions.numpy() * deviation + level
            for step in range(u.shape[1]):
                z = np.concatenate([z[:, :2] @ TURN.T + u[:, step], z[:, 2:]], 1)
            return torch.from_numpy(((z - mean) / spread).astype(np.float32))[:, None]

    made.predictor = Truth()
    made.vectors[0] = [y[at] for y, at in zip(made.seen, made.starts, strict=True)]
    off = made.errors(4)[foretell.PRETRAINED][0][0].mean()
    noise = (made.seen[1][made.at(4)[1], 2] - made.seen[1][made.at(4)[1] + 4, 2]).square().mean()
    assert off == pytest.approx(float(noise) / 3, rel=0.02)  # the noise, carried on


def test_untrained_networks_are_no_straw_men_of_a_world_model(parted):
    """Vectors and actions teach a regression; no predictor of random weights is rolled out."""
    made = judge(parted, (1, 4))
    plain = {h: made.errors(h)[foretell.UNTRAINED] for h in (1, 4)}
    solved = []

    class Wrong(torch.nn.Module):
        def rollout(self, z, actions):
            return 1e3 * torch.ones(len(z), actions.shape[1], z.shape[1])

    made.predictor = Wrong()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foretell, "ridge", lambda *a, **k: solved.append(len(a[0])) or ridge(*a, **k))
        for h in (1, 4):
            found = made.errors(h)
            for ours, theirs in zip(found[foretell.UNTRAINED], plain[h], strict=True):
                np.testing.assert_array_equal(ours[0], theirs[0])
            assert found[foretell.PRETRAINED][0][0].mean() > 10 * plain[h][0][0].mean()
    assert len(solved) == 2 * 3 + 1  # two networks and linear dynamics a horizon; one reading


def test_large_observations_are_few_steps_of_several_episodes(parted, monkeypatch):
    made = judge(parted, (4,))
    assert len(made.parts[0].seen) == 6 * 60
    monkeypatch.setattr(foretell, "NUMBERS", 6 * 40 * 3)
    few = judge(parted, (4,))
    assert [len(part.seen) for part in few.parts] == [6 * 40, 5 * 48] and few.episodes == 5
    assert few.parts[0].left[:40].tolist() == [*range(39, -1, -1)]
    seen = np.random.default_rng(0).integers(0, 256, (600, 4, 4, 3), np.uint8)
    x, y, told = foretell.targets(seen[:400], seen[400:])
    flat = seen.reshape(600, -1) - seen[:400].reshape(400, -1).mean(0)
    share = (np.linalg.svd(flat[:400])[1][:32] ** 2).sum() / (flat[:400] ** 2).sum()
    assert f"{100 * share:.0f} %" in told and x.shape == (400, 32) and y.shape == (200, 32)
    assert x.square().mean() == pytest.approx(1, abs=1e-4)


def test_starts_stay_in_their_units_and_intervals_are_over_them(tmp_path):
    few = written(tmp_path, ["a.npz", "b.npz"], steps=400)
    made = judge(few)
    test = made.parts[1]
    assert len(test.seen) == 2 * 80 and made.episodes == 2
    assert np.bincount(test.unit).tolist() == [32, 32, 16, 32, 32, 16]
    assert test.left[:3].tolist() == [31, 30, 29] and test.left[[31, 79]].tolist() == [0, 0]
    for at in made.at(4):
        assert len(at) > 50
    assert (test.unit[made.at(4)[1]] == test.unit[made.at(4)[1] + 4]).all()
    own = few.for_training()
    assert [e.steps for e in own.episodes] == [320, 320] and len(own.episode(0)["action"]) == 320
    assert own.fingerprint() != few.fingerprint()
    gain = np.random.default_rng(0).normal(size=(2, 90))
    unit = np.repeat(np.arange(6), 15)
    means = gain.reshape(2, 6, 15).mean((0, 2))
    half = student.ppf(0.975, 5) * means.std(ddof=1) / 6**0.5
    ends = gain.mean(1)
    half = np.hypot(half, student.ppf(0.975, 1) * ends.std(ddof=1) / 2**0.5)
    found = foretell.over_units(gain, unit)
    assert found["high"] - found["value"] == pytest.approx(half)
    assert foretell.over_units(gain, np.minimum(unit, 3))["low"] is None


def test_other_parts_than_train_are_not_for_training(parted):
    own = parted.for_training()
    assert len(own.episodes) == 6 and all("train/" in e.name for e in own.episodes)


def test_a_run_in_the_rooms_is_judged_and_told_where_it_can_act(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    selfsup.simulate("rooms", tmp_path / "data", episodes=25, steps=20, size=16)
    small = {"name": "observer_small", "dim": 8, "hidden": 64, "depth": 2}
    run = selfsup.pretrain(tmp_path / "data", steps=3, batch=8, encoder=small,
                           out=tmp_path / "run", quiet=True)  # fmt: skip
    data = str(tmp_path / "data")
    assert tasks.suggested("trajectory", data, None) == "foretell"
    assert tasks.suggested("trajectory", data, "labels.csv") == "classify"
    found = foretell.evaluate_task(run, data, horizons=(1, 4, 15, 30), console=Console(quiet=True))
    told = json.loads((run.path / "evaluation-foretell.json").read_text())
    assert told["horizons"] == [1, 4, 15] and told["gains"][0]["blocks"] == 5
    assert {row["of"] for row in told["scores"]} == {
        "pretrained", "untrained", foretell.LINEAR, foretell.LAST}  # fmt: skip
    assert f"selfsup plan {run.path}" in str(found)
    assert "has learned from the episodes that test" in found.verdict
    page = report(run).read_text()
    assert "foretell" in page and "linear dynamics" in page
    world = Rooms(size=16)
    assert Rooms.shows(world.render(world.start(range(3))))
    assert not Rooms.shows(np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8))


def test_what_cannot_be_foretold_is_refused(parted, tmp_path):
    encoder = network(parted)
    short = written(tmp_path / "short", ["a.npz", "b.npz"], steps=30)
    with pytest.raises(SelfsupError, match="E503"):
        foretell.evaluate_task(encoder, short.place)
    table = tmp_path / "table.csv"
    table.write_text("a,b\n" + "1,2\n2,1\n" * 50)
    with pytest.raises(SelfsupError, match="E503"):
        foretell.evaluate_task(encoder, str(table))
