"""How few labels are enough: networks taught by some of the training labels, and their controls.

Each count is drawn several times. A draw is the same for the pretrained network, the one from
scratch and the classical features, its networks are trained for as many steps, and what tests is
what tests the model.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..evaluate.controls import PRETRAINED, SCRATCH, UNTRAINED, fresh
from ..evaluate.interval import Interval, over_seeds
from ..evaluate.linear import scale_of
from ..evaluate.result import score
from ..evaluate.shots import draw, possible
from ..evaluate.verdict import NOTABLE, Worth, times, worth
from ..randomness import mix
from ..transfer import tasks
from ..transfer.core import Effort
from ..transfer.forecast import Forecast
from ..transfer.segment import Segment
from ..transfer.tasks import FULL, HEAD, Choice, Classify
from ..transfer.transcribe import Transcribe
from .controls import COLOUR, by_colour, of_features, of_values
from .job import Job
from .lesson import EXACT, Lesson, how_much
from .result import PROBE, TUNED, figure, so_many

SHARE = 0.5  # of the time, where a curve is asked for


class Curve:
    """The steps of one curve, after those of the model in `job`."""

    def __init__(self, job: Job, how: str | None, draws: int, with_controls: bool):
        self.job, self.how, self.draws, self.with_controls = job, how, draws, with_controls
        self.task, self.train = job.task, job.train
        self.per_class = isinstance(job.task, Classify)
        self.places = np.arange(len(job.train))
        if isinstance(job.task, Forecast):  # a stretch before gaps alone would teach nothing
            self.places = np.flatnonzero(np.isfinite(job.train.targets[:, :-2]).any((1, 2)))
        one_kind = np.zeros(len(self.places), np.int64)
        self.kinds = job.train.targets if self.per_class else one_kind
        self.rows: list[dict[str, Any]] = []

    def found(self, shots: Sequence[int], end: float) -> dict[str, Any] | None:
        """What is told of the curve; None where no point fits into the time before `end`."""
        counts, left_out = possible(self.kinds, tuple(shots))
        for count in left_out:
            self._left_out(count, "too few are there")
        self.among = len(counts)
        spent = 0
        self.each = self.job.each
        for i, count in enumerate(counts):
            began = time.monotonic()
            trained = self._point(count, (end - began) / (len(counts) - i) / self.each)
            if trained > spent:  # of all trainings the largest tells best
                self.each, spent = (time.monotonic() - began) / trained, trained
        return self._told() if self.rows else None

    def drawn(self, count: int, seed: int) -> np.ndarray:
        """Places in the training part; those of fewer labels are among those of more."""
        return self.places[draw(self.kinds, count, seed)]

    def _point(self, count: int, affordable: float) -> int:
        """Networks of a count of labels; how many samples were trained on in all."""
        job, task = self.job, self.task
        labels = len(self.drawn(count, 0))
        how = self.how or how_much(task, job.encoder, labels)[0]
        formula = isinstance(task, EXACT)
        heads = not formula and (how == HEAD or not isinstance(task, Transcribe))
        untrained = self.with_controls and isinstance(task, Segment)
        each = 1 + (how != HEAD) + heads + untrained  # trainings of a draw
        draws, effort = self._affordable(labels, affordable / each)
        if effort is None:
            self._left_out(count, "it would take longer than the time given (minutes)")
            return 0
        if draws < self.draws:
            what = "a draw alone fits" if draws == 1 else f"{draws} draws fit"
            self.job.notes.append(f"{so_many(count, self.per_class)}: {what} into the time given.")
        outcomes: dict[str, list[np.ndarray]] = {}
        choices: dict[tuple[str, bool], Choice] = {}  # made with the first draw
        blanks: dict[tuple[str, bool], Choice] = {}  # those of the untrained network
        settings: dict[str, dict[str, Any]] = {}
        for i in range(draws):
            own = mix(job.seed, i)
            places = self.drawn(count, own)
            lesson = job.lesson.some(places, effort, own, choices)
            for of, moved, pretrained in ((PRETRAINED, how, True), (SCRATCH, FULL, False)):
                tell = job.tell(f"{so_many(count, self.per_class)}, {of}, {i + 1} of {draws},")
                tell("")
                whole = moved != HEAD
                network = lesson.train(moved, pretrained, tell) if whole else lesson.probe(tell)
                settings[of] = {"trained": moved}
                if (moved, pretrained) in choices:
                    settings[of] |= lesson.settings(moved, pretrained, network)
                outcomes.setdefault(of, []).append(tasks.outcomes(network, job.encoder, job.test))
            if self.with_controls:
                for of, theirs in self._classical(lesson, places, blanks).items():
                    outcomes.setdefault(of, []).append(theirs)
        for of, several in outcomes.items():
            self._add(count, labels, of, several, settings.get(of, {}))
        self._compare(outcomes)
        return each * (draws + self._trials) * effort.samples

    @property
    def _trials(self) -> int:
        return len(self.task.scratch_rates) + self.task.light

    def _affordable(self, labels: int, samples: float) -> tuple[int, Effort | None]:
        """How many draws, and how long each is trained: fewer draws rather than none."""
        for draws in range(self.draws, 0, -1):
            one = samples / (draws + self._trials)
            effort = self.task.effort(labels, one)
            if effort is not None and effort.samples <= one:
                return draws, effort
        return 0, None

    def _classical(
        self, lesson: Lesson, places: np.ndarray, choices: dict[tuple[str, bool], Choice]
    ) -> dict[str, np.ndarray]:
        """What was used before there were encoders, and for masks an untrained one."""
        job, task, seed = self.job, lesson.task, lesson.seed
        if isinstance(task, Transcribe):
            return {}
        if isinstance(task, Forecast):
            return of_values(task, job.judge, places)
        part = self.train.take(places)
        if isinstance(task, Segment):
            blank = fresh(job.encoder, mix(seed, 1))
            own = Lesson(blank, task, part, lesson.effort, seed, choices)
            probe = own.probe(job.tell(UNTRAINED))
            return {
                UNTRAINED: tasks.outcomes(probe, blank, job.test),
                COLOUR: by_colour(task, job.encoder, part, job.test, seed),
            }
        x, other = job.plain
        scale = scale_of(x, common=True)
        mine = x[torch.from_numpy(places)], other
        found = of_features(task, mine, part, job.test, seed, scale)
        return {job.encoder.modality.baseline_name: found}

    # ---- numbers -----------------------------------------------------------------------------

    def _add(
        self, count: int, labels: int, of: str, outcomes: list[np.ndarray], settings: dict[str, Any]
    ) -> None:
        values = [self.task.summary(one) for one in outcomes]
        if len(values) > 1:
            found = over_seeds(values)
        else:
            found = self.job.interval(outcomes[0])
        more = {"shots": count, "values": values, "settings": settings}
        self.rows.append(score("finetune", of, found, found.value, labels, **more))

    def _compare(self, outcomes: dict[str, list[np.ndarray]]) -> None:
        """Put the gain over the better control beside the last point of the pretrained network."""
        rows = {row["of"]: row for row in self.rows[-len(outcomes) :]}
        ours = rows.pop(PRETRAINED)
        control = max(rows, key=lambda of: self.task.better * rows[of]["value"])
        pairs = zip(ours["values"], rows[control]["values"], strict=True)  # of the same draws
        gain = self.job.gain(outcomes[PRETRAINED][0], outcomes[control][0], self.among)
        if len(ours["values"]) > 1:
            drawn = over_seeds([self.task.better * (a - b) for a, b in pairs], self.among)
            half = float(np.hypot(drawn.half, gain.half))
            kind = f"{drawn.kind} and {gain.kind}"
            gain = Interval(drawn.value, drawn.value - half, drawn.value + half, kind)
        ours["gain"] = {
            "value": gain.value, "low": gain.low, "high": gain.high, "interval": gain.kind,
            "control": control,
        }  # fmt: skip

    def _worth(self) -> list[Worth]:
        """Against the best control with as many labels; the curves end with the model's labels."""
        curves: dict[str, dict[int, float]] = {}
        better = self.task.better
        for row in self.rows:
            curves.setdefault(row["of"], {})[row["labels"]] = better * row["value"]
        outcomes = self.job.outcomes
        ends = outcomes | {PRETRAINED: outcomes.get(TUNED, outcomes[PROBE])}
        for of in curves.keys() & ends.keys():
            curves[of][len(self.train)] = better * self.task.summary(ends[of])
        return worth(curves.pop(PRETRAINED), list(curves.values()))

    def _told(self) -> dict[str, Any]:
        """The point at which the gain is surest makes the sentence."""
        self.job.notes.append(
            "± is half of a 95 % interval over draws of the labels that teach; those of gains are "
            "over the test samples too, and hold all at once."
        )
        worths = self._worth()
        best = max((row for row in self.rows if "gain" in row), key=lambda row: row["gain"]["low"])
        gain, control = best["gain"], best["gain"]["control"]
        theirs = next(
            row["value"] for row in self.rows
            if row["shots"] == best["shots"] and row["of"] == control
        )  # fmt: skip
        percent = self.task.percent

        def told(value: float) -> str:
            return figure(value, percent)

        unit = " %" * percent
        sentence = f"With {so_many(best['shots'], self.per_class)}: {self.task.metric} "
        sentence += f"{told(best['value'])}{unit} against {told(theirs)}{unit} "
        sentence += control if control == SCRATCH else f"of {control}"
        between = f"95 % interval {told(gain['low'])} to {told(gain['high'])}"
        if gain["low"] > 0:
            sentence += f" (better by {told(gain['value'])}, {between})"
            mine = next((w for w in worths if w.labels == best["labels"]), None)
            if mine is not None and mine.factor > NOTABLE:
                sentence += f", worth {times(mine.factor, mine.at_least)} the labels"
        else:
            word = "worse" if gain["high"] < 0 else "no clear difference"
            sentence += f" ({word}, {between})"
        return {
            "sentence": sentence + ".",
            "gain": gain["low"] > 0,
            "per_class": self.per_class,
            "curve": self.rows,
            "labels_worth": [one.to_json() for one in worths],
        }

    def _left_out(self, count: int, why: str) -> None:
        self.job.notes.append(f"The curve leaves out {so_many(count, self.per_class)}: {why}.")
