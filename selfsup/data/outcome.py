"""What became of each file: used, or skipped for a reason. found = used + skipped, always."""

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import SelfsupError
from ..logs import end_line, write_all

# A file with one of these may be well again tomorrow, so it is never remembered between runs.
TRANSIENT = {"changed", "unreadable", "io"}


class BadSample(Exception):  # noqa: N818 (it is an outcome, not a mistake)
    """One sample cannot be used. `code` is a word for counting, `reason` a sentence for people.

    Readers raise it and nothing else: one bad file must not end a run, and any other exception
    from a reader is a bug that must.
    """

    def __init__(self, code: str, reason: str):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


def reconciled(found: int, used: int, skipped: int, reasons: Mapping[str, int]) -> str:
    """
    >>> reconciled(5, 3, 2, {"empty": 1, "not_an_image": 1})
    'found 5 = used 3 + skipped 2 (1 empty, 1 not_an_image; `selfsup scan` names them)'
    """
    sums = f"found {found} = used {used} + skipped {skipped}"
    why = ", ".join(f"{count} {code}" for code, count in reasons.items())
    return f"{sums} ({why}; `selfsup scan` names them)" if reasons else sums


class Ledger:
    """The list of skipped files, one JSON object a line, written while the run goes on.

    A name is listed once, also when a later run continues the same file. Names that are not valid
    UTF-8 keep their bytes as surrogate escapes ("\\udcff"), so that they can be opened again.
    Without a path the rows stay in memory, in `rows`.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = Path(path) if path is not None else None
        self._codes: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._elsewhere: set[bytes] = set()  # skipped by another process, and not yet by this one
        self.rows: list[dict[str, str]] = []
        self._first: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        self._file = None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._continue()

    def skip(self, name: str, code: str, reason: str) -> bool:
        """Note that a file is not used. True when this is news."""
        key = name.encode("utf-8", "surrogateescape")
        with self._lock:
            self._elsewhere.discard(key)
            if key in self._seen:
                return False
            self._note(key, name, code, reason)
            row = {"name": name, "code": code, "reason": reason}
            if self._file is not None:
                end_line(self._file)
                write_all(self._file, json.dumps(row).encode() + b"\n")
            else:
                self.rows.append(row)
            return True

    def take(self, rows: Iterable[dict[str, str]]) -> None:
        """Note what other processes of the same run have skipped."""
        for row in rows:
            if self.skip(**row):
                self._elsewhere.add(row["name"].encode("utf-8", "surrogateescape"))

    @property
    def elsewhere(self) -> int:
        """How many files were skipped by other processes, now or before, and not by this one."""
        return len(self._elsewhere)

    def counts(self) -> dict[str, int]:
        """How many files were skipped for each code, most frequent first."""
        with self._lock:
            return dict(self._codes.most_common())

    def first(self, code: str) -> tuple[str, str]:
        """The first file skipped for `code`: its name and the reason."""
        return self._first[code]

    def too_many(self, bad: int, found: int, place: str) -> SelfsupError:
        """What a person is told who should not go on with so few samples."""
        counts = self.counts()
        name, reason = self.first(next(iter(counts)))
        return SelfsupError(
            "E103",
            f"{bad} of {found} samples of {place} cannot be read",
            where=f"{self.path or 'the data'} (first: {name!r})",
            why=f"most often: {reason}; counts: {counts}",
            do="look at them with `selfsup scan`; if the rest is enough, move them away",
        )

    def __len__(self) -> int:
        return len(self._seen)

    def __repr__(self) -> str:
        where = f", {self.path}" if self.path is not None else ""
        return f"Ledger({len(self)} skipped{where})"

    def _note(self, key: bytes, name: str, code: str, reason: str) -> None:
        self._seen.add(key)
        self._codes[code] += 1
        self._first.setdefault(code, (name, reason))

    def _continue(self) -> None:
        whole = 0
        if self.path.exists():
            for line in self.path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    row = json.loads(line)
                    name, code, reason = row["name"], row["code"], row["reason"]
                except (ValueError, KeyError, TypeError):
                    continue
                key = name.encode("utf-8", "surrogateescape")
                if key not in self._seen:
                    self._note(key, name, code, reason)
                    self._elsewhere.add(key)
        # Unbuffered: a line is with the system before the next file is looked at, so that a killed
        # run leaves at most half a line. That half is cut off here.
        self._file = self.path.open("a+b", buffering=0)
        if self._file.tell() != whole:
            self._file.truncate(whole)
