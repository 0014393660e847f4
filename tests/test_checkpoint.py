"""Checkpoint files: written once, streamed, verified, and never executed."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import elsewhere, pretrain

from selfsup import checkpoint
from selfsup.checkpoint import Checkpoints
from selfsup.errors import SelfsupError
from selfsup.run import Run

torch.set_num_threads(1)


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        str(dtype): (100 * torch.randn(3, 4, generator=generator)).to(dtype)
        for dtype in checkpoint.DTYPES
    }
    tensors["scalar"] = torch.tensor(3.0)
    tensors["empty"] = torch.zeros(0, 5)
    tensors["strided"] = torch.arange(24.0).reshape(4, 6).T
    laid_out = torch.randn(2, 3, 4, 4, generator=generator)
    tensors["channels_last"] = laid_out.to(memory_format=torch.channels_last)
    return tensors


def test_the_safetensors_library_reads_what_is_written(tmp_path):
    tensors = some_tensors()
    checkpoint.write_tensors(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(tensors)
    for name, x in tensors.items():
        assert found[name].dtype == x.dtype and torch.equal(found[name], x), name


def test_keeps_the_last_ones_and_names_the_newest(tmp_path):
    kept = Checkpoints(tmp_path, keep=3)
    for step in (1, 5, 20, 100, 1234567):
        kept.save(step, {"method": {"x": torch.ones(step % 7 + 1)}}, {"step": step})
    names = [path.name for path in kept.list()]
    assert names == ["step-000020", "step-000100", "step-1234567"]
    assert kept.newest().name == "step-1234567"
    assert (tmp_path / "latest").read_text() == "step-1234567\n"
    assert checkpoint.read_state(kept.newest())["step"] == 1234567


def test_other_things_in_the_folder_stay(tmp_path):
    kept = Checkpoints(tmp_path)
    (tmp_path / "step-of-mine").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    for step in range(4):
        kept.save(step, {"method": {"x": torch.ones(1)}}, {})
    assert (tmp_path / "step-of-mine").is_dir() and (tmp_path / "notes.txt").exists()


def test_at_least_two_are_kept(tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        Checkpoints(tmp_path, keep=1)


def test_an_existing_step_is_replaced(tmp_path):
    kept = Checkpoints(tmp_path)
    for value in (1.0, 2.0):
        kept.save(3, {"method": {"x": torch.tensor(value)}}, {})
    assert dict(checkpoint.read(kept.newest(), "method"))["x"] == 2.0


def test_reading_changes_nothing(tmp_path):
    kept = Checkpoints(tmp_path)
    for step in (1, 2):
        kept.save(step, {"method": {"x": torch.ones(1)}}, {})
    (tmp_path / "step-000002" / "state.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert checkpoint.newest_whole(tmp_path).name == "step-000001"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {"../x": {}}}'])
def test_odd_manifests_are_faults_not_crashes(text, tmp_path):
    Checkpoints(tmp_path).save(1, {"method": {"x": torch.ones(1)}}, {})
    path = tmp_path / "step-000001"
    (path / "MANIFEST.json").write_text(text)
    assert checkpoint.check(path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ESTALE, errno.EIO])
def test_a_checkpoint_that_cannot_be_read_now_is_not_damaged(number, tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path)
    kept.save(1, {"method": {"x": torch.ones(3)}}, {"step": 1})
    read = Path.open

    def refusing(path, *mode, **more):
        if path.suffix == ".safetensors":
            raise OSError(number, os.strerror(number), str(path))
        return read(path, *mode, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refusing)
        if number == errno.EIO:  # a disk that is broken stays so
            assert kept.newest() is None
            return
        for look in (kept.newest, lambda: checkpoint.newest_whole(tmp_path)):
            with pytest.raises(OSError, match=os.strerror(number)):
                look()
    assert kept.newest() == tmp_path / "step-000001"


def test_a_member_that_is_a_link_is_refused(tmp_path):
    Checkpoints(tmp_path / "run").save(1, {"method": {"x": torch.ones(1)}}, {})
    path = tmp_path / "run" / "step-000001"
    (path / "method.safetensors").rename(tmp_path / "elsewhere")
    (path / "method.safetensors").symlink_to(tmp_path / "elsewhere")
    assert "plain file" in checkpoint.check(path)


def test_saving_needs_no_second_copy_of_the_model(tmp_path):
    """The resident size is measured in a process of its own, whose peak nothing else has raised."""
    code = f"""
