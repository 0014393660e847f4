"""Two rooms, a wall between them, a door in the wall, and a dot that is pushed around.

Seen from above, as pixels. Pure functions of arrays with one row for each of many worlds: a state
is (x, y, door), where the dot is and where the middle of the door is along the wall, all in [0, 1].
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ..randomness import mix

RADIUS = 0.04  # of the dot
WALL = 0.04  # half of its thickness
DOOR = 0.1  # half of its width
STEP = 0.06  # how far an action of length one pushes
PARTS = 8  # of a step, each much shorter than the wall is thick
NEAR = 0.08  # of the goal that counts as being there
HELD = 6.0  # steps for which a random policy keeps pushing the same way, on average

GREY = (153, 76)  # green and blue of the wall

Worlds = Float[np.ndarray, "n 3"]


class Rooms:
    """`door` is where the door is, or None for another place in each world. `size` is in pixels."""

    actions = 2  # the numbers of one action, a push; longer ones than 1 count as 1
    budget = 64  # steps that are enough for any goal

    def __init__(self, *, size: int = 32, door: float | None = 0.25):
        self.size, self.door = size, door

    def start(self, seeds: Sequence[int]) -> Worlds:
        """Worlds with the dot anywhere in either room."""
        return np.stack([self._placed(np.random.Generator(np.random.Philox(s))) for s in seeds])

    def task(self, seeds: Sequence[int]) -> tuple[Worlds, Worlds]:
        """A start and a goal in different rooms of the same world."""
        starts, goals = [], []
        for seed in seeds:
            random = np.random.Generator(np.random.Philox(mix(seed, 0x676F616C)))
            start = self._placed(random)
            goal = self._placed(random)
            while (goal[0] < 0.5) == (start[0] < 0.5):
                goal = self._placed(random)
            starts.append(start)
            goals.append([*goal[:2], start[2]])
        return np.stack(starts), np.array(goals)

    def _placed(self, random: np.random.Generator) -> Float[np.ndarray, " 3"]:
        """Not in the door, of which nobody could say which room it is."""
        own = random.uniform(0.2, 0.8)
        door = own if self.door is None else self.door
        clear = WALL + RADIUS
        x = random.uniform(RADIUS, 0.5 - clear)
        x += (0.5 + clear - RADIUS) * (random.random() < 0.5)
        return np.array([x, random.uniform(RADIUS, 1 - RADIUS), door])

    def step(self, state: Worlds, action: Float[np.ndarray, "n 2"]) -> Worlds:
        """The worlds after a push. Along a wall the dot slides; through one it never goes."""
        length = np.linalg.norm(action, axis=1, keepdims=True)
        part = STEP / PARTS * action / np.maximum(length, 1.0)
        state = state.copy()
        for _ in range(PARTS):
            for axis in (0, 1):
                moved = state.copy()
                moved[:, axis] += part[:, axis]
                state = np.where(free(moved)[:, None], moved, state)
        return state

    def render(self, state: Worlds) -> UInt8[np.ndarray, "n h w 3"]:
        """Dark floor, a grey wall, a red dot with soft edges, so that less than a pixel shows."""
        place = (np.arange(self.size) + 0.5) / self.size
        x, y = place[None, None, :], place[None, :, None]
        at_x, at_y, door = (state[:, i, None, None] for i in range(3))
        wall = (np.abs(x - 0.5) < WALL) & (np.abs(y - door) > DOOR)  # (n, h, w)
        width = max(RADIUS, 1 / self.size)
        dot = np.exp(-(np.square(x - at_x) + np.square(y - at_y)) / (2 * width**2))
        channels = [255 * dot, *(level * wall for level in GREY)]
        return np.round(np.stack(channels, -1)).astype(np.uint8)

    @staticmethod
    def shows(pictures: UInt8[np.ndarray, "n h w c"]) -> bool:
        """Whether they are of this world: nothing but its wall is green or blue."""
        if pictures.shape[3] != 3:
            return False
        wall = pictures[..., 1] > 0
        return bool(wall.any() and (pictures[..., 1:] == wall[..., None] * GREY).all())

    def reached(self, state: Worlds, goal: Worlds) -> Bool[np.ndarray, " n"]:
        return np.linalg.norm(state[:, :2] - goal[:, :2], axis=1) < NEAR

    def straight(self, state: Worlds, goal: Worlds) -> Float[np.ndarray, "n 2"]:
        """Control that knows the true places, and nothing of walls: straight at the goal."""
        return (goal - state)[:, :2] / STEP

    def random(self, seeds: Sequence[int], steps: int) -> Float[np.ndarray, "n t 2"]:
        """Pushes without aim: each is kept for some steps, then another one is drawn."""
        made = []
        for seed in seeds:
            random = np.random.Generator(np.random.Philox(mix(seed, 0x70757368)))
            anew = random.random(steps) < 1 / HELD
            angle = random.uniform(0, 2 * np.pi, steps)
            length = np.sqrt(random.random(steps))
            kept = np.maximum.accumulate(np.where(anew, np.arange(steps), 0))
            push = length[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
            made.append(push[kept])
        return np.stack(made)


def free(state: Worlds) -> Bool[np.ndarray, " n"]:
    """Whether the dot is inside the house, and clear of the wall or in the door."""
    x, y, door = state.T
    inside = (x >= RADIUS) & (x <= 1 - RADIUS) & (y >= RADIUS) & (y <= 1 - RADIUS)
    beside = np.abs(x - 0.5) >= WALL + RADIUS
    return inside & (beside | (np.abs(y - door) <= DOOR - RADIUS))
