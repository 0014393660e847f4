"""Does CURL's loss help an agent that learns from pictures? `python -m benchmarks.curl`

    python -m benchmarks.curl --steps 40000 --seeds 2 --without

Soft actor-critic (arXiv 1801.01290, its temperature learned as in 1812.05905) pushes the dot of
`selfsup.environments.rooms` to a goal in the other room, which pictures show as a blue dot. Critic
and contrastive loss share the encoder, whose slow copy gives keys and target values, as in CURL
(arXiv 2004.04136). `--without` adds the ablation: the same agent, random crops too, without that
loss. Test goals are the same for all and none of those learned from. The reward of a step is minus
the part of it that was wasted, so that returns are minus the steps wasted.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from selfsup.console import columns
from selfsup.environments.rooms import STEP, Rooms
from selfsup.evaluate.interval import difference, over_samples
from selfsup.heads import mlp
from selfsup.methods.curl import CURL, bilinear
from selfsup.randomness import mix
from selfsup.teacher import Teacher

HOUSE, SIDE = 26, 32  # px of the rooms, and of a picture: crops shift, and never cut the house
WORLDS = 32  # at a time
RANDOM = 1000  # steps before the agent acts
EVERY = 4  # steps for an update; paper: 1
BATCH = 128
DISCOUNT, SLOW = 0.99, 0.99  # paper: the critics' slow copy moves by 0.01 at every second update
LOG_STD = (-10.0, 2.0)
GOALS = 100  # of the test
ARMS = ("CURL", "without its loss")

# ---- the task -----------------------------------------------------------------------------------


def see(world: Rooms, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """(n, h, w, 3): the world, and where the dot should be in blue."""
    seen = world.render(state)
    seen[..., 2] = world.render(goal)[..., 0]
    return seen


def way(state: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """How far the goal is, in steps, through the door where it is in the other room."""
    here, there = state[:, :2], goal[:, :2]
    door = np.stack([np.full(len(state), 0.5), state[:, 2]], 1)
    straight = np.linalg.norm(there - here, axis=1)
    around = np.linalg.norm(door - here, axis=1) + np.linalg.norm(there - door, axis=1)
    return np.where((here[:, 0] < 0.5) == (there[:, 0] < 0.5), straight, around) / STEP


def reward(state: np.ndarray, after: np.ndarray, goal: np.ndarray) -> np.ndarray:
    return way(state, goal) - way(after, goal) - 1


def crop(seen: np.ndarray, random: np.random.Generator | None = None) -> Tensor:
    """(n, 3, SIDE, SIDE): the house at a place drawn for each picture, or in the middle."""
    n, slack = len(seen), SIDE - HOUSE
    corner = np.full((2, n), slack // 2)
    if random is not None:
        corner = random.integers(slack + 1, size=(2, n))
    down, right = corner[:, :, None] + np.arange(HOUSE)  # (n, HOUSE) each
    out = np.zeros((n, SIDE, SIDE, 3), np.uint8)
    out[np.arange(n)[:, None, None], down[:, :, None], right[:, None, :]] = seen
    return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255  # stays channels_last


Policy = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def judged(world: Rooms, policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """Which of GOALS were reached, and the return of each episode."""
    state, goal = world.task([mix(0x74657374, i) for i in range(GOALS)])
    reached, total = np.zeros(GOALS, bool), np.zeros(GOALS)
    for t in range(world.budget):
        after = world.step(state, policy(state, goal, t))
        total += np.where(reached, 0, reward(state, after, goal))
        state = np.where(reached[:, None], state, after)
        reached |= world.reached(state, goal)
    return reached.astype(float), total


# ---- the agent ----------------------------------------------------------------------------------


class Convolutions(nn.Module):
    """Four layers of 32 filters, as in the paper; the second has a stride too."""

    def __init__(self) -> None:
        super().__init__()
        layers, inputs = [], 3
        for stride in (2, 2, 1, 1):
            layers += [nn.Conv2d(inputs, 32, 3, stride, 1), nn.ReLU()]
            inputs = 32
        self.layers, self.dim = nn.Sequential(*layers, nn.Flatten()), 32 * (SIDE // 4) ** 2

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def begin(module: nn.Module) -> None:
    """As the authors': torch's own biases and small gains make all dark pictures look alike."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.orthogonal_(module.weight, 2**0.5 if isinstance(module, nn.Conv2d) else 1.0)
        nn.init.zeros_(module.bias)


class Critics(nn.ModuleList):
    """Two judgements (2, b) of actions, of which the lower one counts."""

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return torch.stack([critic(torch.cat([z, action], 1))[:, 0] for critic in self])


