"""Anomalies in recordings, by what a frozen encoder makes of a step that it sees and does not see.

As TS2Vec does it (arXiv 2106.10466, section 4.4): the score of a step is the L1 distance between
two vectors of the last place of the stretch that ends there, one with that place hidden, relative
to the mean of the scores just before. An alarm is a score beyond mean + 4 deviations of the scores
of the first part of the recording, which is all that pretraining saw; labels choose nothing.
Beside it stand the same network untrained, the residual of a moving average in robust deviations,
and scores that are drawn. The latter tell what "point adjustment" is worth (arXiv 2109.05257).
"""

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from ..console import Console, duration
from ..data import Source, open_source
from ..data.series import ID_COLUMNS, Recordings, moments
from ..data.tables import PATH_COLUMNS, matched
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..modalities.series import Series
from ..randomness import mix
from ..stop import stop
from ..transfer.forecast import Stretches
from .controls import PRETRAINED, UNTRAINED, fresh
from .forecast import inputs
from .interval import Interval, resampled
from .result import keep
from .scored import Scored, best_control, conclude

RESIDUAL, RANDOM = "moving average", "random scores"
BEFORE = 21  # scores, or values, whose mean is what is usual (authors' code)
DEVIATIONS = 4.0  # beyond the mean of the first part: an alarm
LEAST = 100  # scores of a first part from which mean and deviation are known
NETWORKS, DRAWS = 3, 20
BLOCKS, RESAMPLES = 50, 1000
BATCH = 128
SHARES = np.linspace(0.0, 1.0, 11)  # of a window that must be found: K of PA%K
HEADS = {"average_precision": 3, "f1": 3, "f1_pa_k": 3, "f1_adjusted": 3, "windows_found": 2,
         "false_alarms": 1}  # fmt: skip


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Steps of a recording are marked as normal or not, in the data or in a file of windows."""
    if modality != "series":
        return False
    if labels is not None:
        return Path(labels).is_file() and _listed(Path(labels)) is not None
    found = getattr(source, "found_series", None)
    return found is not None and any(marks is not None and marks.any() for marks in found.marks)


def evaluate_task(
    run: Any,
    data: Any,
    *,
    labels: str | Path | None = None,
    seeds: int = NETWORKS,
    seed: int = 0,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **_: Any,
) -> Scored:
    """Average precision, F1 and alarms on the later part of each recording.

    Raises SelfsupError: E105 a file of windows that cannot be read, E501 no labels, E503 no
    recording, or no anomaly in a later part.
    """
    console, began = console or Console(), time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = open_source(data, follow_links=follow_links)
        if not isinstance(source, Recordings) or not isinstance(encoder.modality, Series):
            raise SelfsupError(
                "E503",
                f"{source.place} is no recording for this encoder to watch",
                where=source.place,
                why="anomalies are steps of a long series, and need an encoder of series",
                do="give a table whose rows are steps of time",
            )
        marks = source.found_series.marks if labels is None else windows(Path(labels), source)
        if all(found is None for found in marks):
            raise SelfsupError(
                "E501", f"no steps of {source.place} are marked", where=source.place,
                do="add a column `anomaly` of 0 and 1, or give --labels with a JSON or CSV of "
                "windows (start,end)",
            )  # fmt: skip
        part = Later(source, marks, encoder.size, inputs(encoder, source))
        several = {PRETRAINED: [part.watched(encoder, console, PRETRAINED)], UNTRAINED: []}
        for i in range(max(2, min(seeds, NETWORKS))):
            network = fresh(encoder, mix(seed, i))
            several[UNTRAINED].append(part.watched(network, console, f"{UNTRAINED} {i + 1}"))
        several[RESIDUAL] = [part.alarming(part.residuals())]
        several[RANDOM] = [part.alarming(part.drawn(mix(seed, i))) for i in range(DRAWS)]
    scores = {of: [measures(z, part) for z in found] for of, found in several.items()}
    control = best_control(scores, "average_precision")
    ours = several[PRETRAINED][0]
    spread = gained(ours, [], part.truth, part.blocks, seed)
    gain = gained(ours, several[control], part.truth, part.blocks, seed)
    notes = [
        *part.notes,
        f"Alarms: beyond the mean + {DEVIATIONS:g} deviations of the first part. {RANDOM}: drawn "
        "from an exponential distribution, so that they give alarms too.",
        f"average_precision needs no threshold; of {RANDOM} it is about the share of anomalous "
        f"steps, {part.truth.mean():.3f}. That of the encoder is {spread.low:.3f} to "
        f"{spread.high:.3f} (95 %, blocks of steps drawn anew).",
        "f1 counts steps. f1_adjusted takes one alarm for a whole window (point adjustment): it "
        "flatters, as the row of random scores shows; f1_pa_k is the mean over the share of a "
        "window that alarms must cover (arXiv 2109.05257).",
        "windows_found: share with an alarm; false_alarms: of 1,000 normal steps.",
    ]
    result = conclude(
        "anomaly", "average precision", HEADS, scores, control, gain, notes, encoder, source.place,
        began,
    )  # fmt: skip
    result.to_json()["scores"][0] |= {"low": spread.low, "high": spread.high}
    keep(run if write else None, "anomaly", result)
    return result


# ---- what is marked --------------------------------------------------------------------------

Windows = list[tuple[Any, Any]]


def windows(path: Path, source: Recordings) -> list[Bool[np.ndarray, " t"] | None]:
    """Which steps of each recording lie in a window, both ends included; None where none is told.

    Files as NAB has them, {"name": [["start", "end"], ...]}, or a CSV with the columns start, end
    and, for several recordings, a name. Numbers are steps, from 0, or those of the time column.
    """
    listed = _listed(path)
    if listed is None:
        raise SelfsupError(
            "E105", f"{path} lists no windows", where=str(path),
            do='write {"recording.csv": [["start", "end"]]}, or a CSV with the columns start,end',
        )  # fmt: skip
    found: list[np.ndarray | None] = []
    alone = list(listed) == [""] and len(source.names) == 1
    keys = [""] if alone else matched(source.names, listed)
    for i, key in enumerate(keys):
        if key is None:
            found.append(None)
            continue
        marks = np.zeros(len(source.series[i]), bool)
        places = source.found_series.times[i]
        for start, end in listed[key]:
            low, high = (_place(edge, places is not None, path) for edge in (start, end))
            at = np.arange(len(marks)) if places is None else places
            marks |= (at >= low) & (at <= high)
        found.append(marks)
    if all(marks is None for marks in found):
        raise SelfsupError(
            "E105", f"no window of {path} names a recording of {source.place}", where=str(path),
            why=f"the data have {source.names[0]}, the file {next(iter(listed), 'nothing')}",
        )  # fmt: skip
    return found


def _listed(path: Path) -> dict[str, Windows] | None:
    """Name -> its windows, "" where no names are told; None for another kind of file."""
    try:
        if path.suffix.lower() == ".json":
            told = json.loads(path.read_bytes())
            told = {"": told} if isinstance(told, list) else told
            every = [w for some in told.values() for w in some]
            if not all(isinstance(w, list) and len(w) == 2 for w in every):
                return None
            return {str(key): [(a, b) for a, b in some] for key, some in told.items()}
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, AttributeError, TypeError, csv.Error):
        return None  # not such a file: whoever asked says so
    if not rows or not {"start", "end"} <= set(rows[0]):
        return None
    column = next((c for c in (*PATH_COLUMNS, *ID_COLUMNS) if c in rows[0]), None)
    listed: dict[str, Windows] = {}
    for row in rows:
        listed.setdefault(row[column] if column else "", []).append((row["start"], row["end"]))
    return listed


def _place(edge: Any, timed: bool, path: Path) -> float:
    """A step, or seconds."""
    text = str(edge).strip()
    try:
        return float(text)
    except ValueError:
        found = moments([text]) if timed else None
    if found is None or not np.isfinite(found[0]):
        why = "it is no date" if timed else "the recording has no times: give numbers of steps"
        raise SelfsupError("E105", f"a window of {path} has the edge {text[:40]!r}", why=why)
    return float(found[0])


# ---- scores ----------------------------------------------------------------------------------


class Later:
    """The later parts of recordings, one after another: `truth` (n,), its `windows`, and `blocks`.

    A block (n,) never ends within a window of anomalies.
    """

    def __init__(
        self,
        source: Recordings,
        marks: Sequence[np.ndarray | None],
        context: int,
        inputs: list[np.ndarray],
    ):
        self.context = context
        self.series, self.limits, self.inputs, truth = [], [], [], []
        every = zip(source.series, source.bounds, marks, inputs, strict=True)
        for values, limits, known, seen in every:
            if known is not None and limits[0] - context - BEFORE >= LEAST:
                self.series.append(values)
                self.inputs.append(seen)
                self.limits.append((limits[0], limits[2]))
                truth.append(known[limits[0] : limits[2]])
        left = len(source.series) - len(self.series)
        total, count = sum(map(len, truth)), sum(len(runs(marks)) for marks in truth)
        if not count:
            raise SelfsupError(
                "E503",
                f"no anomaly lies in a later part of {source.place}",
                where=source.place,
                why=f"{left} of {len(source.series)} recordings are too short or not marked; "
                "the first part sets the threshold and cannot test",
            )
        self.truth, self.windows = np.concatenate(truth), []
        blocks: list[np.ndarray] = []
        number = 0
        for own in truth:
            begun = sum(map(len, blocks))
            self.windows += [Window(begun + start, begun + end) for start, end in runs(own)]
            cuts = np.linspace(0, len(own), max(1, round(BLOCKS * len(own) / total)) + 1)[1:-1]
            starts = np.zeros(len(own), bool)
            for cut in cuts.astype(int):
                normal = np.flatnonzero(~own[cut:])
                if len(normal):
                    starts[cut + normal[0]] = True
            blocks.append(number + starts.cumsum())
            number = int(blocks[-1][-1]) + 1
        self.blocks = np.concatenate(blocks)
        self.notes = [
            f"{total} later steps of {len(self.series)} recordings test: {count} windows of "
            f"anomalies. {self.context} steps are seen at a time."
        ]
        if left:
            self.notes.append(f"{left} recordings are left out: too short, or not marked.")
        if count < 5:
            self.notes.append(f"So few windows ({count}) tell little, whatever the intervals say.")

    def watched(self, encoder: LoadedEncoder, console: Console, of: str) -> Float[np.ndarray, " n"]:
        """What an encoder thinks of the later steps."""
        shown = [(i, t) for i, (_, end) in enumerate(self.limits)
                 for t in range(self.context, end + 1)]  # fmt: skip
        stretches, began = Stretches(self.inputs, shown, self.context), time.monotonic()
        scores = np.empty(len(shown), np.float32)
        for low in range(0, len(shown), BATCH):
            stop.check()
            rows = np.arange(low, min(low + BATCH, len(shown)))
            batch = stretches.batch(rows).to(encoder.device)
            scores[rows] = distance(encoder, encoder.modality.plain(batch, self.context))
            spent = duration(time.monotonic() - began)
            console.progress(f"anomaly: {of} {rows[-1] + 1}/{len(shown)}  {spent}")
        ends = np.cumsum([end + 1 - self.context for _, end in self.limits])
        found = []
        parts = zip(self.series, self.limits, np.split(scores, ends[:-1]), strict=True)
        for values, (_, end), raw in parts:
            whole = np.full(end, np.nan)
            whole[self.context - 1 :] = raw
            whole[np.isnan(values[:end]).all(1)] = np.nan  # hidden or not, there is nothing to see
            found.append(relative(whole))
        return self.alarming(found)

    def residuals(self) -> list[Float[np.ndarray, " t"]]:
        return [residual(v, first) for v, (first, _) in zip(self.series, self.limits, strict=True)]

    def drawn(self, seed: int) -> list[Float[np.ndarray, " t"]]:
        generator = np.random.default_rng(mix(seed, 0x616E6F6D))
        return [generator.exponential(size=end) for _, end in self.limits]

    def alarming(self, scores: list[Float[np.ndarray, " t"]]) -> Float[np.ndarray, " n"]:
        """In deviations of the first part from its mean; nothing is known of an empty step."""
        found = []
        for own, values, (first, end) in zip(scores, self.series, self.limits, strict=True):
            empty = np.isnan(values[:end]).all(1) | np.isnan(own[:end])
            before = own[:first][~empty[:first]]
            z = (own[:end] - before.mean()) / max(float(before.std()), 1e-9)
            found.append(np.where(empty, -np.inf, z)[first:])
        return np.concatenate(found)


@torch.inference_mode()
def distance(encoder: LoadedEncoder, x: Float[torch.Tensor, "b c t"]) -> Float[np.ndarray, " b"]:
    """Between the vectors of the last place, hidden and seen."""
    network: Any = encoder.encoder
    seen = network.features(x)
    hidden = torch.zeros(seen.shape[:2], dtype=torch.bool, device=x.device)
    hidden[:, -1] = True
    off = seen[:, -1] - network.features(x, hidden)[:, -1]
    return off.abs().sum(1).float().cpu().numpy()


def relative(scores: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """(score - usual) / usual; what is usual is the mean of the scores just before."""
    usual = _before(scores[:, None])[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(usual > 0, (scores - usual) / usual, 0.0 * usual)


def residual(values: Float[np.ndarray, "t c"], first: int) -> Float[np.ndarray, " t"]:
    """How far a step is from the mean of those before it, of its channels the oddest.

    In robust deviations of the channel: 1.4826 times the median of the `first` absolute residuals.
    """
    off = np.abs(values - _before(values.astype(np.float64)))
    with np.errstate(invalid="ignore"):
        usual = 1.4826 * np.nanmedian(off[:first], 0)
        usual = np.where(usual > 0, usual, np.nanstd(off[:first], 0))
    return np.nan_to_num(off / np.where(usual > 0, usual, 1.0)).max(1)


def _before(x: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "t c"]:
    """The mean of what is known of the BEFORE rows before each row; NaN where nothing is."""
    known = np.isfinite(x)
    sums = np.concatenate([np.zeros((1, x.shape[1])), np.where(known, x, 0.0).cumsum(0)])
    counts = np.concatenate([np.zeros((1, x.shape[1])), known.cumsum(0)])
    end = np.arange(len(x))
    start = np.maximum(end - BEFORE, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums[end] - sums[start]) / (counts[end] - counts[start])


# ---- measures --------------------------------------------------------------------------------


class Window(NamedTuple):
    """Steps [start, end) of an anomaly."""

    start: int
    end: int


def runs(truth: Bool[np.ndarray, " n"]) -> list[Window]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], truth, [False]]).astype(np.int8)))
    return [Window(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def measures(z: Float[np.ndarray, " n"], part: Later) -> dict[str, float]:
    """HEADS of scores in deviations."""
    alarm, truth = z > DEVIATIONS, part.truth
    adjusted = [f1(adjust(alarm, part.windows, share), truth) for share in SHARES]
    return {
        "average_precision": Ranked(z, truth).precision(np.ones(len(z))),
        "f1": f1(alarm, truth),
        "f1_pa_k": float(np.trapezoid(adjusted, SHARES)),
        "f1_adjusted": adjusted[0],
        "windows_found": float(np.mean([alarm[a:b].any() for a, b in part.windows])),
        "false_alarms": 1000 * float(alarm[~truth].mean()),
    }


def adjust(
    alarm: Bool[np.ndarray, " n"], windows: list[Window], share: float
) -> Bool[np.ndarray, " n"]:
    """All of a window is found where alarms cover more than `share` of it (PA%K; 0: PA)."""
    made = alarm.copy()
    for start, end in windows:
        if alarm[start:end].mean() > share:
            made[start:end] = True
    return made


def f1(alarm: Bool[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]) -> float:
    return float(2 * (alarm & truth).sum() / max(1, alarm.sum() + truth.sum()))


class Ranked:
    """Scores in their order, for the average precision with any weights of the steps.

    It is the precision at each threshold, weighted by the recall that is added there.
    """

    def __init__(self, z: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]):
        self.order: Int64[np.ndarray, " n"] = np.argsort(-z, kind="stable")
        self.truth = truth[self.order]
        z = z[self.order]
        self.last = np.flatnonzero(np.append(z[1:] != z[:-1], True))  # of equal scores

    def precision(self, weight: Float[np.ndarray, " n"]) -> float:
        """NaN where no anomaly has weight."""
        weight = weight[self.order]
        every = weight.cumsum()[self.last]
        found = (weight * self.truth).cumsum()[self.last]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(every > 0, found / every, 0.0)
            return float((np.diff(found, prepend=0.0) * share).sum() / found[-1])


def gained(
    ours: Float[np.ndarray, " n"],
    theirs: list[Float[np.ndarray, " n"]],
    truth: Bool[np.ndarray, " n"],
    blocks: Int64[np.ndarray, " n"],
    seed: int = 0,
) -> Interval:
    """Average precision less the mean of theirs; blocks of steps are drawn anew together.

    With several of theirs, which of them it would have been adds to the interval.
    """
    every = [Ranked(z, truth) for z in (ours, *theirs)]
    count = int(blocks.max()) + 1

    def told(weight: np.ndarray) -> tuple[float, list[float]]:
        mine, *others = (ranked.precision(weight) for ranked in every)
        return mine - (float(np.mean(others)) if others else 0.0), others

    generator = np.random.default_rng(mix(seed, 0x626C6F63))
    drawn = []
    for _ in range(RESAMPLES):
        stop.check()
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        drawn.append(told(times[blocks].astype(float))[0])
    value, others = told(np.ones(len(truth)))
    return resampled(value, drawn, others, f"{count} blocks of test steps", "controls")
