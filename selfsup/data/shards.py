"""Samples inside larger files: tar shards in the WebDataset layout, and parquet.

A tar is never extracted. A plain one is indexed once (where each member starts and how long it
is) and then read like files; in a compressed one the decompressor is remembered every few
megabytes, so that any member can be reached without starting over.
"""

import hashlib
import io
import os
import tarfile
import threading
import zlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterator
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SelfsupError
from .base import LARGEST, REASONS, Source, stamp_of
from .kinds import CODES, KINDS, extension
from .names import Names, text
from .outcome import BadSample
from .packed import GzipStream
from .parquet import each_row, encoded_media, first_rows, one_row, open_parquet, row_group
from .recordings import PLAYED
from .tables import (
    GROUP_COLUMNS,
    HELD_COLUMNS,
    LABEL_COLUMNS,
    NAME_COLUMNS,
    NUMBER_COLUMNS,
    SPLIT_COLUMNS,
    encode,
    folder_labels,
    folder_splits,
    grouped,
    held_out,
    number_column,
)
from .texts import LOOKED_AT, content_of, joined, left_out

MEDIA = {KINDS.index(kind) for kind in ("image", "audio", "video")}
HEADER = 1 << 20  # bytes of a long name or of other facts about a member
FACTS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
         tarfile.SOLARIS_XHDTYPE)  # fmt: skip
BLOCK, PACKED_BLOCK = 1 << 16, 1 << 20  # bytes of these at once; going back in a packed one costs
HEADS = 8  # cells that show what a column of files holds
SWOLLEN = 200  # times its size that a compressed archive may unpack to, and any to LARGEST


def open_shards(paths: list[str], place: str) -> Source:
    """All shards as one source, in the given order; tar and parquet are not mixed."""
    if all(path.lower().endswith(".parquet") for path in paths):
        return ParquetSource(paths, place)
    return TarSource(paths, place)


class _Bomb(tarfile.TarError):
    pass


