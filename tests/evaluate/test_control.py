"""Success rates are counted right, and controls are told what they say they are."""

import numpy as np
import pytest
import torch

import selfsup
from selfsup.environments.rooms import Rooms
from selfsup.errors import SelfsupError
from selfsup.evaluate import control as judged
from selfsup.randomness import mix
from selfsup.report import report

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    selfsup.simulate("rooms", folder / "data", episodes=12, steps=20, size=16)
    small = {"name": "observer_small", "dim": 8, "hidden": 64, "depth": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_CACHE", str(folder / "cache"))
        return selfsup.pretrain(
            folder / "data", steps=6, batch=8, encoder=small, out=folder / "run", quiet=True
        )


def test_straight_line_reaches_goals_in_one_room_and_seldom_in_the_other():
    world = Rooms()
    start, goal = world.task(range(100))

    def straight(state, goal, live):
        return world.straight(state, goal)[:, None]

    across = judged.attempt(world, start, goal, straight)
    assert 0.05 < across.reached.mean() < 0.5
    beside = start.copy()
    beside[:, 1] = 1 - start[:, 1]
    within = judged.attempt(world, start, beside, straight)
    assert within.reached.all()
    walked = np.linalg.norm(start - beside, axis=1)
    assert (within.steps <= np.ceil(walked / 0.06)).all()
    there = judged.attempt(world, start, start, straight)
    assert there.reached.all() and (there.steps == 0).all()


def test_who_has_arrived_stays_and_time_runs_out():
    world = Rooms()
    start, goal = world.task(range(8))
    goal[0] = start[0]
    seen = []

    def idle(state, goal, live):
        seen.append(live)
        return np.full((len(state), 10, 2), 0.001)

    found = judged.attempt(world, start, goal, idle)
    assert found.reached.tolist() == [True] + [False] * 7
    assert all(0 not in live for live in seen)
    assert len(found.states) == world.budget + 1 and (found.steps[1:] == world.budget).all()
    assert (found.states[-1, 0] == start[0]).all()


def test_goals_are_none_of_the_data_and_controls_are_all_there(run):
    told = selfsup.control(run, episodes=4, clone=3)
    scores = {row["of"]: row for row in told.to_json()["scores"]}
    assert list(scores) == ["pretrained", judged.RANDOM, judged.STRAIGHT, judged.CLONE]
    for row in scores.values():
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert told.to_json()["verdict"]["control"] in (judged.RANDOM, judged.CLONE)  # never the told
    assert "straight line" in str(told) and not told.gain
    page = report(run).read_text()
    assert "A planned episode" in page and "behaviour cloning" in page


def test_cem_and_what_cannot_be(run):
    told = [selfsup.control(run, episodes=2, clone=2, planner="cem").to_json() for _ in "ab"]
    assert told[0]["planner"] == "cem" and told[0]["scores"] == told[1]["scores"]
    with pytest.raises(SelfsupError, match="E201"):
        selfsup.control(run, planner="cme")
    with pytest.raises(SelfsupError, match="E201"):
        selfsup.control(run, environment="mazes")


def test_plans_with_a_perfect_model_arrive(run):
    """The true world in the place of what was learned: what is left is the search."""
    world = Rooms(size=16)
    encoder = selfsup.load(run.path)
    scale = torch.tensor(encoder.modality.scales["action"])

    class Truth(torch.nn.Module):
        def forward(self, z, action):
            u = (action * scale[1] + scale[0]).reshape(-1, 2).numpy()
            moved = world.step(z.reshape(-1, 3).numpy().astype(float), u)
            return torch.from_numpy(moved).float().view(z.shape)

    method = torch.nn.Module()
    method.predictor = Truth()
    seeds = [mix(1, i) for i in range(6)]
    start, goal = world.task(seeds)
    goal[:, 0] = np.where(start[:, 0] < 0.5, 0.2, 0.8)  # in the same room: no way round
    seen = judged._seen
    judged._seen = lambda encoder, world, state: torch.from_numpy(state).float()
    try:
        policy = judged.planning(world, encoder, method, "cem", 0)
        found = judged.attempt(world, start, goal, policy)
    finally:
        judged._seen = seen
    assert found.reached.all()