import torch
from selfsup.checkpoint import Checkpoints
from selfsup.machine import peak_memory
tensors = {{str(i): torch.ones(1 << 20, 8) for i in range(10)}}  # 336 MB
Checkpoints({str(tmp_path / "warm")!r}).save(1, {{"method": {{"x": torch.ones(9)}}}}, {{}})
before = peak_memory()
Checkpoints({str(tmp_path / "big")!r}).save(1, {{"method": tensors}}, {{}})
print(peak_memory() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.1 * 336e6


def test_python_memory_stays_flat_while_saving(tmp_path):
    tensors = {"x": torch.ones(1 << 20)}
    tracemalloc.start()
    Checkpoints(tmp_path).save(1, {"method": tensors}, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_disk_full_while_saving_leaves_the_older_one(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path)
    kept.save(1, {"method": {"x": torch.ones(8)}}, {})
    monkeypatch.setattr(checkpoint.logs, "free_bytes", lambda path: 1000)
    with pytest.raises(SelfsupError, match="needed 4000000 bytes, free 1000 bytes") as caught:
        kept.save(2, {"method": {"x": torch.ones(1000, 1000)}}, {})
    assert caught.value.exit_code == 74
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["step-000001"]


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """A short run that stopped, and the sizes of the files it writes."""
    folder = tmp_path_factory.mktemp("sizes")
    elsewhere(pretrain, folder, 10, "train.step:terminate:4")
    return folder


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_a_run_on_a_full_disk_ends_with_74_and_goes_on_later(share, sizes, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(sizes, folder)
    largest = max(p.stat().st_size for p in Run.open(folder).checkpoint.iterdir())
    limit = int(share * largest)  # no file may grow longer than this
    assert elsewhere(pretrain, folder, 10, limit=limit) == 74
    run = Run.open(folder)
    assert run.checkpoint.name == "step-000004"
    assert not list((folder / "checkpoints").glob("*.tmp")) and not list(folder.glob("*.tmp"))
    if share > 0.5:  # there was room for the report of the error
        error = json.loads((folder / "error.json").read_text())
        assert "needed" in error["what"] and "free" in error["what"]
    assert elsewhere(pretrain, folder, 10) == 0
    assert run.done["step"] == 10


def test_what_is_no_full_disk_is_not_called_one(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(SelfsupError) as caught:
        Run(tmp_path).metrics.write({"step": 1})
    assert (caught.value.code, caught.value.exit_code) == ("E205", 74)
    assert caught.value.why == "Is a directory"


def test_metrics_on_a_full_disk(tmp_path):
    """metrics.jsonl outgrows the limit while checkpoints still fit."""
    limit = 16000  # bytes; the largest file of a checkpoint is half of that
    assert elsewhere(pretrain, tmp_path, 200, limit=limit, every=1, checkpoint_seconds=1e9) == 74
    error = json.loads((tmp_path / "error.json").read_text())
    assert "metrics.jsonl" in error["what"] and error["code"] == "E303"
    assert elsewhere(pretrain, tmp_path, 200, every=1, checkpoint_seconds=1e9) == 0
    steps = [row["step"] for row in Run.open(tmp_path).metrics.read()]
    assert steps == [*range(1, 201)]


def test_a_pickle_in_a_checkpoint_is_never_read(tmp_path):
    """A payload that would create a file when unpickled, in the place of every member in turn."""
    import pickle

    marker = tmp_path / "marker"

    class Payload:
        def __reduce__(self):
            return open, (str(marker), "w")

    for member in ("method.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"):
        folder = tmp_path / member
        elsewhere(pretrain, folder, 6, "train.step:terminate:3")
        (Run.open(folder).checkpoint / member).write_bytes(pickle.dumps(Payload()))
        (Run.open(folder).checkpoint / "method.pt").write_bytes(pickle.dumps(Payload()))
        assert elsewhere(pretrain, folder, 6) == 0
    assert not marker.exists()


def test_nothing_in_the_library_can_unpickle():
    forbidden = ("import pickle", "torch.load(", "joblib", "allow_pickle=True", "broadcast_object")
    for path in Path(checkpoint.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert not [word for word in forbidden if word in text], path
