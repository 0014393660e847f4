"""The training loop: one function, read top to bottom, shared by every method and every modality.

It knows neither: a method gives a loss, `batches(step)` gives the views of a step. Everything that
is random is a function of the step, so a run is its tensors and one small state; see state.py.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from . import chunks, distributed, faults, health, machine
from . import optim as optims
from .energy import Meter
from .errors import COLLAPSED, DIVERGED, SelfsupError
from .logs import Events, Row
from .method import Method
from .optim import Optim
from .randomness import mix, start
from .run import Run
from .state import Folder, State
from .stop import Stop
from .teacher import Teacher

BAD_IN_A_ROW = 3  # steps with numbers that are not finite, before going back to a checkpoint
FIRST_PLAN = 20  # steps after which a run of `minutes` first knows its speed
PLANS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99)  # progress at which it plans its steps again
EVALUATIONS = 10  # times that `online` is called, evenly over the run


class Batches(Protocol):
    """This rank's views of a step, or of one of its micro-batches: a function of the arguments."""

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> list[Tensor]: ...


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `verdict` is healthy, warning, collapsed or diverged."""

    step: int
    steps: int
    seconds: float
    verdict: str
    message: str
    finished: bool
    exit_code: int
    rows: tuple[Row, ...] = ()  # the last lines of metrics, at most a thousand
    events: tuple[Row, ...] = ()


def train(
    method: Method,
    batches: Batches,
    *,
    batch: int,
    steps: int | None = None,
    minutes: float | None = None,
    until: float = 1.0,
    optim: Optim | None = None,
    run: Run | None = None,
    seed: int = 0,
    precision: str = "auto",
    accumulate: int = 1,
    chunk: int | None = None,
    every: int = 10,
    watch: Callable[[Row], None] | None = None,
    stop: Stop | None = None,
    checkpoint_seconds: float = 300.0,
    keep: int = 2,
    online: Callable[[nn.Module], dict[str, float]] | None = None,
    capture: Callable[[int], Any] | None = None,
    alike: Callable[[], bool] | None = None,
    epoch_samples: int | None = None,
    average: float | None = None,
    shard: bool = False,
    compile: bool = False,
    allow_change: bool = False,
    sinks: Sequence[Callable[[Row], None]] = (),
) -> Outcome:
    """Train `method` for `steps` steps of `batch` samples (over all ranks), or for `minutes`.

    With a `run` it writes metrics, events and checkpoints there, and continues from the newest
    checkpoint that is whole: bitwise as if never interrupted. Every `every` steps a row of numbers
    goes to `watch`. `online(encoder)` gives numbers to add, ten times in a run. `capture(step)`
    says which samples a batch holds, for when something goes wrong with it, `alike()` whether those
    of the last one were all the same. With `chunk` the encoder takes so many rows at a time, and
    the loss sees more than memory holds. `average` keeps a moving average of the encoder with that
    momentum, saved in its place. With `until` it stops, saved, once progress has come so far.

    Raises SelfsupError: E201 chunk with compile, E202 an encoder that needs all rows at once, E206
    out of memory, E302 run in use, E303 disk full, E304 other settings than before, E801 batch and
    ranks do not fit.
    """
    # ---- before the first step ------------------------------------------------------------------
    if not (steps or minutes) or (steps or 1) < 1 or (minutes or 1.0) <= 0:
        raise ValueError(f"steps is {steps}, minutes is {minutes}: one of them must be above 0")
    if batch < 2 or accumulate < 1:
        raise ValueError(f"batch is {batch}, accumulate is {accumulate}: at least 2 and 1 needed")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}: at least 1 needed")
    if chunk is not None and compile:
        raise SelfsupError(
            "E201",
            "train.chunk and train.compile exclude each other",
            why="nothing shows that compiled parts are computed again as they were",
            do="leave one of them out",
        )
    if batch % (distributed.world() * accumulate):
        raise distributed.uneven(batch, accumulate)
    machine.keep_freed_memory()
    optim, stop = optim or method.optim, stop or Stop()
    device = next(method.parameters()).device
    convolutional = not shard and machine.channels_last(method)  # shards are plain rows
    state = State(steps=steps or 1000, accumulate=accumulate, joules=0.0)
    state.precision = _precision(precision, device.type)
    state.settings = _settings(
        method, optim, batch, steps, minutes, seed, precision, accumulate, chunk
    )
    method.train()
    chunks.cut(method, chunk)
    slow = Teacher(method.encoder) if average is not None else None
    model = distributed.wrap(method, shard=shard)
    if compile:
        model = torch.compile(model)
    optimizer = optims.build(method, optim, batch, method.steady)
    lead = distributed.rank() == 0
    events = Events(run.path if run and lead else None)
    folder = Folder(run, method, optimizer, slow, keep)

    with run.lock() if run and lead else nullcontext():
        state = folder.resume(state, events, allow_change)
        monitor = health.Monitor(method, state.monitor)
        if method.across_batch and state.accumulate > 1:
            events.write("accumulate", state.step, **health.small_view(batch, state.accumulate))
        # the counters are those of one machine's processors: with others it would be a part
        counts = lead and device.type == "cpu" and distributed.one_machine()
        clock = _Clock(state, Meter.find() if counts else None)
        rows: deque[Row] = deque(maxlen=1000)
        (leave,) = distributed.agree(stop.requested or state.progress >= until)

        # ---- training ---------------------------------------------------------------------------
        while state.step < state.steps and not leave:
            faults.at("train.step")
            progress = state.progress
            lr = optims.set_progress(optimizer, optim, batch, progress, state.lr_scale)
            buffers = [buffer.clone() for buffer in method.buffers()]

            try:
                terms, views = _gradients(model, batches, state, seed, convolutional, clock)
            except (RuntimeError, MemoryError) as error:
                if not machine.out_of_memory(error):
                    raise
                terms = views = None
            if terms is None:  # outside of the handler, whose traceback holds on to the tensors
                _put_back(method, buffers)
                optimizer.zero_grad()
                _smaller_parts(method, state, batch, events)
                continue
            faults.at("train.backward")
            norm = distributed.clip(method, optim.clip)
            numbers = torch.stack([*terms.values(), norm]).tolist()
            (bad,) = distributed.agree(not _finite(numbers))

            if bad:
                _put_back(method, buffers)
                state.bad, state.skipped = state.bad + 1, state.skipped + 1
            else:
                optimizer.step()
                faults.at("train.update")
                method.after_step(progress)
                if slow is not None:
                    slow.follow(method.encoder, average)
                state.bad = 0
                monitor.spike(state.step + 1, sum(numbers[:-1]), events)
            optimizer.zero_grad()
            state.step += 1
            state.seconds, state.joules = clock.seconds(), clock.joules()

            # ---- what happened ------------------------------------------------------------------
            observed = state.step % every == 0
            judged = online is not None and not bad and _evaluates(state, progress)
            if bad or observed or judged or state.step in (1, state.steps):
                shown = distributed.mean(torch.tensor(numbers, dtype=torch.float64)).tolist()
                row = _row(state, terms, shown, lr, batch, epoch_samples, clock)
                if observed and not bad:
                    means = dict(zip(terms, shown, strict=False))
                    same = alike is not None and alike()
                    row |= monitor.look(state.step, progress, views, means, events, same)
                    row["verdict"] = monitor.verdict.kind
                    if distributed.agree(not health.finite_tensors(method))[0]:
                        bad, state.bad = True, BAD_IN_A_ROW
                if judged and not bad:
                    row |= _evaluate(online, slow.slow if slow else method.kept, method)
                rows.append(row)
                folder.log(row, watch, sinks)
            if bad:
                named = dict(zip([*terms, "gradient"], numbers, strict=True))
                health.tell_bad(events, state, named, capture)
                if state.bad >= BAD_IN_A_ROW:
                    if not folder.roll_back(state, events, capture):
                        return _outcome(state, health.DIVERGED, False, DIVERGED, rows, events)
                    monitor.load(state.monitor)
                    clock.restart(state)
                    continue
            views = None  # the next step needs the memory
            if minutes is not None and state.step < state.steps:
                _plan(state, minutes, events)
            state.monitor = monitor.save()
            due = clock.since_save() >= checkpoint_seconds
            leave, save = distributed.agree(stop.requested or state.progress >= until, due)
            if run and (leave or state.step >= state.steps or (save and not state.bad)):
                folder.save(state)
                clock.saved()

        # ---- after the last step ----------------------------------------------------------------
        finished = state.step >= state.steps
        verdict = monitor.verdict
        code = COLLAPSED if verdict.kind == "collapsed" else 0
        code = code if finished else stop.exit_code
        if run and lead and finished:
            faults.at("run.finish")
            samples = state.step * batch
            facts = {"step": state.step, "seconds": state.seconds, "samples": samples}
            run.finish(**facts, verdict=verdict.kind, message=verdict.message)
        return _outcome(state, verdict, finished, code, rows, events)


def _precision(wanted: str, device: str) -> str:
    """As the first rank measures it: what pays may look different on a busy machine."""
    half = machine.choose_precision(wanted, device) == "bf16"
    return "bf16" if distributed.share(int(half)) else "fp32"


# -- one step -----------------------------------------------------------------------------------


def _gradients(model, batches, state, seed, convolutional, clock):
    """Forward and backward over the micro-batches: mean terms, and the views last seen."""
    totals: dict[str, Tensor] = {}
    parts = state.accumulate
    device = next(model.parameters()).device.type
    half = torch.autocast(device, torch.bfloat16, enabled=state.precision == "bf16")
    for part in range(parts):
        with clock.waiting():
            views = batches(state.batch, part, parts)
            if convolutional:
                views = [_channels_last(x) for x in views]
        # the same on all ranks: `distributed.rand` gives each its own rows of the numbers
        start(mix(seed, state.batch, part), device)
        with distributed.sync(model, part == parts - 1):
            with half:
                terms = model(views, state.progress)
            (sum(terms.values()) / parts).backward()
        faults.at("train.memory")
        for name, term in terms.items():
            totals[name] = totals.get(name, 0.0) + term.detach().float() / parts
    return totals, views


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


@torch.no_grad()
def _put_back(method: nn.Module, buffers: list[Tensor]) -> None:
    """What the forward pass moved (running statistics, queues, centres) goes back to before."""
    for now, before in zip(method.buffers(), buffers, strict=True):
        now.copy_(before)


def _smaller_parts(method: Method, state: State, batch: int, events: Events) -> None:
    """After an allocation failed: the same batch in twice as many parts, or advice."""
    rows = batch // distributed.world() // state.accumulate
    why = "a part of a batch needed more memory than there is"
    smaller = max(1, batch // 2)
    if method.across_batch:
        why += "; this loss compares the samples of a batch, so cutting it would change the loss"
    if distributed.world() > 1:
        why += "; with several processes the parts cannot be changed on the way"
    if method.across_batch or distributed.world() > 1 or rows % 2:
        advice = f"--batch {smaller}, a smaller encoder or a lower resolution"
        if not chunks.hindrance(method):
            few = max(1, (state.settings.get("chunk") or rows) // 2)
            advice = f"--set train.chunk={few}, which leaves the loss as it is; or {advice}"
        raise SelfsupError("E206", f"out of memory with {rows} samples at once", why=why, do=advice)
    state.accumulate *= 2
    message = f"out of memory: each batch now goes in {state.accumulate} parts of {rows // 2}"
    events.write("memory", state.step, message, cause=why, do="nothing: the result is the same")


def _finite(numbers: list[float]) -> bool:
    return all(abs(x) < float("inf") for x in numbers)  # false for NaN too


# -- numbers for people -------------------------------------------------------------------------


class _Clock:
    """Durations of a run, from a clock that never jumps, and the energy used in them."""

    def __init__(self, state: State, meter: Meter | None):
        self.meter = meter
        self.restart(state)

    def restart(self, state: State) -> None:
        self.start = time.monotonic() - state.seconds
        self.before = state.joules  # what the meter did not see
        if self.meter is not None and self.before is not None:
            self.before -= self.meter.joules
        self.save = self.row = time.monotonic()
        self.row_step, self.waited = state.step, 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.start

    def joules(self) -> float | None:
        """Since the run began; None unless all of it was counted."""
        counted = self.meter.read() if self.meter is not None else None
        return None if counted is None or self.before is None else self.before + counted

    def since_save(self) -> float:
        return time.monotonic() - self.save

    def saved(self) -> None:
        self.save = time.monotonic()

    def waiting(self) -> "_Clock":
        return self

    def __enter__(self) -> None:
        self.entered = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.waited += time.monotonic() - self.entered

    def lap(self, step: int) -> tuple[int, float, float]:
        """Steps, seconds and seconds waited for data since the last lap."""
        now = time.monotonic()
        found = step - self.row_step, max(1e-9, now - self.row), self.waited
        self.row, self.row_step, self.waited = now, step, 0.0
        return found


def _row(
    state: State,
    terms: dict[str, Tensor],
    numbers: list[float],
    lr: float,
    batch: int,
    epoch_samples: int | None,
    clock: _Clock,
) -> Row:
    """A line of metrics.jsonl. `steps` is the total as now planned."""
    steps, seconds, waited = clock.lap(state.step)
    samples = state.step * batch
    row: Row = {"step": state.step, "steps": state.steps, "time": state.seconds}
    row |= {"samples": samples, "epoch": samples / epoch_samples if epoch_samples else None}
    row["train/loss"] = sum(numbers[:-1])
    row |= {f"train/{name}": x for name, x in zip(terms, numbers[:-1], strict=True)}
    row |= {"train/lr": lr, "train/grad_norm": numbers[-1]}
    row["speed/samples_per_second"] = steps * batch / seconds
    row["speed/data_wait"] = waited / seconds
    if state.joules is not None:
        row["energy/joules"] = state.joules
    return row


def _evaluates(state: State, before: float) -> bool:
    return int(before * EVALUATIONS) != int(state.progress * EVALUATIONS)


def _evaluate(online: Callable, encoder: nn.Module, method: Method) -> dict[str, float]:
    method.eval()
    encoder.eval()
    with torch.no_grad():
        numbers = online(encoder)
    method.train()
    return {f"eval/{name.removeprefix('eval/')}": float(x) for name, x in numbers.items()}


def _outcome(state, verdict, finished, code, rows, events) -> Outcome:
    return Outcome(
        state.step,
        state.steps,
        state.seconds,
        verdict.kind,
        verdict.message,
        finished,
        code,
        tuple(rows),
        tuple(events.seen),
    )


# -- time ---------------------------------------------------------------------------------------


def _plan(state: State, minutes: float, events: Events) -> None:
    """Fit the number of steps to the minutes: after the first steps, then at fixed progress.

    Progress stays continuous: what is left of it is spread over the steps that are left.
    """
    plans, step, seconds = state.plan
    if plans > len(PLANS):
        return
    if plans:
        due = state.progress >= PLANS[plans - 1]
    else:  # slow steps cannot wait for twenty; clocks of ranks differ, so they agree
        slow = state.step - step >= 3 and state.seconds - seconds > 0.05 * 60 * minutes
        (due,) = distributed.agree(state.step - step >= FIRST_PLAN or slow)
    if not due:
        return
    pace = (state.seconds - seconds) / max(1, state.step - step)
    left = max(1, int((60 * minutes - state.seconds) / max(pace, 1e-9)))
    here = state.progress
    state.steps = distributed.share(state.step + left)
    state.since = (state.step, here)
    passed = sum(here >= point for point in PLANS)
    state.plan = (passed + 1, state.step, state.seconds)
    events.write("plan", state.step, f"{state.steps} steps fit into {minutes:g} minutes")


# -- settings -----------------------------------------------------------------------------------


def _settings(
    method: Method,
    optim: Optim,
    batch: int,
    steps: int | None,
    minutes: float | None,
    seed: int,
    precision: str,
    accumulate: int,
    chunk: int | None,
) -> dict[str, Any]:
    """What must stay the same over the life of a run, as JSON reads it back."""
    facts = {
        "method": type(method).__name__,
        "parameters": sum(p.numel() for p in method.parameters()),
        "batch": batch,
        "steps": None if minutes is not None else steps,
        "minutes": minutes,
        "seed": seed,
        "precision": precision,
        "accumulate": accumulate,
        "chunk": chunk,
        "optim": asdict(optim),
    }
    return json.loads(json.dumps(facts))
