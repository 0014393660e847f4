"""The example on the page runs and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "modalities" / "image.md"


def test_the_example():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(block, {})  # noqa: S102
    expected = [line.split("#")[1].strip() for line in block.splitlines() if "  # " in line]
    assert expected and said.getvalue().splitlines() == expected


def test_every_code_is_on_the_page():
    import selfsup.modalities.image as module

    codes = set(re.findall(r'BadSample\(\s*"(\w+)"', Path(module.__file__).read_text()))
    assert len(codes) >= 7
    for code in codes:
        assert f"| `{code}` |" in PAGE.read_text()
