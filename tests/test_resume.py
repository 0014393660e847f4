"""A run that is interrupted anywhere ends as if it never was: bitwise."""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from every import KINDS, Rows, cases, make
from tiny import BATCH, Poisoned, Samples, Tiny, elsewhere, pretrain, tensors_hash, without_time

from selfsup import faults
from selfsup.errors import SelfsupError
from selfsup.run import Run
from selfsup.stop import Stop
from selfsup.train import train

torch.set_num_threads(1)
STEPS = 14


def result(folder) -> tuple:
    run = Run.open(folder)
    last = run.checkpoint
    state = json.loads((last / "state.json").read_text())
    timeless = {k: v for k, v in state.items() if k not in ("seconds", "joules", "plan")}
    return last.name, tensors_hash(last), timeless, without_time(run.metrics.read())


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What a run gives that nobody disturbs."""
    folder = tmp_path_factory.mktemp("reference")
    assert elsewhere(pretrain, folder, STEPS) == 0
    assert (folder / "DONE").exists()
    return result(folder)


def test_reference_is_not_trivial(reference):
    name, files, _state, rows = reference
    assert name == "step-000014" and set(files) == {
        "method.safetensors",
        "optimizer.safetensors",
        "encoder.safetensors",
    }
    assert [row["step"] for row in rows] == [1, *range(2, STEPS + 1, 2)]
    assert rows[-1]["train/loss"] < rows[1]["train/loss"]


KILLS = {
    "checkpoint.tensor": 40,
    "checkpoint.before_fsync": 9,
    "checkpoint.after_fsync": 14,
    "metrics.line": 5,
    "run.finish": 1,
}


LOOP = [p for p in faults.POINTS if p.split(".")[0] in ("checkpoint", "metrics", "train", "run")]


@pytest.mark.parametrize("point", [p for p in LOOP if p != "train.rollback"])
def test_killed_at_every_point(point, tmp_path, reference):
    times = KILLS.get(point, 4)
    assert elsewhere(pretrain, tmp_path, STEPS, f"{point}:kill:{times}") == -signal.SIGKILL
    assert not (tmp_path / "DONE").exists()
    assert elsewhere(pretrain, tmp_path, STEPS) == 0
    assert result(tmp_path) == reference
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))


@pytest.mark.parametrize("fault", ["train.rollback:kill:1", "train.rollback:kill:2"])
def test_killed_while_going_back(fault, tmp_path):
    """Numbers that are not finite come again, and with them the way back, to the same end."""
    assert elsewhere(diverge, tmp_path / "whole") == 0
    whole = result(tmp_path / "whole")
    assert whole[2]["rollbacks"] == 2 and whole[2]["lr_scale"] == 0.25
    assert elsewhere(diverge, tmp_path / "killed", fault) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "DONE").exists()
    assert elsewhere(diverge, tmp_path / "killed") == 0
    assert result(tmp_path / "killed") == whole


def diverge(folder, fault="") -> int:
    """A run that goes back twice: three bad steps in a row, and three more later."""
    import os

    os.environ["SELFSUP_FAULT"] = fault
    torch.set_num_threads(1)
    torch.manual_seed(0)
    outcome = train(
        Poisoned({5, 6, 7, 12, 13, 14}), Samples(views=1, numbered=True), batch=BATCH, steps=16,
        run=Run(folder), every=2, checkpoint_seconds=0.0, precision="fp32",
    )  # fmt: skip
    return outcome.exit_code


def test_killed_at_the_very_first_checkpoint(tmp_path, reference):
    for point in ("checkpoint.begin", "checkpoint.after_manifest", "checkpoint.after_rename"):
        assert elsewhere(pretrain, tmp_path, STEPS, f"{point}:kill") == -signal.SIGKILL
    assert elsewhere(pretrain, tmp_path, STEPS) == 0
    assert result(tmp_path) == reference


def test_killed_at_random_times(tmp_path, reference):
    begun = time.monotonic()
    assert elsewhere(pretrain, tmp_path / "timed", STEPS) == 0
    whole = time.monotonic() - begun  # as long as a run takes on this machine, just now
    random.seed(0)
    kills = 0
    for _ in range(40):
        process = elsewhere(pretrain, tmp_path / "run", STEPS, wait=False)
        process.join(random.uniform(0.1, 0.9) * whole)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        elif kills:
            break
        else:  # faster than the first time: from the start
            shutil.rmtree(tmp_path / "run")
    assert kills > 0
    assert elsewhere(pretrain, tmp_path / "run", STEPS) == 0
    assert result(tmp_path / "run") == reference


@pytest.mark.parametrize("number", ["terminate", "interrupt"])
@pytest.mark.parametrize("point", ["train.step", "train.update", "checkpoint.tensor"])
def test_signal_saves_and_leaves(point, number, tmp_path, reference):
    expected = 143 if number == "terminate" else 130
    code = elsewhere(pretrain, tmp_path, STEPS, f"{point}:{number}:7", checkpoint_seconds=1e9)
    if point == "checkpoint.tensor":  # while the first one is written: nothing is trained yet
        assert Run.open(tmp_path).checkpoint.name == "step-000000"
    else:
        assert Run.open(tmp_path).checkpoint.name == "step-000007"
    assert code == expected
    assert elsewhere(pretrain, tmp_path, STEPS) == 0
    assert result(tmp_path) == reference


def test_second_signal_ends_at_once(tmp_path):
    assert elsewhere(_stubborn, tmp_path) == 143


def _stubborn(folder) -> int:
    import os

    stop = Stop()
    stop.install()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    return 99


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "kind"), cases(*KINDS))
def test_each_method_resumes_bitwise(name, kind, precision, tmp_path):
    for folder, stops in (("whole", []), ("parts", [3, 4])):
        for limit in [*stops, 1000]:
            method = make(name, kind)
            batches = Rows(kind, method.views.count)
            stop = Stop()

            def count(step, part=0, parts=1, limit=limit, stop=stop, batches=batches):
                if step == limit:
                    stop.request()
                return batches(step, part, parts)

            outcome = train(
                method,
                count,
                batch=BATCH,
                steps=8,
                run=Run(tmp_path / folder),
                stop=stop,
                every=2,
                precision=precision,
                average=0.9,
            )
        assert outcome.finished
    assert result(tmp_path / "parts") == result(tmp_path / "whole")
    last = tmp_path / "whole" / "checkpoints" / "step-000008"
    assert (last / "average.safetensors").exists()


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def damage_zero(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


DAMAGES = [damage_cut, damage_flip, damage_zero, Path.unlink]
MEMBERS = ["method.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"]


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halfway")
    elsewhere(pretrain, folder, STEPS, "train.step:terminate:9")
    assert Run.open(folder).checkpoint.name == "step-000009"
    return folder


@pytest.mark.parametrize("damage", DAMAGES, ids=["cut", "flip", "zero", "delete"])
@pytest.mark.parametrize("member", MEMBERS)
def test_damaged_checkpoint_is_set_aside(damage, member, halfway, tmp_path, reference):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)
    damage(folder / "checkpoints" / "step-000009" / member)
    assert elsewhere(pretrain, folder, STEPS) == 0
    (event,) = (e for e in Run.open(folder).events.read() if e["kind"] == "corrupt")
    assert member in event["message"]
    assert (folder / "checkpoints" / "step-000009.corrupt").is_dir()
    assert result(folder) == reference


def test_metrics_with_half_a_line_and_rows_of_the_future(halfway, tmp_path, reference):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 10, "train/loss": 1.0}\n{"step": 12, "train/lo')
    assert elsewhere(pretrain, folder, STEPS) == 0
    assert result(folder) == reference


def test_changed_settings_are_refused_with_the_difference(halfway, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)

    def again(**changes):
        settings = {"batch": BATCH, "steps": 30, "run": Run(folder), "every": 2}
        torch.manual_seed(0)
        return train(Tiny(), Samples(), precision="fp32", **(settings | changes))

    with pytest.raises(SelfsupError) as caught:
        again(seed=5)
    assert caught.value.code == "E304" and caught.value.exit_code == 2
    assert "seed: 0 -> 5" in str(caught.value) and "steps: 14 -> 30" in str(caught.value)
    outcome = again(seed=5, allow_change=True)
    assert outcome.finished and outcome.step == 30
    assert any("seed: 0 -> 5" in event["message"] for event in outcome.events)
    again(seed=5)  # now these are the settings of the run


def test_finished_run_says_so_and_can_be_extended(tmp_path):
    def again(**changes):
        asked = Samples()
        torch.manual_seed(0)
        settings = {"batch": BATCH, "steps": 6, "run": Run(tmp_path)} | changes
        return train(Tiny(), asked, precision="fp32", **settings), asked.asked

    assert again()[1] == [*range(6)]
    outcome, asked = again()
    assert outcome.finished and outcome.exit_code == 0 and asked == []
    outcome, asked = again(steps=9, allow_change=True)
    assert outcome.step == 9 and asked == [6, 7, 8]


def test_other_torch_version_is_an_event(halfway, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(halfway, folder)
    from selfsup.checkpoint import Checkpoints, read, read_state

    last = Run.open(folder).checkpoint
    files = {part: dict(read(last, part)) for part in ("method", "optimizer", "encoder")}
    Checkpoints(folder / "checkpoints").save(9, files, read_state(last) | {"torch": "2.0.0"})
    assert elsewhere(pretrain, folder, STEPS) == 0
    (event,) = (e for e in Run.open(folder).events.read() if e["kind"] == "version")
    assert "2.0.0" in event["message"]
