"""The loop: what it computes, how it goes on after a failure, how it keeps to its time."""

import itertools
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import BATCH, Local, Poisoned, Samples, Tiny, without_time

from selfsup import faults, machine
from selfsup.errors import SelfsupError
from selfsup.logs import Events
from selfsup.randomness import mix
from selfsup.run import Run
from selfsup.state import ROLLBACKS, State
from selfsup.stop import Stop
from selfsup.train import PLANS, _plan, train

torch.set_num_threads(1)


def test_it_is_the_plain_loop(tmp_path):
    """Against fifteen lines of PyTorch: the same weights, bit for bit."""
    torch.manual_seed(0)
    method, plain = Tiny(), Tiny()
    plain.load_state_dict(method.state_dict())
    recipe = method.optim
    train(method, Samples(), batch=BATCH, steps=9, precision="fp32", seed=3)

    decayed = [p for p in plain.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in plain.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others}], betas=recipe.betas, fused=True
    )
    from selfsup.schedules import cosine, warmup_cosine

    for step in range(9):
        progress = step / 9
        for group, decays in zip(optimizer.param_groups, (True, False), strict=True):
            group["lr"] = warmup_cosine(recipe.lr, recipe.warmup)(progress)
            group["weight_decay"] = cosine(0.1, 0.2)(progress) if decays else 0.0
        views = Samples()(step)
        torch.manual_seed(mix(3, step, 0))
        sum(plain.loss(views, progress).values()).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), recipe.clip)
        optimizer.step()
        plain.after_step(progress)
        optimizer.zero_grad()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, method.state_dict()[name]), name


def test_the_loss_goes_down_and_rows_say_so():
    rows = []
    torch.manual_seed(0)
    outcome = train(
        Tiny(), Samples(), batch=BATCH, steps=150, watch=rows.append, epoch_samples=64, every=10
    )
    assert outcome.finished and outcome.exit_code == 0
    assert [row["step"] for row in rows] == [1, *range(10, 151, 10)]
    assert rows[-1]["train/loss"] < 0.8 * rows[0]["train/loss"]
    last = rows[-1]
    assert last["samples"] == 150 * BATCH and last["epoch"] == 150 * BATCH / 64
    assert last["train/loss"] == pytest.approx(last["train/contrast"] + last["train/size"])
    for key in ("train/lr", "train/grad_norm", "speed/data_wait", "monitor/rank", "monitor/std"):
        assert last[key] >= 0, key
    assert last["speed/samples_per_second"] > 0 and last["time"] > 0


def test_parts_of_a_batch_add_up():
    results = []
    for parts in (1, 4):
        torch.manual_seed(0)
        method = Local()
        settings = {"batch": BATCH, "steps": 12, "accumulate": parts, "precision": "fp32"}
        train(method, Samples(views=1), **settings)
        results.append(method.state_dict())
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name])


def test_parts_of_a_batch_are_an_event_where_the_loss_looks_across_it():
    outcome = train(Tiny(across=True), Samples(), batch=BATCH, steps=2, accumulate=2)
    (event,) = outcome.events
    assert event["kind"] == "accumulate" and "4 samples at a time, not 8" in event["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": -1},
        {},
        {"minutes": 0.0},
        {"steps": 5, "batch": 1},
        {"steps": 5, "precision": "fp8"},
        {"steps": 5, "accumulate": 0},
    ],
)
def test_a_run_that_would_do_nothing_is_refused(wrong):
    with pytest.raises(ValueError):
        train(Tiny(), Samples(), **({"batch": BATCH} | wrong))


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(SelfsupError) as caught:
        train(Local(), Samples(views=1), batch=BATCH, steps=2, accumulate=3)
    assert caught.value.code == "E801" and "--batch 6" in caught.value.do


