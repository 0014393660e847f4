"""Every verb on a few pictures, one after the other, in one process that has no network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from selfsup import cli

ROOT = Path(__file__).resolve().parent.parent
# Each verb writes to what it takes for its standard output. What it asks of the network is seen
# by the interpreter, also where the failure is swallowed.
SCRIPT = """
import json, os, socket, sys
asked = []

def hook(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        asked.append([event, str(arguments)])
    if event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        asked.append([event, str(arguments[1:])])

sys.addaudithook(hook)
from selfsup.cli import main

codes = {}
for name, words in json.loads(sys.argv[1]):
    with open(f"{name}.out", "wb") as file:
        os.dup2(file.fileno(), 1)
        codes[name] = main([*words, "--json"])
        sys.stdout.flush()
quiet = list(asked)
try:
    socket.create_connection(("192.0.2.1", 80), 0.2).close()  # an address that nobody has
    reachable = True
except OSError as error:
    reachable = "unreachable" not in str(error)
open("told.json", "w").write(json.dumps([codes, quiet, reachable, len(asked)]))
"""


class Said(NamedTuple):
    codes: dict[str, int]
    asked: list
    reachable: bool
    seen: int
    folder: Path
    alone: bool


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> Said:
    """All verbs through; without a network where this system lets us."""
    folder = tmp_path_factory.mktemp("verbs")
    draws = np.random.default_rng(0)
    for i in range(40):
        path = folder / "photos" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (8, 8, 3), np.uint8)
        pixels[:, :, i % 2] //= 3
        Image.fromarray(pixels).save(path)
    (folder / "photos" / "empty.png").write_bytes(b"")
    pretrain = "pretrain photos --out run --method simclr --encoder resnet18 --resolution 8"
    pretrain += " --steps 4 --batch 8 --set encoder.width=0.125 --set method.hidden=32"
    lines = {
        "scan": "scan photos",
        "pretrain": pretrain + " --set train.precision=fp32",
        "evaluate": "evaluate run photos --shots 1,2 --seeds 2 --no-finetune",
        "embed": "embed run photos --out vectors.npy",
        "export": "export run --to safetensors",
        "report": "report run",
    }
    words = json.dumps([(name, line.split()) for name, line in lines.items()])
    command = [sys.executable, "-c", SCRIPT, words]
    namespace = ["unshare", "-rn"]
    alone = (
        bool(shutil.which("unshare"))
        and not subprocess.run([*namespace, "true"], capture_output=True).returncode
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SELFSUP_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [*namespace, *command] if alone else command,
        cwd=folder, env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Said(*json.loads((folder / "told.json").read_text()), folder, alone)


KEYS = {
    "scan": {"found", "used", "skipped", "modes"},
    "pretrain": {"status", "data", "exit_code"},
    "evaluate": {"verdict", "scores", "curve"},
    "embed": {"found", "used", "skipped"},
    "export": {"path", "max_abs_error"},
    "report": {"report", "bytes"},
}


@pytest.mark.parametrize("verb", KEYS)
def test_json_is_one_object_on_the_standard_output(said, verb):
    assert said.codes[verb] == 0
    lines = (said.folder / f"{verb}.out").read_text().splitlines()
    assert len(lines) == 1, lines
    told = json.loads(lines[0], parse_constant=lambda name: pytest.fail(name))
    assert isinstance(told, dict) and set(told) >= KEYS[verb]
    if "found" in told:
        assert (told["found"], told["used"], told["skipped"]) == (41, 40, 1)


def test_nothing_asks_for_the_network(said):
    assert set(said.codes.values()) == {0} and said.asked == []
    assert said.seen > 0  # the one attempt of the test itself


def test_everything_works_without_a_network(said):
    if not said.alone:
        pytest.skip("this system lets nobody but root make a network of their own (unshare -rn)")
    assert not said.reachable and set(said.codes.values()) == {0}
    assert len(np.load(said.folder / "vectors.npy")) == 40
    assert (said.folder / "run" / "exports" / "safetensors" / "encoder.safetensors").exists()


def test_the_demo(tmp_path, monkeypatch, capfd):
    """`make demo` with two seconds of learning: real digits, 1 and 10 labels, all controls."""
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    code = cli.main(["demo", "--seconds", "2", "--out", str(tmp_path / "demo"), "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    (line,) = out.splitlines()
    told = json.loads(line)
    evaluation = told["evaluation"]
    by_shots: dict[int, set[str]] = {1: set(), 10: set()}
    for point in evaluation["curve"]:
        by_shots[point["shots"]].add(point["of"])
        assert 0 <= point["low"] <= point["value"] <= point["high"] <= 1
        assert point["labels"] == 10 * point["shots"]
    left_out = [note for note in evaluation["notes"] if "training from scratch with" in note]
    for shots, of in by_shots.items():
        assert of >= {"pretrained", "untrained", "pixels + PCA"}, shots
        # on a machine too busy for it, it says what it leaves out
        assert "from scratch" in of or any(f"{shots} label" in note for note in left_out), shots
    whole = {s["of"]: s["value"] for s in evaluation["scores"] if s["protocol"] == "linear"}
    assert whole["pretrained"] > 0.5 and {"untrained", "pixels + PCA"} <= set(whole)
    assert evaluation["split"]["train"] == 1297 and evaluation["split"]["test"] == 500
    page = Path(told["report"]).read_text()
    assert "Did it help?" in page or "Did pretraining help?" in page
    assert told["verdict"].split(",")[0] in page
    pictures = list((tmp_path / "demo-digits").rglob("*.png"))
    assert len(pictures) == 1797 and len({p.parent.name for p in pictures}) == 10
