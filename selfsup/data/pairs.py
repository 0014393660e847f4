"""Samples of several parts: pictures with captions, sounds with films, sentences with others.

Tables that name files and hold texts, shards with `key.jpg` beside `key.txt` or `key.json`,
parquet with encoded files beside texts, and lists of `Pair`. A part is called after what it holds
(image, text, audio), or after its column where two parts hold the same. One sample may have
several texts. Where columns are named (`as_pairs`), parts are any mix of files, texts, proteins
and molecules.
"""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import SelfsupError
from ..stop import stop
from .base import Pair, Source, stamp_of
from .copies import raw_print
from .files import read_file
from .kinds import CODES, KINDS, extension, sniff
from .listed import Labelled
from .names import encoded, text
from .outcome import BadSample
from .packed import opened, suffix
from .parquet import each_row, first_rows, one_row, open_parquet
from .proteins import are_residues
from .shards import MEDIA, ParquetSource, TarSource, _key
from .tables import (
    LABEL_COLUMNS,
    LONGEST_LINE,
    NUMBER_COLUMNS,
    SPLIT_COLUMNS,
    SPLITS,
    encode,
    lines,
    number_column,
)
from .texts import LOOKED_BYTES, _is_prose, _reader

CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "transcript", "transcription",
                   "description", "alt_text", "prompt")  # fmt: skip
LOOKED_AT = 200  # rows that tell what columns hold
TRIED = 20  # file names that tell where files lie
WORDS = 2.0  # in a column of texts, on average, where its name does not say that it is one
HELD_OUT = 10  # every so many-th sample tests where the data name no parts
FEWEST = 50  # samples for some of them to be held out
ORPHANS = 0.2  # of all samples without one part: more are told of
TESTING = SPLITS - {"train", "training"}
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


class PairSource(Source):
    """`parts`: name -> what it holds, as `Source.content` calls it. `read` gives a `Pair`."""

    content = "pairs"
    parts: dict[str, str]
    chosen: tuple[str, ...] = ()  # the columns that were named, if any

    def splits(self) -> tuple[np.ndarray, list[str]]:
        """As the data say; else every tenth sample tests, chosen by a hash of its name."""
        named = self._splits()
        if named is not None:
            return named
        if len(self) < FEWEST:
            return np.zeros(len(self), np.int64), ["train"]
        drawn = (_number(self.name(i)) for i in range(len(self)))
        test = np.fromiter(drawn, np.int64, len(self)) % HELD_OUT == 0
        return np.where(test, 0, 1), ["test", "train"]

    def _splits(self) -> tuple[np.ndarray, list[str]] | None:
        """The parts that the data name."""
        return None

    def _tell_of_orphans(self, lost: int, how: str) -> None:
        """Say so where much was left out, which hints at a wrong folder or a wrong column."""
        whole = lost + len(self)
        if lost > ORPHANS * whole:
            self.notes.append(f"{lost} of {whole} {how}: is that meant?")

    def for_training(self) -> Source:
        """All but what tests: a text that was seen with its picture says nothing when found."""
        numbers, names = self.splits()
        testing = [i for i, name in enumerate(names) if name.lower() in TESTING]
        keep = np.flatnonzero(~np.isin(numbers, testing))
        return Some(self, keep) if 0 < len(keep) < len(self) else self


class Part(Source):
    """One part of every sample of pairs; of several texts one, another for each next sample."""

    def __init__(self, pairs: Any, of: str):
        super().__init__(pairs.place)
        self.pairs, self.of = pairs, of
        self.kind, self.content, self.lasting = pairs.kind, pairs.parts[of], pairs.lasting
        self.molecules = self.content == "graphs"  # there are no others in pairs
        self.problems, self.ignored, self.notes = pairs.problems, pairs.ignored, pairs.notes
        self.sequential = False

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, i: int) -> str:
        return self.pairs.name(i)

    def read(self, i: int) -> Any:
        found = self.pairs.read(i)[self.of]
        return found[i % len(found)]

    def size(self, i: int) -> int | None:
        return self.pairs.size(i)

    def fingerprint(self) -> str:
        return f"{self.pairs.fingerprint()}-{self.of}"

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self.pairs.labels()

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self.pairs._splits()


