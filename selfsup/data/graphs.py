"""Graphs in files: one large network whose nodes are the samples, or many small ones.

A network is a folder with edges.csv, and beside it nodes.csv and features (csv, npy or npz), or one
.npz file. Many graphs are a folder in the text layout of the TU collection, NAME_A.txt and so on.
"""

import hashlib
import os
import stat
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from jaxtyping import Float, Int64

from ..errors import SelfsupError
from .base import LARGEST, UNREADABLE, Source, first_line
from .outcome import BadSample
from .tables import LABEL_COLUMNS, SPLIT_COLUMNS, encode

MOST_NODES, MOST_EDGES = 20_000_000, 100_000_000
MOST_FILES = 256  # that are looked through for the TU layout
FILES = (
    "edges.csv", "edges.npy", "nodes.csv", "classes.csv", "features_csr.npz", "features.npz",
    "features.npy", "features.csv",
)  # fmt: skip
NODE_COLUMNS = ("node", "id", "name", "node_id")
NONE = {"", "none", "-1", "nan"}  # names of no class and of no part


class Rows(NamedTuple):
    """What is known of each node, as a sparse row: values in columns, from `starts` on."""

    starts: Int64[np.ndarray, " n"]
    columns: Int64[np.ndarray, " v"]
    values: Float[np.ndarray, " v"]
    width: int


# ------------------------------------------------------------------------------ sources


class NetworkSource(Source):
    """One graph, whose nodes are the samples. `edges` and `rows` are all of it."""

    kind, content = "network", "nodes"

    def __init__(
        self,
        place: str,
        edges: Int64[np.ndarray, "2 e"],
        rows: Rows,
        names: list[str],
        labels: list[str | None] | None,
        splits: list[str | None] | None,
        class_names: dict[str, str],
        fingerprint: str,
    ):
        super().__init__(place)
        self.edges, self.rows, self._names = edges, rows, names
        self._labels = None if labels is None else encode(labels)
        self._splits = None if splits is None else encode(splits)
        if self._labels is not None and class_names:
            codes, found = self._labels
            self._labels = codes, [class_names.get(name, name) for name in found]
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        return self._names[i]

    def read(self, i: int) -> np.ndarray:
        """The number of the node: all else is said by `edges` and `rows`."""
        return np.array(i, "<i8")

    def fingerprint(self) -> str:
        return self._fingerprint

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._labels

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self._splits


