"""`import selfsup` is instant, its names are sorted and exist, and help needs no torch."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import selfsup


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_importing_loads_nothing_heavy():
    heavy = "('torch', 'numpy', 'pydantic', 'PIL', 'sklearn', 'typer', 'rich')"
    code = f"import sys, selfsup; print([m for m in {heavy} if m in sys.modules])"
    assert python(code) == "[]"


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom selfsup.cli import main\n"
        "for words in (['--help'], ['pretrain', '--help'], ['list', 'methods']): main(words)\n"
        "found = [m for m in ('torch', 'numpy', 'rich', 'PIL') if m in sys.modules]\n"
        "print('loaded', found)"
    )
    assert python(code).splitlines()[-1] == "loaded []"


def test_a_report_needs_no_torch():
    """What it shows lies in the run's folder."""
    code = "import sys, selfsup.report.reading; print('torch' in sys.modules)"
    assert python(code) == "False"


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not count so")
def test_help_is_instant():
    """Within 0.4 s of processor time, which other work on the machine disturbs little."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "selfsup", "--help"]
    seconds = []
    for _ in range(4):  # the first may have to compile
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        seconds.append(used.ru_utime + used.ru_stime)
    assert min(seconds) < 0.4


def test_all_is_sorted_and_complete():
    assert selfsup.__all__ == sorted(selfsup.__all__)
    assert set(selfsup.__all__) == set(selfsup._HOME)
    assert set(selfsup.__all__) <= set(dir(selfsup))


@pytest.mark.parametrize("name", selfsup.__all__)
def test_every_name_is_there_and_no_module(name):
    value = getattr(selfsup, name)
    assert callable(value), f"selfsup.{name} is {value!r}"
    assert value is getattr(importlib.import_module(f"selfsup.{selfsup._HOME[name]}"), name)


@pytest.mark.parametrize("name", ["embed", "evaluate", "export", "load", "pretrain", "report"])
def test_a_module_of_the_same_name_does_not_replace_the_function(name):
    code = f"import selfsup, selfsup.{name}; print(type(selfsup.{name}).__name__)"
    assert python(code) == "function"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="pretrian"):
        selfsup.pretrian  # noqa: B018


def test_the_readme_has_a_line_for_each_file():
    """A newcomer finds their way by the tree: no file is missing from it, and none is invented."""
    root = Path(__file__).parent.parent
    tree = (root / "README.md").read_text("utf-8").split("selfsup/\n", 1)[1].split("benchmarks/")[0]
    told = [line.split()[0] for line in tree.strip().splitlines()]
    inside = [p for p in (root / "selfsup").iterdir() if p.name not in ("__pycache__", "py.typed")]
    there = {p.name + "/" * p.is_dir() for p in inside} - {"__main__.py"}
    assert set(told) == there and len(told) == len(there)
