"""Classes and parts of samples: from the names of folders or from the columns of a table."""

import csv
import io
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, AnyStr, NamedTuple

import numpy as np

from ..errors import SelfsupError
from .names import Names, text
from .packed import opened, suffix

TRAIN = {"train", "training"}
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "name")
LABEL_COLUMNS = ("label", "class", "category", "target", "label_name", "class_name", "cls")
NAME_COLUMNS = ("label_name", "class_name")  # what the numbers in another column mean
SPLIT_COLUMNS = ("split", "part", "subset", "set")
FOLD_COLUMNS = ("fold", "folds")
GROUP_COLUMNS = ("groups", "group_id", "source_group")  # that must not teach and test both
NUMBER_COLUMNS = ("value", "score", "fitness", "y", "activity", "affinity", "stability")
HELD_COLUMNS = ("validation",)  # true where a sample of the training part is held out

LONGEST_LINE = 1 << 26  # characters of a cell or a line: more is not held in memory
FEW = 20  # as many different values are classes, more may be numbers

Classes = tuple[np.ndarray, list[str]]  # (n,) int64 with -1 for none, and what the numbers mean


class Row(NamedTuple):
    """None where a cell is empty or there is no such column."""

    path: bytes
    label: str | None
    split: str | None
    fold: str | None
    group: str | None


class Table:
    """A CSV (or TSV, also .gz) with a header, read row by row; `label` is its column of classes."""

    def __init__(self, path: Path, label: str | None = None):
        self.path = path
        self.delimiter = "\t" if suffix(str(path)) == ".tsv" else ","
        csv.field_size_limit(LONGEST_LINE)
        with self._open() as file:
            try:
                self.header = next(csv.reader(lines(file), delimiter=self.delimiter), [])
            except csv.Error as error:
                raise self._broken(error) from None
        known = [name.strip().lower() for name in self.header]

        def column(names):
            return next((known.index(name) for name in names if name in known), None)

        self.path_column, self.label_column = (
            column(PATH_COLUMNS),
            column(LABEL_COLUMNS),
        )
        if label is not None:
            self.label_column = column([label.strip().lower()])
        self.split_column, self.fold_column = column(SPLIT_COLUMNS), column(FOLD_COLUMNS)
        groups = column(GROUP_COLUMNS)
        self.group_column = None if groups == self.label_column else groups

    def _open(self):
        return io.TextIOWrapper(
            opened(str(self.path)), encoding="utf-8-sig", errors="surrogateescape", newline=""
        )

    def rows(self) -> Iterator[Row]:
        names = self.path_column or 0

        def cell(row, column):
            return (
                (row[column].strip() or None) if column is not None and column < len(row) else None
            )

        try:
            with self._open() as file:
                reader = csv.reader(lines(file), delimiter=self.delimiter)
                next(reader, None)
                for row in reader:
                    if len(row) > names and row[names]:
                        yield Row(
                            row[names].encode("utf-8", "surrogateescape"),
                            cell(row, self.label_column),
                            cell(row, self.split_column),
                            cell(row, self.fold_column),
                            cell(row, self.group_column),
                        )
        except csv.Error as error:
            raise self._broken(error) from None

    def _broken(self, error: csv.Error) -> SelfsupError:
        told = f"{self.path} is not a readable CSV: {error}"
        return SelfsupError("E105", told, where=str(self.path))


def lines(file: IO[AnyStr]) -> Iterator[AnyStr]:
    """Lines of a table. Raises csv.Error at one that is too long, before all of it is read."""
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise csv.Error(f"a line is longer than {LONGEST_LINE >> 20} MiB")
        yield line


def encode(values: Iterable[str | None]) -> tuple[np.ndarray, list[str]] | None:
    """Class numbers in the sorted order of the class names; None where there are no names."""
    names: dict[str, int] = {}
    codes = array("q", (-1 if v is None else names.setdefault(v, len(names)) for v in values))
    if not names:
        return None
    ordered = sorted(names, key=_natural)
    place = np.empty(len(names) + 1, np.int64)
    place[-1] = -1
    for number, name in enumerate(ordered):
        place[names[name]] = number
    # wrong bytes become \\udcXX, so that every name can be printed and stays another one
    ordered = [name.encode("utf-8", "backslashreplace").decode() for name in ordered]
    return place[np.frombuffer(codes, np.int64)], ordered


