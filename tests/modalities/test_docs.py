"""The examples on the pages run and print what they say; every reason to skip is on them."""

import contextlib
import io
import re
from importlib import import_module
from pathlib import Path

import pytest

from selfsup import listing

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
    ("page", "files", "least"),
    [
        ("audio", ["modalities.audio", "data.sounds"], 9),
        ("graph", ["modalities.graph", "modalities.network", "data.smiles"], 6),
        ("image", ["modalities.image"], 7),
        ("pairs", ["modalities.pairs", "data.pairs.shards"], 3),
        ("protein", ["modalities.protein"], 3),
        ("series", ["modalities.series"], 4),
        ("text", ["modalities.text"], 3),
        ("trajectory", ["modalities.trajectory"], 4),
        ("video", ["modalities.video", "data.videos"], 7),
    ],
)
def test_every_code_is_on_the_page(page, files, least):
    codes = set()
    for name in files:
        code = Path(import_module(f"selfsup.{name}").__file__).read_text()
        codes |= set(re.findall(r'BadSample\(\s*"([\w-]+)"', code))
    assert len(codes) >= least
    for code in codes:
        assert f"| `{code}` |" in (PAGES / f"{page}.md").read_text(), code


def test_every_modality_has_its_codes_tested():
    (mark,) = test_every_code_is_on_the_page.pytestmark
    tested = {name for _, files, _ in mark.args[1] for name in files}
    assert {f"modalities.{name}" for name in listing.modalities()} <= tested
