"""Does the encoder know what leads where? Episodes towards a goal that is given as a picture.

The model that foretells is searched for the actions that bring the latent vector nearest to that
of the goal. Beside it: actions without aim, control that walks straight and is told the true
places, and behaviour cloning of the same data that the model has learned from.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from .. import environments, settings
from ..checkpoint import read
from ..console import Console, columns
from ..data import open_source
from ..data.outcome import BadSample
from ..data.trajectories import Trajectories
from ..errors import SelfsupError
from ..heads import mlp
from ..load import LoadedEncoder, load
from ..planning import PLANNERS
from ..pretrain.job import build_method
from ..randomness import mix
from ..run import Run
from ..steps import Steps
from ..stop import stop
from .controls import PRETRAINED
from .interval import difference, over_samples
from .result import Told, keep

BLOCKS, HELD = 8, 4  # a plan is so many actions, each kept for so many steps
REPLAN = 4  # steps after which a plan is made anew
COUNT, ROUNDS = 192, 6  # sequences that are drawn, and how often
CLONED = 1500  # steps of behaviour cloning
FRAMES = 10  # of the filmstrip

RANDOM, STRAIGHT, CLONE = "random", "straight line, true places", "behaviour cloning"


class Attempt(NamedTuple):
    """Which episodes came to the goal, after how many steps, and through which states."""

    reached: np.ndarray  # (n,)
    steps: np.ndarray  # (n,)
    states: np.ndarray  # (t, n, s)


# (states, goals) of the worlds that are still under way -> actions (n, m, a) for the next m steps
Policy = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Planned(Told):
    """Success rates. The verdict is on the difference to behaviour cloning."""

    def __str__(self) -> str:
        rows = [("", "success", "95 % interval", "steps")]
        for row in self._told["scores"]:
            interval = f"{100 * row['low']:.0f} to {100 * row['high']:.0f}"
            steps = f"{row['steps']:.0f}" if row["steps"] else "-"
            rows.append((row["of"], f"{100 * row['value']:.0f} %", interval, steps))
        return f"{self.verdict}\n\n{columns(rows)}\n\n{self._told['statement']}"


def control(
    run: Any,
    *,
    environment: str = "rooms",
    episodes: int = 100,
    planner: str = "mppi",
    seed: int = 0,
    clone: int = CLONED,
    console: Console | None = None,
    **world_settings: Any,
) -> Planned:
    """Success rate of planning towards goals, beside the controls; kept in the run's folder.

    Raises SelfsupError: E202 for a run that foretells nothing or saw other observations, E201 for
    an unknown environment or planner.
    """
    console, began = console or Console(), time.monotonic()
    if planner not in PLANNERS:
        raise SelfsupError("E201", f"there is no planner {planner!r}", do=", ".join(PLANNERS))
    home = Run.open(run)
    encoder, method = load(home.path), model_of(home)
    world = environments.find(environment)(**_of_size(encoder, world_settings))
    seeds = [mix(seed, 0x706C616E, i) for i in range(episodes)]  # none that made training data
    start, goal = world.task(seeds)
    if encoder.modality.actions != world.actions:  # type: ignore[attr-defined]
        raise SelfsupError(
            "E202", f"{environment} takes {world.actions} numbers as an action",
            why=f"the run has learned from {encoder.modality.actions}",  # type: ignore[attr-defined]
        )  # fmt: skip
    policies: dict[str, Policy] = {
        PRETRAINED: planning(world, encoder, method, planner, seed),
        RANDOM: aimless(world, seeds),
        STRAIGHT: lambda state, goal, _: world.straight(state, goal)[:, None],
    }
    with stop.installed():
        source = open_source(settings.from_file(home.path / "resolved.toml")["data.path"].value)
        source = source.for_training()
        if isinstance(source, Trajectories):
            console.progress("plan: behaviour cloning of the training data")
            policies[CLONE] = cloning(world, encoder, source, clone, seed)
        found = {}
        for of, policy in policies.items():
            console.progress(f"plan: {episodes} episodes, {of}")
            found[of] = attempt(world, start, goal, policy)
    outcome = {of: a.reached.astype(float) for of, a in found.items()}
    result = Planned(_told(outcome, found, environment, episodes, planner, world, encoder, began))
    keep(home, "plan", result)
    filmstrip(world, found[PRETRAINED], goal).save(home.path / "filmstrip.png")
    return result


def model_of(run: Run) -> Any:
    """The method of a run with its weights. Raises E202 where it has no predictor."""
    method = built(run)
    if not foretells(method):
        raise SelfsupError(
            "E202",
            "this run cannot be planned with",
            why=f"{load(run.path).card.method} foretells nothing from actions",
            do="pretrain one on trajectories with --method world_model",
        )
    method.load_state_dict(dict(read(run.checkpoint, "method")))
    return method.eval()


def built(run: Run) -> Any:
    """The method of a run, its weights drawn anew."""
    chosen = settings.resolve(settings.from_file(run.path / "resolved.toml"), ())
    return build_method(chosen, load(run.path).modality)


def foretells(method: Any) -> bool:
    return hasattr(getattr(method, "predictor", None), "rollout")


def _of_size(encoder: LoadedEncoder, given: dict[str, Any]) -> dict[str, Any]:
    shape = encoder.modality.shape  # type: ignore[attr-defined]
    if len(shape) != 3 or shape[1] != shape[2]:
        raise SelfsupError(
            "E202", "the run has not learned from pictures of this world",
            why=f"its observations are {' x '.join(map(str, shape))}",
        )  # fmt: skip
    return {"size": shape[1], **given}


# ---- policies ---------------------------------------------------------------------------------


def attempt(world: Any, start: np.ndarray, goal: np.ndarray, policy: Policy) -> Attempt:
    """All episodes at once, each until its goal is reached or the budget is spent."""
    state, reached = start, world.reached(start, goal)
    steps, states = np.zeros(len(start), int), [start]
    while len(states) <= world.budget and not reached.all():
        stop.check()
        live = np.flatnonzero(~reached)
        block = policy(state[live], goal[live], live)
        for t in range(block.shape[1]):
            action = np.zeros((len(state), block.shape[2]))
            action[live] = block[:, t]
            state = np.where(reached[:, None], state, world.step(state, action))
            steps += ~reached
            reached = reached | world.reached(state, goal)
            states.append(state)
            if len(states) > world.budget:
                break
    return Attempt(reached, steps, np.stack(states))


def aimless(world: Any, seeds: list[int]) -> Policy:
    actions = world.random([mix(s, 1) for s in seeds], world.budget)
    return lambda state, goal, live: actions[live]


@torch.no_grad()
def planning(world: Any, encoder: LoadedEncoder, method: Any, planner: str, seed: int) -> Policy:
    """Plans of BLOCKS actions; after REPLAN steps a new one begins where the last one left off."""
    modality: Any = encoder.modality
    generator = torch.Generator().manual_seed(mix(seed, 0x64726177))
    low, high = (modality.done(np.array(bound, np.float32)) for bound in modality.range)
    begun: dict[int, Tensor] = {}
    blank = torch.zeros(BLOCKS, world.actions)

    @torch.no_grad()
    def act(state: np.ndarray, goal: np.ndarray, live: np.ndarray) -> np.ndarray:
        now, wanted = (_seen(encoder, world, s) for s in (state, goal))

        def cost(actions: Tensor) -> Tensor:
            z = now[:, None].expand(-1, actions.shape[1], -1)
            total = torch.zeros(actions.shape[:2])
            for block in actions.unbind(2):
                for _ in range(HELD):
                    z = method.predictor(z, block)
                total += (z - wanted[:, None]).square().mean(-1)
            return total

        mean = torch.stack([begun.get(i, blank) for i in live.tolist()])
        plan = PLANNERS[planner](
            cost, mean, torch.ones(world.actions), generator=generator, count=COUNT, rounds=ROUNDS,
            clip=lambda u: u.clamp(low, high),
        )  # fmt: skip
        done = REPLAN // HELD
        for i, own in zip(live.tolist(), plan, strict=True):
            begun[i] = torch.cat([own[done:], blank[:done]])
        return modality.undone(plan[:, :done].repeat_interleave(HELD, 1))

    return act


def _seen(encoder: LoadedEncoder, world: Any, state: np.ndarray) -> Tensor:
    """The vectors of what a state looks like."""
    modality: Any = encoder.modality
    seen = modality.seen(world.render(state)[:, None])
    blank = torch.zeros(len(seen), 1, world.actions)
    steps: Any = Steps(seen, blank, torch.ones(len(seen), 1, dtype=torch.bool))
    return encoder.features(steps)[:, 0]


def cloning(
    world: Any, encoder: LoadedEncoder, source: Trajectories, steps: int, seed: int
) -> Policy:
    """The action that was done where one was, on the way to where one came later.

    A network of the same kind as the encoder, from scratch, on pairs of observations of the same
    episode: all that hindsight gives from data without aim.
    """
    modality: Any = encoder.modality
    episodes = []
    for number in range(len(source.episodes)):
        try:
            episodes.append(source.episode(number))
        except BadSample:
            continue
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 0x636C6F6E))
        network = modality.encoder(encoder.card.name, encoder.card.size, **encoder.card.kwargs)
        head = mlp(2 * network.dim, 256, world.actions, norm=False, act=nn.GELU)
    both = nn.ModuleList([network, head])
    optimizer = torch.optim.AdamW(both.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    random = np.random.Generator(np.random.Philox(mix(seed, 0x70616972)))
    for _ in range(steps):
        stop.check()
        pairs, done = [], []
        for number in random.integers(len(episodes), size=128):
            seen, actions = episodes[number]["observation"], episodes[number]["action"]
            now = random.integers(len(seen) - 1)
            later = random.integers(now + 1, len(seen))
            pairs.append(seen[[now, later]])
            done.append(actions[now])
        x = Steps(modality.seen(np.stack(pairs)), torch.empty(128, 2, 0), torch.ones(128, 2).bool())
        guess = head(network.features(x).flatten(1))
        mse_loss(guess, modality.done(np.stack(done))).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def act(state: np.ndarray, goal: np.ndarray, live: np.ndarray) -> np.ndarray:
        seen = modality.seen(np.stack([world.render(state), world.render(goal)], 1))
        x = Steps(seen, torch.empty(len(seen), 2, 0), torch.ones(len(seen), 2).bool())
        return modality.undone(head(network.features(x).flatten(1)))[:, None]

    return act


# ---- what is told -----------------------------------------------------------------------------


def _told(
    outcome: dict[str, np.ndarray],
    found: dict[str, Attempt],
    environment: str,
    episodes: int,
    planner: str,
    world: Any,
    encoder: LoadedEncoder,
    began: float,
) -> dict[str, Any]:
    scores = []
    for of, values in outcome.items():
        interval = over_samples(values)
        steps = found[of].steps[found[of].reached]
        scores.append({"protocol": "success", "of": of, "value": interval.value,
                       "low": interval.low, "high": interval.high,
                       "steps": float(steps.mean()) if len(steps) else None})  # fmt: skip
    fair = [of for of in (CLONE, RANDOM) if of in outcome]  # not told where things are
    best = max(fair, key=lambda of: outcome[of].mean())
    gain = difference(outcome[PRETRAINED], outcome[best])
    ours, theirs = (100 * outcome[of].mean() for of in (PRETRAINED, best))
    told = f"{ours:.0f} % of {episodes} goals reached, {theirs:.0f} % by {best}"
    told += f" ({100 * gain.value:+.0f} ± {100 * gain.half:.0f})"
    words = "Planning helps" if gain.low > 0 else "Planning does not certainly help"
    statement = (
        f"Goals are pictures, in another room than the start, in at most {world.budget} steps. "
        "The straight line is told the true places, which no other control is; behaviour cloning "
        "has learned from the run's own data."
    )
    return {
        "task": "plan",
        "time": time.time(),
        "environment": environment,
        "planner": planner,
        "verdict": {"sentence": f"{words}: {told}.", "gain": bool(gain.low > 0), "control": best},
        "scores": scores,
        "gain": gain._asdict(),
        "statement": statement,
        "encoder": encoder.card.to_json(),
        "seconds": round(time.monotonic() - began, 2),
    }


def filmstrip(world: Any, attempt: Attempt, goal: np.ndarray, scale: int = 3) -> Image.Image:
    """Frames of one episode, its goal last: the longest one that came there, if any did."""
    lengths = np.where(attempt.reached, attempt.steps, -1)
    chosen = int(lengths.argmax())
    at = np.linspace(0, attempt.steps[chosen], FRAMES).round().astype(int)
    states = [*attempt.states[at.clip(max=len(attempt.states) - 1), chosen], goal[chosen]]
    frames = world.render(np.stack(states))
    white = np.full((len(frames), frames.shape[1], 2, 3), 255, np.uint8)
    wide = np.concatenate(list(np.concatenate([frames, white], 2)), 1)
    image = Image.fromarray(wide)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