def test_average_of_the_encoder(tmp_path):
    from selfsup.checkpoint import read

    torch.manual_seed(0)
    method, seen = Local(), []
    start = {k: v.clone() for k, v in method.encoder.state_dict().items()}

    class Watching(Samples):
        def __call__(self, step, part=0, parts=1):
            seen.append({k: v.clone() for k, v in method.encoder.state_dict().items()})
            return super().__call__(step, part, parts)

    run = Run(tmp_path)
    train(method, Watching(views=1), batch=BATCH, steps=5, run=run, average=0.7)
    after = [*seen[1:], method.encoder.state_dict()]
    kept = dict(read(run.checkpoint, "encoder"))
    for name, value in start.items():
        for weights in after:
            value = 0.7 * value + 0.3 * weights[name]
        torch.testing.assert_close(kept[name], value)


def test_online_numbers_come_ten_times_and_do_not_disturb():
    def run(online):
        torch.manual_seed(0)
        method, rows = Tiny(), []
        train(method, Samples(), batch=BATCH, steps=40, watch=rows.append, online=online)
        return method, rows

    def online(encoder):
        assert not encoder.training
        torch.rand(7)
        return {"knn_top1": float(encoder(Samples().data).std())}

    method, rows = run(online)
    assert sum("eval/knn_top1" in row for row in rows) == 10
    assert "eval/knn_top1" in rows[-1]
    plain, _ = run(None)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, method.state_dict()[name]), name


# -- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_precision_is_measured(fast, chosen, monkeypatch, tmp_path):
    def rates(dtypes, *_, **__):
        return {t: 2.0 if fast == (t == torch.bfloat16) else 1.0 for t in dtypes}

    monkeypatch.setattr(machine, "_rates", rates)
    machine.bf16_pays.cache_clear()
    seen = []

    class Seeing(Local):
        def loss(self, views, progress):
            seen.append(self.encoder(views[0]).dtype)
            return super().loss(views, progress)

    train(Seeing(), Samples(views=1), batch=BATCH, steps=1, run=Run(tmp_path))
    machine.bf16_pays.cache_clear()
    assert seen == [torch.bfloat16 if chosen == "bf16" else torch.float32]
    state = json.loads((Run.open(tmp_path).checkpoint / "state.json").read_text())
    assert state["precision"] == chosen


def test_a_resumed_run_keeps_its_precision(monkeypatch, tmp_path):
    """Measured again on a busy machine, the choice could be another."""
    for fast, steps in ((True, 2), (False, 4)):
        monkeypatch.setattr(machine, "bf16_pays", lambda device, fast=fast: fast)
        stop = Stop()

        class Stopping(Samples):
            def __call__(self, step, part=0, parts=1, stop=stop, steps=steps):
                if step == steps - 1:
                    stop.request()
                return super().__call__(step, part, parts)

        train(Local(), Stopping(views=1), batch=BATCH, steps=4, run=Run(tmp_path), stop=stop)
    state = json.loads((Run.open(tmp_path).checkpoint / "state.json").read_text())
    assert state["step"] == 4 and state["precision"] == "bf16"


def test_measuring_draws_nothing():
    machine.bf16_pays.cache_clear()
    machine.matmul_rate.cache_clear()
    torch.manual_seed(0)
    machine.bf16_pays("cpu")
    torch.testing.assert_close(torch.rand(3), torch.rand(3, generator=torch.manual_seed(0)))


# -- memory -------------------------------------------------------------------------------------