def grouped(groups: Classes | None) -> np.ndarray | None:
    """A number for each sample, equal in a group; samples of no group are alone."""
    if groups is None:
        return None
    codes, names = groups
    return np.where(codes < 0, len(names) + np.arange(len(codes)), codes)


def number_column(
    columns: Mapping[str, Sequence[str | None]], names: Sequence[str] = ()
) -> tuple[np.ndarray, str] | None:
    """The column of numbers that is to be foretold, (n,) float64 with NaN for none, and its name.

    A column of labels where there is one, else one of these names. Labels that have names in a
    column beside them are classes, however many there are.
    """
    if any(name.strip().lower() in NAME_COLUMNS for name in columns):
        return None
    usual = [name for name in columns if name.strip().lower() in LABEL_COLUMNS]
    for name in usual or [name for name in columns if name.strip().lower() in names]:
        values = as_numbers(columns[name])
        if values is not None and len(np.unique(values[np.isfinite(values)])) > FEW:
            return values, name
    return None


def as_numbers(values: Iterable[str | None]) -> np.ndarray | None:
    """(n,) float64 with NaN where there is nothing; None where a value is no number."""
    try:
        return np.array([float(v) if v else np.nan for v in values], np.float64)
    except ValueError:
        return None


def matched(names: Sequence[str], listed: Iterable[str]) -> list[str | None]:
    """What a list calls each of these files: the same, or the same but for folders above.

    The list may have been written in another folder than the one that names begin from. None where
    it calls none so, or several alike.

    >>> matched(["x/a.csv", "x/b.csv", "y/b.csv"], ["a.csv", "all/x/b.csv", "c.csv"])
    ['a.csv', 'all/x/b.csv', None]
    """
    ending = defaultdict(set)
    for key in listed:
        for end in _endings(key):
            ending[end].add(key)
    keys = {key for found in ending.values() for key in found}
    chosen = []
    for name in names:
        fit = ending.get(name, set()) | keys.intersection(_endings(name))
        chosen.append(name if name in fit else next(iter(fit)) if len(fit) == 1 else None)
    times = Counter(chosen)
    return [k if times[k] == 1 or k == n else None for k, n in zip(chosen, names, strict=True)]


def _endings(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def held_out(parts: Classes | None, held: Classes | None) -> Classes | None:
    """`parts` with a part called validation, where a column of its own marks that."""
    if parts is None or held is None:
        return parts
    true = [i for i, name in enumerate(held[1]) if name.lower() in ("true", "1", "yes")]
    codes = np.where(np.isin(held[0], true), len(parts[1]), parts[0])
    return codes, [*parts[1], "validation"]


def _natural(name: str) -> tuple:
    return (0, int(name), name) if re.fullmatch(r"-?\d{1,18}", name) else (1, 0, name)


def _folders(names: Names) -> Iterator[list[bytes]]:
    """The folders of each name, without those that all names begin with."""
    common: list[bytes] | None = None
    for name in names:
        parts = name.split(b"/")[:-1]
        if common is None:
            common = parts
        while common and parts[: len(common)] != common:
            common = common[:-1]
        if not common:
            break
    skip = len(common or ())
    for name in names:
        yield name.split(b"/")[:-1][skip:]


def folder_labels(names: Names) -> tuple[np.ndarray, list[str]] | None:
    """The first folder below those that all samples share, or the second under train/, test/ ...

    >>> folder_labels(Names([b"train/cat/1.jpg", b"test/dog/2.jpg"]))[1]
    ['cat', 'dog']
    """
    split = folder_splits(names) is not None

    def labels():
        for parts in _folders(names):
            rest = parts[1:] if split else parts
            yield text(rest[0]) if rest else None

    return encode(labels())


def folder_splits(names: Names) -> tuple[np.ndarray, list[str]] | None:
    """train, test ... where every sample lies in a folder of such a name."""
    first = [parts[0] if parts else b"" for parts in _folders(names)]
    if not first or not all(text(name).lower() in SPLITS for name in set(first)):
        return None
    return encode(text(name) for name in first)