class _Member(tarfile.TarInfo):
    """Facts about a member are held in memory, as many as its header says: not too many."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in FACTS and self.size > HEADER:
            raise _Bomb(f"{self.size >> 20} MiB of facts about a member")
        return super()._proc_member(archive)  # type: ignore[misc]


class TarSource(Source):
    """Members of tar files: `key.jpg`, and beside it `key.cls` with its class if there is one."""

    kind = "tar"

    def __init__(self, paths: list[str], place: str):
        super().__init__(place)
        self.paths = [os.fspath(path) for path in paths]
        self.members = Names()
        self.shard, self.start, self.length = array("i"), array("q"), array("q")
        self.kinds = array("B")
        self._classes: dict[tuple[int, bytes], bytes | None] = {}  # None where they disagree
        self._stamps: list[tuple[int, int]] = []
        self._streams: dict[int, GzipStream] = {}
        self._lock = threading.Lock()
        for number, path in enumerate(self.paths):
            self._index(number, path)
        self._keep_one_kind()
        self.sequential = bool(self._streams)
        torn = [key for (_, key), value in self._classes.items() if value is None]
        if torn:
            told = f"{len(torn)} keys have .cls of different classes and count as without one"
            self.notes.append(f"{told} (first: {text(torn[0])})")

    def __len__(self) -> int:
        return len(self.members)

    def name(self, i: int) -> str:
        member = text(self.members[i])
        return member if len(self.paths) == 1 else f"{self.paths[self.shard[i]]}/{member}"

    def size(self, i: int) -> int:
        return self.length[i]

    def read(self, i: int) -> bytes:
        length = self.length[i]
        if length > LARGEST:
            raise BadSample("too-large", REASONS["too-large"])
        with self._inside(i) as member:
            content = member.some(length)
        if len(content) != length:
            raise BadSample("archive-cut", "the archive ends before this member does")
        return content

    def open(self, i: int) -> BinaryIO:
        """A member, to be read in parts. Raises BadSample where the archive is another by now."""
        block = PACKED_BLOCK if self.shard[i] in self._streams else BLOCK
        if self.length[i] <= block:
            return io.BytesIO(TarSource.read(self, i))
        return io.BufferedReader(self._inside(i), block)

    def _inside(self, i: int) -> "_Inside":
        number = self.shard[i]
        try:
            handle = os.open(self.paths[number], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise BadSample("changed", f"its archive: {error.strerror}") from None
        if _stamp(os.fstat(handle)) != self._stamps[number]:
            os.close(handle)
            raise BadSample("changed", "its archive was rewritten since it was listed")
        return _Inside(self, i, handle)

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(b"tar", digest_size=16)
        self.members.update(digest)
        for numbers in (self.shard, self.start, self.length):
            digest.update(numbers)
        digest.update(repr(self._stamps).encode())
        return digest.hexdigest()

    def stamps(self) -> np.ndarray:
        """With the archive, all of its members count as rewritten."""
        of_shards = np.array(self._stamps, np.int64).reshape(-1, 2)[np.asarray(self.shard)]
        return stamp_of(np.asarray(self.length), of_shards[:, 1])

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        if not self._classes:
            return folder_labels(self.members)
        labels = []
        for number, member in zip(self.shard, self.members, strict=True):
            value = self._classes.get((number, _key(member)))
            labels.append(text(value) if value is not None else None)
        return encode(labels)

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return folder_splits(self.members)

    def _index(self, number: int, path: str) -> None:
        from ..stop import stop

        shown = os.fsencode(path)
        try:
            file = open(path, "rb")  # noqa: SIM115 (a compressed one stays open)
        except OSError as error:
            raise SelfsupError("E101", f"{path} cannot be opened", why=error.strerror) from None
        self._stamps.append(_stamp(os.fstat(file.fileno())))
        if file.read(2) == b"\x1f\x8b":
            file = self._streams[number] = GzipStream(file)
            total = None
        else:
            total = self._stamps[-1][0]
        file.seek(0)
        try:
            archive = tarfile.TarFile(
                fileobj=file, encoding="utf-8", errors="surrogateescape", tarinfo=_Member
            )
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise SelfsupError(
                "E106", f"{path} cannot be read as a tar archive", where=path, why=str(error),
                do="tar and tar.gz are read; make it again with tar -cf or tar -czf",
            ) from None  # fmt: skip
        most = max(LARGEST, SWOLLEN * self._stamps[-1][0])
        seen, held = 0, None
        while True:
            try:
                # where the next member begins, by what this one says of itself
                if total is None and archive.offset > most:
                    raise _Bomb
                member = archive.next()
            except _Bomb:
                if held is not None and held.offset_data + held.size <= most:
                    self._sample(held, number)
                self.problems.add(shown, "archive-bomb")
                break
            except (tarfile.TarError, zlib.error, EOFError, OSError):
                # tarfile notices the cut one member late
                end = total if total is not None else file.reached
                if held is not None and held.offset_data + held.size > end:
                    self.problems.add(_name(held), "archive-cut")
                else:
                    self._sample(held, number)
                    self.problems.add(shown, "archive-cut")
                break
            self._sample(held, number)
            if member is None:
                file.seek(archive.offset)
                if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                    self.problems.add(shown, "archive-cut")  # between two members: no end mark
                break
            archive.members.clear()  # tarfile keeps every header it has seen
            seen += 1
            if seen % 256 == 0:
                stop.check()
            held = member if self._wanted(archive, member, number) else None
        if total is not None:
            file.close()

    def _wanted(self, archive: tarfile.TarFile, member: tarfile.TarInfo, number: int) -> bool:
        """Whether a member is a sample. Notes its class or its fault if it is not."""
        name = _name(member)
        last = os.path.basename(name)
        if member.isdir() or last.startswith(b"."):
            return False
        if not member.isreg() or member.issparse():
            self.problems.add(name, "archive-link")
        elif CODES.get(extension(last)) not in MEDIA:
            if extension(last) == b"cls" and member.size <= 4096:
                key, value = (number, _key(name)), archive.extractfile(member).read().strip()
                if self._classes.setdefault(key, value) != value:
                    self._classes[key] = None
            else:
                shown = text(extension(last)) or "no extension"
                self.ignored[shown] = self.ignored.get(shown, 0) + 1
        elif name.startswith(b"/") or b".." in name.split(b"/"):
            self.problems.add(name, "unsafe-name")  # harmless here, but not an honest archive
        elif member.size > LARGEST and KINDS[CODES[extension(last)]] not in PLAYED:
            self.problems.add(name, "too-large")
        else:
            return True
        return False

    def _sample(self, member: tarfile.TarInfo | None, number: int) -> None:
        if member is not None:
            name = _name(member)
            self.members.append(name)
            self.kinds.append(CODES[extension(os.path.basename(name))])
            self.shard.append(number)
            self.start.append(member.offset_data)
            self.length.append(member.size)

    def _keep_one_kind(self) -> None:
        counts = Counter(self.kinds).most_common()
        if not counts:
            self.content = "nothing"
            return
        chosen = counts[0][0]
        self.content = KINDS[chosen]
        if len(counts) > 1:
            for code, n in counts[1:]:
                self.ignored[KINDS[code]] = self.ignored.get(KINDS[code], 0) + n
            keep = [i for i, kind in enumerate(self.kinds) if kind == chosen]
            self.members = self.members.take(keep)
            for field in ("shard", "start", "length"):
                old = getattr(self, field)
                setattr(self, field, array(old.typecode, (old[i] for i in keep)))


class _Inside(io.RawIOBase):
    """A member as a file of its own. What cannot be read of it is missing at its end."""

    def __init__(self, archives: TarSource, i: int, handle: int):
        self.handle, self.start, self.length = handle, archives.start[i], archives.length[i]
        self.stream, self.lock = archives._streams.get(archives.shard[i]), archives._lock
        self.place = 0

    def some(self, count: int) -> bytes:
        """Up to so many bytes from here on. Raises BadSample: damaged, io."""
        count, start = min(count, self.length - self.place), self.start + self.place
        try:
            if self.stream is None:
                return os.pread(self.handle, max(count, 0), start)
            with self.lock:
                self.stream.seek(start)
                return self.stream.read(max(count, 0))
        except zlib.error as error:
            raise BadSample("damaged", f"its archive: {error}") from None
        except OSError as error:
            raise BadSample("io", f"its archive: {error.strerror}") from None

    def readinto(self, buffer: Any) -> int:
        try:
            content = self.some(len(buffer))
        except BadSample:  # decoders that call this pass no exception on
            return 0
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self.place = max(0, (0, self.place, self.length)[whence] + place)
        return self.place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            os.close(self.handle)
        super().close()


def _name(member: tarfile.TarInfo) -> bytes:
    return member.name.encode("utf-8", "surrogateescape")


def _key(member: bytes) -> bytes:
    """What WebDataset groups by: the name up to the first dot of its last part."""
    folder, slash, last = member.rpartition(b"/")
    return folder + slash + last.partition(b".")[0]


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


class ParquetSource(Source):
    """A column of encoded samples: binary, or a struct with `bytes` (as Hugging Face writes it).

    Without one, columns of text, which are joined.
    """

    kind = "parquet"
    sequential = True

    def __init__(self, paths: list[str], place: str):
        super().__init__(place)
        self.paths = paths
        self._files: list[pq.ParquetFile] = []
        self._groups: list[tuple[int, int]] = []  # (file, row group)
        self._file_first: list[int] = []
        firsts, stamps = [0], []
        for number, path in enumerate(paths):
            file = open_parquet(path)
            self._files.append(file)
            self._file_first.append(firsts[-1])
            stamps.append(_stamp(os.stat(path)))
            for group in range(file.num_row_groups):
                self._groups.append((number, group))
                firsts.append(firsts[-1] + file.metadata.row_group(group).num_rows)
        self._first = np.array(firsts, np.int64)
        self._stamps = stamps
        self.columns, self._nested = self._find_columns()
        self._recent: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._first[-1])

    def name(self, i: int) -> str:
        group, row = self._locate(i)
        number = self._groups[group][0]
        row += int(self._first[group]) - self._file_first[number]
        return f"{os.path.basename(self.paths[number])}#{row}"

    def read(self, i: int) -> bytes | str:
        group, row = self._locate(i)
        table = self._table(group)
        if self.content in ("text", "proteins"):
            return joined(one_row(table, row), self.columns)
        value = table.column(0)[row].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if value is None:
            raise BadSample("empty", "the cell is empty")
        return value

    def open(self, i: int) -> BinaryIO:
        return io.BytesIO(self.read(i))  # type: ignore[arg-type]

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(b"parquet", digest_size=16)
        digest.update(repr((",".join(self.columns), self._stamps)).encode())
        for file in self._files:
            digest.update(repr([file.metadata.num_rows, str(file.schema_arrow)]).encode())
        digest.update(repr([os.path.basename(path) for path in self.paths]).encode())
        return digest.hexdigest()

    def stamps(self) -> np.ndarray:
        """With the file, all of its rows count as rewritten."""
        sizes, times = np.array(self._stamps, np.int64).T
        rows = np.diff([*self._file_first, len(self)])
        return np.repeat(stamp_of(sizes, times), rows)

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return self._named((*LABEL_COLUMNS, "labels"))

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return held_out(self._named(SPLIT_COLUMNS), self._named(HELD_COLUMNS))

    def groups(self) -> np.ndarray | None:
        return self._grouped

    @cached_property
    def _grouped(self) -> np.ndarray | None:
        return grouped(self._named(GROUP_COLUMNS))

    def targets(self) -> tuple[np.ndarray, str] | None:
        types = self._files[0].schema_arrow
        usual = (*LABEL_COLUMNS, *NUMBER_COLUMNS)
        names = [
            f.name
            for f in types
            if f.name.strip().lower() in NAME_COLUMNS
            or (
                f.name.strip().lower() in usual
                and (pa.types.is_floating(f.type) or pa.types.is_integer(f.type))
            )
        ]
        cells = {n: [None if v is None else str(v) for v in self._cells(n)] for n in names}
        return number_column(cells, NUMBER_COLUMNS)

    def _cells(self, column: str) -> Iterator[Any]:
        return (row.get(column) for file in self._files for row in each_row(file, [column]))

    def _named(self, columns: tuple[str, ...]) -> tuple[np.ndarray, list[str]] | None:
        names = {name.lower(): name for name in self._files[0].schema_arrow.names}
        chosen = next((names[c] for c in columns if c in names), None)
        if chosen is None:
            return None
        return encode(None if v is None or v == -1 else str(v) for v in self._cells(chosen))

    def _find_columns(self) -> tuple[list[str], bool]:
        if not self._files:
            raise SelfsupError("E102", f"no parquet files in {self.place}")
        schema = self._files[0].schema_arrow
        found = {}
        for field in schema:
            if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
                found[field.name] = False
            elif pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
                found[field.name] = True
        if not found:
            strings = [
                field.name
                for field in schema
                if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
            ]
            rows = first_rows(self._files[0], self.paths[0], LOOKED_AT, strings)
            content, texts = content_of(rows)
            if texts:
                self.content, self.notes = content, left_out(rows, texts)
                return texts, False
            raise SelfsupError(
                "E104", f"{self.place} has no column of image bytes or of text", where=self.place,
                why=f"its columns are {', '.join(f'{f.name} ({f.type})' for f in schema)}"[:500],
                do="store encoded images in a binary column named 'image', or text in one named "
                "'text'",
            )  # fmt: skip
        usual = ("image", "img", "jpg", "jpeg", "png", "bytes", "data")
        name = next((n for n in found if n.lower() in usual), next(iter(found)))
        media = encoded_media(first_rows(self._files[0], self.paths[0], HEADS, [name]))
        told = name.lower() if name.lower() in ("audio", "video") else self.content
        self.content = media.get(name, told)
        return [name], found[name]

    def _locate(self, i: int) -> tuple[int, int]:
        group = int(np.searchsorted(self._first, i, side="right")) - 1
        return group, i - int(self._first[group])

    def _table(self, group: int):
        with self._lock:
            if group not in self._recent:
                number, index = self._groups[group]
                wanted = [f"{name}.bytes" if self._nested else name for name in self.columns]
                try:
                    self._recent[group] = row_group(self._files[number], index, wanted)
                except BadSample as bad:  # not unpacked again for each of its rows
                    self._recent[group] = bad
                while len(self._recent) > 2:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(group)
            found = self._recent[group]
        if isinstance(found, BadSample):
            raise BadSample(found.code, found.reason)
        return found