def test_out_of_memory_cuts_the_batch_and_changes_nothing_else(monkeypatch, tmp_path):
    results, asked = [], []
    for times in ("", "train.memory:memory:3"):
        monkeypatch.setenv("SELFSUP_FAULT", times)
        monkeypatch.setattr(faults, "_seen", {})
        torch.manual_seed(0)
        method, samples = Local(), Samples(views=1)
        outcome = train(method, samples, batch=BATCH, steps=6, precision="fp32")
        results.append(method.state_dict())
        asked.append(samples.asked)
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name])
    assert asked[0] == [*range(6)]
    assert asked[1] == [0, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5]  # the third step again, then in two parts
    (event,) = outcome.events
    assert event["kind"] == "memory" and "2 parts of 4" in event["message"]


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_an_allocation_that_really_fails(tmp_path):
    """A batch needs 200 MiB where 160 may be mapped; half of it does not, once the first try is
    freed. What was learned is what a run with room enough learns."""
    code = """
import json, resource, sys
import torch
from tiny import SIZE, Local, Samples
from selfsup.optim import Optim
from selfsup.run import Run
from selfsup.train import train
torch.set_num_threads(1)

class Wide(Local):
    optim = Optim("sgd", lr=1e-5, per=256, weight_decay=0.0, warmup=0.0)

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(SIZE, 2**16), torch.nn.Tanh(), torch.nn.Linear(2**16, 4)
        )

def run(batch, **more):
    torch.manual_seed(0)
    method, samples, rows = Wide(), Samples(views=1, batch=batch), []
    told = train(method, samples, batch=batch, steps=2, every=1, precision="fp32",
                 watch=rows.append, **more)
    return told, samples.asked, [row["train/loss"] for row in rows]

run(2)  # loads what is loaded late
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (mapped + 160 * 2**20, hard))
told, asked, losses = run(256, run=Run(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(json.dumps([told.finished, told.events, asked, losses, run(256)[2]]))
"""
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        capture_output=True, text=True, env=environment, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    finished, events, asked, losses, plenty = json.loads(done.stdout)
    # again, in two parts or, where the machine has mapped more by then, in four or eight
    parts = 2 ** len(events)
    assert finished and parts > 1 and asked[-parts:] == [1] * parts
    assert {event["kind"] for event in events} == {"memory"}
    assert f"{parts} parts of {256 // parts}" in events[-1]["message"]
    assert losses == pytest.approx(plenty, rel=1e-5)


def test_torch_out_of_memory_counts_too():
    class Greedy(Local):
        def loss(self, views, progress):
            if len(views[0]) > 2:
                raise torch.OutOfMemoryError("injected")
            return super().loss(views, progress)

    outcome = train(Greedy(), Samples(views=1), batch=BATCH, steps=3)
    assert outcome.finished and [e["kind"] for e in outcome.events] == ["memory", "memory"]


def test_out_of_memory_is_refused_with_advice_where_the_batch_matters(monkeypatch):
    monkeypatch.setenv("SELFSUP_FAULT", "train.memory:memory:2")
    monkeypatch.setattr(faults, "_seen", {})
    with pytest.raises(SelfsupError) as caught:
        train(Tiny(across=True), Samples(), batch=BATCH, steps=6)
    assert caught.value.code == "E206" and "--batch 4" in caught.value.do
    assert "compares the samples" in caught.value.why


def test_other_errors_are_not_taken_for_memory():
    class Broken(Local):
        def loss(self, views, progress):
            raise RuntimeError("a fault of the method")

    with pytest.raises(RuntimeError, match="a fault of the method"):
        train(Broken(), Samples(views=1), batch=BATCH, steps=2)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_what_a_trial_needed_is_given_back():
    """In a process of its own: how large this one is depends on the tests before."""
    code = """
import os, torch
from selfsup import machine
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
machine.keep_freed_memory()
before, blocks = resident(), [torch.ones(2**20) for _ in range(300)]
kept = torch.ones(8)  # above them: the heap cannot just end earlier
del blocks
held = resident() - before
machine.give_back_memory()
print(held, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    held, left = map(float, done.stdout.split())
    assert held > 1000 and left < 100  # MiB


# -- numbers that are not finite ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_one_bad_step_is_as_if_it_had_not_touched_anything(kind):
    """The same as a run in which the step's update and its statistics are simply left out."""
    torch.manual_seed(0)
    method = Poisoned(steps=[3], kind=kind)
    states = []

    class Watching(Samples):
        def __call__(self, step, part=0, parts=1):
            states.append({k: v.clone() for k, v in method.state_dict().items()})
            return super().__call__(step, part, parts)

    rows = []
    samples = Watching(views=1, numbered=True)
    settings = {"batch": BATCH, "steps": 6, "every": 100, "precision": "fp32"}
    outcome = train(method, samples, watch=rows.append, **settings)
    assert outcome.finished and outcome.verdict == "healthy"
    for name, before in states[3].items():
        assert torch.equal(before, states[4][name]), name
    assert not torch.equal(states[2]["encoder.1.running_mean"], states[3]["encoder.1.running_mean"])
    assert all(value.isfinite().all() for value in method.state_dict().values())
    (event,) = outcome.events
    assert event["kind"] == "skipped" and event["step"] == 4
    assert ("error" if kind == "loss" else "gradient") in event["message"]
    assert [row["step"] for row in rows] == [1, 4, 6]  # never silent