class Agent(nn.Module):
    def __init__(self, actions: int, *, contrast: bool, dim: int = 50, hidden: int = 256):
        super().__init__()
        self.contrast, self.entropy = contrast, -float(actions)  # which the policy should have
        self.curl = CURL(Convolutions(), dim=dim)
        self.critics = Critics(mlp(dim + actions, hidden, hidden, 1, norm=False) for _ in range(2))
        self.slow = Teacher(self.critics)
        self.actor = mlp(dim, hidden, hidden, 2 * actions, norm=False)
        self.log_alpha = nn.Parameter(torch.tensor(0.1).log())
        self.apply(begin)
        self.slow.follow(self.critics, 0.0)
        self.curl.teacher.follow(self.curl.encoder, 0.0)
        self.curl.teacher_head.follow(self.curl.head, 0.0)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        judges = (*self.curl.parameters(), *self.critics.parameters())
        self.judging = torch.optim.Adam((p for p in judges if p.requires_grad), lr=1e-3)
        self.acting = torch.optim.Adam([*self.actor.parameters(), self.log_alpha], lr=1e-3)

    def policy(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An action that is drawn, its log-probability (b,), and the action without chance."""
        mean, spread = self.actor(z).chunk(2, 1)
        low, high = LOG_STD
        normal = torch.distributions.Normal(mean, (low + (high - low) * spread.sigmoid()).exp())
        u = normal.rsample()
        # 1812.05905, appendix C: log(1 - tanh(u)^2), in a form that does not overflow
        squashed = 2 * (np.log(2) - u - softplus(-2 * u))
        return u.tanh(), (normal.log_prob(u) - squashed).sum(1), mean.tanh()

    def update(self, number: int, batch: list[np.ndarray], random: np.random.Generator) -> None:
        seen, then = batch[0], crop(batch[1], random)
        action, rewards, goes_on = (torch.from_numpy(x).float() for x in batch[2:])
        alpha = self.log_alpha.exp()
        with torch.no_grad():
            next_action, log_p, _ = self.policy(self.curl.queries(then))
            value = self.slow(self.curl.keys(then), next_action).amin(0) - alpha * log_p
            target = rewards + DISCOUNT * goes_on * value
        z = self.curl.queries(crop(seen, random))
        loss = (self.critics(z, action) - target).square().mean(1).sum()
        if self.contrast:
            loss = loss + bilinear(z, self.curl.keys(crop(seen, random)), self.curl.product)
        self.judging.zero_grad()
        loss.backward()
        self.judging.step()
        if number % 2:
            return
        z = z.detach()  # the actor does not move the encoder
        action, log_p, _ = self.policy(z)
        temperature = alpha * (-log_p - self.entropy).detach()
        self.acting.zero_grad()
        loss = alpha.detach() * log_p - self.critics(z, action).amin(0) + temperature
        loss.mean().backward()
        self.acting.step()
        self.slow.follow(self.critics, SLOW)
        self.curl.after_step(0.0)

    @torch.no_grad()
    def does(self, seen: np.ndarray, *, chance: bool = False) -> np.ndarray:
        drawn, _, certain = self.policy(self.curl.queries(crop(seen)))
        return (drawn if chance else certain).numpy()


def learn(world: Rooms, steps: int, seed: int, *, contrast: bool) -> Agent:
    """An agent after so many steps in WORLDS worlds at a time."""
    torch.manual_seed(seed)
    random = np.random.Generator(np.random.Philox(mix(seed, 0x6375726C)))
    agent, size = Agent(world.actions, contrast=contrast), steps // WORLDS * WORLDS
    seens = [np.empty((size, HOUSE, HOUSE, 3), np.uint8) for _ in range(2)]
    kept = [*seens, np.empty((size, world.actions)), np.empty(size), np.empty(size)]
    begun, updates, age = WORLDS, 0, np.zeros(WORLDS, int)
    state, goal = world.task([mix(seed, i) for i in range(WORLDS)])
    for first in range(0, size, WORLDS):
        seen = see(world, state, goal)
        action = random.uniform(-1, 1, (WORLDS, world.actions))
        if first >= RANDOM:
            action = agent.does(seen, chance=True)
        after = world.step(state, action)
        there = world.reached(after, goal)
        row = (seen, see(world, after, goal), action, reward(state, after, goal), ~there)
        for array, part in zip(kept, row, strict=True):
            array[first : first + WORLDS] = part
        age += 1
        over = np.flatnonzero(there | (age == world.budget))  # out of time is no end to learn
        if len(over):
            after[over], goal[over] = world.task([mix(seed, begun + i) for i in range(len(over))])
            begun, age[over] = begun + len(over), 0
        state = after
        for _ in range(WORLDS // EVERY if first >= RANDOM else 0):
            rows = random.integers(first + WORLDS, size=BATCH)
            agent.update(updates, [array[rows] for array in kept], random)
            updates += 1
    return agent


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.curl")
    parser.add_argument("--steps", type=int, default=40000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--without", action="store_true", help="the ablation too")
    given = parser.parse_args(arguments)
    world = Rooms(size=HOUSE)
    aimless = world.random([mix(0x61696D, i) for i in range(GOALS)], world.budget)
    found = {
        ("random", "-"): judged(world, lambda state, goal, t: aimless[:, t]),
        ("straight line, true places", "-"): judged(world, lambda s, g, t: world.straight(s, g)),
    }
    for arm in ARMS[: 1 + given.without]:
        for seed in range(given.seeds):
            began = time.monotonic()
            agent = learn(world, given.steps, seed, contrast=arm == ARMS[0])
            policy = lambda s, g, t, agent=agent: agent.does(see(world, s, g))  # noqa: E731
            found[arm, str(seed)] = judged(world, policy)
            print(f"{arm}, seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
    table = [("", "seed", "success, %", "95 % interval", "return", "95 % interval")]
    for (of, number), (reached, total) in found.items():
        cells = [(s.value, s.low, s.high) for s in map(over_samples, (100 * reached, total))]
        shown = [(f"{value:.1f}", f"{low:.1f} to {high:.1f}") for value, low, high in cells]
        table.append((of, number, *shown[0], *shown[1]))
    print(columns(table))
    if given.without:
        ours, theirs = (
            np.mean([found[arm, str(seed)][0] for seed in range(given.seeds)], 0) for arm in ARMS
        )
        gain = difference(100 * ours, 100 * theirs)
        print(f"CURL less without: {gain.value:+.1f} ± {gain.half:.1f} points, over the goals")


if __name__ == "__main__":
    main()
