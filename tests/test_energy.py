"""Counted where there are counters, estimated elsewhere, and told apart."""

import json

import pytest
import torch
from tiny import BATCH, Samples, Tiny

from selfsup import energy
from selfsup.report import machine, reading
from selfsup.run import Run
from selfsup.stop import Stop
from selfsup.train import train


def zone(root, name, microjoules, most=1_000_000):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")


def test_a_meter_adds_packages_and_survives_the_wrap(tmp_path):
    zone(tmp_path, "intel-rapl:0", 900_000)
    zone(tmp_path, "intel-rapl:1", 100)
    zone(tmp_path, "intel-rapl:0:0", 5)  # the cores of package 0: already in it
    meter = energy.Meter.find(tmp_path)
    assert len(meter.zones) == 2 and meter.joules == 0
    zone(tmp_path, "intel-rapl:0", 100_000)  # wrapped at one joule
    zone(tmp_path, "intel-rapl:1", 300_100)
    zone(tmp_path, "intel-rapl:0:0", 900_000)
    assert abs(meter.read() - 0.5) < 1e-9
    assert abs(meter.read() - 0.5) < 1e-9


def test_no_meter_where_nothing_counts(tmp_path):
    assert energy.Meter.find(tmp_path) is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert energy.Meter.find(tmp_path) is None


def test_an_estimate_states_what_it_assumes():
    found = energy.estimate(3600, cores=2, memory_gb=10)
    assert not found.measured and "assumes" in found.how and "2 processor cores" in found.how
    assert abs(found.kilowatt_hours - (2 * 12 + 10 * 0.37) / 1000) < 1e-9


@pytest.fixture
def counters(tmp_path, monkeypatch):
    """A machine whose processor has used a joule more at each step; wraps at ten."""
    root = tmp_path / "powercap"
    monkeypatch.setattr(energy, "POWERCAP", root)

    class Working(Samples):
        def __call__(self, step, part=0, parts=1):
            if root.exists():
                zone(root, "intel-rapl:0", (7 + step) % 10 * 1_000_000, 10_000_000)
            return super().__call__(step, part, parts)

    zone(root, "intel-rapl:0", 6_000_000, 10_000_000)
    return root, Working()


def trained(folder, batches, steps, until=None):
    stop = Stop()

    def watched(step, part=0, parts=1):
        if step + 1 == until:
            stop.request()
        return batches(step, part, parts)

    torch.manual_seed(0)
    return train(Tiny(), watched, batch=BATCH, steps=steps, run=Run(folder), stop=stop, every=2)


def told(folder) -> list:
    return [row.get("energy/joules") for row in Run.open(folder).metrics.read()]


def test_a_run_writes_down_what_the_counters_say(counters, tmp_path):
    """Cumulative, over a stop as well; and the report calls it measured."""
    root, batches = counters
    trained(tmp_path / "run", batches, 12, until=5)
    state = json.loads((Run.open(tmp_path / "run").checkpoint / "state.json").read_text())
    assert state["joules"] == pytest.approx(5)
    zone(root, "intel-rapl:0", 1_000_000, 10_000_000)  # (the machine did other things meanwhile)
    trained(tmp_path / "run", batches, 12)
    steps = [row["step"] for row in Run.open(tmp_path / "run").metrics.read()]
    assert steps == [1, 2, 4, 6, 8, 10, 12]
    # step 5 begins the second part: its counter went from 1 to 2
    assert told(tmp_path / "run") == pytest.approx(steps)
    folder = reading.read(tmp_path / "run")
    assert machine.energy(folder).measured
    shown = machine.machine(folder, "0")
    assert "energy, measured" in shown and "12 J" in shown and "estimate" not in shown


def test_a_run_without_counters_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "nothing")
    trained(tmp_path / "run", Samples(), 4)
    assert told(tmp_path / "run") == [None] * 3
    Run(tmp_path / "run").write_environment()
    folder = reading.read(tmp_path / "run")
    spent = machine.energy(folder)
    assert not spent.measured and "GB of memory" in spent.how
    assert "energy, estimated" in machine.machine(folder, "0")


def test_a_part_that_was_counted_is_not_the_whole(counters, tmp_path):
    """Gone on where nothing counts, and then where it does again: an estimate for the whole."""
    root, batches = counters
    trained(tmp_path / "run", batches, 12, until=4)
    (root / "intel-rapl:0" / "energy_uj").rename(root / "away")
    trained(tmp_path / "run", Samples(), 12, until=8)
    zone(root, "intel-rapl:0", 0, 10_000_000)
    trained(tmp_path / "run", batches, 12)
    assert [x is not None for x in told(tmp_path / "run")] == [True] * 3 + [False] * 4
    folder = reading.read(tmp_path / "run")
    assert not machine.energy(folder).measured
    assert "energy, estimated" in machine.machine(folder, "0")


def test_a_counter_that_goes_away_ends_no_run(counters, tmp_path):
    root, batches = counters

    def failing(step, part=0, parts=1):
        views = batches(step, part, parts)
        if step == 3:
            (root / "intel-rapl:0" / "energy_uj").write_text("")
        return views

    assert trained(tmp_path / "run", failing, 4).finished
    assert told(tmp_path / "run")[-1] is None
