"""What the columns of a table hold, told by their names and the first rows."""

import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..base import Source
from ..kinds import CODES, KINDS, extension
from ..names import encoded
from ..proteins import are_residues
from ..shards import MEDIA
from ..tables import GROUP_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS
from ..texts import _is_prose
from .rows import beginning, tables, texts_in

CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "transcript", "transcription",
                   "description", "alt_text", "prompt")  # fmt: skip
TRIED = 20  # file names that tell where files lie
WORDS = 2.0  # in a column of texts, on average, where its name does not say that it is one


def columns_of(path: str) -> tuple[dict[str, str], list[str]]:
    """The columns of a table that name files, with what those files are, and those of texts."""
    rows = beginning(path)
    media = media_of(path, rows)
    return media, text_columns(rows, media) if media else []


def sentences(source: Source) -> tuple[str, ...]:
    """The columns of text of a table, if there are two."""
    paths = tables(source)
    rows = beginning(paths[0]) if paths else []
    names = dict.fromkeys(name for row in rows for name in row)
    found = tuple(n for n in names if _is_prose([row.get(n) for row in rows], WORDS))
    return found if len(found) == 2 else ()


def media_of(path: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> what the files are that it names, where most of those can be found."""
    found = {}
    for column in dict.fromkeys(name for row in rows for name in row):
        cells = [c for row in rows if isinstance(c := row.get(column), str) and c.strip()]
        cells = [cell.strip() for cell in cells[:TRIED]]
        kinds = Counter(kind_of(cell) for cell in cells)
        kind, count = kinds.most_common(1)[0] if kinds else ("", 0)
        if kind and count > len(cells) / 2:
            found[column] = kind
    roots = {column: root_of(path, column, rows) for column in found}
    here = {c: [str(r.get(c)).strip() for r in rows if r.get(c)][:TRIED] for c in found}
    return {
        column: kind
        for column, kind in found.items()
        if 2 * sum(os.path.isfile(os.path.join(roots[column], name)) for name in here[column])
        >= len(here[column])
    }


def kind_of(name: str) -> str:
    code = CODES.get(extension(encoded(os.path.basename(name))))
    return KINDS[code] if code in MEDIA else ""


def root_of(path: str, column: str, rows: list[dict[str, Any]]) -> str:
    """The folder that names in a column begin from: the table's own or one in it, as images/."""
    home = os.path.dirname(os.path.abspath(path))
    inner = sorted(e.path for e in os.scandir(home) if e.is_dir() and not e.name.startswith("."))
    names = [str(row[column]).strip() for row in rows[:TRIED] if row.get(column)]
    counts = {
        folder: sum(os.path.isfile(os.path.join(folder, name)) for name in names)
        for folder in (home, *inner)
    }
    return max(counts, key=lambda folder: counts[folder])


def text_columns(rows: list[dict[str, Any]], media: Iterable[str]) -> list[str]:
    """Those of the usual names, else all that look like prose: each says what the sample is."""
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in set(media)]
    known = {name.strip().lower(): name for name in reversed(names)}
    for usual in CAPTION_COLUMNS:
        if usual in known and any(texts_in(row, [known[usual]]) for row in rows):
            return [known[usual]]
    others = {*LABEL_COLUMNS, *SPLIT_COLUMNS, *GROUP_COLUMNS, "id"}
    return [
        name
        for name in names
        if name.strip().lower() not in others
        and _is_prose([row.get(name) for row in rows], WORDS)
        and not any(kind_of(str(row.get(name) or "")) for row in rows[:TRIED])
    ]


def strings(column: str, cells: list[Any]) -> str:
    """What a column of strings holds."""
    if "smiles" in column.lower():
        return "graphs"
    return "proteins" if are_residues(cells) else "text"