def test_bad_numbers_are_visible_in_the_file(tmp_path):
    settings = {"batch": BATCH, "steps": 6, "every": 100}
    samples = Samples(views=1, numbered=True)
    train(Poisoned([3]), samples, run=Run(tmp_path), capture=lambda b: [b, 40 + b], **settings)
    (row,) = (r for r in Run.open(tmp_path).metrics.read() if r["step"] == 4)
    assert row["train/loss"] == "NaN"
    (event,) = (e for e in Run.open(tmp_path).events.read() if e["kind"] == "skipped")
    assert "[3, 43]" in event["message"]


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_three_bad_steps_go_back_past_them_at_half_the_rate(kind, tmp_path):
    torch.manual_seed(0)
    samples = Samples(views=1, numbered=True)
    run = Run(tmp_path)
    rates = {}

    def watch(row):
        rates[row["step"]] = row["train/lr"]

    outcome = train(
        Poisoned([5, 6, 7], kind),
        samples,
        batch=BATCH,
        steps=12,
        every=1,
        run=run,
        watch=watch,
        checkpoint_seconds=1e9,
    )
    # back to step 0, whose next batch is the one after the last that failed
    assert samples.asked == [*range(8), *range(8, 20)]
    assert outcome.finished and outcome.step == 12
    state = json.loads((run.checkpoint / "state.json").read_text())
    assert state["offset"] == 8 and state["lr_scale"] == 0.5 and state["rollbacks"] == 1
    assert state["skipped"] == 3
    assert [row["step"] for row in run.metrics.read()] == [*range(1, 13)]  # no step twice
    assert [e["kind"] for e in run.events.read()] == ["skipped"] * 3 + ["rollback"]
    plain = []
    train(
        Poisoned(),
        Samples(views=1, numbered=True),
        batch=BATCH,
        steps=12,
        every=1,
        watch=plain.append,
    )
    for row in plain:
        assert rates[row["step"]] == row["train/lr"] / 2


def test_a_rolled_back_run_resumes_bitwise(tmp_path):
    results = []
    for name, stops in (("whole", [1000]), ("parts", [6, 10, 1000])):
        run = Run(tmp_path / name)
        for limit in stops:
            torch.manual_seed(0)
            stop = Stop()

            class Stopping(Samples):
                def __call__(self, step, part=0, parts=1, limit=limit, stop=stop):
                    if step == limit:
                        stop.request()
                    return super().__call__(step, part, parts)

            samples = Stopping(views=1, numbered=True)
            settings = {"batch": BATCH, "steps": 12, "every": 1, "precision": "fp32"}
            method = Poisoned([1, 2, 3])
            train(method, samples, run=run, stop=stop, checkpoint_seconds=1e9, **settings)
        rows = without_time(run.metrics.read())
        state = json.loads((run.checkpoint / "state.json").read_text())
        results.append((rows, state["offset"], state["lr_scale"], method.state_dict()))
    for name, value in results[0][3].items():
        assert torch.equal(value, results[1][3][name]), name
    assert results[0][:3] == results[1][:3]


