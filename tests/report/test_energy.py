"""Counted where there are counters, estimated elsewhere, and told apart."""

import json

from selfsup.report import energy, reading, sections


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


def test_a_measured_run_says_so(finished):
    rows = [json.dumps({"step": s, "time": s, "energy/joules": 36_000.0 * s}) for s in (1, 2)]
    (finished / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    spent = sections.energy(reading.read(finished))
    assert spent.measured and abs(spent.kilowatt_hours - 0.02) < 1e-12
    shown = sections.machine(reading.read(finished), "0")
    assert "energy, measured" in shown and "0.02 kWh" in shown and "estimate" not in shown
