"""The examples on the pages run and print what they say; every reason to skip is on them."""

import contextlib
import io
import re
from importlib import import_module
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "modalities"


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_the_example(page):
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(block, {})  # noqa: S102
    expected = [line.split("#")[1].strip() for line in block.splitlines() if "  # " in line]
    assert expected and said.getvalue().splitlines() == expected


@pytest.mark.parametrize(
    ("name", "least"),
    [
        *[
            ("image", 7),
            ("protein", 3),
            ("series", 4),
            ("text", 3),
            ("trajectory", 4),
            ("video", 7),
        ],
    ],
)
def test_every_code_is_on_the_page(name, least):
    module = import_module(f"selfsup.modalities.{name}")
    codes = set(re.findall(r'BadSample\(\s*"(\w+)"', Path(module.__file__).read_text()))
    assert len(codes) >= least
    for code in codes:
        assert f"| `{code}` |" in (PAGES / f"{name}.md").read_text()
