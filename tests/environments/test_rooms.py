import shlex

import numpy as np
import pytest

from selfsup import environments
from selfsup.environments.rooms import DOOR, NEAR, RADIUS, STEP, WALL, Rooms, free
from selfsup.errors import SelfsupError
from selfsup.simulate import roll, simulate


def test_walls_are_never_crossed_but_in_the_door():
    """Hard pushes from everywhere: whoever changes rooms was in the door on the way."""
    world = Rooms(door=None)
    state = world.start(range(300))
    random = np.random.Generator(np.random.Philox(0))
    changed = 0
    for _ in range(60):
        was = state
        state = world.step(state, random.normal(0, 5, (300, 2)))
        assert free(state).all()
        assert (np.linalg.norm((state - was)[:, :2], axis=1) <= STEP + 1e-12).all()
        across = (was[:, 0] - 0.5) * (state[:, 0] - 0.5) < 0
        changed += across.sum()
        in_door = np.abs(state[across, 1] - state[across, 2]) <= DOOR - RADIUS
        assert in_door.all()
    assert changed > 10
    assert (state[:, 2] == world.start(range(300))[:, 2]).all()  # doors stay where they are


def test_door_passes_and_wall_stops_and_slides():
    world = Rooms(door=0.25)
    state = np.array([[0.3, 0.25, 0.25], [0.3, 0.7, 0.25], [0.3, 0.7, 0.25]])
    for _ in range(12):
        state = world.step(state, np.array([[1.0, 0.0], [1.0, 0.0], [1.0, -0.5]]))
    assert state[0, 0] > 0.9
    assert abs(state[1, 0] - (0.5 - WALL - RADIUS)) < STEP / 8 and state[1, 1] == 0.7
    assert state[2, 1] < 0.6  # it slid along the wall


def test_long_pushes_count_as_one_and_worlds_do_not_meet():
    world = Rooms()
    state = world.start(range(5))
    together = world.step(state, np.full((5, 2), 100.0))
    alone = np.concatenate([world.step(state[[i]], np.full((1, 2), 1.0)) for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_tasks_cross_the_wall_and_seeds_say_everything():
    world = Rooms(door=None)
    start, goal = world.task(range(200))
    assert ((start[:, 0] < 0.5) != (goal[:, 0] < 0.5)).all()
    assert free(start).all() and free(goal).all()
    assert (start[:, 2] == goal[:, 2]).all() and not world.reached(start, goal).any()
    again, _ = world.task([7])
    assert (again[0] == start[7]).all()
    states, actions = roll(world, [3, 4], 20)
    one, own = roll(world, [4], 20)
    assert (states[1] == one[0]).all() and (actions[1] == own[0]).all()
    assert world.reached(goal, goal + np.array([NEAR / 2, 0, 0])).all()


def test_pixels_show_dot_wall_and_door():
    world = Rooms(size=32, door=0.25)
    frames = world.render(np.array([[0.25, 0.75, 0.25], [0.26, 0.75, 0.25]]))
    assert frames.shape == (2, 32, 32, 3) and frames.dtype == np.uint8
    row, column = np.unravel_index(frames[0, :, :, 0].argmax(), (32, 32))
    assert abs(row - 24) <= 1 and abs(column - 8) <= 1
    assert frames[0, 28, 16, 1] > 100 and frames[0, 8, 16, 1] == 0  # wall; door
    assert (frames[0] != frames[1]).any()  # less than a pixel apart


def test_random_pushes_are_held_and_reach_both_rooms():
    world = Rooms()
    states, actions = roll(world, list(range(100)), 64)
    assert np.linalg.norm(actions, axis=2).max() <= 1
    same = (actions[:, 1:] == actions[:, :-1]).all(2).mean()
    assert 0.75 < same < 0.9
    sides = states[:, :, 0] < 0.5
    assert 0.05 < (sides[:, 1:] != sides[:, :-1]).any(1).mean() < 0.5


def test_simulate_writes_the_same_files_again_and_touches_no_other(tmp_path):
    for name in ("b c", "a"):
        told = simulate("rooms", tmp_path / name, episodes=3, steps=10, seed=5, size=16)
        assert shlex.split(str(told))[-3:] == ["selfsup", "pretrain", str(tmp_path / name)]
    assert told.episodes == 3 and told.bytes > 0
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == [f"episode_{i:06d}.npz" for i in range(3)]
    for name in files:
        with np.load(tmp_path / "a" / name) as a, np.load(tmp_path / "b c" / name) as b:
            assert a["observation"].shape == (10, 16, 16, 3) and a["action"].shape == (10, 2)
            assert a["state"].shape == (10, 3)
            assert all((a[k] == b[k]).all() for k in a.files)
    with pytest.raises(SelfsupError, match="E201"):
        simulate("rooms", tmp_path / "a", episodes=1)
    with pytest.raises(SelfsupError, match="E201"):
        environments.find("room")
