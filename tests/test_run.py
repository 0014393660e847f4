"""The run folder: who may work on it, what it says about itself, what must not change."""

import json
import os
import socket
import tarfile
import time
from array import array

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import elsewhere

from selfsup.data import open_source
from selfsup.data.files import FileSource
from selfsup.data.names import Names as FileNames
from selfsup.errors import SelfsupError
from selfsup.logs import Lines, TensorBoard, open_sink
from selfsup.run import SILENT, Run, differences


def hold(folder, seconds=20.0) -> int:
    with Run(folder).lock():
        (folder / "held").touch()
        time.sleep(seconds)
    return 0


def held(folder):
    process = elsewhere(hold, folder, wait=False)
    deadline = time.monotonic() + 20
    while not (folder / "held").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_a_second_process_is_refused_by_name(tmp_path):
    process = held(tmp_path)
    try:
        with pytest.raises(SelfsupError) as caught, Run(tmp_path).lock():
            pytest.fail("got in")
        assert caught.value.exit_code == 75
        assert f"process {process.pid} on {socket.gethostname()}" in caught.value.what
        assert "s ago" in caught.value.what
        assert Run.open(tmp_path).status == "running at step 0"
    finally:
        process.kill()
        process.join()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    process = held(tmp_path)
    process.kill()
    process.join()
    assert Run.open(tmp_path).status == "stopped at step 0"
    with Run(tmp_path).lock() as run:
        assert run.owner()["pid"] == os.getpid()
    assert run.owner() is None


@pytest.mark.parametrize(("age", "refused"), [(5.0, True), (SILENT + 5, False)])
def test_another_host_is_judged_by_its_heartbeat(age, refused, tmp_path):
    run = Run(tmp_path)
    run.write_json("owner.json", {"pid": 1, "host": "elsewhere"})
    then = time.time() - age
    os.utime(tmp_path / "owner.json", (then, then))
    if refused:
        with pytest.raises(SelfsupError, match="process 1 on elsewhere"), run.lock():
            pytest.fail("got in")
    with_heartbeat_gone = time.time() - SILENT - 1
    os.utime(tmp_path / "owner.json", (with_heartbeat_gone, with_heartbeat_gone))
    with run.lock():
        assert run.owner()["host"] == socket.gethostname()


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr("selfsup.run.HEARTBEAT", 0.05)
    with Run(tmp_path).lock() as run:
        os.utime(tmp_path / "owner.json", (0, 0))
        deadline = time.monotonic() + 10
        while run.owner()["age"] > 1000:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_locks_nest_in_one_process(tmp_path):
    run = Run(tmp_path)
    with run.lock(), run.lock():
        pass
    assert run.owner() is None
    with Run(tmp_path).lock():
        pass


def test_opening_what_is_no_run(tmp_path):
    with pytest.raises(SelfsupError) as caught:
        Run.open(tmp_path)
    assert caught.value.exit_code == 66
    assert not list(tmp_path.iterdir())  # looking makes no folders


def test_status_and_repr(tmp_path):
    run = Run(tmp_path)
    run.fail(step=4, message="it <broke>")
    assert "failed at step 4" in repr(run) and "&lt;broke&gt;" in run._repr_html_()
    run.finish(step=9, verdict="healthy")
    assert run.status == "finished at step 9, healthy" and run.failed is None
    run.reopen()
    assert run.done is None


def test_settings_that_differ_are_listed(tmp_path):
    run = Run(tmp_path)
    assert run.settle("[train]\nbatch = 128\nseed = 0\n") == []
    assert run.settle("[train]\nseed = 0\nbatch = 128\n") == []
    changed = "[train]\nbatch = 256\nseed = 0\n[optim]\nlr = 0.1\n"
    with pytest.raises(SelfsupError) as caught:
        run.settle(changed)
    assert "train.batch: 128 -> 256" in caught.value.what
    assert "128" in (tmp_path / "resolved.toml").read_text()
    assert len(run.settle(changed, allow_change=True)) == 2
    assert run.settle(changed) == []


def test_differences_see_types():
    assert differences({"a": 1, "b": {"c": 2}}, {"a": True, "b": {"c": 2}}) == ["a: 1 -> True"]


