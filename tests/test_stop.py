"""Every verb ends soon after a signal, says so, and leaves nothing half written."""

import hashlib
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import elsewhere

import selfsup
from selfsup.stop import PATIENCE, Stop, Stopped, stop

WORDS = [
    *("--method", "simclr", "--encoder", "resnet18", "--resolution", "8", "--steps", "2"),
    *("--batch", "8", "--quiet", "--set", "encoder.width=0.125"),
    *("--set", "method.hidden=32", "--set", "method.dim=16"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Labelled pictures, one of them bad, a run on them, and what each verb has written before."""
    root = tmp_path_factory.mktemp("stop")
    draws = np.random.default_rng(0)
    for i in range(40):
        path = root / "photos" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    (root / "photos" / "empty.png").write_bytes(b"")
    os.environ["SELFSUP_CACHE"] = str(root / "cache")
    selfsup.pretrain(
        root / "photos", out=root / "run", resolution=8, steps=2, batch=8, quiet=True,
        method={"name": "simclr", "hidden": 32, "dim": 16},
        encoder={"name": "resnet18", "width": 0.125},
    )  # fmt: skip
    yield root
    os.environ.pop("SELFSUP_CACHE")


def verb(root, words, fault, after=None) -> int:
    """A command in this process; `after` seconds a signal comes from outside."""
    from selfsup import cli

    torch.set_num_threads(1)
    os.environ |= {"SELFSUP_FAULT": fault, "SELFSUP_CACHE": str(root / "cache")}
    os.chdir(root)
    told = os.open(root / "told.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(told, 2)
    if after is not None:

        def kill():
            (root / "killed").write_text(str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Timer(after, kill).start()
    return cli.main(words)


def held(root) -> dict:
    """Every file that a person would look at, and what is in it."""
    shown = [p for p in root.rglob("*") if p.is_file() and "cache" not in p.parts]
    shown = [p for p in shown if p.name not in ("told.txt", "killed", "lock", ".lock")]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in shown}


SCAN = ["scan", "photos", "--out", "sheet.png", "--skipped", "bad.jsonl", "--hashes", "h.jsonl"]
EVALUATE = ["evaluate", "run", "photos", "--no-finetune", "--seeds", "2", "--shots", "1"]
PLAN = ["pretrain", "photos", "--minutes", "600", "--out", "other"]
CASES = [
    ("scan.sample:terminate:7", SCAN),
    ("scan.sample:interrupt:7", SCAN),
    ("evaluate.features:terminate:2", EVALUATE),
    ("evaluate.keep:interrupt", EVALUATE),
    ("embed.block:terminate", ["embed", "run", "photos", "--out", "v.parquet"]),
    ("embed.finish:terminate", ["embed", "run", "photos", "--out", "v.csv"]),
    ("export.prove:terminate", ["export", "run"]),
    ("report.write:interrupt", ["report", "run"]),
    ("plan.measure:terminate", PLAN),
    ("plan.measure:interrupt:2", PLAN),
]


@pytest.mark.parametrize(("fault", "words"), CASES, ids=[case[0] for case in CASES])
def test_a_verb_leaves_nothing_half_written(fault, words, place):
    before = held(place)
    code = 143 if "terminate" in fault else 130
    assert elsewhere(verb, place, words, fault) == code
    told = (place / "told.txt").read_text()
    assert "stopped; nothing is half written" in told and "Traceback" not in told
    after = held(place)
    kept = {path for path in after if ".partial/" in path or path.endswith(".skipped.jsonl")}
    assert {path: after[path] for path in after if path not in kept} == before
    if kept:
        assert "the same command goes on from there" in told
        assert elsewhere(verb, place, words, "") == 0
        assert not list(place.glob("*.partial"))
    for path in (p for p in place.iterdir() if p.name.startswith("v.")):
        path.unlink()


def test_an_export_that_is_stopped_while_it_takes_its_place_is_there(place):
    """The old one is gone already: the new one comes first, then the end."""
    words = ["export", "run", "--out", "taken"]
    (place / "taken").mkdir()
    (place / "taken" / "MANIFEST.json").write_text("{}")
    assert elsewhere(verb, place, words, "export.place:terminate") == 0
    assert selfsup.load(place / "taken").dim == 64
    assert not list(place.glob(".taken*"))


@pytest.mark.parametrize("after", [0.05, 0.6, 2.0])
def test_a_signal_from_outside_while_planning(after, place):
    assert elsewhere(verb, place, [*PLAN, "--resolution", "64"], "", after=after) == 143
    took = time.monotonic() - float((place / "killed").read_text())
    assert took < PATIENCE + 3.0  # (and what else this machine does)
    assert not (place / "other").exists()


def test_deep_in_a_computation(tmp_path):
    """No signal interrupts it, and the main thread would hear of it only afterwards."""
    begun = time.monotonic()
    assert elsewhere(busy, 0.5) == 143
    assert time.monotonic() - begun < 20


def busy(patience) -> int:
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with Stop().installed(patience):
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2**31 - 1)  # some twenty minutes
    return 99


def test_who_polls_is_not_ended(tmp_path):
    asked = Stop()
    with asked.installed(patience=0.05), asked.polled():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        asked.check()
        assert asked.requested
    with pytest.raises(Stopped):
        asked.check()


def test_a_block_that_is_over_is_not_ended_later():
    asked, before = Stop(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), asked.installed(patience=0.2):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    time.sleep(0.4)
    assert signal.getsignal(signal.SIGTERM) is before and asked.exit_code == 143


def test_nothing_that_catches_errors_catches_a_request():
    assert not issubclass(Stopped, Exception)
    stop.request(signal.SIGINT)
    try:
        with pytest.raises(Stopped):  # noqa: PT012
            try:
                stop.check()
            except Exception:  # noqa: BLE001
                pytest.fail("swallowed")
    finally:
        stop.signal = None