class Some(PairSource):
    """Some samples of pairs."""

    def __init__(self, whole: PairSource, keep: np.ndarray):
        super().__init__(whole.place)
        self.whole, self.keep, self.parts, self.kind = whole, keep, whole.parts, whole.kind
        self.sequential, self.lasting = whole.sequential, whole.lasting
        self.problems, self.ignored, self.notes = whole.problems, whole.ignored, whole.notes
        self.chosen = whole.chosen

    def __len__(self) -> int:
        return len(self.keep)

    def name(self, i: int) -> str:
        return self.whole.name(int(self.keep[i]))

    def read(self, i: int) -> Any:
        return self.whole.read(int(self.keep[i]))

    def size(self, i: int) -> int | None:
        return self.whole.size(int(self.keep[i]))

    def fingerprint(self) -> str:
        digest = blake2b(self.whole.fingerprint().encode(), digest_size=16)
        digest.update(self.keep.astype("<i8").tobytes())
        return digest.hexdigest()

    def stamps(self) -> np.ndarray | None:
        stamps = self.whole.stamps()
        return None if stamps is None else stamps[self.keep]

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        found = self.whole.labels()
        return None if found is None else (found[0][self.keep], found[1])

    def splits(self) -> tuple[np.ndarray, list[str]]:
        numbers, names = self.whole.splits()
        return numbers[self.keep], names


def _number(name: str) -> int:
    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def named(contents: Mapping[str, str]) -> dict[str, str]:
    """Column -> name of the part: what it holds, or the column where two parts hold the same."""
    counts = Counter(contents.values())
    return {
        column: kind if counts[kind] == 1 else re.sub(r"\W|^(?=\d)", "_", column)
        for column, kind in contents.items()
    }


# ---- tables ----------------------------------------------------------------------------------


