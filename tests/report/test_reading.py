"""Run folders are read fast, whole or broken."""

import json
import time

import numpy as np

from selfsup.report import reading


def write(path, lines):
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_metrics_of_a_whole_file(tmp_path):
    rows = [{"step": i, "train/loss": 1 / i, **({"eval/knn": i} if i % 5 == 0 else {})}
            for i in range(1, 21)]  # fmt: skip
    found = reading._metrics(write(tmp_path / "m", map(json.dumps, rows)))
    assert found.rows == 20 and found.broken == 0
    np.testing.assert_allclose(found.curves["train/loss"].y, 1 / np.arange(1, 21))
    assert found.curves["eval/knn"].x.tolist() == [5, 10, 15, 20]
    assert found.curves["eval/knn"].bad == []  # a row without a value is no bad value
    assert found.last == {
        "step": 20, "train/loss": 0.05, "eval/knn": 20
    }  # fmt: skip


def test_what_is_not_finite_is_marked(tmp_path):
    lines = ['{"step": 1, "a": 1.0}', '{"step": 2, "a": "NaN"}', '{"step": 3, "a": 2}',
             '{"step": 4, "a": "Infinity"}', '{"step": 5, "a": "-Infinity"}']  # fmt: skip
    fast = reading._metrics(write(tmp_path / "m", lines))
    assert fast.curves["a"].x.tolist() == [1, 3] and fast.curves["a"].bad == [2, 4, 5]
    bare = [line.replace('"NaN"', "NaN").replace('"Inf', "Inf").replace('"-Inf', "-Inf")
            .replace('finity"', "finity") for line in lines]  # fmt: skip
    slow = reading._metrics(write(tmp_path / "m", bare))
    assert slow.curves["a"].x.tolist() == [1, 3] and slow.curves["a"].bad == [2, 4, 5]


def test_broken_lines_are_counted_and_left_out(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(
        b'{"step": 1, "a": 1}\n{"step": 2, "a\n\xff\xfe\n[1]\n\n{"step": 3, "a": 3}\n{"step": 4'
    )
    found = reading._metrics(path)
    assert found.curves["a"].y.tolist() == [1, 3]
    assert (found.rows, found.broken) == (2, 4)


def test_rows_that_were_written_again_replace_the_first_ones(tmp_path):
    rows = [{"step": s, "a": v} for s, v in [(1, 1), (2, 2), (3, 3), (2, 20), (3, 30), (4, 40)]]
    curve = reading._metrics(write(tmp_path / "m", map(json.dumps, rows))).curves["a"]
    assert curve.x.tolist() == [1, 2, 3, 4] and curve.y.tolist() == [1, 20, 30, 40]


def test_blocks_give_what_one_piece_gives(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [{"step": i, "a": float(v)} for i, v in enumerate(rng.normal(size=5000))]
    rows[1234]["a"], rows[4321]["a"] = 50.0, "NaN"
    path = write(tmp_path / "m", map(json.dumps, rows))
    whole = reading._metrics(path)
    monkeypatch.setattr(reading, "BLOCK", 4096)
    pieces = reading._metrics(path)
    assert pieces.rows == whole.rows == 5000
    assert pieces.curves["a"].bad == whole.curves["a"].bad == [4321]
    assert pieces.curves["a"].y.max() == 50.0
    assert len(pieces.curves["a"].x) <= 1000


def test_a_hundred_thousand_rows_take_a_second(tmp_path):
    row = '{{"step": {}, "train/loss": 0.12345, "train/lr": 1e-3, "speed/data_wait": 0.01}}'
    path = write(tmp_path / "m", (row.format(i) for i in range(100_000)))
    start = time.process_time()
    found = reading._metrics(path)
    assert found.rows == 100_000
    assert time.process_time() - start < 2.0  # 0.15 s; a parser in Python alone takes 0.5


def test_settings_with_their_reasons(finished):
    folder = reading.read(finished)
    found = {s.key: s for s in folder.settings}
    assert folder.setting("data.path") == "photos # 1/"
    assert found["data.resolution"].source == "plan"
    assert found["data.resolution"].reason == "the pictures are 32 px"
    assert found["method.temperature"].source == "default"
    assert folder.setting("train.minutes") == "10.0" and folder.setting("nothing") is None


def test_repeated_events_become_one(tmp_path):
    rows = [{"kind": "plan", "step": i, "message": f"{i} steps"} for i in range(9)]
    rows.append({"kind": "health", "verdict": "warning", "message": "m"})
    found = reading._events(write(tmp_path / "e", map(json.dumps, rows)))
    assert [e.get("times") for e in found] == [9, None]
    assert (found[0]["message"], found[0]["from"], found[0]["step"]) == ("8 steps", 0, 8)
