"""Does a network know what actions lead to? Later observations from a start and what is then done.

A world model rolls the vector of the start forward by the actions, and one ridge regression, which
reads observations from vectors, says what would be seen there. An encoder without such a predictor
has a ridge regression a horizon, on its vector of the start and the actions. Beside each: encoders
untrained, with such regressions (a predictor of random weights leads anywhere: nothing to beat),
linear dynamics (a ridge regression on the start's observation and the actions), and the observation
of the start, carried on.
"""

import math
import time
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..console import Console
from ..data import Source, open_source
from ..data.fields import unpack_one
from ..data.outcome import BadSample
from ..data.trajectories import STRETCH, Trajectories
from ..environments.rooms import Rooms
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..modalities.trajectory import Trajectory
from ..randomness import mix, order
from ..run import Run
from ..steps import Steps
from ..stop import stop
from .control import built, foretells, model_of
from .controls import PRETRAINED, UNTRAINED, fresh, seen_before, settings_of
from .features import principal
from .forecast import FORMAT, Errors, Forecast, gained, rows, verdict, wrong
from .interval import FEWEST, over_seeds
from .linear import scale_of
from .result import keep
from .ridge import ridge
from .split import by_name

HORIZONS = (1, 4, 15)
LINEAR, LAST = "linear dynamics", "last observation"
NETWORKS = 3  # untrained ones
MOST = 20_000  # steps that are read of each part
NUMBERS = 1 << 26  # in the observations of these: 256 MiB where they are floating point
SHARED = 10  # episodes of each part, at least, that share these steps
TEACH, TEST = 4000, 1000  # starts, at most
LEAST = 20  # starts of each part
COMPONENTS = 32  # of pictures
BATCH = 256
SEED = 0  # of what is drawn

Span = tuple[int, int, int]  # an episode, its first step, and the step before which it ends


