"""Every sample has a row, or a line in the list of skipped ones, however often it is killed."""

import csv
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import small_encoder
from PIL import Image

import selfsup
from selfsup.errors import SelfsupError
from selfsup.inference import Fast
from selfsup.load import load
from selfsup.stop import Stopped, stop

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    small_encoder.export(folder / "encoder")
    generator = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(60):
        side = (20, 24) if i % 3 else (31, 18)
        pixels = generator.integers(0, 255, (*side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i:03}.png")
    (folder / "photos" / "010.png").write_bytes(b"")
    (folder / "photos" / "020.png").write_bytes(b"<html>no picture</html>")
    return folder


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    import importlib

    monkeypatch.setattr(importlib.import_module("selfsup.embed"), "BLOCK", 16)


def embed(home, out, data=None, **settings):
    settings = {"batch": 8, "precision": "fp32"} | settings
    return selfsup.embed(home / "encoder", data or home / "photos", out, **settings)


def rows_of(path):
    with path.open(newline="", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_rows_are_the_vectors_of_their_files(home, tmp_path):
    told = embed(home, tmp_path / "v.parquet")
    assert told.found == 60 == told.used + told.skipped and told.skipped == 2
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["id", "path", "vector"] and table.num_rows == 58
    names = sorted(p.name for p in (home / "photos").iterdir())
    assert [names[i] for i in table["id"].to_pylist()] == table["path"].to_pylist()
    assert "010.png" not in table["path"].to_pylist()
    encoder = load(home / "encoder")
    expected = encoder.embed(
        [home / "photos" / name for name in table["path"].to_pylist()], precision="fp32"
    )
    np.testing.assert_allclose(np.stack(table["vector"].to_numpy()), expected, atol=1e-5)
    lines = [json.loads(line) for line in Path(told.skipped_list).read_text().splitlines()]
    assert {line["name"] for line in lines} == {"010.png", "020.png"}
    assert all(line["reason"] and line["code"] for line in lines)
    assert "found 60 = used 58 + skipped 2" in str(told)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"v.parquet", "v.parquet.json", "v.parquet.skipped.jsonl"}


def test_npy_and_csv_hold_the_same(home, tmp_path):
    for ending in ("parquet", "npy", "csv"):
        embed(home, tmp_path / f"v.{ending}")
    table = pq.read_table(tmp_path / "v.parquet")
    vectors = np.stack(table["vector"].to_numpy())
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy", allow_pickle=False), vectors)
    rows = rows_of(tmp_path / "v.csv")
    assert rows[0][:3] == ["id", "path", "v0"]
    read = np.array([[float(c) for c in row[2:]] for row in rows[1:]], np.float32)
    np.testing.assert_array_equal(read, vectors)  # nine digits bring float32 back exactly
    ids = rows_of(tmp_path / "v.npy.csv")[1:]
    assert [row[1] for row in ids] == table["path"].to_pylist() == [row[1] for row in rows[1:]]


def test_names_that_are_formulas_or_no_text_stay_usable(home, tmp_path):
    photos = tmp_path / "odd"
    photos.mkdir()
    one = (home / "photos" / "000.png").read_bytes()
    names = [b"=cmd()|x.png", b"+1.png", b"@a.png", b"-dash.png", b"a\xffb.png", "ä\n.png".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(photos) + b"/" + name)).write_bytes(one)
    embed(home, tmp_path / "v.csv", photos)
    embed(home, tmp_path / "v.parquet", photos)
    cells = [row[1] for row in rows_of(tmp_path / "v.csv")][1:]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert all((photos / cell).read_bytes() == one for cell in cells)
    table = pq.read_table(tmp_path / "v.parquet")
    assert sorted(table["path_bytes"].to_pylist()) == sorted(names)
    assert "a\\udcffb.png" in table["path"].to_pylist()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


SCRIPT = """
import importlib, os, signal, sys, threading, time
sys.path.insert(0, {root!r})
module = importlib.import_module("selfsup.embed")
module.BLOCK = 16
put, seen = module.Work.put, []
def die(self, *arguments):
    put(self, *arguments)
    seen.append(1)
    if len(seen) == {after}:
        os.kill(os.getpid(), signal.{signal})
module.Work.put = die
module.embed({encoder!r}, {photos!r}, {out!r}, batch=8, precision="fp32")
"""


