"""Texts: files, which are cut where they are long, JSON lines, and columns of tables.

Nothing is held in memory but where each text begins, so files may be larger than it.
"""

import csv
import json
import os
import re
import threading
import zlib
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import SelfsupError
from .base import Source
from .files import FileSource, read_file
from .outcome import BadSample
from .packed import GzipStream, is_packed, opened, suffix
from .proteins import sequence_columns
from .tables import (
    GROUP_COLUMNS,
    HELD_COLUMNS,
    LABEL_COLUMNS,
    LONGEST_LINE,
    NUMBER_COLUMNS,
    SPLIT_COLUMNS,
    SPLITS,
    Classes,
    encode,
    grouped,
    held_out,
    lines,
    number_column,
)

WHOLE = 64 << 10  # bytes: up to here a file among others is one text
PIECES = 1024  # a long text is cut into about so many, of 1 to 8 KiB
SHORTEST, LONGEST = 1 << 10, 8 << 10
TEXT_COLUMNS = ("text", "content", "sentence", "document", "body", "abstract", "review")
LOOKED_AT = 200  # rows that show which columns hold prose
LOOKED_BYTES = 1 << 22  # and no more of them than that
CLASS_COLUMNS = (*LABEL_COLUMNS, "labels")
USUAL = (*CLASS_COLUMNS, *SPLIT_COLUMNS, *HELD_COLUMNS, *GROUP_COLUMNS)
BEGINNING = 1000  # characters of a cell that tell whether it is prose
LETTER = re.compile(r"[^\W\d_]")


class Cut(bytes):
    """A part of a longer text, at whose ends no document begins or ends."""


