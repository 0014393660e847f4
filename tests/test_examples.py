"""What docstrings show is what comes out."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WITH = [path for path in sorted(ROOT.glob("selfsup/**/*.py")) if ">>> " in path.read_text("utf-8")]


@pytest.mark.parametrize("path", WITH, ids=lambda path: path.stem)
def test_examples_in_docstrings(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    failed, tried = doctest.testmod(import_module(name))
    assert tried and not failed
