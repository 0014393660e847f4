"""Forecasts from frozen features: what comes after a stretch of a recording, at several horizons.

The vector of the last place of a stretch goes into one ridge regression a horizon, as TS2Vec does
it (arXiv 2106.10466, section 4.2); its strength is chosen on the validation part. Errors are on
values scaled by the mean and the deviation of the training part, as published. Beside each stand
the same network untrained, a linear map of the stretch's own values (all that DLinear can express,
arXiv 2205.13504: its moving average is linear too), and the last value, carried on.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..console import Console, columns, duration
from ..data import Source, open_source
from ..data.outcome import BadSample
from ..data.series import Recordings, SeriesSource
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..modalities.series import Series
from ..randomness import mix, order
from ..stop import stop
from ..transfer.forecast import Stretches, level_of
from .controls import PRETRAINED, UNTRAINED, fresh
from .interval import over_seeds
from .result import Told, keep
from .ridge import solutions

HORIZONS = (24, 48, 168, 336, 720)
LINEAR, LAST = "linear on values (DLinear)", "last value"
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
TEACH, CHOOSE, TEST = 1500, 200, 500  # stretches of each part, at most
BLOCKS, FEWEST = 20, 3  # of test stretches, at most, and with which a gain may be certain
NETWORKS = 3  # untrained ones
BATCH = 64
SEED = 0  # of the stretches that are drawn
SHOWN = 3  # test stretches that are kept with their forecasts
FORMAT = 1
KINDS = ("mse", "mae")

# of each subject's networks, the squared and the absolute error of each test stretch
Errors = dict[str, list[tuple[np.ndarray, np.ndarray]]]


class Forecast(Told):
    """Errors at each horizon, each beside its controls, and what they mean in a sentence."""

    def error(self, horizon: int, of: str = PRETRAINED, kind: str = "mse") -> float:
        """KeyError where there is none."""
        for row in self._told["scores"]:
            if row["horizon"] == horizon and row["of"] == of:
                return row[kind]
        raise KeyError(f"no forecast of {of!r} at {horizon}")

    def __str__(self) -> str:
        subjects = list(dict.fromkeys(row["of"] for row in self._told["scores"]))
        rows = [["steps ahead, MSE / MAE", *subjects, "gain over the better control"]]
        for horizon in self._told["horizons"]:
            cells = [" / ".join(figure(self.error(horizon, of, kind)) for kind in KINDS)
                     for of in subjects]  # fmt: skip
            gain = next(g for g in self._told["gains"] if g["horizon"] == horizon)
            told = "no interval"
            if gain["low"] is not None:
                told = f"± {figure((gain['high'] - gain['low']) / 2)}"
            rows.append(
                [str(horizon), *cells, f"{figure(gain['value'], '+')} {told} ({gain['control']})"]
            )
        return f"{self.verdict}\n\n{columns(rows)}\n\n" + "\n".join(self._told["notes"])


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Series without classes are to be foretold."""
    known = modality == "series" and isinstance(source, SeriesSource)
    return known and labels is None and source.labels() is None


def evaluate_task(
    run: Any,
    data: Any,
    *,
    horizons: Sequence[int] | None = None,
    seeds: int = NETWORKS,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **others: Any,
) -> Forecast:
    """Judge an encoder by forecasts; a run's folder keeps them in evaluation-forecast.json.

    `horizons` are those of HORIZONS for recordings; of many series 60 % of the steps, and a third
    of that. Raises SelfsupError: E503 where there are no series, or none that are long enough.
    """
    from .short import SEEN, Short

    console = console or Console()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = open_source(data, follow_links=follow_links)
        if not isinstance(source, SeriesSource) or not isinstance(encoder.modality, Series):
            raise SelfsupError(
                "E503",
                f"{source.place} holds no series for this encoder to forecast",
                where=source.place,
                why="a forecast needs series, and an encoder of them",
                do="give a table whose rows are steps of time",
            )
        networks = max(2, min(seeds, NETWORKS))
        if isinstance(source, Recordings):
            found = Judge(encoder, source, tuple(horizons or HORIZONS), networks, console).found()
        else:
            short = Short(encoder, source, tuple(horizons or ()), networks, console)
            found = short.found()
            if short.seen(run):
                found["verdict"]["sentence"] += f" {SEEN}"
        told = Forecast(found)
        keep(run if write else None, "forecast", told)
        return told


