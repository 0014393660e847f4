"""The Python examples of the pages run and print what they say."""

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["data.md", "verbs/scan.md"])
def test_examples(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(block, {})  # noqa: S102
        expected = [line.split("#")[1].strip() for line in block.splitlines() if "  # " in line]
        assert said.getvalue().split("\n")[:-1] == expected
