"""`selfsup pretrain` end to end: begins, continues, repeats, refuses, accounts for every file."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import selfsup
from selfsup import cli, console, modalities, rehearse, settings
from selfsup.checkpoint import read
from selfsup.data.cache import throw_out
from selfsup.data.store import Store
from selfsup.errors import SelfsupError
from selfsup.pretrain import job as job_module
from selfsup.pretrain.job import local_size
from selfsup.report import reading
from selfsup.run import Run

TINY = {
    "method": {"name": "simclr", "hidden": 32, "dim": 16},
    "encoder": {"name": "resnet18", "width": 0.125},
    "resolution": 8,
    "steps": 6,
    "batch": 8,
    "quiet": True,
}
WORDS = [
    *("--method", "simclr", "--encoder", "resnet18", "--resolution", "8", "--steps", "6"),
    *("--batch", "8", "--quiet", "--set", "encoder.width=0.125"),
    *("--set", "method.hidden=32", "--set", "method.dim=16"),
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    before = os.environ.get("SELFSUP_CACHE")
    os.environ["SELFSUP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("SELFSUP_CACHE")
    if before is not None:
        os.environ["SELFSUP_CACHE"] = before


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """24 pictures in 2 classes, and 4 files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    draws = np.random.default_rng(0)
    for i in range(24):
        path = folder / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = draws.integers(0, 256, (8, 8, 3), np.uint8)
        pixels[:, :, i % 2] //= 3
        Image.fromarray(pixels).save(path)
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.jpg").write_text("<html><body>not found</body></html>")
    (folder / "noise.png").write_bytes(draws.bytes(300))
    whole = (folder / "a" / "00.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def reference(photos, tmp_path_factory) -> Run:
    before = snapshot(photos)
    run = selfsup.pretrain(photos, out=tmp_path_factory.mktemp("runs") / "a", **TINY)
    assert snapshot(photos) == before, "something was written among the user's data"
    return run


def snapshot(folder: Path) -> dict:
    found = [folder, *sorted(folder.rglob("*"))]
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in found}


def weights(run: Run | Path) -> dict[str, bytes]:
    checkpoint = (run if isinstance(run, Run) else Run.open(run)).checkpoint
    return {name: x.numpy().tobytes() for name, x in read(checkpoint, "method")}


def told(capsys, *words) -> tuple[int, dict]:
    code = cli.main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


# ---- a run


def test_run_folder(reference, photos):
    path = reference.path
    files = "resolved.toml env.json encoder.json data/manifest.json data/skipped.jsonl"
    for name in [*files.split(), "metrics.jsonl", "DONE"]:
        assert (path / name).exists(), name
    assert not (path / "FAILED").exists()
    card = reference.read_json("encoder.json")
    assert card["name"] == "resnet18" and card["size"] == 8 and card["kwargs"]["width"] == 0.125
    resolved = settings.load(path / "resolved.toml")
    assert resolved["train.seed"] == 0 and resolved["data.path"] == str(photos)
    assert reference.done["step"] == 6
    assert (path / "checkpoints" / "latest").read_text().strip() == "step-000006"
    assert selfsup.load(path).dim == 64


def test_the_line_of_progress_says_what_the_rows_say(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "LOG_SECONDS", 0.0)  # each row a line, not one in 30 s
    words = [word for word in WORDS if word != "--quiet"]
    words[words.index("--steps") + 1] = "12"
    code = cli.main(["pretrain", str(photos), "--out", str(tmp_path / "r"), *words])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    rows = list(Run.open(tmp_path / "r").metrics.read())
    assert code == 0 and [row["step"] for row in rows] == [1, 10, 12] and len(lines) == 3
    pace = (rows[1]["time"] - rows[0]["time"]) / 9
    for line, row in zip(lines, rows, strict=True):
        parts = line.split("  ")
        assert parts[0] == f"step {row['step']}/12"
        assert f"epoch {row['epoch']:.2f}" in parts
        assert f"{row['speed/samples_per_second']:.0f} samples/s" in parts
        assert f"data {100 * row['speed/data_wait']:.0f} %" in parts
        terms = [key for key in row if key.startswith("train/")]
        terms = set(terms) - {"train/loss", "train/lr", "train/grad_norm"}
        assert terms and all(f"{t.split('/')[1]} {row[t]:.3f}" in parts for t in terms)
    assert f"{console.duration(2 * pace)} left" in lines[1].split("  ")
    assert " left" not in lines[0]  # one step says nothing of the rest
    assert f"rank {rows[1]['monitor/rank']:.1f}" in lines[1].split("  ")
    assert "rank" not in lines[0] and f"rank {rows[1]['monitor/rank']:.1f}" in lines[2]


