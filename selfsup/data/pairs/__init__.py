"""Samples of several parts: pictures with captions, sounds with films, sentences with others.

Tables that name files and hold texts, shards with `key.jpg` beside `key.txt` or `key.json`,
parquet with encoded files beside texts, and lists of `Pair`. A part is called after what it holds
(image, text, audio), or after its column where two parts hold the same. One sample may have
several texts. Where columns are named (`as_pairs`), parts are any mix of files, texts, proteins
and molecules.

    base.py     what all of them are: parts, names, what is held out
    rows.py     the rows of CSV, TSV, JSON lines and Parquet
    columns.py  what the columns of a table hold
    table.py    rows that name files and hold texts
    shards.py   tar and Parquet shards
    memory.py   lists of `Pair`
"""

import csv
from typing import Any

from ...errors import SelfsupError
from ..base import Source
from ..listed import Labelled
from ..outcome import BadSample
from ..packed import suffix
from ..parquet import encoded_media, first_rows, open_parquet
from ..shards import TarSource
from .base import HELD_OUT, PairSource, Part, Some
from .columns import columns_of, media_of, sentences, strings, text_columns
from .memory import PairList
from .rows import beginning, rows_of, tables
from .shards import PairParquet, PairTar
from .table import PairTable

__all__ = [
    "HELD_OUT",
    "PairList",
    "PairParquet",
    "PairSource",
    "PairTable",
    "PairTar",
    "Part",
    "Some",
    "as_pairs",
    "columns_of",
    "open_pair_shards",
    "open_table",
    "rows_of",
    "sentences",
    "tables",
]


def open_table(path: str) -> PairTable | None:
    """A table whose rows name files that are there and hold texts, or name files of several kinds;
    None for any other."""
    media, texts = columns_of(path)
    if not texts and len(set(media.values())) < 2:
        return None
    return _open([path], path, *_unasked(media, texts))


def as_pairs(source: Source, columns: tuple[str, ...]) -> Source:
    """A table as samples whose parts are these columns; what has no such columns as it is."""
    if isinstance(source, Labelled):
        return source.around(as_pairs(source.source, columns))
    paths = tables(source)
    if not paths or getattr(source, "chosen", ()) == columns:
        return source
    rows = beginning(paths[0])
    if not rows and suffix(paths[0]) == ".parquet":
        file = open_parquet(paths[0])
        rows = first_rows(file, paths[0], 32)
    if missing := set(columns) - {name for row in rows for name in row}:
        if source.content != "pairs":
            return source
        raise SelfsupError("E105", f"{source.place} has no column {', '.join(sorted(missing))}")
    rows = [{column: row.get(column) for column in columns} for row in rows]
    bytes_of = encoded_media(rows) if suffix(paths[0]) == ".parquet" else {}
    media = bytes_of or media_of(paths[0], rows)
    contents = {c: media.get(c) or strings(c, [row[c] for row in rows]) for c in columns}
    written = {column: [column] for column in columns if column not in media}
    found: PairSource
    if bytes_of:
        found = PairParquet(paths, source.place, contents, written)
    else:
        found = _open(paths, source.place, contents, written)
    found.chosen = columns
    return found


def open_pair_shards(paths: list[str], place: str) -> PairSource | None:
    """Shards whose samples have several parts; None for any other."""
    if not all(path.lower().endswith(".parquet") for path in paths):
        source = TarSource(paths, place)
        beside = [source.ignored.get(k, 0) for k in ("txt", "json", "image", "audio", "video")]
        if source.content not in ("image", "audio", "video") or 2 * max(beside) < len(source):
            return None
        found = PairTar(paths, place)
        if 2 * max(beside[:2]) < len(source) and 2 * len(found) < len(source):
            return None  # files of two kinds that have nothing to do with each other
        if found.json and len(found):
            try:
                found.read(0)
            except BadSample:
                return None  # facts about files, and no text among them
        return found
    file = open_parquet(paths[0])
    rows = first_rows(file, paths[0], 32)
    media = encoded_media(rows)
    texts = text_columns(rows, media) if media else []
    if not texts and len(set(media.values())) < 2:
        return None
    return PairParquet(paths, place, *_unasked(media, texts))


def _open(
    paths: list[str], place: str, contents: dict[str, str], written: dict[str, list[str]]
) -> PairTable:
    try:
        return PairTable(paths, place, contents, written)
    except csv.Error as error:
        told = f"{place} is not a readable table: {error}"
        raise SelfsupError("E105", told, where=place) from None


def _unasked(media: dict[str, str], texts: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Contents and columns of the parts where all texts say the same: what the sample is."""
    return media | dict.fromkeys(texts[:1], "text"), dict.fromkeys(texts[:1], texts)