class Known(NamedTuple):
    """Steps of several episodes, one after another.

    `left[i]` is how many more are in the same unit. Gains are averaged over a unit: an episode, or
    a stretch of one where there are few.
    """

    seen: np.ndarray  # (n, d) or (n, h, w, c)
    done: Float[Tensor, "n a"]  # scaled
    unit: Int64[np.ndarray, " n"]
    left: Int64[np.ndarray, " n"]


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Trajectories without classes are to be foretold."""
    known = modality == "trajectory" and isinstance(source, Trajectories)
    return known and labels is None and source.labels() is None


def evaluate_task(
    run: Any,
    data: Any,
    *,
    horizons: Sequence[int] = HORIZONS,
    seeds: int = NETWORKS,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **_: Any,
) -> Forecast:
    """Errors of later observations; a run's folder keeps them in evaluation-foretell.json.

    Raises SelfsupError: E503 where there are no trajectories, or none that are long enough.
    """
    console = console or Console()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = open_source(data, follow_links=follow_links)
        modality = encoder.modality
        if not isinstance(source, Trajectories) or not isinstance(modality, Trajectory):
            raise SelfsupError(
                "E503", f"{source.place} holds nothing for this encoder to foretell",
                where=source.place, why="observations and actions are needed, and an encoder of "
                "trajectories", do="give a folder of episodes",
            )  # fmt: skip
        count = max(2, min(seeds, NETWORKS))
        told = Forecast(Judge(run, encoder, source, tuple(horizons), count, console).found())
        keep(run if write else None, "foretell", told)
        return told


class Judge:
    """The steps of one evaluation. Lists of two are of what teaches and of what tests."""

    def __init__(
        self,
        run: Any,
        encoder: LoadedEncoder,
        source: Trajectories,
        horizons: tuple[int, ...],
        networks: int,
        console: Console,
    ):
        self.run, self.encoder, self.source, self.console = run, encoder, source, console
        self.began = time.monotonic()
        teaching, testing, self.statement, self.fair = divided(source, run)
        modality: Any = encoder.modality
        self.parts = [known(source, modality, spans) for spans in (teaching, testing)]
        self.episodes = len(np.unique(self.parts[1].unit))
        if self.episodes < FEWEST:
            self.parts[1] = known(source, modality, testing, STRETCH)
        self.starts = [drawn(part.left, n) for part, n in zip(self.parts, (TEACH, TEST))]
        self.horizons = [h for h in horizons if min(len(a) for a in self.at(h)) >= LEAST]
        if not self.horizons:
            raise SelfsupError(
                "E503", f"the episodes of {source.place} are too few or too short to be foretold",
                where=source.place, why=f"{LEAST} steps from which others follow are needed in "
                f"each part; there are {' and '.join(str(len(a)) for a in self.starts)}",
            )  # fmt: skip
        *self.seen, self.unit = targets(*(part.seen for part in self.parts))
        self.predictor = predictor_of(run)
        self.vectors = []
        for i in range(networks + 1):
            console.progress(f"foretell: {f'untrained network {i}' if i else 'the encoder'}")
            network = fresh(encoder, mix(SEED, i)) if i else encoder
            pairs = zip(self.parts, self.starts, strict=True)
            self.vectors.append([seen_by(network, part.seen[at]) for part, at in pairs])

    def at(self, horizon: int) -> list[Int64[np.ndarray, " n"]]:
        """The starts after which there are so many steps."""
        pairs = zip(self.parts, self.starts, strict=True)
        return [at[part.left[at] >= horizon] for part, at in pairs]

    def found(self) -> dict[str, Any]:
        scores, gains = [], []
        for horizon in self.horizons:
            self.console.progress(f"foretell: {horizon} steps ahead")
            errors = self.errors(horizon)
            scores += rows(errors, horizon)
            unit = self.parts[1].unit[self.at(horizon)[1]]
            gain = gained(errors, partial(over_units, unit=unit))
            gains.append({"horizon": horizon, "blocks": len(np.unique(unit)), **gain})
        told = verdict(gains, scores)
        if not self.fair:
            told["sentence"] += " The network has learned from the episodes that test, too."
        counts = [len(at) for at in self.starts]
        how = "The vector of the start is rolled forward by the run's predictor"
        if self.predictor is None:
            how = "Ridge regression on the vector of the start and the actions: there is no "
            how += "predictor"
        units = "episodes"
        if self.episodes < FEWEST:
            units = f"stretches of {STRETCH} steps of {self.episodes} episodes, which tell nothing "
            units += "of others"
        notes = [
            f"{self.statement}: {counts[0]} starts teach, {counts[1]} test. {how}.",
            f"Errors are on {self.unit}. ± is half of a 95 % interval over untrained networks and "
            f"{units}; fewer than {FEWEST} say nothing for certain.",
        ]
        pictures = self.parts[0].seen
        if self.predictor is not None and pictures.ndim == 4 and Rooms.shows(pictures[:64]):
            path = getattr(self.run, "path", self.run)
            notes.append(f"These are the rooms, where it can act: selfsup plan {path}")
        return {
            "format": FORMAT,
            "task": "foretell",
            "verdict": told,
            "horizons": self.horizons,
            "scores": scores,
            "gains": gains,
            "starts": dict(zip(("train", "test"), counts, strict=True)),
            "data": {"place": self.source.place},
            "notes": notes,
            "seconds": round(time.monotonic() - self.began, 1),
        }

    def errors(self, horizon: int) -> Errors:
        at = self.at(horizon)
        actions = [follows(part.done, a, horizon) for part, a in zip(self.parts, at, strict=True)]
        now, later = ([y[a + ahead] for y, a in zip(self.seen, at, strict=True)]
                      for ahead in (0, horizon))  # fmt: skip

        def regressed(z: list[Tensor]) -> Tensor:
            x, x_test = (torch.cat([a, u.flatten(1)], 1) for a, u in zip(z, actions, strict=True))
            return read(x, later[0], x_test)

        found: dict[str, list[Tensor]] = {PRETRAINED: [], UNTRAINED: []}
        for i, vectors in enumerate(self.vectors):
            z = [v[np.isin(start, a)] for v, start, a in zip(vectors, self.starts, at, strict=True)]
            if i == 0 and self.predictor is not None:
                with torch.inference_mode():
                    ahead = self.predictor.rollout(z[1], actions[1])[:, -1]
                weight, bias = self.reading
                guess = ahead.double() @ weight + bias
            else:
                guess = regressed(z)
            found[UNTRAINED if i else PRETRAINED].append(guess)
        found |= {LINEAR: [regressed(now)], LAST: [now[1]]}
        truth = later[1][:, None].numpy()
        return {of: [wrong(guess[:, None].numpy(), truth) for guess in guesses]
                for of, guesses in found.items()}  # fmt: skip

    @cached_property
    def reading(self) -> tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]:
        """What reads observations from the encoder's vectors, at any horizon."""
        return ridge(self.vectors[0][0], self.seen[0][self.starts[0]], shuffled=False)


# ---- what teaches and what tests ---------------------------------------------------------------