class PairTable(PairSource):
    """Rows that name files and hold texts. Rows that name the same files are one sample.

    `contents` tells what each column of a part is; those of `written` are strings, each part in
    some columns, the others name files. Empty texts count for nothing; a sample without any is told
    of when it is read. Where nothing names files each row is a sample. `scores` are the numbers in
    a column of that kind, as `Source.targets` has them.
    """

    def __init__(
        self,
        paths: list[str],
        place: str,
        contents: dict[str, str],
        written: dict[str, list[str]],
    ):
        super().__init__(place)
        rows = [row for path in paths for row in rows_of(path)]
        media = [column for column in contents if column not in written]
        self.kind = suffix(paths[0])[1:]
        self.root = _root(paths[0], media, rows)
        columns = named(contents)
        self.parts = {columns[c]: kind for c, kind in contents.items()}
        self._media = [columns[c] for c in media]
        self._written = [columns[c] for c in written]
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for number, row in enumerate(rows, 1):
            if not row:
                self.problems.add(f"row {number}".encode(), "broken-row")
            key = tuple(str(row.get(column) or "").strip() for column in media)
            if not media and row:
                groups[f"{os.path.basename(place)}#{number}",] = [row]
            elif key and all(key):
                groups.setdefault(key, []).append(row)
            elif any(key):
                self.problems.add(encoded(next(filter(None, key))), "no-partner")
        self._files: list[tuple[str, ...]] = []  # or the name of the row
        self._texts: list[tuple[list[str], ...]] = []
        self._stats: list[tuple[int, int]] = []
        first: list[dict[str, Any]] = []
        for key, same in groups.items():
            try:
                status = [os.stat(self._path(name)) for name in key] if media else []
            except (OSError, ValueError):  # the latter: nothing can be called that
                self.problems.add(encoded(key[0]), "missing")
                continue
            self._files.append(key)
            self._texts.append(
                tuple(
                    list(dict.fromkeys(t for row in same for t in _told(row, own)))
                    for own in written.values()
                )
            )
            self._stats += [(s.st_size, s.st_mtime_ns) for s in status]
            first.append(same[0])
        self._labels = _column(first, LABEL_COLUMNS, rows)
        self._given = _column(first, SPLIT_COLUMNS, rows)
        usual = (*LABEL_COLUMNS, *NUMBER_COLUMNS)
        names = [n for n in dict.fromkeys(chain(*rows)) if n.strip().lower() in usual]
        cells = {n: [None if (v := r.get(n)) is None else str(v) for r in first] for n in names}
        self.scores = number_column(cells, NUMBER_COLUMNS)
        if media:
            self._look_around()

    def _look_around(self) -> None:
        """Captions without files, files without captions: a few are usual, many a mistake."""
        counts = self.problems.counts()
        absent = counts.get("missing", 0) + counts.get("no-partner", 0)
        self._tell_of_orphans(absent, "rows are without a file that is there")
        mute = sum(not all(texts) for texts in self._texts)
        if mute > ORPHANS * len(self):
            self.notes.append(f"{mute} of {len(self)} files have no text in the table")
        named, kinds = {name for key in self._files for name in key}, set(self.parts.values())
        others = 0
        for folder in {os.path.dirname(name) for name in named}:
            with os.scandir(self._path(folder)) as entries:
                for entry in entries:
                    name = os.path.join(folder, os.fsdecode(entry.name))
                    others += _kind(name) in kinds and name not in named
        if others:
            self.ignored = {"files without a text": others}
        self._tell_of_orphans(others, "files beside the table are not in it")

    def _path(self, name: str) -> bytes:
        return os.path.join(os.fsencode(self.root), os.fsencode(name))

    def __len__(self) -> int:
        return len(self._files)

    def name(self, i: int) -> str:
        return self._files[i][0]

    def size(self, i: int) -> int:
        k = len(self._media)
        return sum(size for size, _ in self._stats[i * k : (i + 1) * k])

    def read(self, i: int) -> Pair:
        k = len(self._media)
        found = Pair()
        for j, part in enumerate(self._media):
            size, time = self._stats[i * k + j]
            found[part] = [read_file(self._path(self._files[i][j]), size, time)]
        for part, texts in zip(self._written, self._texts[i], strict=True):
            found[part] = texts or [""]
        return found

    def fingerprint(self) -> str:
        digest = blake2b(repr(sorted(self.parts.items())).encode(), digest_size=16)
        for files, texts in zip(self._files, self._texts, strict=True):
            digest.update(repr((files, *texts)).encode("utf-8", "surrogatepass"))
        digest.update(repr(self._stats).encode())
        return digest.hexdigest()

    def stamps(self) -> np.ndarray:
        stats = np.array(self._stats, np.int64).reshape(len(self), len(self._media), 2)
        texts = [blake2b("\n".join(chain(*t)).encode("utf-8", "surrogatepass"), digest_size=8)
                 .digest() for t in self._texts]  # fmt: skip
        written = np.frombuffer(b"".join(texts), np.uint64)
        return stamp_of(stats[:, :, 0].sum(1), stats[:, :, 1].sum(1)) ^ written

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._labels

    def _splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self._given


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
        inner = as_pairs(source.source, columns)
        return source if inner is source.source else Labelled(inner, source.table)
    paths = tables(source)
    if not paths or getattr(source, "chosen", ()) == columns:
        return source
    rows = _first_rows(paths[0])
    if not rows and suffix(paths[0]) == ".parquet":
        file = open_parquet(paths[0])
        rows = first_rows(file, paths[0], 32)
    if missing := set(columns) - {name for row in rows for name in row}:
        if source.content != "pairs":
            return source
        raise SelfsupError("E105", f"{source.place} has no column {', '.join(sorted(missing))}")
    rows = [{column: row.get(column) for column in columns} for row in rows]
    bytes_of = _encoded(rows) if suffix(paths[0]) == ".parquet" else {}
    media = bytes_of or _media(paths[0], rows)
    contents = {c: media.get(c) or _strings(c, [row[c] for row in rows]) for c in columns}
    written = {column: [column] for column in columns if column not in media}
    found: PairSource
    if bytes_of:
        found = PairParquet(paths, source.place, contents, written)
    else:
        found = _open(paths, source.place, contents, written)
    found.chosen = columns
    return found


