"""Where a run is, and how it comes back there: saved, resumed, gone back to after bad numbers."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import checkpoint, distributed, faults, health
from . import optim as optims
from .logs import Events, Row
from .method import Method
from .run import Run, changed, differences
from .teacher import Teacher

ROLLBACKS = 3  # times that a run goes back before it gives up


@dataclass
class State:
    """All of a run that is not a tensor. It is written into each checkpoint as state.json."""

    step: int = 0  # steps done
    steps: int = 0  # steps in all
    offset: int = 0  # what to add to a step to get the number of its batch: moved by rollbacks
    lr_scale: float = 1.0  # halved by rollbacks
    bad: int = 0  # skipped steps in a row
    skipped: int = 0
    rollbacks: int = 0
    accumulate: int = 1
    precision: str = ""
    seconds: float = 0.0  # spent training
    joules: float | None = None  # used meanwhile; None once a part of it was not counted
    since: tuple[int, float] = (0, 0.0)  # step and progress when the steps were last planned
    plan: tuple[int, int, float] = (0, 0, 0.0)  # plans made; step and seconds at the last one
    monitor: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    torch: str = torch.__version__

    @property
    def progress(self) -> float:
        """Where training is, from 0 to 1: continuous when the number of steps changes."""
        step, progress = self.since
        return progress + (1 - progress) * (self.step - step) / max(1, self.steps - step)

    @property
    def batch(self) -> int:
        return self.step + self.offset


class Folder:
    """A run's folder as the loop sees it: save, resume, go back. Does nothing without a run."""

    def __init__(
        self,
        run: Run | None,
        method: Method,
        optimizer: torch.optim.Optimizer,
        slow: Teacher | None,
        keep: int,
    ):
        self.run, self.method, self.optimizer, self.slow = run, method, optimizer, slow
        self.lead = distributed.rank() == 0
        self.kept = checkpoint.Checkpoints(run.checkpoints, keep) if run else None

    def save(self, state: State) -> None:
        files = {
            "method": self.method.state_dict(),
            "optimizer": optims.state_tensors(self.method, self.optimizer),
            "encoder": (self.slow.slow if self.slow else self.method.kept).state_dict(),
        }
        if self.slow is not None:
            files["average"] = self.slow.state_dict()
        facts = asdict(state)
        self.kept.save(state.step, files, facts, whole=distributed.whole, writes=self.lead)

    def load(self, path: Path) -> State:
        """Put the tensors of a checkpoint in place; its state."""
        parts: list[tuple[str, nn.Module]] = [("method", self.method)]
        if self.slow is not None:
            parts.append(("average", self.slow))
        for part, module in parts:
            targets = module.state_dict()
            tensors = checkpoint.read(path, part)
            distributed.fill(targets, tensors, where=f"{path.name}/{part}.safetensors")
        found = checkpoint.read(path, "optimizer")
        optims.load_state_tensors(self.method, self.optimizer, found, distributed.like)
        facts = checkpoint.read_state(path)
        known = {f.name for f in fields(State)}
        state = State(**{name: value for name, value in facts.items() if name in known})
        state.since, state.plan = tuple(state.since), tuple(state.plan)
        return state

    def resume(self, state: State, events: Events, allow_change: bool) -> State:
        """The state of the newest whole checkpoint; or `state`, saved as the first one."""
        if self.run is None:
            return state

        def corrupt(path: Path, why: str) -> None:
            message = f"a damaged checkpoint was set aside: {why}"
            events.write("corrupt", state.step, message, do=f"see {path.name}")

        path = self._newest(corrupt)
        if path is None:
            if self.lead:
                self.run.metrics.keep_until(-1)
                self.run.reopen()
            self.save(state)
            return state
        loaded = checkpoint.read_state(path)
        changes = differences(loaded["settings"], state.settings)
        if changes and not allow_change:
            raise changed("the run was made with other settings", changes, path / "state.json")
        loaded = self.load(path)
        if changes:
            events.write("settings", loaded.step, "settings changed: " + "; ".join(changes))
            _extend(loaded, state.settings)
            loaded.settings, loaded.precision = state.settings, state.precision
            loaded.accumulate = state.accumulate
        if loaded.torch != torch.__version__:
            words = f"the run began with torch {loaded.torch}, goes on with {torch.__version__}"
            events.write("version", loaded.step, words, cause="numbers may differ slightly")
            loaded.torch = torch.__version__
        if self.lead:
            self.run.metrics.keep_until(loaded.step)
            if loaded.step < loaded.steps:
                self.run.reopen()
                events.write("resume", loaded.step, f"continues from step {loaded.step}")
        return loaded

    def roll_back(self, state: State, events: Events, capture: Callable | None) -> bool:
        """Back to the last good checkpoint, past the batches since then, at half the rate.

        False, with a capture of the batch, when there is nowhere to go back to or it was done
        too often.
        """
        path = self._newest(lambda path, why: None) if self.run else None
        if path is None or state.rollbacks >= ROLLBACKS:
            health.tell_diverged(events, state, capture, self.run if self.lead else None)
            return False
        faults.at("train.rollback")
        failed, skipped = state.batch, state.skipped
        accumulate, seconds, joules = state.accumulate, state.seconds, state.joules
        lr_scale, rollbacks = state.lr_scale / 2, state.rollbacks + 1
        loaded = self.load(path)
        for known in fields(State):
            setattr(state, known.name, getattr(loaded, known.name))
        # the next batch is the one after the last that failed
        state.offset, state.bad, state.skipped = failed - state.step, 0, skipped
        state.accumulate, state.seconds, state.joules = accumulate, seconds, joules
        state.lr_scale, state.rollbacks = lr_scale, rollbacks
        if self.lead:
            self.run.metrics.keep_until(state.step)
        health.tell_rollback(events, state)
        return True

    def log(self, row: Row, watch: Callable | None, sinks: Sequence) -> None:
        if not self.lead:
            return
        if self.run is not None:
            self.run.metrics.write(row)
        for see in (*([watch] if watch else []), *sinks):
            see(row)

    def _newest(self, told: Callable[[Path, str], None]) -> Path | None:
        """The lead looks and sets damaged ones aside; the others are told the step."""
        step = -1
        if self.lead:
            path = self.kept.newest(told)
            step = -1 if path is None else int(path.name.removeprefix("step-"))
        step = distributed.share(step)
        return None if step < 0 else self.run.checkpoints / f"step-{step:06d}"


def _extend(state: State, settings: dict[str, Any]) -> None:
    """Another length than before: progress is where the run is in the new one."""
    steps, minutes = settings["steps"], settings["minutes"]
    if (steps, minutes) == (state.settings["steps"], state.settings["minutes"]):
        return
    state.since = (0, 0.0)
    if minutes is None:
        state.steps = max(steps, state.step)
    else:
        pace = state.seconds / max(1, state.step)
        left = int((60 * minutes - state.seconds) / max(pace, 1e-9))
        state.steps = state.step + max(0, left)
        state.plan = (0, state.step, state.seconds)
