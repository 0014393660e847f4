"""Where samples come from. `open_source` takes whatever the user has and gives a `Source`.

A source lists its samples once, in an order that depends on their names alone, and then reads any
of them by number. It never writes, never extracts an archive, and opens regular files only.
"""

import csv
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SelfsupError
from . import frames, graphs, pairs, proteins, series, smiles, trajectories
from .arrays import ArraySource, DatasetSource, from_dict, open_array
from .base import REASONS, Pair, Source
from .files import FolderSource, ListedFiles, list_folder
from .kinds import CODES, KINDS, extension, sniff
from .listed import CsvSource, Labelled
from .names import text
from .packed import suffix
from .shards import open_shards
from .tables import GROUP_COLUMNS, SPLIT_COLUMNS, Table
from .texts import file_splits, open_rows, open_texts

__all__ = ["Source", "open_source"]

TABLES = 8  # at the top of a folder are looked into
ROWS, CLASSES = 10_000, 30  # so many rows of a table tell which columns have so few values
MOSTLY = 4  # times as many texts as pictures in a folder make it one of texts


def open_source(
    data: Any, *, follow_links: bool = False, labels: str | Path | None = None
) -> Source:
    """A source from a folder, shards, a table, arrays or any Python object with length and items.

    `labels` is a CSV that gives the class of each file (columns `path,label`); without it the
    sub-folders do. Labels are only looked at when `Source.labels` is called.
    Raises SelfsupError: E101 nothing there, E102 nothing usable, E104 a form that is not read.
    """
    source = _open(data, follow_links)
    if labels is not None:
        source = Labelled(source, Path(labels))
    if len(source) == 0:
        raise _empty(source)
    return source


def keep_apart(out: str | Path, data: Any) -> None:
    """Nothing is ever written among the user's data. Raises E201 where `out` lies in that folder.

    A table or an archive is a file: what lies beside it is not data.
    """
    if not isinstance(data, str | os.PathLike) or not os.path.isdir(data):
        return
    inner, outer = Path(os.path.realpath(out)), Path(os.path.realpath(data))
    if inner == outer or outer in inner.parents:
        raise SelfsupError(
            "E201",
            f"{Path(out).name} would be written into the data folder",
            where=str(out),
            why="the next run would find it among the data",
            do="give a place elsewhere",
        )


def _open(data: Any, follow_links: bool) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, str | os.PathLike):
        path = os.fspath(data)
        if os.path.isdir(path):
            return _open_folder(path, follow_links)
        if os.path.isfile(path):
            return _open_file(path)
        matches = [m for pattern in _braces(str(path)) for m in sorted(glob.glob(pattern))]
        if odd := next(filter(_special, matches), None):
            raise SelfsupError(
                "E104",
                f"{odd} is neither a file nor a folder",
                why="a pipe or a device can be read once at most, and may wait for ever",
                do="write what comes out of it to a file, and give that",
            )
        if matches:
            if all(proteins.is_fasta(m, extension(os.fsencode(m))) for m in matches):
                return proteins.open_fasta(matches, str(path))
            rows = open_rows(matches, str(path))
            return rows or _open_shards(matches, str(path))
        raise _missing(path)
    if isinstance(data, np.ndarray):
        return ArraySource(data)
    if isinstance(data, dict):
        return from_dict(data, "dict")
    if isinstance(data, list | tuple) and data and isinstance(data[0], str | os.PathLike):
        return ListedFiles(data)
    if type(data).__module__.startswith("torch") and hasattr(data, "numpy"):
        return ArraySource(data.detach().cpu().numpy())
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        first = data[0] if isinstance(data, list) and data else None
        if isinstance(first, Pair):
            return pairs.PairList(data)
        if isinstance(first, dict) and trajectories.is_episode(first):
            return trajectories.in_memory(data)
        return DatasetSource(data)
    raise SelfsupError(
        "E104",
        f"data of type {type(data).__name__} is not read",
        why="it is neither a path, an array, nor an object with __len__ and __getitem__",
        do="pass a folder, .tar, .parquet, .csv or .npy file, an array, or a map-style dataset",
    )


def _special(path: str) -> bool:
    return os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path)