def divided(source: Trajectories, run: Any) -> tuple[list[Span], list[Span], str, bool]:
    """What teaches, what tests, how that came about, and whether the run never saw what tests."""
    steps = [episode.steps for episode in source.episodes]
    found, n = source.splits(), len(steps)
    parts = None if found is None else by_name(np.arange(len(source)), *found)
    fair = True
    if parts is not None:
        train, test = (np.unique(source.owner[rows]).tolist() for rows in parts[:2])
        statement = f"Episodes of {parts[2]}"
    elif (ends := source.ends()) != steps:
        both = [(i, 0, end) for i, end in enumerate(ends)], [*zip(range(n), ends, steps)]
        return *both, "The last fifth of each episode, of which no run learns, tests", True
    else:
        places, fair = order(SEED, 1, n), not seen_before(run, source)
        test, train = sorted(places[: n // 5].tolist()), sorted(places[n // 5 :].tolist())
        statement = f"{len(test)} of {n} episodes test, drawn at random"
        if not fair:
            statement += " (in folders train/ and test/ no run learns from those that test)"
    spans = ([(i, 0, steps[i]) for i in part] for part in (train, test))
    return *spans, statement, fair  # type: ignore[return-value]


def known(
    source: Trajectories, modality: Trajectory, spans: list[Span], cut: int | None = None
) -> Known:
    """The steps of episodes, as many as are read, in units of whole episodes or of `cut` steps.

    Of episodes too long to be read in whole, the first steps: one would leave no room for others.
    """
    seen, done, unit, left = [], [], [], []
    count, units = 0, 0
    most = max(min(MOST, NUMBERS // math.prod(modality.shape)), 1)
    share = -(-most // min(len(spans), SHARED))
    for place in order(SEED, 2, len(spans)).tolist():
        stop.check()
        number, low, high = spans[place]
        try:
            fields = unpack_one(modality.read(source.episode(number))[:, 0, 0])
        except BadSample:
            continue
        high = min(high, low + share)
        x, u = (fields[name][low:high] for name in ("observation", "action"))
        at = np.arange(len(u))
        own = at // cut if cut else np.zeros_like(at)
        seen.append(x)
        done.append(u)
        unit.append(units + own)
        left.append(np.minimum((own + 1) * cut if cut else len(u), len(u)) - at - 1)
        units += int(own.max(initial=-1)) + 1
        count += len(u)
        if count >= most:
            break
    if not seen:
        raise SelfsupError(
            "E503", f"no episode of {source.place} is for this encoder", where=source.place,
            why=f"it has learned from {modality.shape} and {modality.actions} numbers an action",
        )  # fmt: skip
    actions = modality.done(np.concatenate(done))
    return Known(np.concatenate(seen), actions, np.concatenate(unit), np.concatenate(left))


def drawn(left: Int64[np.ndarray, " n"], most: int) -> Int64[np.ndarray, " k"]:
    """Steps from which something follows, at random: even steps would fall on the same phases."""
    places = np.flatnonzero(left > 0)
    return np.sort(places[order(SEED, 3, len(places))[:most]])


def follows(
    done: Float[Tensor, "n a"], at: Int64[np.ndarray, " k"], horizon: int
) -> Float[Tensor, "k t a"]:
    """What was done from each step on."""
    return done[torch.from_numpy(at[:, None] + np.arange(horizon))]


# ---- observations and vectors ------------------------------------------------------------------


def targets(
    teach: np.ndarray, test: np.ndarray
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "m k"], str]:
    """Observations as numbers whose mean square is 1 in the part that teaches, and what they are.

    Numbers are scaled one by one; pictures are principal components on a common scale.
    """
    x, x_test = (torch.from_numpy(a).float().flatten(1) for a in (teach, test))
    if teach.ndim == 2:
        scale = scale_of(x)
        return scale(x), scale(x_test), "numbers scaled by their deviation"
    mean = x.mean(0)
    axes = principal(x[drawn(np.ones(len(x)), TEACH // 4)] - mean, COMPONENTS)
    y, y_test = (torch.cat([(b - mean) @ axes for b in a.split(BATCH)]) for a in (x, x_test))
    share = float(y.square().mean(0).sum() / x.var(0, correction=0).sum())
    what = f"{axes.shape[1]} principal components of the pictures, {100 * share:.0f} % of their "
    level = y.square().mean().sqrt()
    return y / level, y_test / level, what + "variance, relative to it"


@torch.inference_mode()
def seen_by(encoder: LoadedEncoder, seen: np.ndarray) -> Float[Tensor, "n d"]:
    """The vector of each observation alone: what comes later must not be in it."""
    modality: Any = encoder.modality
    found = []
    for low in range(0, len(seen), BATCH):
        stop.check()
        x = modality.seen(seen[low : low + BATCH, None])
        blank = torch.zeros(len(x), 1, modality.actions)
        steps: Any = Steps(x, blank, torch.ones(len(x), 1, dtype=torch.bool)).to(encoder.device)
        found.append(encoder.features(steps)[:, 0].float().cpu())
    return torch.cat(found)


def predictor_of(run: Any) -> Any:
    """The run's own, None where it has none."""
    if settings_of(run) is None or not foretells(built(home := Run.open(run))):
        return None
    return model_of(home).predictor


def read(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], x_test: Float[Tensor, "m d"]
) -> Float[Tensor, "m k"]:
    """What ridge regression of `y` on `x` says of others; neighbours are held out together."""
    weight, bias = ridge(x, y, shuffled=False)
    return x_test.double() @ weight + bias


def over_units(
    gain: Float[np.ndarray, "networks n"], unit: Int64[np.ndarray, " n"]
) -> dict[str, float | None]:
    """The mean gain, its interval by Student's t over the means of units; networks add theirs."""
    value = float(gain.mean())
    means = [float(gain[:, unit == u].mean()) for u in np.unique(unit)]
    if len(means) < FEWEST:
        return {"value": value, "low": None, "high": None}
    half = over_seeds(means).half
    if len(gain) > 1:
        half = float(np.hypot(half, over_seeds(gain.mean(1).tolist()).half))
    return {"value": value, "low": value - half, "high": value + half}
