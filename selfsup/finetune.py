"""From a pretrained encoder and labels to a model, with a number beside its controls.

What is asked for is seen from the labels, how much of the network moves from how many there are;
both are printed with the reason. The last epoch is taken, never the best on what tests, and beside
it stand a linear layer on the frozen encoder, the same network from scratch, and the classical
features.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .console import Console, columns, duration
from .data import Source, open_source, open_store
from .data.joined import Joined
from .data.outcome import Ledger
from .data.seen import seen_as
from .data.series import Recordings
from .data.sources import keep_apart
from .data.store import Store
from .data.tables import encode
from .errors import SelfsupError
from .evaluate import forecast, linear, transcribe
from .evaluate.controls import SCRATCH, UNTRAINED, awake, classical
from .evaluate.features import extract, readable
from .evaluate.finetune import plain_head
from .evaluate.result import Told
from .evaluate.ridge import ridge
from .evaluate.split import Split, split
from .export import refuse
from .load import LoadedEncoder, load
from .randomness import mix, order
from .stop import stop
from .transfer import core, tasks
from .transfer.find import task_class
from .transfer.forecast import Forecast, Stretches, level_of, wrong
from .transfer.model import Model, load_model, save
from .transfer.segment import Segment, grid_of, masks, values_of
from .transfer.tasks import FULL, HEAD, HOW, LOW_RANK, Classify, Network, Part, Regress, Task
from .transfer.transcribe import Transcribe, fitting, lengths, size_for

TUNED, PROBE = "fine-tuned", "frozen linear probe"
FEW, SOME = 200, 2000  # labels up to which only the head, or only adapters are trained
DIFFERENT = 20  # whole numbers, up to which they are names of classes
COLOUR, PICTURES, PIXELS = "colour of the pixel", 64, 20_000  # that teach, at most
EXACT = (Classify, Regress, Forecast)  # tasks whose frozen probe has a formula
RESAMPLES = 500


class Finetuned(Told):
    """The model, and its scores beside the controls."""

    @property
    def path(self) -> Path:
        return Path(self._told["model"])

    @property
    def model(self) -> Model:
        """The model, loaded from its folder."""
        return load_model(self.path)

    def score(self, of: str = TUNED) -> float:
        """KeyError where there is none."""
        for row in self._told["scores"]:
            if row["of"] == of:
                return row["value"]
        raise KeyError(f"no score of {of!r}")

    def __str__(self) -> str:
        scale = 100 if self._told["percent"] else 1
        digits = 1 if self._told["percent"] else 3
        rows = [(self._told["metric"], "", "95 % interval")]
        for row in self._told["scores"]:
            numbers = [f"{scale * row[key]:.{digits}f}" for key in ("value", "low", "high")]
            rows.append((row["of"], numbers[0], f"{numbers[1]} to {numbers[2]}"))
        return "\n".join([self.verdict, "", columns(rows), "", *self._told["notes"], "",
                          f"model: {self.path}"])  # fmt: skip


class Asked(NamedTuple):
    """What the labels ask for. `values[i]` belongs to sample i; `known` where there is one."""

    task: str
    reason: str
    source: Source
    values: Any
    known: np.ndarray
    classes: list[str] | None = None
    notes: tuple[str, ...] = ()
    given: tuple[np.ndarray, list[str]] | None = None  # parts that the labels name


def finetune(
    run: Any,
    data: Any,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    test: Any = None,
    task: str | None = None,
    train: str | None = None,
    horizon: int = 24,
    minutes: float = 10.0,
    controls: bool = True,
    drop_leaks: bool = False,
    seed: int = 0,
    cache: str | Path | None = None,
    follow_links: bool = False,
    console: Console | None = None,
) -> Finetuned:
    """Teach an encoder what the labels say, and keep the model in the folder `out`.

    `labels` is a table (columns path and label, a number, or a text) or a folder of masks; without
    it sub-folders, tables and arrays have their own. `test` are labelled data for the final number;
    else test/ folders, a split column, or a fifth that is held out. `train` is "head", "lora" or
    "full", `minutes` the time for all trainings, `horizon` the steps of a forecast.

    Raises SelfsupError: E501 no labels, E502 a sample in both parts, E503 too few, E605 when `out`
    is something else, and what `load` and `open_source` raise.
    """
    console, out = console or Console(), Path(out)
    refuse(out)
    keep_apart(out, data)
    if train is not None and train not in HOW:
        raise SelfsupError("E201", f"train is {train!r}", why=f"known: {', '.join(HOW)}")
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        asked = ask(encoder, data, labels, task, follow_links)
        if test is not None:
            own = labels if asked.task == "segment" else None  # one folder has all masks
            asked = _with_test(asked, ask(encoder, test, own, asked.task, follow_links))
        console.say(f"task: {asked.task} ({asked.reason})")
        ledger = Ledger()
        with open_store(
            asked.source, encoder.modality, encoder.size, cache=cache, ledger=ledger
        ) as store:
            job = Job(encoder, store, asked, console, seed, 60 * minutes)
            if asked.task == "forecast":
                job.recordings(horizon)
            else:
                job.divide(drop_leaks)
            network = job.run(train, controls)
            told = job.told() | store.counts() | {"skipped_reasons": ledger.counts()}
    error = save(network, encoder, {"found": told}, out)
    return Finetuned(told | {"model": str(out), "max_abs_error": error})


# ---- what the labels ask for -----------------------------------------------------------------


def ask(
    encoder: LoadedEncoder,
    data: Any,
    labels: str | Path | None,
    task: str | None,
    follow_links: bool,
) -> Asked:
    """The task, named or seen from the labels, with its reason and the labels themselves."""
    name = encoder.modality.name
    if task is not None:
        task_class(task)  # E201 for an unknown one
    if task == "segment" or (task is None and labels is not None and Path(labels).is_dir()):
        source = open_source(data, follow_links=follow_links)
        folder = Path(labels if labels is not None else "")
        if labels is None or not folder.is_dir():
            raise _no_labels(source, "no folder of masks is given")
        grid_of(encoder.encoder)  # E202 where there is none
        drawn, known, notes = masks(source, folder, encoder.size)
        if not known.any():
            raise _no_labels(source, f"no mask in {folder} has the name of a picture")
        return Asked("segment", "the labels are masks", source, drawn, known, notes=tuple(notes))
    if task == "transcribe" or (task is None and transcribe.suits(name, data, labels)):
        source = open_source(data, follow_links=follow_links)
        texts, parts = transcribe.transcripts(source, Path(labels if labels is not None else data))
        known = np.array([bool(text) for text in texts])
        return Asked("transcribe", "the labels are texts", source, texts, known,
                     given=encode(part or None for part in parts))  # fmt: skip
    if task == "forecast" or (task is None and forecast.suits(name, data, labels)):
        source = open_source(data, follow_links=follow_links)
        if not isinstance(source, Recordings):
            raise _no_labels(source, "a forecast needs one long series")
        reason = "a recording without labels: what comes next"
        return Asked("forecast", reason, source, None, np.ones(len(source), bool))
    source = open_source(data, follow_links=follow_links, labels=labels)
    source = seen_as(source, encoder.modality.contents)
    found = source.labels()
    numbers = _numbers(source, found)
    reason = "asked for"
    if task is None and numbers is not None and _continuous(numbers[0], found):
        task, reason = "regress", f"the labels are numbers ({numbers[1]})"
    elif task is None:
        task, reason = "classify", "the labels are classes"
    if task == "regress":
        if numbers is None:
            raise _no_labels(source, "they are no numbers" if found else "none were found")
        return Asked(task, reason, source, numbers[0], np.isfinite(numbers[0]))
    if found is None or not (found[0] >= 0).any():
        raise _no_labels(source, "none were found")
    return Asked(task, reason, source, found[0], found[0] >= 0, found[1])


def _numbers(source: Source, found: Any) -> tuple[np.ndarray, str] | None:
    """A number for each sample, NaN for none, and where they come from."""
    if found is not None:
        try:
            each = np.array([*(float(name) for name in found[1]), np.nan])
        except ValueError:
            each = np.array([])
        if len(each):
            return each[found[0]], f"{len(found[1])} different ones"
    targets = getattr(source, "targets", None)
    told = targets() if targets is not None else None
    return None if told is None else (told[0], f"the column {told[1]}")


def _continuous(numbers: np.ndarray, found: Any) -> bool:
    known = numbers[np.isfinite(numbers)]
    different = np.unique(known)
    whole = bool((different == np.round(different)).all())
    if len(different) < 2 or (found is not None and whole and len(different) <= DIFFERENT):
        return False
    return not whole or len(different) > max(DIFFERENT, len(known) // 10)


def _no_labels(source: Source, why: str) -> SelfsupError:
    return SelfsupError(
        "E501", f"no labels in {source.place}", why=why,
        do="sort the files into one folder per class, or give --labels with a table "
        "(columns path,label) or a folder of masks",
    )  # fmt: skip


def _with_test(asked: Asked, other: Asked) -> Asked:
    if asked.task == "forecast":
        raise SelfsupError(
            "E201", "--test is not for forecasts", why="the last part of a recording tests"
        )
    source = Joined(asked.source, other.source)
    known = np.concatenate([asked.known, other.known])
    if asked.classes is None:
        values: Any = [*asked.values, *other.values]
        if isinstance(asked.values, np.ndarray):
            values = np.array(values)
        return asked._replace(source=source, values=values, known=known, given=source.splits())
    codes, names = source.labels()  # type: ignore[misc]
    return asked._replace(
        source=source, values=codes, known=known, classes=names, given=source.splits()
    )


# ---- how much is trained ---------------------------------------------------------------------


def how_much(task: Task, encoder: LoadedEncoder, labels: int) -> tuple[str, str]:
    """What of the network moves, and why."""
    if task.needs_all:
        return FULL, task.needs_all
    if labels <= FEW:
        return HEAD, f"{labels} labels: a linear layer takes what they say"
    if labels <= SOME and core.adaptable(encoder.encoder):
        return LOW_RANK, f"{labels} labels: few for all weights, so adapters beside them move"
    return FULL, f"{labels} labels are enough to move all weights"


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
        usable, prints = readable(self.store, self._tell("samples:"))
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
        elif asked.task == "regress":
            self.task = Regress.of(values[train])
        elif asked.task == "segment":
            grid = grid_of(self.encoder.encoder)
            self.task = Segment(values_of(values[train]), grid, self.encoder.size)
        else:
            seconds = lengths(self.encoder, self.store, train)
            size = size_for(self.encoder, max(seconds.values()))
            self.task = Transcribe(sorted({c for i in train for c in values[i]}), size)
        whole = Part(self.store, np.arange(len(asked.known)), values)
        self.train, self.test = whole.take(train), whole.take(test)
        if isinstance(self.task, Transcribe):
            fitting(self.task, self.encoder, self.store, self.train)

    def recordings(self, horizon: int) -> None:
        """What teaches and what tests of recordings: stretches of their first and last parts."""
        source: Any = self.asked.source
        judge = forecast.Judge(self.encoder, source, (horizon,), 0, self.console)
        teaching = np.concatenate(
            [
                values[: limits[0]]
                for values, limits in zip(source.series, source.bounds, strict=True)
            ]
        ).astype(np.float64)
        mean, deviation = np.nanmean(teaching, 0), np.nanstd(teaching, 0)
        deviation = np.where(deviation > 1e-9, deviation, 1.0)
        # one scale for all recordings, so that others can be foretold as well
        judge.series = [((v - mean) / deviation).astype(np.float32) for v in source.series]
        channels = list(source.columns) or [str(i) for i in range(len(mean))]
        self.task = Forecast(horizon, channels, mean.tolist(), deviation.tolist(),
                             judge.instance, judge.context)  # fmt: skip

        def part(number: int) -> Part:
            origins = judge.origins(number, horizon)
            level, spread = level_of(list(judge.values(origins, judge.context)), judge.instance)
            stretches = Stretches(judge.inputs, origins, judge.context)
            targets = np.concatenate([judge.future(origins, horizon), level, spread], 1)
            return Part(stretches, np.arange(len(origins)), targets.astype(np.float32))

        self.train, self.test = part(0), part(2)
        statement = f"stretches of the first {100 * source.bounds[0][0] // len(source.series[0])} %"
        self.split = Split(self.train.rows, self.test.rows, "made", f"{statement} teach")
        self.notes.append(
            f"{len(self.train)} {statement} teach, {len(self.test)} of the last part test; "
            f"{judge.context} steps before are known. Errors are on scaled values."
        )
        self.judge = judge

    # ---- networks ----------------------------------------------------------------------------

    def run(self, how: str | None, with_controls: bool) -> Network:
        """The network to keep; its outcomes and those of the controls are noted."""
        n = len(self.train)
        reason = "asked for"
        if how is None:
            how, reason = how_much(self.task, self.encoder, n)
        self.console.say(f"trained: {how} ({reason})")
        self.settings = {"trained": how, "reason": reason, "labels": n}
        if how == LOW_RANK and not core.adaptable(self.encoder.encoder):
            core.adapt(self.encoder.encoder)  # raises
        exact = isinstance(self.task, EXACT)
        untrained = isinstance(self.task, Segment) and with_controls
        self._clock((how != HEAD) + with_controls + (not exact) * (1 + untrained))
        self._tell(PROBE)("")
        probe = self._probe(self.encoder)
        self.outcomes[PROBE] = tasks.outcomes(probe, self.encoder, self.test)
        network = probe
        if how != HEAD:
            network = self._trained(TUNED, how, pretrained=True)
            self.outcomes[TUNED] = tasks.outcomes(network, self.encoder, self.test)
        if with_controls:
            scratch = self._trained(SCRATCH, FULL, pretrained=False)
            self.outcomes[SCRATCH] = tasks.outcomes(scratch, self.encoder, self.test)
            self._classical()
        return network

    def _clock(self, trainings: int) -> None:
        self.effort = core.Effort(
            len(self.train), core.least_steps(len(self.train)), self.task.most_batch
        )
        if trainings:
            some = self.train.take(np.arange(len(self.train))[:: max(1, len(self.train) // 512)])
            each = tasks.seconds_per_sample(self.task, self.encoder, some)
            left = self.seconds - (time.monotonic() - self.began)
            each *= trainings * (len(self.task.scratch_rates) + self.task.light + 1)
            found = self.task.effort(len(self.train), left / each)
            if found is None:
                self.notes.append(
                    "The time given is short: each training is as short as is worth it, and takes "
                    "longer (minutes)."
                )
            self.effort = found or self.effort

    def _probe(self, encoder: LoadedEncoder) -> Network:
        """A linear layer on a frozen encoder: exact where there is a formula, else trained."""
        network = tasks.fresh(self.task, encoder, pretrained=True, seed=self.seed, how=HEAD)
        every = np.ones(len(self.train), bool)
        if not isinstance(self.task, EXACT):
            choice = tasks.choose(
                self.task, encoder, self.train, effort=self.effort, pretrained=True,
                seed=self.seed, how=HEAD,
            )  # fmt: skip
            tasks.train(network, encoder, self.train, steps=self.effort.steps, choice=choice,
                        pretrained=True, seed=self.seed, tell=self._tell(PROBE))  # fmt: skip
            self.head_choice = choice
            return network
        if isinstance(self.task, Forecast):
            self._vectors = tasks.vectors(self.task, encoder, self.train)
        else:
            self._vectors = extract(encoder, self.store, self.train.rows)
        self._start(network, every)
        return network

    def _start(self, network: Network, places: np.ndarray) -> None:
        """Give the head what some of the training labels say of the frozen features."""
        if isinstance(self.task, EXACT):
            x = self._vectors[torch.from_numpy(places)]
            network.start_head(*self._fit(x, self.train.take(places).targets))
            return
        probe = tasks.fresh(self.task, self.encoder, pretrained=True, seed=self.seed, how=HEAD)
        part = self.train.take(places)
        tasks.train(probe, self.encoder, part, steps=self.effort.of(len(part)).steps,
                    choice=self.head_choice, pretrained=True, seed=self.seed)  # fmt: skip
        network.head.load_state_dict(probe.head.state_dict())

    def _fit(self, x: torch.Tensor, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(self.task, Classify):
            y = torch.from_numpy(targets)
            return plain_head(*linear.probe(x, y, self.task.outputs, seed=self.seed))
        if isinstance(self.task, Forecast):
            future, level, spread = self.task.parts(torch.from_numpy(targets))
            y = ((future - level) / spread).flatten(1)
            whole = y.isfinite().all(1)
            return ridge(x[whole], y[whole], shuffled=False)
        assert isinstance(self.task, Regress)
        y = torch.from_numpy((targets - self.task.mean) / self.task.deviation)
        return ridge(x, y[:, None], seed=self.seed)

    def _trained(self, of: str, how: str, pretrained: bool) -> Network:
        tell = self._tell(of)
        tell("choosing the learning rate")
        begins = pretrained and not isinstance(self.task, Transcribe)
        start: Callable | None = self._start if begins else None
        choice = tasks.choose(
            self.task, self.encoder, self.train, effort=self.effort, pretrained=pretrained,
            seed=self.seed, how=how, start=start,
        )  # fmt: skip
        network = tasks.fresh(
            self.task, self.encoder, pretrained=pretrained, seed=mix(self.seed, 0), how=how
        )
        if begins:
            self._start(network, np.ones(len(self.train), bool))
        tasks.train(
            network, self.encoder, self.train, steps=self.effort.steps, choice=choice,
            pretrained=pretrained, seed=self.seed, tell=tell,
        )  # fmt: skip
        self.settings[of] = {
            "learning_rate": choice.rate, "light_views": choice.light,
            "steps": self.effort.steps, "epochs": round(self.effort.epochs, 2),
            "layer_decay": self.task.layer_decay if pretrained and how == FULL else 1.0,
            "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "weights": sum(p.numel() for p in network.parameters()),
        }  # fmt: skip
        return network

    def _classical(self) -> None:
        """What was used before there were encoders, and for masks an untrained one."""
        task, test = self.task, self.test
        if isinstance(task, Transcribe):
            return
        if isinstance(task, Forecast):
            parts = [self.judge.origins(part, task.horizon) for part in range(3)]
            futures = [self.judge.future(origins, task.horizon) for origins in parts]
            last = np.repeat(self.judge.values(parts[2], 1), task.horizon, 1)
            for of, said in (
                (forecast.LINEAR, self.judge.linear(parts, futures)),
                (forecast.LAST, np.nan_to_num(last)),
            ):
                self.outcomes[of] = wrong(torch.from_numpy(said), torch.from_numpy(futures[2]))
            return
        if isinstance(task, Segment):
            self._tell(UNTRAINED)("")
            fresh = awake(self.encoder.untrained(mix(self.seed, 1)).to(self.encoder.device))
            self.outcomes[UNTRAINED] = tasks.outcomes(self._probe(fresh), fresh, test)
            self.outcomes[COLOUR] = by_colour(task, self.encoder, self.train, test, self.seed)
            return
        name = self.encoder.modality.baseline_name
        self._tell(name)("")
        x, other = classical(self.encoder, self.store, self.train.rows, test.rows)
        weight, bias = self._fit(x, self.train.targets)
        out = other.double() @ weight.double() + bias.double()
        self.outcomes[name] = task.outcome(
            out, task.targets(test, np.arange(len(test)), out.device)
        )

    # ---- numbers -----------------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        main = TUNED if TUNED in self.outcomes else PROBE
        ours = self.outcomes[main]
        scores, gains = [], []
        for of, theirs in self.outcomes.items():
            value, low, high = interval(self.task.summary, theirs, self.seed, self.task.blocks)
            scores.append({"of": of, "value": value, "low": low, "high": high})
            if of != main:
                gain = difference(self.task, ours, theirs, self.seed)
                gains.append({"over": of, **dict(zip(("value", "low", "high"), gain, strict=True))})
        scores.sort(key=lambda row: row["of"] != main)
        return {
            "format": 1,
            "task": self.task.name,
            "reason": self.asked.reason,
            "metric": self.task.metric,
            "percent": self.task.percent,
            "verdict": conclude(self.task, main, scores, gains, self.settings),
            "scores": scores,
            "gains": gains,
            "settings": self.settings,
            "split": self.split.to_json(),
            "data": self.store.source.place,
            "notes": self.notes,
            "seconds": round(time.monotonic() - self.began, 1),
        }

    def _tell(self, what: str) -> Callable[[str], None]:
        def tell(detail: str) -> None:
            stop.check()
            spent = duration(time.monotonic() - self.began)
            self.console.progress(f"finetune: {what} {detail}  {spent}")

        return tell


# ---- equations -------------------------------------------------------------------------------


@torch.no_grad()
def by_colour(
    task: Segment, encoder: LoadedEncoder, train: Part, test: Part, seed: int
) -> np.ndarray:
    """Outcomes of a linear layer on the colour of each pixel, its squares and products."""

    def colours(part: Part, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = task.look(encoder, part, places)
        rgb = x.cpu().permute(0, 2, 3, 1).flatten(0, 2)  # (b * s * s, 3)
        pairs = (rgb[:, :, None] * rgb[:, None, :])[:, *np.triu_indices(3)]
        return torch.cat([rgb, pairs], 1), y.cpu().flatten()

    x, y = colours(train, order(seed, 4, len(train))[:PICTURES])
    known = torch.from_numpy(order(seed, 5, len(y))[:PIXELS].copy())
    known = known[y[known] >= 0]
    weight, bias = plain_head(*linear.probe(x[known], y[known], task.outputs, seed=seed))
    found = []
    for low in range(0, len(test), task.evaluated):
        stop.check()
        places = np.arange(low, min(low + task.evaluated, len(test)))
        x, y = colours(test, places)
        said = (x.double() @ weight + bias).argmax(1)
        shape = (len(places), task.size, task.size)
        found.append(task.counts(said.view(shape).numpy(), y.view(shape).numpy()))
    return np.concatenate(found)


def resampled(n: int, seed: int, blocks: int) -> Iterator[np.ndarray]:
    """Sample numbers drawn with replacement; with `blocks`, so many stretches of neighbours."""
    units = np.array_split(np.arange(n), min(blocks, n)) if blocks else None
    generator = np.random.default_rng(mix(seed, 0x626F6F74))
    for _ in range(RESAMPLES):
        if units is None:
            yield generator.integers(0, n, n)
        else:
            yield np.concatenate([units[i] for i in generator.integers(0, len(units), len(units))])


def interval(
    summary: Callable[[np.ndarray], float], outcomes: np.ndarray, seed: int, blocks: int = 0
) -> tuple[float, float, float]:
    """A metric and its 95 % interval: percentile bootstrap over test samples."""
    found = [summary(outcomes[rows]) for rows in resampled(len(outcomes), seed, blocks)]
    low, high = np.quantile(found, (0.025, 0.975))
    return summary(outcomes), float(low), float(high)


def difference(
    task: Task, ours: np.ndarray, theirs: np.ndarray, seed: int
) -> tuple[float, float, float]:
    """By how much ours are better on the same samples, resampled together."""

    def gain(both: np.ndarray) -> float:
        return task.better * (task.summary(both[:, 0]) - task.summary(both[:, 1]))

    return interval(gain, np.stack([ours, theirs], 1), seed, task.blocks)


def conclude(
    task: Task, main: str, scores: list[dict], gains: list[dict], settings: dict[str, Any]
) -> dict[str, Any]:
    """The number, and whether it is better than every control beyond doubt."""
    scale, unit = (100, " %") if task.percent else (1, "")
    digits = 1 if task.percent else 3

    def said(value: float) -> str:
        return f"{scale * value:.{digits}f}"

    told = f"{main} ({settings['trained']}) on {settings['labels']} labels: {task.metric} "
    told += f"{said(scores[0]['value'])}{unit}"
    for gain in gains:
        if gain["low"] > 0:
            word = "better than"
        else:
            word = "worse than" if gain["high"] < 0 else "not clearly different from"
        value = next(row["value"] for row in scores if row["of"] == gain["over"])
        told += f", {word} {gain['over']} ({said(value)})"
    return {
        "sentence": told[:1].upper() + told[1:] + ".",
        "gain": bool(gains) and all(gain["low"] > 0 for gain in gains),
    }
