"""Amino acids in FASTA files (also .gz), and how columns of them are told from text.

Only where each record begins is held in memory: files may be larger than it.
"""

import gzip
import os
import re
import threading
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from ..errors import SelfsupError
from .base import LARGEST, REASONS, Source
from .files import Listing, read_file
from .kinds import CODES, KINDS, sniff
from .names import Names, text
from .outcome import BadSample
from .packed import GzipStream
from .tables import encode

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
# beside the twenty: rare ones (U, O), either of two (B, Z, J), any (X), a stop, gaps
LETTERS = frozenset(RESIDUES + "UOBZJX*-.")
NUCLEOTIDES = frozenset("ACGTUN-.")
FEWEST = 10  # different residues, for letters to be amino acids
SHORTEST = 20  # residues of the middle cell, for a column of any name to be one of proteins
COLUMNS = (
    "sequence", "seq", "protein", "protein_sequence", "aa_sequence", "amino_acids", "primary",
    "mutated_sequence",
)  # fmt: skip
HEADING = re.compile(rb"^>[^\n]*", re.MULTILINE)
PART = re.compile(rb"\bSET=(\w+)")
HELD = re.compile(rb"\bVALIDATION=True\b")
CHUNK = 1 << 22
LOOKED_AT = 50  # records that show what a file holds


class Fasta(Source):
    """Records of FASTA files; the first word of a heading is the name, a second one gets a number.

    `SET=train VALIDATION=False` in headings is the split, as FLIP writes it.
    """

    kind, content = "fasta", "proteins"

    def __init__(self, paths: Sequence[str], place: str):
        super().__init__(place)
        self.paths = [os.path.abspath(path) for path in paths]
        self._stamps: list[tuple[int, int]] = []
        self._streams: dict[int, Any] = {}
        self._lock = threading.Lock()
        self.ids = Names()
        self._file, self._start, self._length = array("i"), array("q"), array("q")
        self._parts: list[str | None] = []
        for number, path in enumerate(self.paths):
            self._index(number, path)
        keys = np.array([hash(name) for name in self.ids], np.int64)
        _, first = np.unique(keys, return_index=True)
        self._again = frozenset(set(range(len(keys))) - set(first.tolist()))
        if self._again:
            self.notes.append(f"{len(self._again)} records have the name of an earlier one")

    # ---- where records are ---------------------------------------------------------------------

    def _index(self, number: int, path: str) -> None:
        from ..stop import stop

        try:
            status = os.stat(path)
            packed = _packed(path)
            file: Any = gzip.open(path) if packed else open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise SelfsupError("E101", f"{path} cannot be opened", why=error.strerror) from None
        self._stamps.append((status.st_size, status.st_mtime_ns))
        lines, begun, known = b"", 0, len(self.ids)
        with file:
            while True:
                stop.check()
                try:
                    chunk = file.read1(CHUNK)  # of a packed file that is cut, all there is
                except (EOFError, zlib.error, gzip.BadGzipFile):
                    self._end(begun)
                    self._forget_last(known, path)
                    break
                # whole lines, and at the end what is left
                end = (lines + chunk).rfind(b"\n") + 1 if chunk else len(lines)
                whole, lines = (lines + chunk)[:end], (lines + chunk)[end:]
                for found in HEADING.finditer(whole):
                    self._end(begun + found.start())
                    self._begin(number, found.group(), begun + found.end() + 1)
                begun += len(whole)
                if not chunk:
                    self._end(begun)
                    break
        if packed:
            self._streams[number] = GzipStream(open(path, "rb"))  # noqa: SIM115

    def _begin(self, number: int, heading: bytes, start: int) -> None:
        words = heading[1:].split(None, 1)
        self.ids.append(words[0] if words else b"record %d" % (len(self.ids) + 1))
        self._file.append(number)
        self._start.append(start)
        self._length.append(-1)
        part = PART.search(heading)
        name = part.group(1).decode().lower() if part else None
        self._parts.append("validation" if name and HELD.search(heading) else name)

    def _end(self, place: int) -> None:
        if len(self._length) and self._length[-1] < 0:
            self._length[-1] = max(0, place - self._start[-1])

    def _forget_last(self, known: int, path: str) -> None:
        """The record in which a packed file is cut short."""
        if len(self.ids) > known:
            self.problems.add(self.ids[len(self.ids) - 1], "archive-cut")
            self.ids = self.ids.take(list(range(len(self.ids) - 1)))
            for part in (self._file, self._start, self._length, self._parts):
                part.pop()
        else:
            self.problems.add(os.fsencode(path), "archive-cut")

    def check(self) -> None:
        """Raises SelfsupError E105 where there are no records, or none of amino acids."""
        if not len(self):
            if len(self.problems) == 0 and any(size for size, _ in self._stamps):
                raise SelfsupError(
                    "E105", f"{self.place} has no record", where=self.place,
                    why="no line begins with >", do="put a line such as >name before each sequence",
                )  # fmt: skip
            return
        counts = Counter("".join(self._some()).upper())
        if counts and sum(n for c, n in counts.items() if c in NUCLEOTIDES) > 0.95 * counts.total():
            raise SelfsupError(
                "E105", f"{self.place} holds nucleotides, not amino acids", where=self.place,
                why=f"its letters are {', '.join(sorted(counts))}",
                do="translate them; or read them as text: a column named text, "
                "--set modality.tokens=characters",
            )  # fmt: skip

    def _some(self) -> Iterator[str]:
        for i in range(min(len(self), LOOKED_AT)):
            try:
                yield self.read(i)
            except BadSample:
                continue

    # ---- samples -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, i: int) -> str:
        name = text(self.ids[i])
        return f"{name}#{i + 1}" if i in self._again else name

    def size(self, i: int) -> int:
        return self._length[i]

    def read(self, i: int) -> str:
        """The letters of a record, without blanks and ends of lines."""
        number, start, length = self._file[i], self._start[i], self._length[i]
        if length > LARGEST:
            raise BadSample("too-large", REASONS["too-large"])
        size, time = self._stamps[number]
        if number in self._streams:
            read_file(os.fsencode(self.paths[number]), size, time, 0, 0)  # still the one listed
            try:
                with self._lock:
                    self._streams[number].seek(start)
                    content = self._streams[number].read(length)
            except zlib.error as error:
                raise BadSample("damaged", f"its packed file: {error}") from None
        else:
            content = read_file(os.fsencode(self.paths[number]), size, time, start, length)
        return b"".join(content.split()).decode("latin-1")

    def fingerprint(self) -> str:
        names = [os.path.basename(path) for path in self.paths]
        return blake2b(repr((names, self._stamps)).encode(), digest_size=16).hexdigest()

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return encode(self._parts)


