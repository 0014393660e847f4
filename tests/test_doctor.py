"""doctor: a page of facts, and a self-test that really kills and really notices."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from selfsup import cli, doctor
from selfsup.doctor import FIX, OK, WARN, Check, Checks

NAMES = ["python", "torch", "device", "bfloat16", "memory", "disk here", "disk for the cache"]
NAMES += ["shared memory", "image decoders", "sound decoders", "extras", "network"]


def test_page():
    checks = doctor.examine(self_test=False)
    assert [check.name for check in checks.checks] == NAMES
    assert checks.exit_code == 0, checks.text()
    text = checks.text()
    assert all(
        check.found in " ".join(text.split()) for check in checks.checks if check.state == OK
    )
    assert all(check.fix for check in checks.checks if check.state != OK)


def test_exit_code_and_what_to_do():
    checks = Checks((Check("a", OK, "x"), Check("b", WARN, "y", "mend y")))
    assert checks.exit_code == 0 and "do: mend y" in checks.text()
    checks = Checks((*checks.checks, Check("c", FIX, "z", "mend z")))
    assert checks.exit_code == 1 and "must be fixed: c" in checks.text()
    assert json.dumps(checks.to_json())


def test_bfloat16_is_measured():
    found = doctor._bfloat16().found
    times = float(found.split(": ")[1].split()[0])
    assert 0.01 < times < 1000 and "FLOP/s" in found


def test_bfloat16_is_used_from_where_it_pays(monkeypatch):
    """What doctor says is what training does."""
    monkeypatch.setattr("selfsup.machine.WORTH", 1e9)
    assert "so float32 is used" in doctor._bfloat16().found
    monkeypatch.setattr("selfsup.machine.WORTH", 0.0)
    assert "so float32 is used" not in doctor._bfloat16().found


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, str, int]:
    folder = tmp_path_factory.mktemp("doctor")
    lost, step = doctor._kill_and_compare(folder)
    return folder, lost, step


def test_self_test(killed):
    folder, lost, step = killed
    assert lost == "" and 0 < step < doctor.STEPS
    for name in ("alone", "killed"):
        assert (folder / name / "DONE").exists()


def test_self_test_notices_a_difference(killed, tmp_path):
    """One bit of one weight is enough."""
    shutil.copytree(killed[0] / "killed", tmp_path / "other")
    last = sorted((tmp_path / "other" / "checkpoints").glob("step-*[0-9]"))[-1]
    path = last / "encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert doctor._differences(killed[0] / "alone", tmp_path / "other").startswith("encoder")


def test_extras_are_those_of_the_package():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert set(doctor.EXTRAS) == set(project["project"]["optional-dependencies"]) - {"dev"}


def test_json(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "self_tested", lambda: Check("self-test", FIX, "no", "do this"))
    assert cli.main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [c["name"] for c in told["checks"]] == [*NAMES, "self-test"]
    assert told["exit_code"] == 1