def _open_file(path: str) -> Source:
    last = extension(os.path.basename(os.fsencode(path)))
    plain = last.removesuffix(b".gz")
    if last == b"parquet" and trajectories.is_table(path):
        return trajectories.open_tables([path], path)
    if plain in (b"csv", b"tsv", b"parquet", b"ts") and series.is_series(path):
        return series.open_series(path)
    if plain in (b"csv", b"tsv", b"parquet", b"jsonl", b"ndjson"):
        found = pairs.open_table(path)
        if found is not None:
            return found
    if last in (b"tar", b"tgz", b"tar.gz", b"parquet"):
        return _open_shards([path], path)
    if plain in (b"csv", b"tsv"):
        return smiles.SmilesSource(path) if smiles.is_table(path) else _open_table(path)
    if last in (b"npy", b"npz"):
        return (trajectories.open_npz(path) if last == b"npz" else None) or open_array(path)
    if proteins.is_fasta(path, last):
        return proteins.open_fasta([path], path)
    if last in CODES:
        listed = ListedFiles([path])
        return open_texts(listed) if listed.content == "text" else listed
    with open(path, "rb") as file:
        kind = sniff(file.read(512))
    if kind is None:
        raise SelfsupError(
            "E104",
            f"{path} is not a kind of file that can be read",
            do=f"unpack it first: gunzip {os.path.basename(path)}"
            if last == b"gz"
            else "pass a folder, .tar, .tar.gz, .parquet, .csv, .npy or .npz file",
        )
    return _open_shards([path], path) if kind == "shard" else ListedFiles([path])


def _open_shards(paths: list[str], place: str) -> Source:
    return pairs.open_pair_shards(paths, place) or open_shards(paths, place)


def _open_table(path: str) -> Source:
    """A table of files, if it names one that is there; else of texts, if a column holds such."""
    table = Table(Path(path))
    if table.path_column is not None:
        first = next((row[0] for row in table.rows()), b"")
        if os.path.exists(os.path.join(os.path.dirname(os.fsencode(path)), first)):
            return CsvSource(path)
    return open_rows([path], path) or CsvSource(path)


def _tables_of_samples(path: str, names: list[str]) -> dict[str, Source]:
    """The tables of a folder whose rows are samples, by their paths."""
    found = {}
    for table in (os.path.join(path, n) for n in names if suffix(n) in (".csv", ".tsv")):
        rows = pairs.open_table(table)
        if rows is None and smiles.is_table(table):
            rows = smiles.SmilesSource(table)
        rows = rows or open_rows([table], table)
        if rows is not None:
            found[table] = rows
    return found


def _one_of(path: str, tables: dict[str, Source]) -> Source:
    """The only table, or several that are the parts of one set. Raises E104 for any others."""
    if len(tables) == 1:
        return next(iter(tables.values()))
    if file_splits(list(tables), range(len(tables))) is not None:
        found = open_rows(list(tables), path)
        if found is not None:
            return found
    raise _several(path, list(tables))


def _several(path: str, files: list[str]) -> SelfsupError:
    listed = ", ".join(os.path.relpath(file, path) for file in files[:8])
    return SelfsupError(
        "E104",
        f"{path} holds several files of samples, and they may be the same ones",
        where=path,
        why=f"found {listed}" + (f" and {len(files) - 8} more" if len(files) > 8 else ""),
        do=f"give one of them: {files[0]}",
    )


def _open_folder(path: str, follow_links: bool) -> Source:
    found = graphs.open_folder(path)
    if found is not None:
        return found
    listing = list_folder(os.fsencode(path), follow_links)
    kinds = Counter(listing.kinds)
    if kinds[KINDS.index("array")] or kinds[KINDS.index("table")]:
        found = trajectories.in_folder(path, [text(name) for name in listing.names])
        if found is not None:
            found.problems = listing.problems
            return found
    samples = {code: n for code, n in kinds.items() if KINDS[code] in ("image", "audio", "video")}
    chosen = max(samples, key=lambda code: (samples[code], -code), default=None)
    texts = KINDS.index("text")
    if chosen is not None and kinds[texts] > MOSTLY * samples[chosen]:
        chosen = texts  # documents with a few pictures
    if chosen is None:
        # No samples as files: shards in the folder are read instead, tables after archives.
        names = [text(name) for name in listing.names]
        if (found := series.in_folder(path, names)) is not None:
            found.problems = listing.problems
            found.ignored = {name: n for name, n in listing.ignored.items() if n}
            return found
        tables = {} if kinds[texts] else _tables_of_samples(path, names)
        if MOSTLY * kinds[KINDS.index("sequence")] >= max(kinds[texts], 1):
            same = [name for name, rows in tables.items() if rows.content == "proteins"]
            if same:
                fasta = [
                    n for n, k in zip(names, listing.kinds, strict=True) if KINDS[k] == "sequence"
                ]
                raise _several(path, [*same, *(os.path.join(path, name) for name in fasta)])
            return proteins.open_folder(path, listing)
        for suffixes in ((".tar", ".tgz", ".tar.gz"), (".parquet",)):
            shards = [os.path.join(path, n) for n in names if n.lower().endswith(suffixes)]
            if shards:
                source = _open_shards(shards, path)
                break
        else:
            if tables:
                source = _one_of(path, tables)
                source.ignored = {name: n for name, n in listing.ignored.items() if n}
                return source
            chosen = texts if kinds[texts] else None
            source = FolderSource(path, listing, keep=chosen)
        source.problems = listing.problems
    else:
        source = FolderSource(path, listing, keep=chosen)
    if chosen == texts:
        source = open_texts(source)
    elif chosen == KINDS.index("image") and frames.obvious(source):
        source = frames.FrameFolders(source)
    source.ignored = {name: n for name, n in listing.ignored.items() if n}
    for code, n in kinds.items():
        if code != chosen and source.kind == "folder":
            source.ignored[KINDS[code]] = source.ignored.get(KINDS[code], 0) + n
    if kinds[KINDS.index("table")]:
        found = zip(listing.names, listing.kinds, strict=True)
        tables = (text(name) for name, code in found if KINDS[code] == "table" and b"/" not in name)
        source.notes = [*source.notes, *_told_beside(path, islice(tables, TABLES))]
    return source