def tables(source: Source) -> list[str]:
    """The files of a source whose samples are rows of tables; none of any other."""
    paths = getattr(source, "paths", None) or [source.place]
    return paths if all(suffix(p) in TABLES and os.path.isfile(p) for p in paths) else []


def sentences(source: Source) -> tuple[str, ...]:
    """The columns of text of a table, if there are two."""
    paths = tables(source)
    rows = _first_rows(paths[0]) if paths else []
    names = dict.fromkeys(name for row in rows for name in row)
    found = tuple(n for n in names if _is_prose([row.get(n) for row in rows], WORDS))
    return found if len(found) == 2 else ()


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


def _strings(column: str, cells: list[Any]) -> str:
    """What a column of strings holds."""
    if "smiles" in column.lower():
        return "graphs"
    return "proteins" if are_residues(cells) else "text"


def columns_of(path: str) -> tuple[dict[str, str], list[str]]:
    """The columns of a table that name files, with what those files are, and those of texts."""
    rows = _first_rows(path)
    media = _media(path, rows)
    return media, _text_columns(rows, media) if media else []


def _first_rows(path: str) -> list[dict[str, Any]]:
    """None of what is no table: whoever reads it otherwise says why."""
    rows, seen = [], 0
    try:
        for row in islice(rows_of(path), LOOKED_AT):
            rows.append(row)
            seen += sum(len(cell) for cell in row.values() if isinstance(cell, str))
            if seen > LOOKED_BYTES:
                break
    except (OSError, csv.Error):
        return []
    return rows


def rows_of(path: str) -> Iterator[dict[str, Any]]:
    if path.lower().endswith(".parquet"):
        table = open_parquet(path)
        if not any(map(_binary, table.schema_arrow)):  # else the files themselves are in there
            yield from each_row(table)
        return
    if suffix(path) in (".jsonl", ".ndjson"):
        yield from _each_object(path)
        return
    with io.TextIOWrapper(
        opened(path), encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as file:
        rows = _reader(lines(file), path)
        header = next(rows, [])
        for cells in rows:
            stop.check()
            if any(cells):
                yield dict(zip(header, cells, strict=False))


def _each_object(path: str) -> Iterator[dict[str, Any]]:
    """Rows of JSON lines; empty where they are none, or too long to be held."""
    with opened(path) as file:
        while line := file.readline(LONGEST_LINE + 1):
            stop.check()
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST_LINE)
                yield {}
            elif line.strip():
                yield _object(line)


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _media(path: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> what the files are that it names, where most of those can be found."""
    found = {}
    for column in dict.fromkeys(name for row in rows for name in row):
        cells = [c for row in rows if isinstance(c := row.get(column), str) and c.strip()]
        cells = [cell.strip() for cell in cells[:TRIED]]
        kinds = Counter(_kind(cell) for cell in cells)
        kind, count = kinds.most_common(1)[0] if kinds else ("", 0)
        if kind and count > len(cells) / 2:
            found[column] = kind
    root = _root(path, found, rows)
    here = {c: [str(r.get(c)).strip() for r in rows if r.get(c)][:TRIED] for c in found}
    return {
        column: kind
        for column, kind in found.items()
        if sum(os.path.isfile(os.path.join(root, n)) for n in here[column]) * 2 >= len(here[column])
    }


def _kind(name: str) -> str:
    code = CODES.get(extension(encoded(os.path.basename(name))))
    return KINDS[code] if code in MEDIA else ""


def _root(path: str, media: Iterable[str], rows: list[dict[str, Any]]) -> str:
    """The folder that names begin from: the table's own or one in it, such as images/."""
    home = os.path.dirname(os.path.abspath(path))
    inner = sorted(e.path for e in os.scandir(home) if e.is_dir() and not e.name.startswith("."))
    names = [str(row[c]).strip() for row in rows[:TRIED] for c in media if row.get(c)]
    counts = {
        folder: sum(os.path.isfile(os.path.join(folder, name)) for name in names)
        for folder in (home, *inner)
    }
    return max(counts, key=lambda folder: counts[folder])


def _text_columns(rows: list[dict[str, Any]], media: Iterable[str]) -> list[str]:
    """Those of the usual names, else all that look like prose: each says what the sample is."""
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in set(media)]
    known = {name.strip().lower(): name for name in reversed(names)}
    for usual in CAPTION_COLUMNS:
        if usual in known and any(_told(row, [known[usual]]) for row in rows):
            return [known[usual]]
    others = {*LABEL_COLUMNS, *SPLIT_COLUMNS, "id"}
    return [
        name
        for name in names
        if name.strip().lower() not in others
        and _is_prose([row.get(name) for row in rows], WORDS)
        and not any(_kind(str(row.get(name) or "")) for row in rows[:TRIED])
    ]