def start(home, out, after, name):
    script = SCRIPT.format(
        root=str(ROOT), after=after, signal=name, encoder=str(home / "encoder"),
        photos=str(home / "photos"), out=str(out),
    )  # fmt: skip
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("ending", ["parquet", "npy", "csv"])
def test_killed_and_gone_on_gives_the_same_bytes(home, tmp_path, ending):
    embed(home, tmp_path / f"whole.{ending}")
    out = tmp_path / f"v.{ending}"
    done = start(home, out, 2, "SIGKILL")
    assert done.returncode == -signal.SIGKILL and not out.exists()
    # a list of a killed call may run ahead of its blocks; half a block may lie about
    with open(tmp_path / f"v.{ending}.skipped.jsonl", "a") as file:
        file.write('{"name": "030.png", "code": "io", "reason": "gone tomorrow"}\n{"na')
    (tmp_path / f"v.{ending}.partial" / "block-000002.tmp").write_bytes(b"half")
    told = embed(home, out)
    assert told.resumed == 32 and told.used == 58 and told.skipped == 2
    assert digest(out) == digest(tmp_path / f"whole.{ending}")
    assert not (tmp_path / f"v.{ending}.partial").exists()


def test_sigterm_stops_within_a_batch_and_what_is_done_stays(home, tmp_path):
    done = start(home, tmp_path / "v.parquet", 1, "SIGTERM")
    assert done.returncode != 0 and "Stopped" in done.stderr
    assert not (tmp_path / "v.parquet").exists()
    assert embed(home, tmp_path / "v.parquet").resumed >= 16


def test_a_second_call_finds_it_done_and_other_work_is_not_overwritten(home, tmp_path, monkeypatch):
    out = tmp_path / "v.parquet"
    first = embed(home, out)
    before = out.stat().st_mtime_ns
    monkeypatch.setattr(Fast, "__call__", lambda self, x: pytest.fail("computed again"))
    assert embed(home, out).used == first.used and out.stat().st_mtime_ns == before
    (tmp_path / "few").mkdir()
    for name in ("000.png", "001.png"):
        (tmp_path / "few" / name).write_bytes((home / "photos" / name).read_bytes())
    with pytest.raises(SelfsupError) as caught:
        embed(home, out, tmp_path / "few")
    assert caught.value.code == "E605" and "data" in caught.value.why
    assert "--overwrite" in caught.value.do
    (tmp_path / "mine.csv").write_text("precious")
    with pytest.raises(SelfsupError):
        embed(home, tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "precious"


def test_blocks_of_another_encoder_are_not_mixed_in(home, tmp_path):
    start(home, tmp_path / "v.parquet", 2, "SIGKILL")
    small_encoder.export(tmp_path / "encoder", seed=9)
    told = selfsup.embed(
        tmp_path / "encoder", home / "photos", tmp_path / "v.parquet", batch=8, precision="fp32"
    )
    assert told.resumed == 0
    table = pq.read_table(tmp_path / "v.parquet")
    expected = load(tmp_path / "encoder").embed(home / "photos" / "000.png", precision="fp32")
    np.testing.assert_allclose(table["vector"][0].as_py(), expected[0], atol=1e-5)


def test_two_writers_of_one_file(home, tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".v.parquet.lock"), pytest.raises(SelfsupError) as caught:
        embed(home, tmp_path / "v.parquet")
    assert caught.value.code == "E606" and caught.value.exit_code == 75


def test_a_full_disk_leaves_what_is_done(home, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
        with pytest.raises(SelfsupError) as caught:
            embed(home, tmp_path / "v.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.exit_code == 74 and "free" in str(caught.value)
    assert not (tmp_path / "v.parquet").exists()
    assert not list(tmp_path.glob("*.tmp"))
    assert embed(home, tmp_path / "v.parquet").resumed > 0  # blocks fitted, the whole did not


def test_more_than_half_bad_is_an_error_with_a_list(home, tmp_path):
    photos = tmp_path / "bad"
    photos.mkdir()
    for i in range(5):
        (photos / f"{i}.png").write_bytes(b"nothing")
    (photos / "good.png").write_bytes((home / "photos" / "000.png").read_bytes())
    with pytest.raises(SelfsupError) as caught:
        embed(home, tmp_path / "v.parquet", photos)
    assert caught.value.code == "E103" and caught.value.exit_code == 65
    assert len((tmp_path / "v.parquet.skipped.jsonl").read_text().splitlines()) == 5


def test_an_ending_without_a_format(home, tmp_path):
    with pytest.raises(SelfsupError) as caught:
        embed(home, tmp_path / "v.xlsx")
    assert caught.value.code == "E607"


def test_the_stop_flag_is_polled(home, tmp_path, monkeypatch):
    monkeypatch.setattr(stop, "signal", 2)
    began = time.monotonic()
    with pytest.raises(Stopped):
        embed(home, tmp_path / "v.parquet")
    assert time.monotonic() - began < 20 and not (tmp_path / "v.parquet").exists()
