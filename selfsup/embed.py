"""One vector for each sample of a data set, in a file, however large it is and often it is killed.

Samples are taken in blocks of fixed numbers. A finished block lies beside the output, in
NAME.partial/, until all are there; then they are put together. The same command goes on after a
kill, and the file that comes out is the same to the last byte as without it.
"""

import csv
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import faults
from .console import Console, duration
from .data import open_source
from .data.outcome import Ledger
from .data.seen import seen_as
from .data.sources import Source, keep_apart
from .errors import SelfsupError
from .inference import Bad, Fast, decoded
from .load import LoadedEncoder, load
from .logs import FULL, disk_error, replace
from .stop import Stopped, stop

FORMAT = 1
BLOCK = 4096  # samples, about; a multiple of the batch
SUFFIXES = (".parquet", ".npy", ".csv")
TOO_MANY_SKIPPED = 0.5
# What makes a spreadsheet take a cell for a formula
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written, a row for each sample that can be read. found = used + skipped."""

    path: str
    found: int
    used: int
    skipped: int
    reasons: dict[str, int]
    skipped_list: str
    seconds: float
    samples_per_second: float
    resumed: int  # samples that an earlier call had done

    def rows(self) -> str:
        return f"{self.used} rows"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        line = f"{self.rows()} in {self.path}"
        if self.samples_per_second:
            line += f" ({duration(self.seconds)}, {self.samples_per_second:.0f} samples/s)"
        line += f"\nfound {self.found} = used {self.used} + skipped {self.skipped}"
        if self.skipped:
            reasons = ", ".join(f"{count} {code}" for code, count in self.reasons.items())
            line += f" ({reasons}; see {self.skipped_list})"
        return line


@dataclass(frozen=True, kw_only=True)
class Embedded(Written):
    """What `embed` wrote."""

    dim: int

    def rows(self) -> str:
        return f"{self.used} vectors of {self.dim} numbers"


def embed(
    run: Any,
    data: Any,
    out: str | Path = "vectors.parquet",
    *,
    batch: int = 128,
    workers: int = 2,
    precision: str = "auto",
    follow_links: bool = False,
    cache: str | Path | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Embedded:
    """Write one vector for each sample of `data` that can be read.

    `out` ends in .parquet (columns id, path, vector), .csv (id, path, v0, v1 ...) or .npy (the
    vectors alone; ids and paths in NAME.csv beside it). id is the sample's number in the sorted
    data. Beside it lie NAME.skipped.jsonl and NAME.json, which says where the vectors come from.
    `cache` is not needed: samples are read once.

    Raises SelfsupError: E605 when `out` exists and comes from other data or another encoder,
    E606 while another process writes it, E103 when more than half cannot be read, E303 when the
    disk is full; what is done stays, and the same command goes on from there.
    """
    started = time.monotonic()
    console = console or Console()
    out = Path(out)
    if out.suffix.lower() not in SUFFIXES:
        raise SelfsupError(
            "E607", f"{out.name} names no format", do=f"end it in {', '.join(SUFFIXES)}"
        )
    keep_apart(out, data)
    encoder = run if isinstance(run, LoadedEncoder) else load(run)
    source = seen_as(open_source(data, follow_links=follow_links), encoder.modality)
    encoder = encoder.seeing(source.content)
    source = seen_as(source, encoder.modality)
    fast = Fast(encoder.encoder, precision)
    batch = max(1, batch)
    work = Work(
        out,
        {
            "format": FORMAT,
            "encoder": encoder.fingerprint(),
            "data": source.fingerprint(),
            "samples": len(source),
            "dim": encoder.dim,
            "precision": fast.precision,
            "batch": batch,
        },
        block=max(1, BLOCK // batch) * batch,
    )
    with stop.installed(), work.writing(console, len(source) * encoder.dim * 4):
        ready = None if overwrite else work.finished()
        if ready is not None:
            console.say(f"{out} is already complete")
            return Embedded(**ready | {"seconds": 0.0, "samples_per_second": 0.0})
        resumed = work.begin()
        _run(work, encoder, fast, source, batch, workers, console, started)
        return work.finish(source, started, resumed, partial(Embedded, dim=encoder.dim))


def _run(
    work: "Work",
    encoder: LoadedEncoder,
    fast: Fast,
    source: Source,
    batch: int,
    workers: int,
    console: Console,
    started: float,
) -> None:
    done = 0
    total = sum(high - low for low, high in map(work.range_of, work.missing()))
    for number in list(work.missing()):
        low, high = work.range_of(number)
        rows, vectors, skipped = [], [], []
        parts = decoded(
            source,
            encoder.modality,
            encoder.size,
            start=low,
            end=high,
            batch=batch,
            workers=workers,
        )
        for part, bad in parts:
            skipped += bad
            if part is not None:
                x = encoder.modality.plain(part.to(fast.device), encoder.size)
                vectors.append(fast(x).cpu().numpy())
                rows.append(part.indices.numpy())
            done += len(bad) + (0 if part is None else len(part))
            rate = done / max(time.monotonic() - started, 1e-3)
            console.progress(
                f"embed {len(source) - total + done}/{len(source)}  {rate:.0f} samples/s  "
                f"about {duration((total - done) / rate)} left"
            )
        ids = np.concatenate(rows) if rows else np.empty(0, np.int64)
        faults.at("embed.block")
        block = np.concatenate(vectors) if vectors else np.empty((0, encoder.dim), np.float32)
        flat = pa.array(block.reshape(-1), pa.float32())
        columns = {"vector": pa.FixedSizeListArray.from_arrays(flat, encoder.dim)}
        work.put(number, source, ids, columns, skipped)


class Work:
    """The blocks of an output that are done, in a folder beside it."""

    def __init__(self, out: Path, identity: dict[str, Any], block: int):
        self.out, self.identity, self.block = out, identity | {"block": block}, block
        self.folder = out.with_name(out.name + ".partial")
        self.card = out.with_name(out.name + ".json")
        self.skipped_list = out.with_name(out.name + ".skipped.jsonl")
        self.ids_list = out.with_name(out.name + ".csv")
        self.ledger = Ledger()

    @contextmanager
    def writing(self, console: Console, needed: int) -> Iterator[None]:
        """Under the lock; where it ends early, what is done stays, and that is said.

        Raises SelfsupError E303 when the disk, of which `needed` bytes are wanted, is full.
        """
        with self.locked():
            try:
                yield
            except Stopped:
                console.say(
                    f"what is done lies in {self.folder}: the same command goes on from there"
                )
                raise
            except OSError as error:
                if error.errno not in FULL:
                    raise
                raise disk_error(error, self.out, needed) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises SelfsupError E606 while another process writes the same output."""
        from filelock import FileLock, Timeout

        self.out.absolute().parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out.with_name(f".{self.out.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise SelfsupError(
                "E606",
                f"another process is writing {self.out}",
                where=lock.lock_file,
                do="wait for it, or give another --out",
            ) from None
        try:
            yield
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def finished(self) -> dict[str, Any] | None:
        """What was written, if `out` is there and from the same encoder and data.

        Raises SelfsupError E605 when it is there and from something else.
        """
        if not self.out.exists():
            return None
        try:
            told = json.loads(self.card.read_bytes())
            if told["identity"] == self.identity:
                return told["result"]
        except (OSError, ValueError, KeyError, TypeError):
            told = {}
        before = told.get("identity", {}) if isinstance(told, dict) else {}
        changed = [key for key, value in self.identity.items() if before.get(key) != value]
        raise SelfsupError(
            "E605",
            f"{self.out} exists and comes from something else",
            where=str(self.out),
            why=f"other {', '.join(changed)}" if before else f"no {self.card.name} beside it",
            do="give another --out, or --overwrite to replace it",
        )

    def begin(self) -> int:
        """Take over what an earlier call has left; how many samples that were.

        Blocks of other data, another encoder or other settings are thrown away.
        """
        card = self.folder / "identity.json"
        try:
            same = json.loads(card.read_bytes()) == self.identity
        except (OSError, ValueError):
            same = False
        if not same:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            replace(card, json.dumps(self.identity).encode())
        for leftover in self.folder.glob("*.tmp"):
            leftover.unlink()
        # The list of a killed call may have samples of a block that is done again now: begin anew
        self.skipped_list.unlink(missing_ok=True)
        self.ledger = Ledger(self.skipped_list)
        resumed = 0
        for path in self._blocks():
            skipped = self._skipped(path)
            for row in skipped:
                self.ledger.skip(**row)
            resumed += pq.read_metadata(path).num_rows + len(skipped)
        return resumed

    def range_of(self, number: int) -> tuple[int, int]:
        """First and last + 1 sample of a block."""
        return number * self.block, min((number + 1) * self.block, self.identity["samples"])

    def missing(self) -> Iterator[int]:
        for number in range(-(-self.identity["samples"] // self.block)):
            if not self._path(number).exists():
                yield number

    def put(
        self,
        number: int,
        source: Source,
        ids: np.ndarray,
        found: dict[str, pa.Array],
        bad: list[Bad],
    ) -> None:
        """Keep a finished block with the columns that were found: whole under its name, or not at
        all."""
        names = [source.name(int(i)) for i in ids]
        skipped = [{"name": source.name(b.number), "code": b.code, "reason": b.reason} for b in bad]
        columns = {
            "id": pa.array(ids, pa.int64()),
            "path": pa.array([readable(name) for name in names], pa.string()),
        }
        if not all(map(_is_text, names)):
            columns["path_bytes"] = pa.array([_bytes(n) for n in names], pa.binary())
        table = pa.table(columns | found).replace_schema_metadata({"skipped": json.dumps(skipped)})
        path = self._path(number)
        temporary = path.with_suffix(".tmp")
        pq.write_table(table, temporary, compression="none")
        temporary.replace(path)
        for row in skipped:  # after the block, so that the list never runs ahead of it
            self.ledger.skip(**row)

    def finish(
        self, source: Source, started: float, resumed: int, result_of: Callable[..., Any]
    ) -> Any:
        """Put the blocks together, write what they are, remove them."""
        for problem in source.problems:
            self.ledger.skip(**problem)
        skipped, found = len(self.ledger), source.found
        used = sum(pq.read_metadata(path).num_rows for path in self._blocks())
        if used + skipped != found:
            raise AssertionError(f"found {found} is not used {used} + skipped {skipped}")
        if skipped > TOO_MANY_SKIPPED * found:
            raise self.ledger.too_many(skipped, found, source.place)
        temporary = self.out.with_name(self.out.name + ".tmp")
        try:
            faults.at("embed.finish")
            WRITERS[self.out.suffix.lower()](self._blocks(), temporary, used, self)
            seconds = time.monotonic() - started
            result = result_of(
                path=str(self.out),
                found=found,
                used=used,
                skipped=skipped,
                reasons=self.ledger.counts(),
                skipped_list=str(self.skipped_list) if skipped else "",
                seconds=round(seconds, 3),
                samples_per_second=round((found - resumed) / max(seconds, 1e-9), 1),
                resumed=resumed,
            )
            card = {"identity": self.identity, "result": result.to_json()}
            with stop.polled():  # the card and the file belong together
                replace(self.card, (json.dumps(card, indent=1) + "\n").encode())
                temporary.replace(self.out)
                shutil.rmtree(self.folder)
                if not skipped:
                    self.skipped_list.unlink(missing_ok=True)
        finally:
            temporary.unlink(missing_ok=True)
        return result

    def _path(self, number: int) -> Path:
        return self.folder / f"block-{number:06d}.parquet"

    def _blocks(self) -> list[Path]:
        return sorted(self.folder.glob("block-*.parquet"))

    @staticmethod
    def _skipped(path: Path) -> list[dict[str, str]]:
        return json.loads(pq.read_schema(path).metadata[b"skipped"])


def _write_parquet(blocks: list[Path], out: Path, used: int, work: Work) -> None:
    has_bytes = any("path_bytes" in pq.read_schema(path).names for path in blocks)
    fields = [field for field in _fullest(blocks) if field.name != "path_bytes"]
    if has_bytes:
        fields.insert(2, pa.field("path_bytes", pa.binary()))
    about = {"selfsup": json.dumps(work.identity, sort_keys=True)}
    with pq.ParquetWriter(out, pa.schema(fields, metadata=about), compression="none") as writer:
        for path in blocks:
            stop.check()
            table = pq.read_table(path)
            if has_bytes and "path_bytes" not in table.column_names:
                names = pa.array([name.encode() for name in table["path"].to_pylist()], pa.binary())
                table = table.add_column(2, "path_bytes", names)
            if len(table):
                writer.write_table(table.replace_schema_metadata(about))


def _write_npy(blocks: list[Path], out: Path, used: int, work: Work) -> None:
    dim = work.identity["dim"]
    with out.open("wb") as file, _rows(work.ids_list) as rows:
        header = {"descr": "<f4", "fortran_order": False, "shape": (used, dim)}
        np.lib.format.write_array_header_1_0(file, header)
        rows.writerow(["id", "path"])
        for path in blocks:
            stop.check()
            table = pq.read_table(path)
            file.write(_vectors(table, dim).astype("<f4").tobytes())
            for i, name in zip(table["id"].to_pylist(), _names(table), strict=True):
                rows.writerow([i, cell(name)])


def _write_csv(blocks: list[Path], out: Path, used: int, work: Work) -> None:
    with _rows(out) as rows:
        head = None
        for path in blocks:
            stop.check()
            table = pq.read_table(path)
            if not len(table) and path != blocks[-1]:
                continue
            names, columns = ["id", "path"], [map(str, table["id"].to_pylist())]
            columns.append(map(cell, _names(table)))
            for field in table.schema:
                if pa.types.is_fixed_size_list(field.type):
                    width = field.type.list_size
                    names += [f"v{i}" for i in range(width)]
                    columns += [map("{:.9g}".format, v) for v in _vectors(table, width).T.tolist()]
                elif field.name not in ("id", "path", "path_bytes"):
                    names.append(cell(field.name, "'"))
                    columns.append(map(_spelled, table[field.name].to_pylist()))
            if head is None:
                head = names
                rows.writerow(head)
            rows.writerows(zip(*columns, strict=True))


WRITERS = {".parquet": _write_parquet, ".npy": _write_npy, ".csv": _write_csv}


@contextmanager
def _rows(path: Path) -> Iterator[Any]:
    # Names that are not UTF-8 are written as the bytes they are
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield csv.writer(file)


def _fullest(blocks: list[Path]) -> pa.Schema:
    """The schema of a block with samples: one without may lack columns."""
    return max((pq.read_schema(path) for path in blocks), key=len)


def _vectors(table: pa.Table, dim: int) -> np.ndarray:
    flat = table["vector"].combine_chunks().flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(-1, dim)


def _names(table: pa.Table) -> list[str]:
    """The names as `Source.name` gave them."""
    if "path_bytes" in table.column_names:
        return [n.decode("utf-8", "surrogateescape") for n in table["path_bytes"].to_pylist()]
    return table["path"].to_pylist()


def cell(name: str, before: str = "./") -> str:
    """A path that no spreadsheet takes for a formula, and that still opens the same file.

    Words that are no paths are told apart by another mark `before` them.
    """
    return before + name if name.startswith(FORMULA) else name


def _spelled(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else cell(str(value), "'")


def readable(name: str) -> str:
    """A name as valid text: bytes that are not UTF-8 are shown as \\udcxx."""
    return name if _is_text(name) else name.encode("utf-8", "backslashreplace").decode()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