class Names:
    kind = "folder"

    def __init__(self, *names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def name(self, i):
        return self.names[i]

    def fingerprint(self):
        return "|".join(self.names)

    def stamps(self):
        return None


def test_changed_data_are_counted(tmp_path):
    run = Run(tmp_path)
    odd = "d/\udcff.jpg"  # a name that is not UTF-8
    assert run.settle_data(Names("a", "b", odd)) == ""
    assert run.settle_data(Names("a", "b", odd)) == ""
    with pytest.raises(SelfsupError, match="2 added, 1 removed"):
        run.settle_data(Names("a", odd, "e", "f"))
    assert run.settle_data(Names("a", odd, "e", "f"), allow_change=True) == "2 added, 1 removed"
    assert run.settle_data(Names("a", odd, "e", "f")) == ""


def source(kind, folder, tmp_path):
    """The files of a folder in one of the forms that data come in."""
    if kind == "folder":
        return open_source(folder)
    if kind == "labelled":
        (tmp_path / "l.csv").write_text("path,label\n0.png,a\n")
        return open_source(folder, labels=tmp_path / "l.csv")
    if kind == "tar":
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as archive:
            for name in sorted(folder.iterdir()):
                archive.add(name, name.name)
        return open_source(path)
    if kind == "parquet":
        path = tmp_path / "a.parquet"
        names = sorted(folder.iterdir())
        pq.write_table(pa.table({"image": [name.read_bytes() for name in names]}), path)
        return open_source(path)
    assert kind == "array"
    pixels = [np.full((4, 4), name.stat().st_size, np.uint8) for name in sorted(folder.iterdir())]
    return open_source(np.stack(pixels))


@pytest.mark.parametrize("kind", ["folder", "labelled", "tar", "parquet", "array"])
def test_files_that_were_rewritten_are_counted(kind, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.png").write_bytes(b"x" * (30 + i))
    run = Run(tmp_path / "run")
    assert run.settle_data(source(kind, folder, tmp_path)) == ""
    (folder / "2.png").write_bytes(b"y" * 99)
    counted = {"tar": 6, "parquet": 6}.get(kind, 1)  # an archive is known as a whole
    with pytest.raises(SelfsupError) as caught:
        run.settle_data(source(kind, folder, tmp_path))
    assert f"0 added, 0 removed, {counted} changed" in caught.value.what
    (folder / "6.png").write_bytes(b"z")
    last = source(kind, folder, tmp_path)
    change = run.settle_data(last, allow_change=True)
    assert change == f"1 added, 0 removed, {counted} changed"
    assert run.settle_data(last) == ""


def test_a_touched_file_counts_as_changed_and_another_order_is_told(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    run, paths = Run(tmp_path / "run"), [tmp_path / f"{i}.png" for i in range(3)]
    run.settle_data(open_source(paths))
    with pytest.raises(SelfsupError, match="the same samples in another order"):
        run.settle_data(open_source(paths[::-1]))
    os.utime(paths[1], (0, 0))
    with pytest.raises(SelfsupError, match="0 added, 0 removed, 1 changed"):
        run.settle_data(open_source(paths))


def test_a_million_files_are_compared_in_seconds(tmp_path):
    n = 200_000
    names = FileNames(f"d/{i:07d}.jpg".encode() for i in range(n))
    sizes, times = array("q", range(n)), array("q", range(n))
    run = Run(tmp_path)
    run.settle_data(FileSource("here", b"", names, sizes, times))
    sizes[7], times[9] = 0, 0
    begun = time.monotonic()
    with pytest.raises(SelfsupError, match="2 changed"):
        run.settle_data(FileSource("here", b"", names, sizes, times))
    assert time.monotonic() - begun < 4  # (1 s where nothing else runs; a million takes 5)


def test_lines_spell_what_is_no_number_and_read_past_halves(tmp_path):
    lines = Lines(tmp_path / "metrics.jsonl")
    lines.write({"step": 1, "x": float("nan"), "y": [float("inf"), -float("inf"), 1.5]})
    with lines.path.open("ab") as file:
        file.write(b'{"step": 2}\nnot json\n[1]\n{"step": 3')
    assert list(lines.read()) == [
        {"step": 1, "x": "NaN", "y": ["Infinity", "-Infinity", 1.5]},
        {"step": 2},
    ]
    for line in lines.path.read_bytes().splitlines()[:1]:
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
    lines.keep_until(1)
    assert [row["step"] for row in lines.read()] == [1]
    assert lines.path.read_bytes().endswith(b"\n")


def test_a_line_after_half_a_line_is_whole(tmp_path):
    lines = Lines(tmp_path / "events.jsonl")
    lines.write({"step": 1})
    with lines.path.open("ab") as file:
        file.write(b'{"step": 2, "x"')
    lines.write({"step": 3})
    lines.write({"step": 4})
    assert [row["step"] for row in lines.read()] == [1, 3, 4]
    assert lines.path.read_bytes().count(b"\n") == 4


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoard(tmp_path)
    sink({"step": 3, "train/loss": 2.5, "verdict": "healthy", "time": 1.0})
    sink.close()
    log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert log.Tags()["scalars"] == ["train/loss"]
    (point,) = log.Scalars("train/loss")
    assert (point.step, point.value) == (3, 2.5)


def test_a_missing_extra_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(SelfsupError) as caught:
        open_sink("wandb", tmp_path)
    assert caught.value.exit_code == 2 and "pip install" in caught.value.do
    with pytest.raises(ValueError, match="tensorboard or wandb"):
        open_sink("paper", tmp_path)
