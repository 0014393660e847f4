import io
import json
import threading

from selfsup.data import Ledger


def test_one_line_a_file_written_at_once(tmp_path):
    ledger = Ledger(tmp_path / "run" / "skipped.jsonl")
    assert ledger.skip("a.png", "empty", "the file has no bytes")
    assert not ledger.skip("a.png", "empty", "the file has no bytes")
    assert ledger.skip("b\udcff.png", "truncated", "half")
    rows = [json.loads(line) for line in ledger.path.read_text().splitlines()]  # not closed yet
    assert rows == [
        {"name": "a.png", "code": "empty", "reason": "the file has no bytes"},
        {"name": "b\udcff.png", "code": "truncated", "reason": "half"},
    ]
    assert ledger.counts() == {"empty": 1, "truncated": 1}
    assert ledger.first("truncated") == ("b\udcff.png", "half")


def test_a_ledger_goes_on_after_a_kill_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "skipped.jsonl"
    Ledger(path).skip("a.png", "empty", "x")
    with path.open("ab") as file:
        file.write(b'{"name": "b.p')
    ledger = Ledger(path)
    assert ledger.counts() == {"empty": 1}
    ledger.skip("b.png", "empty", "x")
    ledger.skip("a.png", "empty", "x")
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == [
        "a.png", "b.png",
    ]  # fmt: skip


def test_a_bad_line_costs_no_other(tmp_path):
    path = tmp_path / "skipped.jsonl"
    Ledger(path).skip("a.png", "empty", "x")
    with path.open("ab") as file:
        file.write(b"\0\0\0\n")
    for name in ("b.png", "c.png"):
        Ledger(path).skip(name, "empty", "x")
    assert len(Ledger(path)) == 3
    assert [line[10:15] for line in path.read_bytes().splitlines()] == [
        b"a.png", b"", b"b.png", b"c.png",
    ]  # fmt: skip


def test_a_disk_that_takes_a_few_bytes_at_a_time(tmp_path):
    class Slow(io.FileIO):
        def write(self, content):
            return super().write(content[:5])

    ledger = Ledger(tmp_path / "skipped.jsonl")
    ledger._file = Slow(ledger.path, "a+")
    for name in ("a.png", "b.png"):
        ledger.skip(name, "empty", "the file has no bytes")
    assert [json.loads(line)["name"] for line in ledger.path.open()] == ["a.png", "b.png"]


def test_what_others_skipped_is_counted_once(tmp_path):
    """Another rank, or this run before it was stopped: theirs, until it is skipped here as well."""
    first, second = Ledger(), Ledger(tmp_path / "skipped.jsonl")
    first.skip("a.png", "empty", "x")
    first.skip("b.png", "empty", "x")
    second.skip("b.png", "empty", "x")
    second.take(first.rows)
    assert second.elsewhere == 1 and len(second) == 2
    again = Ledger(tmp_path / "skipped.jsonl")
    assert again.elsewhere == 2
    again.skip("a.png", "empty", "x")
    assert again.elsewhere == 1 and len(again) == 2
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 2


def test_many_threads(tmp_path):
    ledger = Ledger(tmp_path / "skipped.jsonl")

    def work():
        for i in range(200):
            ledger.skip(str(i), "empty", "x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    names = [json.loads(line)["name"] for line in ledger.path.read_text().splitlines()]
    assert sorted(names, key=int) == [str(i) for i in range(200)]