class Judge:
    """The steps of one evaluation; `origins` are (recording, step before which is known)."""

    samples, units = "stretches", "blocks of test stretches"
    last = False  # whether futures are relative to the last value
    left_out = 0  # series

    def __init__(
        self,
        encoder: LoadedEncoder,
        source: Any,
        horizons: tuple[int, ...],
        networks: int,
        console: Console,
    ):
        self.encoder, self.source, self.console = encoder, source, console
        self.networks, self.started = networks, time.monotonic()
        self.instance = isinstance(encoder.modality, Series) and encoder.modality.instance
        self.channel = [*source.columns, "0"][0]
        self.series: list[Float[np.ndarray, "t c"]] = []
        self.prepare(horizons)

    def prepare(self, horizons: tuple[int, ...]) -> None:
        """What is known before each origin, and values on their scale."""
        source: Recordings = self.source
        self.context, self.bounds = self.encoder.size, source.bounds
        share = 100 * source.bounds[0][0] // max(len(source.series[0]), 1)
        self.statement = f"the first {share} % of recordings and their last part"
        self.inputs = inputs(self.encoder, source)
        for values, teaching in zip(source.series, self.teaching(), strict=True):
            self.series += scaled([values], *scale_of([teaching]))
        self.horizons = horizons
        for part, least in enumerate((50, 1, BLOCKS)):
            self.horizons = tuple(h for h in self.horizons if len(self.origins(part, h)) >= least)
        if not self.horizons:
            raise SelfsupError(
                "E503",
                f"no recording of {source.place} is long enough for a forecast",
                where=source.place,
                why=f"{self.context} steps and {min(horizons)} more must fit into each part",
                do="give longer recordings, or an encoder of fewer steps",
            )

    def teaching(self) -> list[Float[np.ndarray, "t c"]]:
        """All steps that teach."""
        series = zip(self.source.series, self.bounds, strict=True)
        return [values[: limits[0]] for values, limits in series]

    def origins(self, part: int, horizon: int) -> list[tuple[int, int]]:
        """Where the future of `horizon` steps lies in a part: train, val or test.

        What comes before may reach into the part before, as it is known by then. Drawn at random,
        because even steps would fall on the same hours of all days; those of a longer horizon are
        among those of a shorter one, so that each stretch is encoded once.
        """
        every = [
            (number, t, limits[part])
            for number, limits in enumerate(self.bounds)
            for t in range(max(limits[part - 1] if part else 0, self.context), limits[part])
        ]
        some = np.sort(order(SEED, part, len(every))[: (TEACH, CHOOSE, TEST)[part]])
        drawn = (every[i] for i in some.tolist())
        return [(number, t) for number, t, end in drawn if t + horizon <= end]

    def found(self) -> dict[str, Any]:
        scores, gains, cases = [], [], []
        cache: dict[tuple[str, int], dict[tuple[int, int], np.ndarray]] = {}
        networks = [(PRETRAINED, self.encoder)]
        for i in range(self.networks):
            networks.append((UNTRAINED, fresh(self.encoder, mix(0, i))))
        for horizon in self.horizons:
            parts = [self.origins(part, horizon) for part in range(3)]
            futures = [self.future(origins, horizon) for origins in parts]
            errors: Errors = {}
            for number, (of, encoder) in enumerate(networks):
                known = cache.setdefault((of, number), {})
                features = [self.features(encoder, o, known, of) for o in parts]
                level = [self.level(o) for o in parts]
                guess = regress(features, futures, level)
                errors.setdefault(of, []).append(wrong(guess, futures[2]))
                if of == PRETRAINED:
                    ours = guess
            simple = self.simple(parts, futures)
            errors |= {
                of: [wrong(np.nan_to_num(guess), futures[2])] for of, guess in simple.items()
            }
            if horizon == self.horizons[0]:
                shown = {PRETRAINED: ours, LAST: simple[LAST]}
                cases = self.cases(parts[2], futures[2], shown)
            scores += rows(errors, horizon)
            count = self.blocks(horizon)
            over = partial(over_blocks, origins=parts[2], horizon=horizon, blocks=count)
            gains.append({"horizon": horizon, "blocks": count, **gained(errors, over)})
        counts = [len(self.origins(part, self.horizons[0])) for part in range(3)]
        return {
            "format": FORMAT,
            "task": "forecast",
            "verdict": verdict(gains, scores),
            "horizons": list(self.horizons),
            "scores": scores,
            "gains": gains,
            "cases": cases,
            "origins": dict(zip(("train", "val", "test"), counts, strict=True)),
            "data": {"place": self.source.place, **self.parts()},
            "notes": self.notes(counts, gains),
            "seconds": round(time.monotonic() - self.started, 1),
        }

    def parts(self) -> dict[str, Any]:
        return {"bounds": self.bounds}

    def seen(self, run: Any) -> bool:
        """Whether the run has learned from what tests: of recordings it gets the first part."""
        return False

    def notes(self, counts: list[int], gains: list[dict[str, Any]]) -> list[str]:
        return [
            f"The last {self.context} steps are known. {counts[0]} stretches teach, "
            f"{counts[1]} choose the strength, {counts[2]} test, evenly over the parts.",
            "Errors are on scaled values. ± is half of a 95 % interval over blocks of test "
            "stretches and untrained networks. Blocks at each horizon: "
            + ", ".join(f"{g['blocks']} at {g['horizon']}" for g in gains)
            + f"; fewer than {FEWEST} say nothing for certain.",
        ]

    def blocks(self, horizon: int) -> int:
        """As many as futures that do not overlap fit into what tests, of all recordings."""
        spans = [limits[2] - max(limits[1], self.context) for limits in self.bounds]
        return min(BLOCKS, sum(max(span, 0) // horizon for span in spans))

    def cases(
        self, origins: list[tuple[int, int]], futures: np.ndarray, guesses: dict[str, np.ndarray]
    ) -> list[dict[str, Any]]:
        """The first channel of a few test stretches, scaled, for people to look at."""
        made, horizon = [], futures.shape[1]
        for i in np.linspace(0, len(origins) - 1, SHOWN).round().astype(int).tolist():
            recording, step = origins[i]
            past = self.series[recording][max(0, step - 2 * horizon) : step, 0]
            said = [{"of": of, "values": plain(y[i, :, 0])} for of, y in guesses.items()]
            made.append(
                {"recording": self.source.names[recording], "channel": self.channel, "step": step,
                 "past": plain(past), "future": plain(futures[i, :, 0]), "guesses": said}
            )  # fmt: skip
        return made

    # ---- stretches and what follows them ------------------------------------------------------

    def values(self, origins: list[tuple[int, int]], steps: int) -> Float[np.ndarray, "n t c"]:
        """The last steps before each origin, scaled."""
        return np.stack([self.series[i][t - steps : t] for i, t in origins])

    def future(self, origins: list[tuple[int, int]], horizon: int) -> Float[np.ndarray, "n h c"]:
        return np.stack([self.series[i][t : t + horizon] for i, t in origins])

    def level(self, origins: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """What futures are relative to: mean and deviation of each channel, (n, 1, c) each."""
        return level_of(list(self.values(origins, self.context)), self.instance, self.last)

    @torch.inference_mode()
    def features(
        self, encoder: LoadedEncoder, origins: list[tuple[int, int]], known: dict, of: str
    ) -> Float[np.ndarray, "n d"]:
        """The vector of the last place, as the encoder sees the raw stretch before each origin."""
        todo = [origin for origin in origins if origin not in known]
        for low in range(0, len(todo), BATCH):
            stop.check()
            some = todo[low : low + BATCH]
            stretches = Stretches(self.inputs, some, self.context)
            batch = stretches.batch(np.arange(len(some)))
            x = encoder.modality.plain(batch.to(encoder.device), encoder.size)
            vectors = encoder.features(x)[:, -1].float().cpu().numpy().copy()  # lets go of the rest
            known.update(zip(some, vectors, strict=True))
            spent = duration(time.monotonic() - self.started)
            self.console.progress(
                f"forecast: features, {of} {low + len(some)}/{len(todo)}  {spent}"
            )
        return np.stack([known[origin] for origin in origins])

    def simple(
        self, parts: list[list[tuple[int, int]]], futures: list[np.ndarray]
    ) -> dict[str, Float[np.ndarray, "n h c"]]:
        """What needs no network."""
        last = np.repeat(self.values(parts[2], 1), futures[2].shape[1], 1)
        return {LINEAR: linear([self.values(o, self.context) for o in parts], futures), LAST: last}


def linear(pasts: list[np.ndarray], futures: list[np.ndarray]) -> Float[np.ndarray, "n h c"]:
    """One map from the values of a channel to its future, the same for all channels."""
    flat = [np.nan_to_num(p).transpose(0, 2, 1).reshape(-1, p.shape[1]) for p in pasts]
    after = [f.transpose(0, 2, 1).reshape(-1, f.shape[1], 1) for f in futures]
    n, horizon, channels = futures[2].shape
    return regress(flat, after).reshape(n, channels, horizon).transpose(0, 2, 1)


def inputs(encoder: LoadedEncoder, source: Recordings) -> list[Float[np.ndarray, "t c"]]:
    """Recordings as the encoder sees them. Raises E503 where it cannot."""
    modality: Any = encoder.modality
    modality.meet(source)
    try:
        return modality.inputs(source.series, source.times)
    except BadSample as bad:
        raise SelfsupError(
            "E503", f"{source.place} is not for this encoder", where=source.place, why=bad.reason
        ) from None


def scale_of(
    series: list[Float[np.ndarray, "t c"]],
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Mean and deviation of each channel; 1 for one that never changes."""
    values = np.concatenate(series).astype(np.float64)
    spread = np.nanstd(values, 0)
    return np.nanmean(values, 0), np.where(spread > 1e-9, spread, 1.0)


def scaled(
    series: list[Float[np.ndarray, "t c"]], mean: np.ndarray, spread: np.ndarray
) -> list[Float[np.ndarray, "t c"]]:
    return [((values - mean) / spread).astype(np.float32) for values in series]


def regress(
    features: Sequence[np.ndarray],
    futures: Sequence[np.ndarray],
    level: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
) -> Float[np.ndarray, "n h c"]:
    """Ridge regression: taught by the first part, its strength chosen on the second, for the third.

    With `level` (mean and deviation before each origin) the future is foretold relative to it.
    """
    mean, spread = features[0].mean(0), features[0].std(0).clip(min=1e-6)
    x = [torch.from_numpy((f - mean) / spread).double() for f in features]
    y = [torch.from_numpy(f).double() for f in futures]
    if level is not None:
        scale = [(torch.from_numpy(m).double(), torch.from_numpy(s).double()) for m, s in level]
        y = [(v - m) / s for v, (m, s) in zip(y, scale, strict=True)]
    best: tuple[float, Tensor, Tensor] | None = None
    for weight, bias in solutions(x[0], y[0].flatten(1), STRENGTHS):
        off = (x[1] @ weight + bias - y[1].flatten(1)).nan_to_num()
        error = float(off.square().mean().sqrt() + off.abs().mean())  # as the authors choose
        if best is None or error < best[0]:
            best = error, weight, bias
    assert best is not None
    guess = (x[2] @ best[1] + best[2]).unflatten(1, futures[2].shape[1:])
    if level is not None:
        guess = guess * scale[2][1] + scale[2][0]
    return guess.numpy()


def wrong(guess: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared and mean absolute error of each stretch, over the values that are known.

    NaN for a stretch of which none is.
    """
    off = guess - truth
    known = np.isfinite(off).sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nansum(off**2, (1, 2)) / known, np.nansum(np.abs(off), (1, 2)) / known


def rows(errors: Errors, horizon: int) -> list[dict[str, Any]]:
    """The mean errors of each subject, over its networks and the stretches."""
    return [
        {"horizon": horizon, "of": of}
        | {k: float(np.mean([np.nanmean(p[i]) for p in pairs])) for i, k in enumerate(KINDS)}
        for of, pairs in errors.items()
    ]


def gained(errors: Errors, over: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, Any]:
    """How much smaller the squared error is than the better control's, and than untrained.

    `over` gives the mean of gains (networks, n), and its interval.
    """
    squared = {of: np.stack([pair[0] for pair in pairs]) for of, pairs in errors.items()}
    ours = squared.pop(PRETRAINED)
    control = min(squared, key=lambda of: np.nanmean(squared[of]))
    own = over(squared[UNTRAINED] - ours)
    return {**over(squared[control] - ours), "control": control, "over_untrained": own}


def figure(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if abs(value) >= 0.1 else f"{value:{sign}#.2g}"


def plain(x: Float[np.ndarray, " n"]) -> list[float | None]:
    """As JSON has it: missing values as null."""
    return [round(float(v), 4) if np.isfinite(v) else None for v in x]


def over_blocks(
    gain: Float[np.ndarray, "networks n"],
    origins: list[tuple[int, int]],
    horizon: int,
    blocks: int,
    among: int = 1,
) -> dict[str, float | None]:
    """The mean gain over stretches that are in order, and its interval; none of too few blocks.

    Neighbours share most of their futures, so Student's t is over the means of blocks of them.
    Blocks still share futures at their edges: the half width grows by what that would make of the
    spread of blocks if steps were independent. Networks add theirs in quadrature.
    """
    known = np.isfinite(gain).all(0)
    gain, some = gain[:, known], np.array(origins)[known]
    value = float(gain.mean())
    if blocks < FEWEST or len(some) < blocks:
        return {"value": value, "low": None, "high": None}
    recording, step = some.T
    shared = np.clip(1 - np.abs(step[:, None] - step) / horizon, 0, None)  # of two futures
    shared *= recording[:, None] == recording
    parts = np.array_split(np.arange(len(some)), blocks)
    weight = np.stack([np.isin(np.arange(len(some)), p) / len(p) for p in parts])  # (blocks, n)
    common = weight @ shared @ weight.T
    between = (np.trace(common) - common.sum() / blocks) / (blocks - 1)
    half = over_seeds((weight @ gain.mean(0)).tolist(), among).half
    half *= np.sqrt(common.sum() / blocks / between)
    if len(gain) > 1:
        half = np.hypot(half, over_seeds(gain.mean(1).tolist(), among).half)
    return {"value": value, "low": value - float(half), "high": value + float(half)}


def verdict(gains: list[dict[str, Any]], scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Pretraining helps where the interval of the gain over the better control is above zero."""
    sure = [str(g["horizon"]) for g in gains if (g["low"] or 0) > 0]
    own = [str(g["horizon"]) for g in gains if (g["over_untrained"]["low"] or 0) > 0]
    behind = {g["control"] for g in gains if (g["high"] or 0) < 0}
    first = gains[0]["horizon"]
    at = {row["of"]: row["mse"] for row in scores if row["horizon"] == first}
    shown = ", ".join(f"{figure(value)} {of}" for of, value in at.items())
    told = "No clear gain in forecasts"
    if sure:
        told = f"Pretraining helps forecasts {', '.join(sure)} steps ahead"
    elif own:
        told = f"Pretraining helps forecasts {', '.join(own)} steps ahead over the same network "
        simple = dict.fromkeys(g["control"] for g in gains if str(g["horizon"]) in own)
        told += f"untrained, but not certainly over {' and '.join(simple)}"
    if behind:
        told += f"; {' and '.join(sorted(behind))} {'are' if len(behind) > 1 else 'is'} better"
        told += " elsewhere" if sure else ""
    return {"gain": bool(sure), "sentence": f"{told} (MSE {first} ahead: {shown})."}
