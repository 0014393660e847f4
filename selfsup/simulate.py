"""`selfsup simulate`: data of any size from a world of our own, one .npz file an episode."""

import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import environments
from .console import Console
from .errors import SelfsupError
from .randomness import mix
from .stop import stop

AT_ONCE = 64  # episodes


@dataclass(frozen=True)
class Simulated:
    path: str
    environment: str
    episodes: int
    steps: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        told = f"{self.episodes} episodes of {self.steps} steps in {self.path}"
        return f"{told}\n\nnext:\n  selfsup pretrain {shlex.quote(self.path)}"


def simulate(
    environment: str,
    out: str | Path,
    *,
    episodes: int = 500,
    steps: int = 64,
    seed: int = 0,
    console: Console | None = None,
    **settings: Any,
) -> Simulated:
    """Episodes of a policy without aim, written to the new folder `out`.

    Each file holds `observation` (t, h, w, c) uint8, `action` (t, a), and `state` (t, s), which is
    the truth and for evaluation alone. Raises SelfsupError E201 where `out` has files already.
    """
    console = console or Console()
    world = environments.find(environment)(**settings)
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise SelfsupError(
            "E201",
            f"{folder} has files in it already",
            why="simulated episodes are never mixed with other files",
            do="give a new folder with --out",
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    with stop.installed():
        for low in range(0, episodes, AT_ONCE):
            stop.check()
            console.progress(f"simulate: {low} of {episodes} episodes")
            numbers = range(low, min(low + AT_ONCE, episodes))
            states, actions = roll(world, [mix(seed, i) for i in numbers], steps)
            for number, state, action in zip(numbers, states, actions, strict=True):
                path = folder / f"episode_{number:06d}.npz"
                new = path.with_suffix(".new")
                with new.open("wb") as file:
                    np.savez_compressed(
                        file,
                        observation=world.render(state),
                        action=action.astype(np.float32),
                        state=state.astype(np.float32),
                    )
                os.replace(new, path)
                written += path.stat().st_size
    return Simulated(str(folder), environment, episodes, steps, written)


def roll(world: Any, seeds: list[int], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """States (n, t, s) that random actions (n, t, a) lead through."""
    state, actions = world.start(seeds), world.random(seeds, steps)
    states = [state]
    for t in range(steps - 1):
        state = world.step(state, actions[:, t])
        states.append(state)
    return np.stack(states, 1), actions