def _told(row: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    """All texts of a row."""
    cells = (row.get(column) for column in columns)
    texts = (t for cell in cells for t in (cell if isinstance(cell, list) else [cell]))
    return [t.strip() for t in texts if isinstance(t, str) and t.strip()]


def _column(
    rows: list[dict[str, Any]], names: tuple[str, ...], whole: list[dict[str, Any]]
) -> tuple[np.ndarray, list[str]] | None:
    known = {name.strip().lower(): name for row in whole[:LOOKED_AT] for name in row}
    column = next((known[name] for name in names if name in known), None)
    if column is None:
        return None
    values = (str(row.get(column) or "").strip() or None for row in rows)
    return encode(values)


# ---- shards ----------------------------------------------------------------------------------


class PairTar(TarSource, PairSource):
    """`key.jpg` beside `key.txt`, or beside `key.json` with a caption in it; key.wav likewise."""

    def __init__(self, paths: list[str], place: str):
        super().__init__(paths, place)
        self.content = "pairs"

    def _wanted(self, archive: Any, member: Any, number: int) -> bool:
        name = member.name.encode("utf-8", "surrogateescape")
        last = os.path.basename(name)
        if member.isreg() and not last.startswith(b".") and extension(last) in (b"txt", b"json"):
            return True
        return super()._wanted(archive, member, number)

    def _keep_one_kind(self) -> None:
        """Members by key, in the order in which keys come; what has no partner is a problem."""
        groups: dict[tuple[int, bytes], dict[str, int]] = {}
        for i, member in enumerate(self.members):
            ending = extension(os.path.basename(member))
            kind = "json" if ending == b"json" else KINDS[self.kinds[i]]
            group = groups.setdefault((self.shard[i], _key(member)), {})
            if kind in group:
                self.problems.add(member, "key-again")
            else:
                group[kind] = i
        kinds = Counter(k for group in groups.values() for k in group)
        written = "text" if kinds["text"] >= kinds["json"] else "json"
        least = len(groups) / 2
        held = {k: k for k in ("image", "audio", "video") if kinds[k] >= least}
        if len(held) < 2 or kinds[written] >= least:
            held["text"] = written
        self.parts = {name: name for name in held}
        self._groups: list[dict[str, int]] = []
        for group in groups.values():
            if all(k in group for k in held.values()):
                self._groups.append({name: group[k] for name, k in held.items()})
            else:
                self.problems.add(self.members[min(group.values())], "no-partner")
        self.json = held.get("text") == "json"
        lost = self.problems.counts().get("no-partner", 0)
        self._tell_of_orphans(lost, "keys have one part without the other")

    def __len__(self) -> int:
        return len(self._groups)

    def name(self, i: int) -> str:
        return TarSource.name(self, next(iter(self._groups[i].values())))

    def size(self, i: int) -> int:
        return sum(self.length[j] for j in self._groups[i].values())

    def read(self, i: int) -> Pair:
        raws = {name: TarSource.read(self, j) for name, j in self._groups[i].items()}
        found = Pair({name: [raw] for name, raw in raws.items()})
        if self.json:
            found["text"] = _captions(raws["text"])
        return found

    def stamps(self) -> np.ndarray:
        first = [next(iter(group.values())) for group in self._groups]
        return TarSource.stamps(self)[first]

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        if not self._classes:
            return None
        found = []
        for group in self._groups:
            j = next(iter(group.values()))
            value = self._classes.get((self.shard[j], _key(self.members[j])))
            found.append(text(value).strip() if value is not None else None)
        return encode(found)

    def splits(self) -> tuple[np.ndarray, list[str]]:
        return PairSource.splits(self)


def _captions(raw: bytes) -> list[str]:
    """The texts in a JSON object. Raises BadSample."""
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadSample("broken-row", f"not JSON: {error}") from None
    if isinstance(told, dict):
        lower = {str(key).lower(): value for key, value in told.items()}
        for usual in CAPTION_COLUMNS:
            if usual in lower:
                return _told(lower, [usual]) or [""]
    raise BadSample("empty", f"no text under {', '.join(CAPTION_COLUMNS[:3])}")


class PairParquet(ParquetSource, PairSource):
    """Columns of encoded files beside columns of strings, or of lists of them; as `PairTable`."""

    def __init__(
        self,
        paths: list[str],
        place: str,
        contents: dict[str, str],
        written: dict[str, list[str]],
    ):
        columns = named(contents)
        self.parts = {columns[c]: kind for c, kind in contents.items()}
        self._media = {columns[c]: c for c in contents if c not in written}
        self._written = {columns[c]: own for c, own in written.items()}
        super().__init__(paths, place)
        self.content = "pairs"

    def _find_columns(self) -> tuple[list[str], bool]:
        return [*self._media.values(), *chain(*self._written.values())], False

    def read(self, i: int) -> Pair:
        group, at = self._locate(i)
        row = one_row(self._table(group), at)
        found = Pair()
        for part, column in self._media.items():
            value = row[column]
            value = value.get("bytes") if isinstance(value, dict) else value
            if value is None:
                raise BadSample("empty", f"the cell of {column} is empty")
            found[part] = [value]
        for part, own in self._written.items():
            found[part] = _told(row, own) or [""]
        return found

    def splits(self) -> tuple[np.ndarray, list[str]]:
        return PairSource.splits(self)

    def _splits(self) -> tuple[np.ndarray, list[str]] | None:
        return ParquetSource.splits(self)


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
    media = _encoded(rows)
    texts = _text_columns(rows, media) if media else []
    if not texts and len(set(media.values())) < 2:
        return None
    return PairParquet(paths, place, *_unasked(media, texts))


def _encoded(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> what the files are whose bytes it holds."""
    media = {}
    for column in dict.fromkeys(name for row in rows for name in row):
        cells = [row[column] for row in rows if row.get(column) is not None]
        heads = [c.get("bytes") if isinstance(c, dict) else c for c in cells]
        kinds = Counter(sniff(head[:512]) for head in heads if head and isinstance(head, bytes))
        kind = kinds.most_common(1)[0][0] if kinds else None
        if kind in ("image", "audio", "video"):
            media[column] = kind
    return media


def _binary(field: Any) -> bool:
    kind = field.type
    inner = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or inner


# ---- in memory -------------------------------------------------------------------------------


class PairList(PairSource):
    """A list of `Pair`: each part a raw form, or a list of several.

    A part holds what it is called after, or what its first raw form looks like.
    """

    kind, lasting = "dataset", False

    def __init__(self, samples: list[Pair]):
        super().__init__("list")
        self.samples = samples
        self.parts = {part: _held(part, forms[0]) for part, forms in self.read(0).items()}

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, i: int) -> str:
        return str(i)

    def read(self, i: int) -> Pair:
        forms = self.samples[i].items()
        return Pair({part: one if isinstance(one, list) else [one] for part, one in forms})

    def fingerprint(self) -> str:
        digest = blake2b(repr((len(self), sorted(self.parts.items()))).encode(), digest_size=16)
        for i in range(len(self)):
            digest.update(raw_print(self.read(i)))
        return digest.hexdigest()


def _held(part: str, raw: Any) -> str:
    if part in ("image", "audio", "video", "text", "proteins", "graphs"):
        return part
    if isinstance(raw, str):
        return _strings(part, [raw])
    if isinstance(raw, bytes):
        return sniff(raw[:512]) or "text"
    return {1: "audio", 2: "audio", 4: "video"}.get(getattr(raw, "ndim", 3), "image")