def open_fasta(paths: Sequence[str], place: str) -> Fasta:
    """FASTA files of amino acids. Raises SelfsupError E105 where they hold something else."""
    source = Fasta(paths, place)
    source.check()
    return source


def is_fasta(path: str, extension: bytes) -> bool:
    """Whether a file holds FASTA, by its name; by its first bytes where that says text or nothing.

    Other kinds of files begin otherwise.
    """
    kind = KINDS[CODES[extension]] if extension in CODES else None
    if kind not in (None, "text"):
        return kind == "sequence"
    with open(path, "rb") as file:
        return sniff(file.read(512)) == "sequence"


def open_folder(path: str, listing: Listing) -> Source:
    """The FASTA files of a folder that hold amino acids.

    Files of other letters, such as a class for each residue, are named and left alone.
    """
    code = KINDS.index("sequence")
    chosen = [i for i, kind in enumerate(listing.kinds) if kind == code]
    names = [os.path.join(path, text(listing.names[i])) for i in chosen]
    ours = [name for name in names if are_residues(list(marks(name, LOOKED_AT).values()))]
    source = open_fasta(ours, path)
    source.problems = listing.problems
    source.ignored = {name: n for name, n in listing.ignored.items() if n}
    others = [os.path.basename(name) for name in names if name not in ours]
    if others:
        source.notes.append(f"{', '.join(others)}: not amino acids, left alone")
    return source


def marks(path: str, most: int | None = None) -> dict[str, str]:
    """The letters of each record of a FASTA file by its name, whatever they mean."""
    found: dict[str, str] = {}
    opened = gzip.open if _packed(path) else open
    with opened(path, "rb") as file:
        name, parts = None, []
        for line in file:
            if not line.startswith(b">"):
                parts.append(line.strip().decode("latin-1"))
                continue
            if name is not None:
                found[name] = "".join(parts)
            if most is not None and len(found) >= most:
                return found
            words = line[1:].split(None, 1)
            name, parts = text(words[0]) if words else "", []
    if name is not None:
        found[name] = "".join(parts)
    return found


def _packed(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


# ---- columns of tables -------------------------------------------------------------------------


def sequence_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The one column that holds proteins: one of the usual names, else the first like it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    known = {name.strip().lower(): name for name in reversed(names)}
    for usual in COLUMNS:
        if usual in known and are_residues([row.get(known[usual]) for row in rows]):
            return [known[usual]]
    for name in names:
        cells = [row.get(name) for row in rows]
        if are_residues(cells) and _middle(cells) >= SHORTEST:
            return [name]
    return []


def are_residues(cells: Sequence[Any]) -> bool:
    """Strings without blanks, of the letters of amino acids, and of many of them."""
    filled = [cell.strip().upper() for cell in cells if isinstance(cell, str) and cell.strip()]
    found = [cell for cell in filled if LETTERS.issuperset(cell)]
    letters = set("".join(found))
    return (
        len(filled) >= 0.5 * len(cells)
        and len(found) >= 0.9 * len(filled)
        and len(letters & set(RESIDUES)) >= FEWEST
        and not letters <= NUCLEOTIDES
    )


def _middle(cells: Sequence[Any]) -> int:
    lengths = sorted(len(cell) for cell in cells if isinstance(cell, str))
    return lengths[len(lengths) // 2]
