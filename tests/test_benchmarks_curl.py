"""The agent of `benchmarks.curl`: its probabilities, its targets, and who moves what."""

import copy

import numpy as np
import pytest
import torch

from benchmarks import curl
from benchmarks.curl import HOUSE, SIDE, Agent, crop, judged, reward, see, way
from selfsup.environments.rooms import Rooms
from selfsup.methods.curl import bilinear

WORLD = Rooms(size=HOUSE)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def agent(contrast=True) -> Agent:
    torch.manual_seed(0)
    return Agent(2, contrast=contrast, hidden=16)


def batch(n=8):
    state, goal = WORLD.task(range(n))
    random = np.random.default_rng(0)
    action = random.uniform(-1, 1, (n, 2))
    after = WORLD.step(state, action)
    goes_on = np.arange(n) % 3 > 0
    return [see(WORLD, state, goal), see(WORLD, after, goal), action,
            reward(state, after, goal), goes_on]  # fmt: skip


def moved(made, before, part):
    now = getattr(made, part).state_dict()
    return any(not torch.equal(now[k], v) for k, v in getattr(before, part).state_dict().items())


def test_the_log_probability_is_that_of_the_squashed_normal():
    made, z = agent(), torch.randn(64, 50)
    action, log_p, certain = made.policy(z)
    mean, spread = made.actor(z).chunk(2, 1)
    deviation = torch.exp(-10 + 0.5 * 12 * (torch.tanh(spread / 2) + 1))  # the authors' form
    normal = torch.distributions.Normal(mean.double(), deviation.double())
    squash = torch.distributions.transforms.TanhTransform()
    expected = torch.distributions.TransformedDistribution(normal, squash)
    near = (action.abs() < 0.999).all(1)  # where atanh is sharp
    assert near.sum() > 30
    found = expected.log_prob(action.double())[near].sum(1)
    torch.testing.assert_close(log_p[near].double(), found, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(certain, mean.tanh())


def test_the_critics_learn_the_soft_target(monkeypatch):
    """A slow reading: r, and where it goes on the discounted min Q' - alpha log p."""
    made, parts = agent(contrast=False), batch()
    still = lambda seen, random=None: crop(seen)  # noqa: E731
    monkeypatch.setattr(curl, "crop", still)
    monkeypatch.setattr(made.judging, "step", lambda: None)
    z, later = (made.curl.queries(crop(part)) for part in parts[:2])
    action = torch.from_numpy(parts[2]).float()
    torch.manual_seed(1)
    next_action, log_p, _ = made.policy(later)
    slow = made.slow(made.curl.keys(crop(parts[1])), next_action)
    total = 0.0
    for critic in made.critics:
        said = critic(torch.cat([z, action], 1))[:, 0]
        for i in range(8):
            target = parts[3][i]
            if parts[4][i]:
                target += 0.99 * (min(slow[0, i], slow[1, i]) - 0.1 * log_p[i]).item()
            total = total + (said[i] - target) ** 2 / 8
    expected = torch.autograd.grad(total, made.critics[0][0].weight)[0]
    torch.manual_seed(1)
    made.update(1, parts, np.random.default_rng(0))
    torch.testing.assert_close(made.critics[0][0].weight.grad, expected, atol=1e-4, rtol=1e-4)


def test_the_encoder_learns_from_critics_and_contrast_and_never_from_the_actor():
    made, parts = agent(), batch()
    before = copy.deepcopy(made)
    made.judging.step = lambda: None
    made.update(0, parts, np.random.default_rng(0))
    assert moved(made, before, "actor") and made.log_alpha != before.log_alpha
    assert not moved(made, before, "critics") and not moved(made.curl, before.curl, "encoder")
    made = copy.deepcopy(before)
    made.update(1, parts, np.random.default_rng(0))
    assert not moved(made, before, "actor") and not moved(made, before, "slow")
    assert moved(made.curl, before.curl, "encoder") and moved(made, before, "critics")
    assert not torch.equal(made.curl.product, before.curl.product)


def test_the_beginning_tells_pictures_apart_and_copies_begin_alike():
    made = agent()
    with torch.no_grad():  # with torch's own initialisation 0.03, and the contrast stays at chance
        assert made.curl.queries(crop(batch(32)[0])).std(0).mean() > 0.2
    for slow, fast in ((made.slow, made.critics), (made.curl.teacher, made.curl.encoder),
                       (made.curl.teacher_head, made.curl.head)):  # fmt: skip
        for a, b in zip(slow.parameters(), fast.parameters(), strict=True):
            assert torch.equal(a, b)


def test_without_its_loss_nothing_contrastive_moves():
    made, parts = agent(contrast=False), batch()
    before = copy.deepcopy(made)
    made.update(1, parts, np.random.default_rng(0))
    assert torch.equal(made.curl.product, before.curl.product)
    assert moved(made.curl, before.curl, "encoder")


def test_the_contrastive_term_is_that_of_two_crops(monkeypatch):
    seen = []
    monkeypatch.setattr(curl, "bilinear", lambda q, k, w: seen.append((q, k)) or bilinear(q, k, w))
    made, parts = agent(), batch()
    made.update(1, parts, np.random.default_rng(0))
    (q, k), fresh, random = seen[0], agent(), np.random.default_rng(0)
    crop(parts[1], random)  # of what followed, drawn first
    one, other = crop(parts[0], random), crop(parts[0], random)
    torch.testing.assert_close(q, fresh.curl.queries(one))
    torch.testing.assert_close(k, fresh.curl.keys(other))
    assert not torch.equal(one, other) and not k.requires_grad


def test_crops_never_cut_the_house():
    seen = batch()[0]
    whole = torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 255
    for random in (None, np.random.default_rng(3)):
        found = crop(seen, random)
        assert found.shape == (8, 3, SIDE, SIDE)
        torch.testing.assert_close(found.sum((2, 3)), whole.sum((2, 3)))
    middle = crop(seen)[:, :, 3 : 3 + HOUSE, 3 : 3 + HOUSE]
    assert torch.equal(middle, whole)


def test_returns_are_minus_the_steps_wasted():
    state, goal = WORLD.task(range(20))
    assert (way(goal, goal) == 0).all() and (way(state, goal) > 0).all()
    aim = np.where(np.abs(state[:, :1] - 0.5) > 0, [[0.5, 0.25]] - state[:, :2], 0)
    aim /= np.maximum(np.linalg.norm(aim, axis=1, keepdims=True), 1e-9)
    after = WORLD.step(state, aim)  # straight at the door
    free = np.linalg.norm(after[:, :2] - state[:, :2], axis=1) > 0.0599
    assert free.sum() > 10
    np.testing.assert_allclose(reward(state, after, goal)[free], 0, atol=1e-6)
    np.testing.assert_allclose(reward(state, state, goal), -1)
    reached, total = judged(WORLD, lambda state, goal, t: np.zeros((len(state), 2)))
    assert reached.sum() == 0 and (total == -WORLD.budget).all()


def test_the_table_has_both_arms_beside_the_controls(capsys, monkeypatch):
    monkeypatch.setattr(curl, "RANDOM", 64)
    monkeypatch.setattr(curl, "BATCH", 8)
    monkeypatch.setattr(curl, "GOALS", 4)
    curl.main(["--steps", "160", "--seeds", "1", "--without"])
    told = capsys.readouterr().out
    for name in ("random", "straight line", "CURL", "without its loss", "CURL less without"):
        assert name in told