def test_tensorboard_gets_the_rows_of_a_run(photos, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [*WORDS, "--set", "log.tensorboard=true"]
    assert cli.main(["pretrain", str(photos), "--out", str(tmp_path / "r"), *words]) == 0
    rows = list(Run.open(tmp_path / "r").metrics.read())
    log = EventAccumulator(str(tmp_path / "r" / "tensorboard")).Reload()
    found: dict[int, dict[str, float]] = {}
    for name in log.Tags()["scalars"]:
        for point in log.Scalars(name):
            found.setdefault(point.step, {})[name] = point.value
    for row in rows:
        numbers = {k: v for k, v in row.items() if "/" in k and isinstance(v, int | float)}
        assert found.pop(row["step"]) == pytest.approx(numbers)
    assert not found and len(rows) == 2


def test_skipped_files_are_accounted_for(photos, tmp_path, capsys):
    code, result = told(capsys, "pretrain", photos, "--out", tmp_path / "r", *WORDS)
    assert code == 0 and result["status"] == "finished" and result["exit_code"] == 0
    counts = result["data"]
    assert counts["found"] == counts["used"] + counts["skipped"]
    assert counts["found"] >= 27
    lines = (tmp_path / "r" / "data" / "skipped.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == counts["skipped"] >= 3 and all(row["reason"] for row in rows)
    names = {Path(row["name"]).name for row in rows}
    assert names <= {"empty.png", "page.jpg", "noise.png", "half.png"}


def test_the_manifest_counts_exactly(photos, tmp_path):
    """Found, used and skipped are those of the folder, also over a stop, and add up to the list."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "link.png").symlink_to("/nowhere.png")
    words = ["pretrain", str(folder), "--out", str(tmp_path / "r"), *WORDS, "--steps", "20"]
    environment = {**os.environ, "SELFSUP_FAULT": "train.step:terminate:3"}
    command = [sys.executable, "-m", "selfsup", *words]
    stopped = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert stopped.returncode == 143, stopped.stderr
    halfway = Run.open(tmp_path / "r").read_json("data/manifest.json")
    assert halfway["found"] == halfway["used"] + halfway["skipped"] == 29
    assert halfway["unseen"] == 28 - 3 * 8 and "4 of the used were not reached" in stopped.stdout
    assert cli.main(words) == 0
    found = Run.open(tmp_path / "r").read_json("data/manifest.json")
    assert (found["found"], found["used"], found["skipped"], found["unseen"]) == (29, 24, 5, 0)
    lines = (tmp_path / "r" / "data" / "skipped.jsonl").read_text().splitlines()
    assert len(lines) == 5 == sum(found["reasons"].values())
    assert found["reasons"]["link-broken"] == 1 and found["samples"] == 28


def test_a_file_that_was_unreadable_before_a_stop_stays_counted(photos, tmp_path):
    """It is in the list, so it is in the sum, although the second part of the run reads it."""
    out = tmp_path / "r"
    assert cli.main(["pretrain", str(photos), "--out", str(out), *WORDS, "--steps", "6"]) == 0
    row = {"name": "a/02.png", "code": "io", "reason": "cannot be read: a cable was loose"}
    with (out / "data" / "skipped.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    words = ["--steps", "12", "--allow-change"]
    assert cli.main(["pretrain", "--out", str(out), "--quiet", *words]) == 0
    found = Run.open(out).read_json("data/manifest.json")
    assert (found["found"], found["used"], found["skipped"]) == (28, 23, 5)
    assert found["reasons"]["io"] == 1


def test_finished_run_says_so(reference, photos, capsys):
    before = snapshot(reference.path)
    code, result = told(capsys, "pretrain", photos, "--out", reference.path, *WORDS)
    assert code == 0 and result["already_finished"] and result["step"] == 6
    assert cli.main(["pretrain", "--out", str(reference.path)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert snapshot(reference.path) == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--seed", "4"], "train.seed: 0 -> 4"),
        (["--set", "method.temperature=0.9"], "method.temperature: 0.2 -> 0.9"),
        (["--epochs", "3"], "train.epochs: (not set) -> 3.0"),
        (["--method", "mae", "--encoder", "vit_tiny"], "method.name: 'simclr' -> 'mae'"),
    ],
)
def test_changed_settings_are_refused_with_the_difference(reference, words, line, capsys):
    assert cli.main(["pretrain", "--out", str(reference.path), *words]) != 0
    err = capsys.readouterr().err
    assert "error[E304]" in err and line in err and "--allow-change" in err
    assert settings.load(reference.path / "resolved.toml")["train.seed"] == 0


def test_resolved_file_makes_the_same_run(reference, tmp_path):
    """Bit for bit, from the file alone."""
    again = selfsup.pretrain(
        config=reference.path / "resolved.toml", out=tmp_path / "b", quiet=True
    )
    assert weights(again) == weights(reference)
    before = settings.load(reference.path / "resolved.toml")
    assert settings.load(again.path / "resolved.toml").differences(before) == []


def test_labels_never_reach_the_loss(reference, photos, tmp_path, monkeypatch):
    close, closed = Store.close, []
    monkeypatch.setattr(Store, "close", lambda store: (closed.append(id(store)), close(store)))
    watched = selfsup.pretrain(photos, out=tmp_path / "w", labels=photos, **TINY)
    assert weights(watched) == weights(reference)
    assert len(set(closed)) == 2, "that of the labelled data, too"
    rows = list(watched.metrics.read())
    values = [row["eval/knn_top1"] for row in rows if "eval/knn_top1" in row]
    assert values and all(0 <= value <= 1 for value in values)


def test_seed_changes_the_run_and_is_recorded(reference, photos, tmp_path):
    other = selfsup.pretrain(photos, out=tmp_path / "s", seed=1, **TINY)
    assert weights(other) != weights(reference)
    assert settings.load(other.path / "resolved.toml")["train.seed"] == 1


def test_interrupted_run_continues_to_the_same_weights(reference, photos, tmp_path):
    """Ctrl-C saves, says how to go on, exits 130; the same command then ends as if nothing was."""
    command = [sys.executable, "-m", "selfsup", "pretrain", photos, "--out", tmp_path / "i", *WORDS]
    # sums over another number of threads round otherwise, and other tests may have set it
    threads = str(torch.get_num_threads())
    fault = {"SELFSUP_FAULT": "train.step:interrupt:3", "OMP_NUM_THREADS": threads}
    environment = {**os.environ, **fault}
    stopped = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert stopped.returncode == 130, stopped.stderr
    assert f"to continue: selfsup pretrain --out {tmp_path / 'i'}" in stopped.stdout
    assert not (tmp_path / "i" / "DONE").exists()
    step = int(Run.open(tmp_path / "i").checkpoint.name.removeprefix("step-"))
    assert 0 < step < 6
    assert cli.main(list(map(str, command[3:]))) == 0
    assert weights(tmp_path / "i") == weights(reference)


def test_interrupt_in_python_is_not_swallowed(photos, tmp_path):
    """Saved first; but the lines after the call must not run on half a training."""
    code = (
        "import selfsup, sys\n"
        f"selfsup.pretrain({str(photos)!r}, out={str(tmp_path / 'k')!r}, **{TINY!r})\n"
        "print('went on')"
    )
    environment = {**os.environ, "SELFSUP_FAULT": "train.step:interrupt:2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert "KeyboardInterrupt" in done.stderr and "went on" not in done.stdout
    assert Run.open(tmp_path / "k").checkpoint.exists()


def test_start_from_another_run(reference, photos, tmp_path, capsys):
    begun = selfsup.pretrain(
        photos, out=tmp_path / "f", from_run=reference, steps=1, batch=8, quiet=True,
        method=TINY["method"], optim={"lr": 1e-12, "weight_decay": 0.0},
    )  # fmt: skip
    resolved = settings.load(begun.path / "resolved.toml")
    assert resolved["encoder.width"] == 0.125 and resolved["data.resolution"] == 8
    source, taken = weights(reference), weights(begun)
    name = next(n for n in source if n.endswith("encoder.conv1.weight"))
    a, b = (np.frombuffer(w[name], np.float32) for w in (source, taken))
    np.testing.assert_allclose(a, b, atol=1e-5)
    code = cli.main(
        ["pretrain", str(photos), "--from", str(reference.path), "--encoder", "vit_tiny"]
    )
    assert code == 2 and "--from is a run with resnet18" in capsys.readouterr().err


@pytest.mark.parametrize("left", ["step-000000.tmp", "step-000000.corrupt", "step-000003"])
def test_weights_are_taken_where_no_checkpoint_is_whole(left, reference, photos, tmp_path):
    (tmp_path / "f" / "checkpoints" / left).mkdir(parents=True)
    begun = selfsup.pretrain(
        photos, out=tmp_path / "f", from_run=reference, steps=1, batch=8, quiet=True,
        method=TINY["method"], optim={"lr": 1e-12, "weight_decay": 0.0},
    )  # fmt: skip
    source, taken = weights(reference), weights(begun)
    name = next(n for n in source if n.endswith("encoder.conv1.weight"))
    a, b = (np.frombuffer(w[name], np.float32) for w in (source, taken))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_killed_before_the_first_checkpoint_the_weights_are_taken_again(
    reference, photos, tmp_path
):
    words = ["pretrain", str(photos), "--from", str(reference.path), "--out", str(tmp_path / "f")]
    words += ["--steps", "1", "--batch", "8", "--quiet", "--set", "optim.lr=1e-12"]
    words += ["--set", "optim.weight_decay=0.0"]
    environment = {**os.environ, "SELFSUP_FAULT": "checkpoint.before_manifest:kill"}
    command = [sys.executable, "-m", "selfsup", *words]
    killed = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [p.name for p in (tmp_path / "f" / "checkpoints").iterdir()] == ["step-000000.tmp"]
    assert cli.main(words) == 0
    source, taken = weights(reference), weights(Run.open(tmp_path / "f"))
    name = next(n for n in source if n.endswith("encoder.conv1.weight"))
    a, b = (np.frombuffer(w[name], np.float32) for w in (source, taken))
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("where", ["Loader", "build_method", "take_weights", "forecast"])
def test_the_store_of_a_run_that_fails_early_is_closed(where, photos, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    package = sys.modules["selfsup.pretrain"]
    places = {"take_weights": package, "forecast": rehearse}
    monkeypatch.setattr(places.get(where, job_module), where, fail)
    words = ["pretrain", str(photos), *WORDS, "--out", str(tmp_path / "f")]
    words += ["--set", f"data.cache={tmp_path / 'cache'}"]
    cli.main([*words, "--dry-run"] if where == "forecast" else words)
    (path,) = (tmp_path / "cache" / "stores").iterdir()
    assert throw_out(path)  # nobody holds it


def test_numpy_array(tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), np.uint8)
    run = selfsup.pretrain(pictures, out=tmp_path / "n", **TINY)
    assert run.done["step"] == 6
    assert settings.load(run.path / "resolved.toml")["data.path"] is None
    assert run.read_json("data/manifest.json")["judged_by"] == "LABELLED_DATA"


@pytest.mark.parametrize("labelled", [True, False])
def test_the_last_lines_name_what_can_judge(labelled, photos, tmp_path, capsys):
    folder = tmp_path / "my photos"
    if labelled:
        folder.mkdir()
        for place in photos.iterdir():
            (folder / place.name).symlink_to(place)
    else:
        shutil.copytree(photos / "a", folder)
    out, links = tmp_path / "my run", ["--follow-links"] * labelled
    assert cli.main(["pretrain", str(folder), "--out", str(out), *WORDS, *links]) == 0
    data = f"'{folder}' --follow-links" if labelled else "LABELLED_DATA"
    command = f"selfsup evaluate '{out}' {data}"
    told = capsys.readouterr().out
    assert f"next:\n  {command}\n  selfsup report '{out}'\n" in told
    assert reading.read(out).evaluate == command


# ---- small and bad data


@pytest.mark.parametrize("count", [2, 7, 9])
def test_few_samples_train_with_a_smaller_batch(count, tmp_path, capsys):
    np.save(
        tmp_path / "p.npy", np.random.default_rng(2).integers(0, 256, (count, 8, 8, 3), np.uint8)
    )
    code, result = told(capsys, "pretrain", tmp_path / "p.npy", "--out", tmp_path / "r", *WORDS)
    assert code in (0, 3) and result["step"] == 6, "never a silent run of no steps"
    assert result["epochs"] == pytest.approx(6 * min(8, count) / count)


def test_no_samples_and_one_sample(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    code, result = told(capsys, "pretrain", tmp_path / "none")
    assert code == 66 and result["error"]["do"]
    np.save(tmp_path / "one.npy", np.zeros((1, 8, 8, 3), np.uint8))
    code, result = told(capsys, "pretrain", tmp_path / "one.npy", "--out", tmp_path / "r")
    assert code == 66 and result["error"]["code"] == "E102"
    assert not (tmp_path / "r").exists()


def test_all_rejected(tmp_path, capsys):
    folder = tmp_path / "bad"
    folder.mkdir()
    for i in range(8):
        (folder / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    code, result = told(capsys, "pretrain", folder, "--out", tmp_path / "r", *WORDS)
    assert code in (65, 66) and result["error"]["code"] in ("E102", "E103")


def test_a_hundred_copies_of_one_picture(tmp_path, capsys):
    """Their views differ, by chance alone: the data are the fault, and it is told as one."""
    folder = tmp_path / "same"
    folder.mkdir()
    pixels = np.random.default_rng(3).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "000.png")
    for i in range(1, 100):
        shutil.copy(folder / "000.png", folder / f"{i:03d}.png")
    out = tmp_path / "r"
    words = ["pretrain", str(folder), "--out", str(out), *WORDS, "--steps", "10"]
    assert cli.main(words) == 3
    assert "all samples of a batch are copies of one" in capsys.readouterr().out
    (event,) = (e for e in Run.open(out).events.read() if e["kind"] == "verdict")
    assert "selfsup scan" in event["do"] and event["step"] == 10
    manifest = Run.open(out).read_json("data/manifest.json")
    assert (manifest["copies"], manifest["copies_among"]) == (99, 100)
    assert cli.main([*words[:3], str(tmp_path / "one"), *WORDS, "--drop-copies"]) == 66
    assert "1 usable sample: nothing to compare" in capsys.readouterr().err


def test_copies_are_told_and_left_out(photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    shutil.copy(folder / "a" / "02.png", folder / "b" / "zz.png")
    again = np.asarray(Image.open(folder / "a" / "04.png"))
    Image.fromarray(again).save(folder / "b" / "04.bmp")  # other bytes, the same pixels
    words = [w for w in WORDS if w != "--quiet"]
    assert cli.main(["pretrain", str(folder), "--out", str(tmp_path / "with"), *words]) == 0
    assert "2 of 30 samples are exact copies" in " ".join(capsys.readouterr().err.split())
    code, result = told(
        capsys, "pretrain", folder, "--out", tmp_path / "without", *WORDS, "--drop-copies"
    )
    assert code == 0 and result["skipped"]["copy"] == 1
    assert (result["data"]["found"], result["data"]["used"]) == (30, 25)
    rows = map(json.loads, (tmp_path / "without/data/skipped.jsonl").read_text().splitlines())
    assert [row["name"] for row in rows if row["code"] == "copy"] == ["b/zz.png"]
    # the same command again finds the same samples
    code, result = told(capsys, "pretrain", "--out", tmp_path / "without", "--steps", 8)
    assert code == 2 and result["error"]["code"] == "E304"
    code, result = told(
        capsys, "pretrain", "--out", tmp_path / "without", "--steps", 8, "--allow-change"
    )
    assert code == 0 and result["step"] == 8 and result["skipped"]["copy"] == 1


# ---- where it writes


def test_never_into_the_data(photos, capsys, monkeypatch):
    before = snapshot(photos)
    assert cli.main(["pretrain", str(photos), "--out", str(photos / "runs"), *WORDS]) == 2
    monkeypatch.chdir(photos)
    assert cli.main(["pretrain", ".", *WORDS]) == 2  # runs/ would be among the pictures
    assert "into the data folder" in capsys.readouterr().err
    assert snapshot(photos) == before


@pytest.mark.parametrize(
    "words",
    [
        ("embed", "RUN", "PHOTOS", "--out", "PHOTOS/vectors.parquet"),
        ("scan", "PHOTOS", "--out", "PHOTOS/sheet.png"),
        ("scan", "PHOTOS", "--hashes", "PHOTOS/hashes.jsonl"),
        ("compare", "PHOTOS", "--methods", "simclr,byol", "--steps", "2", "--out", "PHOTOS/c"),
        ("finetune", "RUN", "PHOTOS", "--out", "PHOTOS/model"),
    ],
    ids=lambda words: words[0],
)
def test_no_verb_writes_among_the_data(words, reference, photos, capsys):
    before = snapshot(photos)
    places = {"RUN": str(reference.path), "PHOTOS": str(photos)}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    assert cli.main([*words]) == 2
    assert "into the data folder" in capsys.readouterr().err
    assert snapshot(photos) == before


def test_what_was_odd_is_said(photos, tmp_path, capsys):
    (tmp_path / "some").mkdir()
    for path in sorted(photos.glob("*/*.png")):
        (tmp_path / "some" / path.name).write_bytes(path.read_bytes())
    whole = (photos / "a" / "00.png").read_bytes()
    (tmp_path / "some" / "half.png").write_bytes(whole[: len(whole) * 3 // 4])
    words = [word for word in WORDS if word != "--quiet"]
    keep = ("--set", "modality.keep_truncated=true")
    out = ("--out", str(tmp_path / "run"))
    assert cli.main(["pretrain", str(tmp_path / "some"), *words, *keep, *out]) == 0
    assert "used, but odd: truncated, kept (1 times)" in capsys.readouterr().out


def test_not_into_a_folder_of_something_else(photos, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert cli.main(["pretrain", str(photos), "--out", str(tmp_path), *WORDS]) == 2
    assert "other things in it" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_default_folder_has_the_name_of_the_data(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, result = told(capsys, "pretrain", photos, *WORDS)
    assert code == 0
    run = Path(result["run"])
    assert run.parts[0] == "runs" and run.name.startswith(photos.name.lower()[:5])


def test_a_run_in_use_is_refused(reference, photos, tmp_path, capsys):
    with Run(tmp_path / "busy").lock():
        words = ["pretrain", str(photos), "--out", str(tmp_path / "busy"), *WORDS]
        done = subprocess.run(
            [sys.executable, "-m", "selfsup", *words], capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 75 and str(os.getpid()) in done.stderr


# ---- settings shown, runs rehearsed


def test_print_config(photos, capsys, monkeypatch):
    monkeypatch.setenv("SELFSUP_OPTIM_WARMUP", "0.25")
    words = ["pretrain", photos, *WORDS, "--print-config"]
    code, result = told(capsys, *words)
    assert code == 0
    assert result["optim.warmup"] == {"value": 0.25, "source": "SELFSUP_OPTIM_WARMUP", "reason": ""}
    assert result["train.batch"]["source"] == "--batch"
    assert result["method.temperature"]["source"] == "default"
    assert cli.main(list(map(str, words))) == 0
    out = capsys.readouterr().out
    for line in ("optim.warmup", "SELFSUP_OPTIM_WARMUP", "--batch", "simclr's own"):
        assert line in out


def test_dry_run_writes_nothing_and_foretells(photos, tmp_path, capsys):
    out = tmp_path / "dry"
    code, seen = told(capsys, "pretrain", photos, "--out", out, *WORDS, "--steps", 600, "--dry-run")
    assert code == 0 and seen["go"] is True and not out.exists()
    assert seen["steps"] == 600 and seen["seconds_low"] < seen["seconds"] < seen["seconds_high"]
    assert seen["seconds"] == pytest.approx(600 * 8 / seen["samples_per_second"], rel=0.2)
    assert seen["memory_bytes"] > 50e6 and seen["run_bytes"] > 1e6
    assert 1 < seen["joules"] / seen["seconds"] < 1e6  # watts


def test_dry_run_says_no(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rehearse, "_free", lambda folder: 1000)
    words = ["pretrain", photos, "--out", tmp_path / "no", *WORDS, "--dry-run"]
    assert cli.main(list(map(str, words))) == 74
    out = capsys.readouterr().out
    assert "NO-GO: disk: the run needs" in out and "1 kB" in out


def test_refusals():
    good = rehearse.Forecast(
        steps=1, epochs=1.0, batch=8, samples_per_second=1.0, seconds=1.0, seconds_low=0.8,
        seconds_high=1.2, decode_seconds=0.0, memory_bytes=10, memory_available=20,
        device_bytes=0, device_available=0, run_bytes=10, run_free=20, cache_bytes=30,
        cache_free=20, joules=7.2e6,
    )  # fmt: skip
    assert good.go and "decoded again in every epoch" in good.text() and "+- 20 %" in good.text()
    assert "energy  about 2 kWh" in good.text()
    for change in ({"memory_available": 9}, {"run_free": 9}, {"device_bytes": 1}):
        assert not replace(good, **change).go, change


def test_stopped_while_planning(photos, tmp_path, capsys):
    """The flag is polled before there is anything to save, too."""
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    words = ["pretrain", str(photos), "--minutes", "5", "--out", str(tmp_path / "r"), "--quiet"]
    code = cli.main(words)
    timer.join()
    assert code == 143


@pytest.mark.parametrize(
    ("side", "patch", "local"),
    [(48, 12, 24), (48, 6, 24), (56, 7, 21), (40, 5, 15), (224, 14, 98), (224, 16, 96), (8, 8, 8)],
)
def test_local_views_are_tiled_by_the_patches(side, patch, local):
    modality = modalities.find("image")()
    encoder = modality.encoder("vit_tiny", side, patch=patch, depth=1)
    found = local_size(modality, encoder, side)
    assert found == local <= side and encoder(torch.zeros(1, 3, found, found)).shape == (1, 192)
    assert local_size(modality, modality.encoder("resnet18", 8), 8) is None


def test_dino_with_a_patch_that_does_not_divide_the_usual_local_view(photos, tmp_path):
    words = ["pretrain", str(photos), "--out", str(tmp_path / "r"), "--method", "dino", "--quiet"]
    words += ["--encoder", "vit_tiny", "--resolution", "40", "--steps", "1", "--batch", "4"]
    sets = ("encoder.patch=5", "encoder.depth=1", "method.prototypes=8", "method.hidden=8")
    assert cli.main([*words, *(word for setting in sets for word in ("--set", setting))]) == 0


def test_settings_that_cannot_be_built(photos, tmp_path):
    with pytest.raises(SelfsupError) as caught:
        selfsup.pretrain(
            photos, out=tmp_path / "x", **{**TINY, "encoder": {"name": "vit_tiny", "patch": 3}}
        )
    assert caught.value.code in ("E201", "E202") and "patch" in str(caught.value)


def test_a_method_for_other_data_is_named_before_anything_is_written(photos, tmp_path, capsys):
    words = ["pretrain", str(photos), "--out", str(tmp_path / "x"), "--steps", "2"]
    assert cli.main([*words, "--method", "world_model"]) == 2
    assert "world_model does not learn from image data" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_start_that_failed_holds_nobody_to_its_settings(photos, tmp_path):
    out = tmp_path / "x"
    with pytest.raises(SelfsupError, match="MAE"):
        selfsup.pretrain(photos, out=out, **{**TINY, "method": "mae"})
    assert (out / "resolved.toml").exists()
    assert selfsup.pretrain(photos, out=out, **TINY).done
