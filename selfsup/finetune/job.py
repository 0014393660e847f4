"""The steps of one fine-tuning, from what teaches and what tests to the numbers."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ..console import Console, duration
from ..data.series import Recordings
from ..data.store import Store
from ..errors import SelfsupError
from ..evaluate import forecast
from ..evaluate.controls import SCRATCH, UNTRAINED, Pair, classical, fresh
from ..evaluate.features import readable
from ..evaluate.interval import Interval
from ..evaluate.short import SEEN, Short
from ..evaluate.split import Split, split
from ..load import LoadedEncoder
from ..randomness import mix
from ..stop import stop
from ..transfer import core, tasks
from ..transfer.forecast import Forecast, Stretches
from ..transfer.segment import VOID, Segment, grid_of, values_of
from ..transfer.tasks import FULL, HEAD, LOW_RANK, Classify, Network, Part, Regress, Task
from ..transfer.transcribe import Transcribe, fitting, lengths, size_for
from .asked import Asked
from .controls import COLOUR, by_colour, of_features, of_values
from .intervals import difference, interval, over_stretches
from .lesson import EXACT, Lesson, how_much
from .result import PROBE, TUNED, conclude

HORIZON = 24  # steps of a recording that are foretold


class Job:
    """The steps of one fine-tuning."""

    def __init__(
        self,
        encoder: LoadedEncoder,
        store: Store,
        asked: Asked,
        console: Console,
        seed: int,
        seconds: float,
    ):
        self.encoder, self.store, self.asked, self.console = encoder, store, asked, console
        self.seed, self.seconds, self.began = seed, seconds, time.monotonic()
        self.notes: list[str] = [note + "." for note in asked.notes]
        self.outcomes: dict[str, np.ndarray] = {}
        self.settings: dict[str, Any] = {}

    def divide(self, drop_leaks: bool) -> None:
        """What teaches and what tests; the task is made from what teaches."""
        asked = self.asked
        classes = asked.classes is not None
        usable, prints = readable(self.store, self.tell("samples:"))
        codes = asked.values if classes else np.where(asked.known, 0, -1)
        self.split: Split = split(
            asked.source, codes, usable, prints, drop_leaks=drop_leaks, seed=self.seed,
            least=2 if classes else 1, given=asked.given,
        )  # fmt: skip
        train, test = self.split.train, self.split.test
        self.notes += [f"{self.split.statement}: {len(train)} teach, {len(test)} test.",
                       *(note + "." for note in self.split.notes)]  # fmt: skip
        values = asked.values
        if classes:  # classes are those that teach; another one in the test part is always wrong
            known = np.unique(values[train])
            place = np.full(len(asked.classes or ()) + 1, -1)
            place[known] = np.arange(len(known))
            self.task: Task = Classify([(asked.classes or [])[i] for i in known])
            values = place[values]
            unknown = int((values[test] < 0).sum())
            if unknown:
                self.notes.append(
                    f"{unknown} test samples are of classes without training samples: counted as "
                    "wrong."
                )
        elif asked.task == "regress":
            self.task = Regress.of(values[train])
        elif asked.task == "segment":
            grid = grid_of(self.encoder.encoder)
            self.task = Segment(values_of(values[train]), grid, self.encoder.size)
            if self.task.outputs < 2:
                raise SelfsupError(
                    "E503", f"the masks that teach have one class, {self.task.values[0]}",
                    where=asked.source.place,
                    why="their numbers are the classes, and 255 beside others is none",
                    do="give masks with a number for each class: 0, 1, 2 ...",
                )  # fmt: skip
            untaught = np.setdiff1d(values[test], [*self.task.values, VOID]).tolist()
            if untaught:
                self.notes.append("No mask that teaches has the classes "
                                  f"{', '.join(map(str, untaught))}: not tested.")  # fmt: skip
        else:
            seconds = lengths(self.encoder, self.store, train)
            size = size_for(self.encoder, max(seconds.values()))
            longest = self.encoder.modality.longest
            if cut := sum(value >= longest for value in seconds.values()):
                self.notes.append(
                    f"Of {cut} recordings of {longest:g} s or more the middle is heard, and all of "
                    "their text taught: cut them, or pretrain with --set modality.longest=SECONDS."
                )
            self.task = Transcribe(sorted({c for i in train for c in values[i]}), size)
        whole = Part(self.store, np.arange(len(asked.known)), values)
        self.train = replace(whole.take(train), whole=self.split.groups)
        self.test = whole.take(test)
        if isinstance(self.task, Transcribe):
            fitting(self.task, self.encoder, self.store, self.train)

    def series(self, horizon: int | None, run: Any) -> None:
        """What teaches and what tests of series: stretches of recordings, or ends of short ones."""
        source: Any = self.asked.source
        recorded = isinstance(source, Recordings)
        which: type[forecast.Judge] = forecast.Judge if recorded else Short
        asked = (horizon,) if horizon else (HORIZON,) * recorded
        judge = which(self.encoder, source, asked, 0, self.console)
        horizon = judge.horizons[-1]
        mean, deviation = forecast.scale_of(judge.teaching())
        # one scale for all recordings, so that others can be foretold as well
        judge.series = forecast.scaled(source.series, mean, deviation)
        channels = list(source.columns) or [str(i) for i in range(len(mean))]
        self.task = Forecast(horizon, channels, mean.tolist(), deviation.tolist(),
                             judge.instance, judge.context, judge.last)  # fmt: skip

        def part(number: int) -> Part:
            origins = judge.origins(number, horizon)
            level, spread = judge.level(origins)
            stretches = Stretches(judge.inputs, origins, judge.context)
            targets = np.concatenate([judge.future(origins, horizon), level, spread], 1)
            return Part(stretches, np.arange(len(origins)), targets.astype(np.float32))

        self.train, self.test = part(0), part(2)
        rows = self.train.rows
        self.split = Split(rows, self.test.rows, rows, "made", judge.statement)
        told = (
            f"{len(self.train)} {judge.samples} teach, {len(self.test)} test: {judge.statement}. "
            f"{judge.context} steps are known before the {horizon} that are foretold. Errors are "
            "on scaled values."
        )
        left = f" {judge.left_out} series are left out." if judge.left_out else ""
        self.notes.append(told + left + f" {SEEN}" * judge.seen(run))
        self.judge = judge

    # ---- networks ----------------------------------------------------------------------------

    def run(self, how: str | None, with_controls: bool) -> Network:
        """The network to keep; its outcomes and those of the controls are noted."""
        n = len(self.train)
        free, reason = how is None, "asked for"
        if how is None:
            how, reason = how_much(self.task, self.encoder, n)
        if how == LOW_RANK and not core.adaptable(self.encoder.encoder):
            core.adapt(self.encoder.encoder)  # raises
        exact = isinstance(self.task, EXACT)
        untrained = isinstance(self.task, Segment) and with_controls
        enough = self._clock((how != HEAD) + with_controls + (not exact) * (1 + untrained))
        scratch = with_controls and (enough or not (free and exact))
        if not enough and free and exact:
            how, reason = HEAD, "the time given trains no more than a linear layer"
            if with_controls:
                self.notes.append("Training from scratch is left out: it would take longer than "
                                  "the time given (minutes).")  # fmt: skip
        elif not enough:
            self.notes.append(
                "The time given is short: each training is as short as is worth it, and takes "
                "longer (minutes)."
            )
        self.console.say(f"trained: {how} ({reason})")
        self.settings = {"trained": how, "reason": reason, "labels": n}
        self.lesson = Lesson(self.encoder, self.task, self.train, self.effort, self.seed)
        self.tell(PROBE)("")
        network = self.lesson.probe(self.tell(PROBE))
        self.outcomes[PROBE] = tasks.outcomes(network, self.encoder, self.test)
        if how != HEAD:
            network = self._trained(TUNED, how, pretrained=True)
        if scratch:
            self._trained(SCRATCH, FULL, pretrained=False)
        if with_controls:
            self._classical()
        return network

    def _clock(self, trainings: int) -> bool:
        """Share out the time; whether it is enough."""
        self.effort = core.Effort(
            len(self.train), core.least_steps(len(self.train)), self.task.most_batch
        )
        if trainings:
            each = self.each * trainings * (len(self.task.scratch_rates) + self.task.light + 1)
            left = self.seconds - (time.monotonic() - self.began)
            found = self.task.effort(len(self.train), left / each)
            self.effort = found or self.effort
            return found is not None
        return True

    @cached_property
    def each(self) -> float:
        """Seconds that training takes for a sample."""
        some = self.train.take(np.arange(len(self.train))[:: max(1, len(self.train) // 512)])
        return tasks.seconds_per_sample(self.task, self.encoder, some)

    @cached_property
    def plain(self) -> Pair:
        """The modality's own features of what teaches and what tests."""
        return classical(self.encoder, self.store, self.train.rows, self.test.rows)

    def _trained(self, of: str, how: str, pretrained: bool) -> Network:
        network = self.lesson.train(how, pretrained, self.tell(of))
        self.settings[of] = self.lesson.settings(how, pretrained, network)
        self.outcomes[of] = tasks.outcomes(network, self.encoder, self.test)
        return network

    def _classical(self) -> None:
        """What was used before there were encoders, and for masks an untrained one."""
        task, encoder, train, test = self.task, self.encoder, self.train, self.test
        if isinstance(task, Transcribe):
            return
        if isinstance(task, Forecast):
            self.outcomes |= of_values(task, self.judge)
        elif isinstance(task, Segment):
            tell = self.tell(UNTRAINED)
            tell("")
            blank = fresh(encoder, mix(self.seed, 1))
            probe = Lesson(blank, task, train, self.effort, self.seed).probe(tell)
            self.outcomes[UNTRAINED] = tasks.outcomes(probe, blank, test)
            self.outcomes[COLOUR] = by_colour(task, encoder, train, test, self.seed)
        else:
            name = encoder.modality.baseline_name
            self.tell(name)("")
            self.outcomes[name] = of_features(task, self.plain, train, test, self.seed)

    # ---- numbers -----------------------------------------------------------------------------

    def interval(self, outcomes: np.ndarray) -> Interval:
        """A score and its interval over what tests."""
        if isinstance(self.task, Forecast):
            return over_stretches(self.task, self.judge, outcomes)
        return interval(self.task.summary, outcomes, self.seed, signed=not self.task.percent)

    def gain(self, ours: np.ndarray, theirs: np.ndarray, among: int = 1) -> Interval:
        """By how much ours are better, and its interval."""
        if isinstance(self.task, Forecast):
            return over_stretches(self.task, self.judge, ours, theirs, among)
        return difference(self.task, ours, theirs, self.seed, among)

    def told(self, few: dict[str, Any] | None) -> dict[str, Any]:
        main = TUNED if TUNED in self.outcomes else PROBE
        ours = self.outcomes[main]
        scores, gains = [], []
        for of, theirs in self.outcomes.items():
            found = self.interval(theirs)
            row = {"of": of, "value": found.value, "low": found.low, "high": found.high}
            classes = self.task.classwise(theirs)
            scores.append(row | ({"classes": classes} if classes else {}))
            if of != main:
                gain = self.gain(ours, theirs)
                told = {"value": gain.value, "low": gain.low, "high": gain.high}
                gains.append({"over": of, **told})
        scores.sort(key=lambda row: row["of"] != main)
        return {
            "format": 1,
            "task": self.task.name,
            "reason": self.asked.reason,
            "metric": self.task.metric,
            "percent": self.task.percent,
            "verdict": conclude(self.task, main, scores, gains, self.settings, few),
            "scores": scores,
            "gains": gains,
            "settings": self.settings,
            "split": self.split.to_json(),
            "data": self.store.source.place,
            "notes": self.notes,
            "seconds": round(time.monotonic() - self.began, 1),
        } | ({"few": few} if few else {})

    def tell(self, what: str) -> Callable[[str], None]:
        def tell(detail: str) -> None:
            stop.check()
            spent = duration(time.monotonic() - self.began)
            self.console.progress(f"finetune: {what} {detail}  {spent}")

        return tell