class TextFiles(Source):
    """Files of text. Long ones, and a single one, are cut into pieces at the ends of lines.

    A piece ends with the first line that ends behind its share of the file, or with the first word
    where lines are very long. Of a long file only the first piece has the file's label.
    """

    content = "text"

    def __init__(self, files: FileSource):
        super().__init__(files.place)
        self.files, self.kind = files, files.kind
        self.problems, self.ignored = files.problems, files.ignored
        total = sum(files.size(i) for i in range(len(files)))
        wanted = max(1, total // PIECES)
        self.piece = min(max(SHORTEST, 1 << (wanted.bit_length() - 1)), LONGEST)
        whole = WHOLE if len(files) > 1 else self.piece
        self._file, self._start = array("q"), array("q")
        for i in range(len(files)):
            length = files.size(i)
            # the last one is half as long as a piece or half as long again
            starts = range(0, length - self.piece // 2, self.piece) if length > whole else range(1)
            self._file.extend([i] * len(starts))
            self._start.extend(starts)

    def __len__(self) -> int:
        return len(self._file)

    def _is_last(self, i: int) -> bool:
        return i + 1 == len(self) or self._file[i + 1] != self._file[i]

    def _is_cut(self, i: int) -> bool:
        return self._start[i] > 0 or not self._is_last(i)

    def name(self, i: int) -> str:
        name = self.files.name(self._file[i])
        return f"{name}#{self._start[i]}" if self._is_cut(i) else name

    def size(self, i: int) -> int:
        return (
            self.piece if not self._is_last(i) else self.files.size(self._file[i]) - self._start[i]
        )

    def read(self, i: int) -> bytes:
        file, start = self._file[i], self._start[i]
        if not self._is_cut(i):
            return self.files.read(file)
        path, size, time = self.files.path(file), self.files.size(file), self.files.times[file]
        content = read_file(path, size, time, start, 2 * self.piece)
        first = 0 if start == 0 else _break(content[: self.piece])
        last = len(content)
        if not self._is_last(i):
            last = self.piece + _break(content[self.piece :])
        return Cut(content[first:last])

    def fingerprint(self) -> str:
        return f"{self.files.fingerprint()}-{self.piece}"

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        found = self.files.labels()
        if found is None:
            return None
        numbers = found[0][np.frombuffer(self._file, np.int64)].copy()
        numbers[np.frombuffer(self._start, np.int64) > 0] = -1
        return numbers, found[1]

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        found = self.files.splits()
        return None if found is None else (found[0][np.frombuffer(self._file, np.int64)], found[1])


def _break(content: bytes) -> int:
    """Where a cut is made: behind the first line end, else the first blank, else a character."""
    for mark in (b"\n", b" "):
        place = content.find(mark)
        if place >= 0:
            return place + 1
    return next((i for i, byte in enumerate(content[:4]) if byte & 0xC0 != 0x80), 0)


# ---- rows ------------------------------------------------------------------------------------


class RowSource(Source):
    """Texts in the rows of files, each file indexed once and read at any row.

    `columns` are those that make the text, one line each; names count rows from 1. A column of
    amino acids is no text: `content` is then "proteins".
    """

    def __init__(self, paths: Sequence[str], place: str):
        super().__init__(place)
        self.paths = [os.path.abspath(path) for path in paths]
        self._stamps: list[tuple[int, int]] = []
        self._streams: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._file, self._number = array("i"), array("q")
        self._start, self._length = array("q"), array("q")
        for file, path in enumerate(self.paths):
            try:
                status = os.stat(path)
                self._stamps.append((status.st_size, status.st_mtime_ns))
                for number, start, length in self._rows(path):
                    self._file.append(file)
                    self._number.append(number)
                    self._start.append(start)
                    self._length.append(length)
                if is_packed(path):
                    self._streams[file] = GzipStream(open(path, "rb"))  # noqa: SIM115
            except OSError as error:
                raise SelfsupError("E101", f"{path} cannot be opened", why=error.strerror) from None
        rows = self._looked()
        self.content, self.columns = content_of(rows)
        self._names = list(dict.fromkeys(name for row in rows for name in row))
        self.notes = left_out(rows, self.columns)

    @abstractmethod
    def _rows(self, path: str) -> Iterator[tuple[int, int, int]]:
        """(number, start, length) of each row that is not empty."""

    @abstractmethod
    def _parse(self, content: bytes) -> dict[str, Any]:
        """Cells by the names of their columns. Raises ValueError."""

    def _looked(self) -> list[dict[str, Any]]:
        """The rows that show what there is."""
        lengths = np.array(self._length[:LOOKED_AT])
        lengths[lengths > LONGEST_LINE] = 0  # not read
        looked = np.flatnonzero(np.cumsum(lengths) - lengths <= LOOKED_BYTES)
        return [row for i in looked.tolist() if (row := self._parsed(i))]

    def _parsed(self, i: int) -> dict[str, Any] | None:
        try:
            return self._parse(self._bytes(i))
        except (BadSample, ValueError):
            return None

    def _bytes(self, i: int) -> bytes:
        file = self._file[i]
        size, time = self._stamps[file]
        if self._length[i] > LONGEST_LINE:
            raise BadSample("too-large", f"a row of {self._length[i] >> 20} MiB")
        path, start, length = os.fsencode(self.paths[file]), self._start[i], self._length[i]
        if file not in self._streams:
            return read_file(path, size, time, start, length)
        read_file(path, size, time, 0, 0)  # still the file that was listed
        try:
            with self._lock:
                self._streams[file].seek(start)
                return self._streams[file].read(length)
        except zlib.error as error:
            raise BadSample("damaged", f"its packed file: {error}") from None

    def __len__(self) -> int:
        return len(self._file)

    def name(self, i: int) -> str:
        return f"{os.path.basename(self.paths[self._file[i]])}#{self._number[i]}"

    def read(self, i: int) -> str:
        content = self._bytes(i)
        try:
            return joined(self._parse(content), self.columns)
        except ValueError as error:
            reason = f"row {self._number[i]} cannot be read: {error}"
            raise BadSample("broken-row", reason) from None

    def fingerprint(self) -> str:
        from hashlib import blake2b

        digest = blake2b(repr((self._stamps, self.columns)).encode(), digest_size=16)
        digest.update(repr([os.path.basename(path) for path in self.paths]).encode())
        return digest.hexdigest()

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._named(CLASS_COLUMNS)

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        parts = held_out(self._named(SPLIT_COLUMNS), self._named(HELD_COLUMNS))
        return parts or file_splits(self.paths, self._file)

    def groups(self) -> np.ndarray | None:
        return grouped(self._named(GROUP_COLUMNS))

    def targets(self) -> tuple[np.ndarray, str] | None:
        usual = (*LABEL_COLUMNS, *NUMBER_COLUMNS)
        names = [n for n in self._names if n.strip().lower() in usual and n not in self.columns]
        return number_column({n: list(self._cells(n)) for n in names}, NUMBER_COLUMNS)

    def _cells(self, column: str) -> Iterator[str | None]:
        return (_cell((self._parsed(i) or {}).get(column)) for i in range(len(self)))

    def _named(self, names: tuple[str, ...]) -> tuple[np.ndarray, list[str]] | None:
        known = [name.strip().lower() for name in self._names]
        return self._classes.get(next((name for name in names if name in known), ""))

    @cached_property
    def _classes(self) -> dict[str, Classes | None]:
        """Of the columns that `_named` is asked for, in lower case: one pass over all rows."""
        columns = {n.strip().lower(): n for n in self._names if n not in self.columns}
        cells: dict[str, list[str | None]] = {name: [] for name in USUAL if name in columns}
        same: dict[str | None, str | None] = {}  # each text once in memory
        for i in range(len(self) if cells else 0):
            row = self._parsed(i) or {}
            for name, column in cells.items():
                cell = _cell(row.get(columns[name]))
                column.append(same.setdefault(cell, cell))
        return {name: encode(column) for name, column in cells.items()}


class JsonLines(RowSource):
    """One JSON object (or string) a line."""

    kind = "jsonl"

    def _rows(self, path: str) -> Iterator[tuple[int, int, int]]:
        from ..stop import stop

        number, start, begun = 1, 0, 0  # of the line, and of the chunk
        with opened(path) as file:
            while chunk := file.read(1 << 22):
                stop.check()
                ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + begun
                for end in ends.tolist():
                    if end > start:
                        yield number, start, end - start
                    number, start = number + 1, end + 1
                begun += len(chunk)
        if begun > start:
            yield number, start, begun - start

    def _parse(self, content: bytes) -> dict[str, Any]:
        try:  # wrong bytes are judged by the modality, so that it can replace them
            row = json.loads(content.decode("utf-8-sig", "surrogateescape"))
        except RecursionError:
            raise ValueError("too many brackets within brackets") from None
        if isinstance(row, str):
            return {"text": row}
        if not isinstance(row, dict):
            raise ValueError(f"{type(row).__name__} is neither an object nor a string")
        return row


class TextTable(RowSource):
    """CSV or TSV with a header. In a TSV quotes mean nothing unless they enclose a cell."""

    kind = "csv"

    def __init__(self, paths: Sequence[str], place: str):
        self._header: list[str] = []
        super().__init__(paths, place)

    def _rows(self, path: str) -> Iterator[tuple[int, int, int]]:
        from ..stop import stop

        place, number = 0, 0
        with opened(path) as file:

            def decoded() -> Iterator[str]:
                nonlocal place
                for line in lines(file):
                    place += len(line)
                    yield line.decode("utf-8-sig" if place == len(line) else "utf-8", "replace")

            try:
                start = 0
                for cells in _reader(decoded(), path):
                    if number == 0:
                        self._note_header(path, cells)
                    elif any(cells):
                        yield number, start, place - start
                    start, number = place, number + 1
                    if number % 4096 == 0:
                        stop.check()
            except csv.Error as error:
                raise SelfsupError(
                    "E105", f"{path} is not a readable table: {error}", where=path
                ) from None

    def _note_header(self, path: str, cells: list[str]) -> None:
        self._header = self._header or cells
        if cells != self._header:
            raise SelfsupError(
                "E105",
                f"{path} has other columns than the tables before it",
                where=path,
                why=f"{', '.join(cells)[:200]} instead of {', '.join(self._header)[:200]}",
            )

    def _parse(self, content: bytes) -> dict[str, Any]:
        line = content.decode("utf-8", "surrogateescape")
        cells = next(_reader(iter([line]), self.paths[0]), [])
        return dict(zip(self._header, cells, strict=False))


def _reader(rows: Iterator[str], path: str) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST_LINE)
    if suffix(path) != ".tsv":
        return csv.reader(rows)
    plain = csv.reader(rows, delimiter="\t", quoting=csv.QUOTE_NONE)
    return ([_unquoted(cell) for cell in cells] for cells in plain)


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell


def _cell(value: Any) -> str | None:
    return None if value is None else str(value).strip() or None


def joined(row: Mapping[str, Any], columns: Iterable[str]) -> str:
    """The text of a row: one line for each column that has one."""
    cells = (row.get(column) for column in columns)
    return "\n".join(str(cell) for cell in cells if cell is not None and str(cell).strip())


def content_of(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """What rows hold, and in which columns."""
    found = sequence_columns(rows)
    return ("proteins", found) if found else ("text", text_columns(rows))


def text_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns that hold text: one of the usual names, else all that look like prose."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    known = {name.strip().lower(): name for name in reversed(names)}
    for usual in TEXT_COLUMNS:
        if usual in known and _is_prose([row.get(known[usual]) for row in rows], words=1.0):
            return [known[usual]]
    others = {*LABEL_COLUMNS, *SPLIT_COLUMNS, *GROUP_COLUMNS, "id"}
    return [
        name
        for name in names
        if name.strip().lower() not in others and _is_prose([row.get(name) for row in rows])
    ]


def left_out(rows: Sequence[Mapping[str, Any]], columns: list[str]) -> list[str]:
    """Columns of text beside those that are read, as a note."""
    others = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if columns and name not in columns and _is_prose([row.get(name) for row in rows])
    ]
    both = json.dumps([*columns, *others], ensure_ascii=False)
    told = f"text in {', '.join(others)} is not read: --set 'modality.columns={both}' makes pairs"
    return [told] if others else []


def _is_prose(cells: Sequence[Any], words: float = 3.0) -> bool:
    """Strings of several words, mostly letters, that hardly repeat."""
    found = [cell[:BEGINNING] for cell in cells if isinstance(cell, str) and cell.strip()]
    if not found or len(found) < 0.5 * len(cells):
        return False
    length = sum(map(len, found))
    return (
        sum(len(cell.split()) for cell in found) >= words * len(found)
        and sum(len(LETTER.findall(cell)) for cell in found) >= 0.5 * length
        and len(set(found)) >= min(0.5 * len(found), 10)
    )


def file_splits(paths: Sequence[str], file: Sequence[int]) -> tuple[np.ndarray, list[str]] | None:
    """train, test ... from the names of several files: ag_news_train.csv, ag_news_test.csv."""
    parts = []
    for path in paths:
        words = re.split(r"[^a-z]+", os.path.basename(path).lower())
        parts.append(next((word for word in words if word in SPLITS), None))
    if len(paths) < 2 or None in parts:
        return None
    return encode(parts[number] for number in file)


# ---- which of them ---------------------------------------------------------------------------

ROWS: dict[str, Callable[[Sequence[str], str], RowSource]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".csv": TextTable,
    ".tsv": TextTable,
}


def open_rows(paths: Sequence[str], place: str) -> RowSource | None:
    """Texts in rows, where the files have such; None for other tables.

    Raises SelfsupError E105 for JSON lines without a text.
    """
    last = suffix(paths[0])
    if last not in ROWS or any(suffix(path) != last for path in paths):
        return None
    source = ROWS[last](paths, place)
    if source.columns:
        return source
    if isinstance(source, JsonLines):
        long = max(source._length, default=0) > LONGEST_LINE
        raise SelfsupError(
            "E105",
            f"{place} has no column of text",
            where=place,
            why=f"some lines are longer than {LONGEST_LINE >> 20} MiB" if long else "",
            do=f"name one of them {', '.join(TEXT_COLUMNS[:3])}",
        )
    return None


def open_texts(files: FileSource) -> Source:
    """Files of text as they are, or the rows of those that hold one text a line."""
    rows = [os.fsdecode(files.path(i)) for i in range(len(files))]
    if rows and all(suffix(path) in (".jsonl", ".ndjson") for path in rows):
        found = open_rows(rows, files.place)
        assert found is not None
        return found
    return TextFiles(files)