def _told_beside(path: str, names: Iterable[str]) -> list[str]:
    """What tables at the top of a folder tell of the files in it."""
    notes = []
    for name in names:
        table = os.path.join(path, name)
        if suffix(name) not in (".csv", ".tsv"):
            continue
        media, texts = pairs.columns_of(table)
        if not media:
            continue
        if texts:
            notes.append(f"{name} has texts for these files: to learn from both, give {table}")
        found = Table(Path(table))
        labels = f"--labels {table}"
        if found.label_column is not None:
            notes.append(f"{name} has classes of these files: evaluate with {labels}")
        elif classes := _classes(table, next(iter(media))):
            kinds = ", ".join(classes)
            notes.append(f"{name} tells {kinds} of these files: evaluate with {labels}:COLUMN")
    return notes


def _classes(table: str, key: str) -> list[str]:
    """Columns with few values, which are the same in all rows of a file."""
    try:
        rows, found = list(islice(pairs.rows_of(table), ROWS)), []
    except csv.Error:  # it is not this table that was asked for
        return []
    for column in (c for c in rows[0] if c.lower() not in (*SPLIT_COLUMNS, *GROUP_COLUMNS)):
        cells = {(row.get(key), row.get(column)) for row in rows}
        values = {value for _, value in cells}
        if len({file for file, _ in cells}) == len(cells) and 1 < len(values) <= min(
            CLASSES, len(cells) / 2
        ):
            found.append(column)
    return found


def _braces(pattern: str) -> list[str]:
    """WebDataset's notation for numbered shards.

    >>> _braces("shard-{008..010}.tar")
    ['shard-008.tar', 'shard-009.tar', 'shard-010.tar']
    """
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if found is None:
        return [pattern]
    low, high = found.groups()
    if int(high) - int(low) > 1_000_000:
        return [pattern]
    expanded = (
        f"{pattern[: found.start()]}{number:0{len(low)}d}{pattern[found.end() :]}"
        for number in range(int(low), int(high) + 1)
    )
    return [name for part in expanded for name in _braces(part)]


def _missing(path: str) -> SelfsupError:
    folder = os.path.dirname(os.path.abspath(path))
    why = "" if os.path.isdir(folder) else f"the folder {folder} does not exist either"
    return SelfsupError(
        "E101", f"there is nothing at {path}", where=os.path.abspath(path), why=why,
        do="check the spelling; quote patterns such as 'shards/*.tar'",
    )  # fmt: skip


def _empty(source: Source) -> SelfsupError:
    counts = source.problems.counts()
    if counts:
        code, number = next(iter(counts.items()))
        why = f"{number} set aside: {REASONS[code]}"
    elif source.ignored:
        listed = sorted(source.ignored.items(), key=lambda item: -item[1])[:4]
        why = "it holds only " + ", ".join(f"{n} {name}" for name, n in listed)
    else:
        why = "it is empty"
    return SelfsupError(
        "E102", f"no samples in {source.place}", where=source.place, why=why,
        do="point to a folder with jpg, png, webp, bmp, gif or tiff files, or to shards, parquet, "
        "csv or npy; or to text files, jsonl or a csv with a column of text",
    )  # fmt: skip