class TUSource(Source):
    """Many graphs in the text layout of the TU collection (https://arxiv.org/abs/2007.08663).

    `read` gives {"edges" (2, e), "labels" (n,) or none, "attributes" (n, k) or none}.
    """

    kind, content = "TU files", "graphs"

    def __init__(self, folder: Path, stem: str):
        super().__init__(str(folder))
        self.stem, self._parts = stem, hashlib.blake2b(digest_size=16)
        graph = self._numbers("graph_indicator")[:, 0] - 1
        n = len(graph)
        graph_labels = self._file("graph_labels")
        self._labels = None
        count = int(graph.max()) + 1 if n else 0
        if _is_file(graph_labels):
            lines = self._bytes("graph_labels").decode("utf-8", "replace").split()
            self._labels = encode([None if line == "nan" else line for line in lines])
            count = len(lines)
        if n and (graph.min() < 0 or graph.max() >= count):
            at = int(np.flatnonzero((graph < 0) | (graph >= count))[0])
            raise self._broken("graph_indicator", at, f"graph {graph[at] + 1} of {count}")
        order = np.argsort(graph, kind="stable")
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)
        edges = self._numbers("A", columns=2).T - 1
        bad = np.flatnonzero(((edges < 0) | (edges >= n)).any(0))
        if len(bad):
            a, b = edges[:, bad[0]] + 1
            raise self._broken("A", bad[0], f"an edge of nodes {a} and {b}, of {n} nodes")
        across = np.flatnonzero(graph[edges[0]] != graph[edges[1]])
        if len(across):
            a, b = edges[:, across[0]] + 1
            raise self._broken("A", across[0], f"nodes {a} and {b} are of different graphs")
        self.edges = canonical(place[edges], n)
        self.starts = np.searchsorted(graph[order], np.arange(count + 1))  # of nodes
        self._cuts = np.searchsorted(self.edges[1], self.starts)  # of edges
        self.node_labels = self.attributes = None
        if _is_file(self._file("node_labels")):
            self.node_labels = self._of_nodes("node_labels", order)[:, 0]
        if _is_file(self._file("node_attributes")):
            self.attributes = self._of_nodes("node_attributes", order, float)

    def _of_nodes(self, part: str, order: np.ndarray, kind: type = int) -> np.ndarray:
        found = self._numbers(part, kind=kind)
        if len(found) != len(order):
            raise self._broken(part, len(found), f"{len(found)} lines for {len(order)} nodes")
        return found[order]

    def _file(self, part: str) -> Path:
        return Path(self.place) / f"{self.stem}_{part}.txt"

    def _bytes(self, part: str) -> bytes:
        return _bytes(self._file(part), self._parts)

    def _numbers(self, part: str, *, columns: int | None = None, kind: type = int) -> np.ndarray:
        """(lines, columns)"""
        read = pacsv.ReadOptions(autogenerate_column_names=True)
        try:
            table = pacsv.read_csv(
                pa.BufferReader(self._bytes(part)),
                read,
                pacsv.ParseOptions(),
                pacsv.ConvertOptions(null_values=["nan", "NaN", ""]),
            )
            wanted = pa.int64() if kind is int else pa.float64()
            found = np.stack(
                [
                    (pa.compute.utf8_trim_whitespace(c) if c.type == pa.string() else c)
                    .cast(wanted)
                    .to_numpy()
                    for c in table.columns
                ],
                1,
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            why = str(error).splitlines()[0]
            if "Empty CSV" in why:
                return np.empty((0, columns or 1), np.int64)
            raise self._broken(part, None, why) from None
        if columns is not None and found.shape[1] != columns:
            raise self._broken(part, 0, f"{found.shape[1]} numbers a line, not {columns}")
        if kind is int and found.dtype != np.int64:
            raise self._broken(part, None, "some lines hold no whole number")
        return found

    def _broken(self, part: str, line: int | None, why: str) -> SelfsupError:
        return _broken(str(self._file(part)), why if line is None else f"line {line + 1}: {why}")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def name(self, i: int) -> str:
        return f"{self.stem} {i}"

    def read(self, i: int) -> dict[str, np.ndarray]:
        low, high = self.starts[i], self.starts[i + 1]
        if low == high:
            raise BadSample("empty", "a graph without nodes")
        found = {"edges": self.edges[:, self._cuts[i] : self._cuts[i + 1]] - low}
        if self.node_labels is not None:
            found["labels"] = self.node_labels[low:high]
        if self.attributes is not None:
            found["attributes"] = self.attributes[low:high]
        return found

    def fingerprint(self) -> str:
        return self._parts.hexdigest()

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._labels

    def folds(self) -> list[np.ndarray]:
        """The test graphs of each published fold, where 10fold_idx/ lies beside the files."""
        found = []
        for k in range(1, 11):
            path = Path(self.place) / "10fold_idx" / f"test_idx-{k}.txt"
            if _is_file(path):
                words = _bytes(path).split()
                found.append(np.array([int(w) for w in words if w.isdigit()], np.int64))
        tested = np.concatenate(found) if found else np.empty(0, np.int64)
        each_once = len(np.unique(tested)) == len(tested)  # the last few graphs may be in none
        return found if each_once and (tested < len(self)).all() else []


# ------------------------------------------------------------------------------ opening


def open_folder(path: str) -> Source | None:
    """A network or the TU layout; None where the folder is neither."""
    folder = Path(path)
    if _is_file(folder / "edges.csv") or _is_file(folder / "edges.npy"):
        return _network_of_folder(folder, {name for name in FILES if _is_file(folder / name)})
    with os.scandir(path) as entries:  # a folder of that layout has a few files, not a million
        names = {entry.name for entry in islice(entries, MOST_FILES)}
    for name in sorted(names):
        stem = name.removesuffix("_A.txt")
        if stem != name and f"{stem}_graph_indicator.txt" in names:
            return TUSource(folder, stem)
    return None


def open_arrays(arrays: dict[str, np.ndarray], place: str) -> Source | None:
    """A network among named arrays: edges, x or a sparse matrix, y, split. None without edges."""
    lower = {name.lower(): array for name, array in arrays.items()}
    edges = next((lower[k] for k in ("edges", "edge_index") if k in lower), None)
    if edges is None:
        return None
    edges = _pairs(edges, place)
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(lower):
        digest.update(name.encode() + np.ascontiguousarray(lower[name]).tobytes())
    rows = _rows_of(lower, place)
    n = len(rows.starts) if rows is not None else int(edges.max(initial=-1)) + 1

    def column(*names: str) -> list[str | None] | None:
        found = next((lower[k] for k in names if k in lower), None)
        if found is not None and found.shape != (n,):
            raise _broken(place, f"{names[0]} has the shape {found.shape}, for {n} nodes")
        return None if found is None else [_known(str(v)) for v in found.tolist()]

    names = [str(i) for i in range(n)]
    edges = _checked(edges, n, place)
    rows = rows or by_degree(edges, n)
    return NetworkSource(
        place, edges, rows, names, column("y", "label", "labels"), column("split", "splits"),
        {}, digest.hexdigest(),
    )  # fmt: skip


def _network_of_folder(folder: Path, names: set[str]) -> NetworkSource:
    digest = hashlib.blake2b(digest_size=16)
    place = str(folder)
    ids = labels = splits = None
    if "nodes.csv" in names:
        table = _table(folder / "nodes.csv", digest)
        lower = {name.strip().lower(): table[name] for name in table}

        def column(wanted: tuple[str, ...]) -> list[str] | None:
            return next((lower[k] for k in wanted if k in lower), None)

        ids = column(NODE_COLUMNS) or next(iter(table.values()), [])
        if len(set(ids)) < len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise _broken(str(folder / "nodes.csv"), f"node {twice!r} is there more than once")
        found = column(LABEL_COLUMNS), column(SPLIT_COLUMNS)
        labels, splits = ([_known(v) for v in c] if c else None for c in found)
    class_names = {}
    if "classes.csv" in names:
        columns = list(_table(folder / "classes.csv", digest).values())
        if len(columns) > 1:
            class_names = dict(zip(columns[0], columns[1], strict=True))
    rows = _features(folder, names, digest)
    if "edges.npy" in names:
        path = folder / "edges.npy"
        pairs = _pairs(_load(path, digest), str(path))
    else:
        path = folder / "edges.csv"
        table = _table(path, digest)
        if len(table) < 2:
            raise _broken(str(path), "it needs two columns, the ends of each edge")
        ends = [next(iter(table)), list(table)[1]]
        words = [table[end] for end in ends]
        if _is_number(ends[0]) and _is_number(ends[1]):  # the head is an edge
            words = [[end, *column] for end, column in zip(ends, words, strict=True)]
        pairs = _numbered(words, ids, str(path))
    if ids is None:
        n = len(rows.starts) if rows is not None else int(pairs.max(initial=-1)) + 1
        ids = [str(i) for i in range(n)]
    if rows is not None and len(rows.starts) != len(ids):
        raise _broken(place, f"features of {len(rows.starts)} nodes, but {len(ids)} nodes")
    edges = _checked(pairs, len(ids), str(path))
    rows = rows or by_degree(edges, len(ids))
    return NetworkSource(
        place, edges, rows, ids, labels, splits, class_names, digest.hexdigest()
    )  # fmt: skip


def _numbered(
    words: list[list[str]], ids: list[str] | None, place: str
) -> Int64[np.ndarray, "2 e"]:
    """The numbers of the nodes that the ends of edges name."""
    number = None if ids is None else {name: i for i, name in enumerate(ids)}
    found = np.empty((2, len(words[0])), np.int64)
    for end, column in enumerate(words):
        for row, word in enumerate(column):
            node = number.get(word) if number is not None else _whole(word)
            if node is None:
                raise _broken(place, f"row {row + 1}: there is no node {word!r}")
            found[end, row] = node
    return found


def _checked(edges: np.ndarray, n: int, place: str) -> Int64[np.ndarray, "2 e"]:
    if n > MOST_NODES or edges.shape[1] > MOST_EDGES:
        raise _broken(place, f"{n} nodes, {edges.shape[1]} edges: more than are read")
    bad = np.flatnonzero(((edges < 0) | (edges >= n)).any(0))
    if len(bad):
        a, b = edges[:, bad[0]]
        raise _broken(place, f"row {bad[0] + 1}: an edge of {a} and {b}, of {n} nodes")
    return canonical(edges, n)


def canonical(edges: Int64[np.ndarray, "2 e"], n: int) -> Int64[np.ndarray, "2 e2"]:
    """Each edge once in both directions, none from a node to itself, by target and source."""
    source, target = np.concatenate([edges, edges[::-1]], 1)
    keys = np.unique(target * n + source)
    source, target = keys % max(n, 1), keys // max(n, 1)
    keep = source != target
    return np.stack([source[keep], target[keep]])


def by_degree(edges: Int64[np.ndarray, "2 e"], n: int) -> Rows:
    """Where nothing is known of nodes: how many neighbours they have, in powers of two."""
    degree = np.bincount(edges[1], minlength=n)
    columns = np.log2(degree + 1).round().astype(np.int64).clip(0, 31)
    return Rows(np.arange(n), columns, np.ones(n, np.float32), 32)


def _features(folder: Path, names: set[str], digest: Any) -> Rows | None:
    for name in ("features_csr.npz", "features.npz", "features.npy", "features.csv"):
        if name not in names:
            continue
        path = folder / name
        if name.endswith(".csv"):
            columns = _table(path, digest)
            try:
                x = np.array([[float(v) for v in c] for c in columns.values()]).T
            except ValueError as error:
                raise _broken(str(path), str(error)) from None
            return from_dense(x, str(path))
        found = _load(path, digest)
        arrays = found if isinstance(found, dict) else {"x": found}
        rows = _rows_of(arrays, str(path))
        if rows is None:
            raise _broken(str(path), f"no features among {', '.join(arrays)}")
        return rows
    return None


def _rows_of(arrays: dict[str, np.ndarray], place: str) -> Rows | None:
    if {"indptr", "indices", "data", "shape"} <= set(arrays):
        return from_csr(*(arrays[k] for k in ("indptr", "indices", "data", "shape")), place)
    x = next((arrays[k] for k in ("x", "features", "arr_0") if k in arrays), None)
    return None if x is None else from_dense(x, place)


def from_csr(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, shape: np.ndarray, place: str
) -> Rows:
    """Checked, because a wrong offset would read memory that is not ours."""
    if shape.shape != (2,) or any(a.dtype.kind not in "iu" for a in (indptr, indices, shape)):
        raise _broken(place, "it is no sparse matrix: indptr, indices, data and shape (2,)")
    n, width = (int(v) for v in shape)
    indptr, indices = indptr.astype(np.int64), indices.astype(np.int64)
    fits = indptr.shape == (n + 1,) and indices.shape == data.shape == (int(indptr[-1]),)
    if not fits or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise _broken(place, f"offsets do not fit {len(indices)} values of {n} rows")
    if len(indices) and (indices.min() < 0 or indices.max() >= width):
        at = int(np.flatnonzero((indices < 0) | (indices >= width))[0])
        node = int(np.searchsorted(indptr, at, "right")) - 1
        raise _broken(place, f"node {node} has column {indices[at]} of {width}")
    values = _finite(data, np.repeat(np.arange(n), np.diff(indptr)), place)
    return Rows(indptr[:-1], indices, values, width)


def from_dense(x: np.ndarray, place: str) -> Rows:
    if x.ndim != 2 or x.dtype.kind not in "buif":
        raise _broken(place, f"features of shape {x.shape} and type {x.dtype}: not (nodes, width)")
    n, width = x.shape
    node, column = np.nonzero(x)
    values = _finite(x[node, column], node, place)
    starts = np.searchsorted(node, np.arange(n))
    return Rows(starts, column.astype(np.int64), values, width)


def _finite(values: np.ndarray, node: np.ndarray, place: str) -> Float[np.ndarray, " v"]:
    if values.dtype.kind not in "buif":
        raise _broken(place, f"features of type {values.dtype} are no numbers")
    values = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        nodes = np.unique(node[bad])
        listed = ", ".join(str(v) for v in nodes[:5])
        raise _broken(place, f"features that are not finite, of {len(nodes)} nodes: {listed}")
    return values


# ------------------------------------------------------------------------------ files


def _is_file(path: Path) -> bool:
    """Whether it is a file itself: no link, pipe or device is opened."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _bytes(path: Path, digest: Any = None) -> bytes:
    if not _is_file(path):
        raise _broken(str(path), "it is no regular file")
    size = path.stat().st_size
    if size > LARGEST:
        raise _broken(str(path), f"{size >> 20} MiB in one file; {LARGEST >> 20} MiB are read")
    raw = path.read_bytes()
    if digest is not None:
        digest.update(path.name.encode() + raw)
    return raw


def _load(path: Path, digest: Any) -> Any:
    """An array, or arrays by name; never an object."""
    import io

    raw = _bytes(path, digest)
    try:
        found = np.load(io.BytesIO(raw), allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        return {name.lower(): found[name] for name in found.files}
    except UNREADABLE as error:
        raise _broken(str(path), first_line(error)) from None


def _table(path: Path, digest: Any) -> dict[str, list[str]]:
    """The columns of a CSV with a header, as text."""
    raw = _bytes(path, digest)
    if not raw.strip():
        return {}
    try:
        head = pacsv.open_csv(pa.BufferReader(raw)).schema.names
        kinds = dict.fromkeys(head, pa.string())
        table = pacsv.read_csv(
            pa.BufferReader(raw), convert_options=pacsv.ConvertOptions(column_types=kinds)
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _broken(str(path), str(error).splitlines()[0]) from None
    return {
        name: ["" if v is None else v.strip() for v in column.to_pylist()]
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _pairs(edges: np.ndarray, place: str) -> Int64[np.ndarray, "2 e"]:
    if edges.ndim != 2 or 2 not in edges.shape or edges.dtype.kind not in "iu":
        raise _broken(place, f"edges of shape {edges.shape} and type {edges.dtype}: not (2, edges)")
    return np.asarray(edges if edges.shape[0] == 2 else edges.T, np.int64)


def _known(word: str) -> str | None:
    return None if word.strip().lower() in NONE else word.strip()


def _is_number(word: str) -> bool:
    return _whole(word) is not None


def _whole(word: str) -> int | None:
    word = word.strip()
    return int(word) if word.lstrip("-").isdigit() and len(word) < 19 else None


def _broken(place: str, why: str) -> SelfsupError:
    return SelfsupError(
        "E105", "the graph cannot be read", where=place, why=why,
        do="mend the file; docs/modalities/graph.md has the forms that are read",
    )  # fmt: skip