def test_always_bad_stops_with_a_capture(tmp_path):
    run, samples = Run(tmp_path), Samples(views=1, numbered=True)
    outcome = train(
        Poisoned(range(100)),
        samples,
        batch=BATCH,
        steps=50,
        run=run,
        seed=11,
        capture=lambda batch: [f"sample of {batch}"],
        checkpoint_seconds=1e9,
    )
    assert outcome.exit_code == 4 and outcome.verdict == "diverged" and not outcome.finished
    assert len(samples.asked) == 3 * (1 + ROLLBACKS)
    assert run.failed["batch"] == samples.asked[-1] and run.failed["seed"] == 11
    assert run.failed["samples"] == [f"sample of {samples.asked[-1]}"]
    assert run.done is None and "failed" in run.status
    kinds = [event["kind"] for event in run.events.read()]
    assert kinds.count("rollback") == 3 and kinds[-1] == "diverged"


def test_without_a_run_there_is_nowhere_to_go_back_to():
    outcome = train(Poisoned(range(100)), Samples(views=1, numbered=True), batch=BATCH, steps=50)
    assert outcome.exit_code == 4 and outcome.step == 3


def test_a_poisoned_buffer_is_found_though_the_loss_is_fine(tmp_path):
    """`after_step` spoils what the loss does not use yet; the next look at the weights sees it."""

    class Spoiling(Local):
        def __init__(self):
            super().__init__()
            self.register_buffer("centre", torch.zeros(3))

        def after_step(self, progress):
            self.centre += float("nan") if 0.4 < progress < 0.45 else 0.0

    outcome = train(Spoiling(), Samples(views=1), batch=BATCH, steps=40, every=5, run=Run(tmp_path))
    kinds = [event["kind"] for event in outcome.events]
    assert kinds.count("rollback") >= 1 and "the weights" in outcome.events[0]["message"]
    assert outcome.exit_code == 4  # it happens again each time


def test_no_checkpoint_is_written_between_bad_steps(tmp_path):
    run = Run(tmp_path)
    samples = Samples(views=1, numbered=True)
    settings = {"batch": BATCH, "steps": 8, "checkpoint_seconds": 0.0, "keep": 100}
    train(Poisoned([4, 5]), samples, run=run, **settings)
    steps = {int(path.name[5:]) for path in run.checkpoints.glob("step-*")}
    assert steps == {0, 1, 2, 3, 4, 7, 8}


# -- time ---------------------------------------------------------------------------------------


def test_minutes_are_kept_by_planning_the_steps_again():
    class Slow(Samples):
        def __call__(self, step, part=0, parts=1):
            time.sleep(0.004 if step < 100 else 0.012)  # and then another program starts
            return super().__call__(step, part, parts)

    rows = []
    start = time.monotonic()
    outcome = train(Local(), Slow(views=1), batch=BATCH, minutes=4 / 60, watch=rows.append, every=1)
    taken = time.monotonic() - start
    assert outcome.finished and 3.0 < taken < 8.0  # 12 s without planning again
    plans = [event for event in outcome.events if event["kind"] == "plan"]
    assert 4 <= len(plans) <= 1 + len(PLANS)
    rates = [row["train/lr"] for row in rows]
    assert rates[-1] < 0.05 * max(rates)  # the schedule came to its end
    jumps = [abs(b - a) for a, b in itertools.pairwise(rates)]
    assert max(jumps) < 0.1 * max(rates)


def test_progress_is_continuous_when_the_plan_changes():
    state = State(step=20, steps=1000, seconds=10.0)
    before = state.progress
    _plan(state, 1.0, Events(None))
    assert state.steps == 20 + 100 and state.progress == before == 0.02
    state.step = state.steps
    assert state.progress == 1.0


def test_stop_before_the_first_step_does_nothing(tmp_path):
    stop, samples = Stop(), Samples()
    stop.request()
    outcome = train(Tiny(), samples, batch=BATCH, steps=5, stop=stop, run=Run(tmp_path))
    assert samples.asked == [] and not outcome.finished and outcome.exit_code == 143
