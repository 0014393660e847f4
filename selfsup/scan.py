"""`selfsup scan`: what is in the data, before any time is spent on it.

Every sample is read and decoded in full, because a header says little: a photograph of which half
is missing has a perfect one.
"""

import hashlib
import io
import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from . import faults
from .data.base import evenly
from .data.outcome import BadSample, Ledger
from .data.recordings import Clip
from .data.seen import seen_as
from .data.sources import Source, keep_apart, open_source
from .errors import SelfsupError
from .stop import stop

SHOWN = 100  # bad files and groups of duplicates that the result lists by name
SHEET, TILE, GAP = (4, 3), 160, 8
WINDOW = 512  # samples in flight; bounds what is in memory

NOT_SEEN = (
    "a few wrong bytes inside a JPEG often decode without an error and cannot be found this way; "
    "with --hashes FILE a scan remembers the files, and the next one finds what has changed"
)


@dataclass
class ScanResult:
    """found = used + skipped. `str` of it is the page that the command prints."""

    place: str
    kind: str
    content: str
    unit: str = "pixels"
    found: int = 0
    used: int = 0
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    bad: list[dict[str, str]] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    stored_bytes: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    shorter_side: dict[str, int] = field(default_factory=dict)
    longer_side: dict[str, int] = field(default_factory=dict)
    common_size: tuple[int, int] | None = None
    one_colour: int = 0
    duplicates: int = 0
    duplicate_groups: list[list[str]] = field(default_factory=list)
    same_pixels: int = 0
    leaks: int = 0
    damaged: list[str] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    sheet: str | None = None
    sheet_png: bytes = field(default=b"", repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the picture, which `sheet` names if it was written."""
        found = asdict(self)
        del found["sheet_png"]
        return found

    def __str__(self) -> str:
        from .console import columns, duration, size

        rows = [("data", self.place)]
        rows.append(("samples", f"{self.found} found = {self.used} used + {self.skipped} skipped"))
        told = f"{size(self.stored_bytes)}, read in {duration(self.seconds)}"
        rows.append(("what", f"{self.content} ({self.kind}), {told}"))
        for name, counts in (("formats", self.formats), ("modes", self.modes)):
            rows.append((name, _counted(counts)))
        if self.shorter_side:
            low, middle, high = (self.shorter_side[k] for k in ("min", "median", "max"))
            same = f"all {self.common_size[0]}x{self.common_size[1]}" if self.common_size else ""
            spread = f"{low} to {high}" if low < high else f"{low}"
            if self.unit == "pixels":
                rows.append(("shorter side", same or f"{spread} pixels, median {middle}"))
            else:
                rows.append(("length", f"{spread} {self.unit}, median {middle}"))
        if self.classes:
            shown = _counted(self.classes, most=12)
            rows.append(
                ("classes", f"{len(self.classes)}: {shown} (labels are for evaluation only)")
            )
        if self.parts:
            rows.append(("parts", _counted(self.parts)))
        if self.ignored:
            rows.append(("left alone", _counted(self.ignored)))
        rows.append(("duplicates", self._duplicates()))
        if self.one_colour:
            rows.append(("one colour", f"{self.one_colour} pictures have a single colour"))
        for code, number in self.reasons.items():
            first = next(b for b in self.bad if b["code"] == code) if self.bad else None
            example = f"; first: {first['name']!a}, {first['reason']}" if first else ""
            rows.append((f"skipped: {code}", f"{number}{example}"))
        if self.damaged:
            rows.append(("changed bytes", f"{len(self.damaged)}; first: {self.damaged[0]!a}"))
        if self.sheet:
            rows.append(("pictures", self.sheet))
        rows.extend(("note", note) for note in self.notes)
        return columns(rows, width=100)

    def _repr_png_(self) -> bytes | None:
        return self.sheet_png or None

    def _duplicates(self) -> str:
        if not self.duplicates and not self.same_pixels:
            return "none"
        thing = "file" if self.unit == "pixels" else "sample"
        told = []
        if self.duplicates:
            some = self.duplicates > 1
            what = f"{thing}s are copies of others" if some else f"{thing} is a copy of another"
            told.append(f"{self.duplicates} {what}, byte for byte")
            told.append("first: {!a} and {!a}".format(*self.duplicate_groups[0][:2]))
        if self.same_pixels:
            what = "pixels in another file" if self.unit == "pixels" else "content as another"
            told.append(f"{self.same_pixels} more of the same {what}")
        if self.leaks:
            what = "groups of copies lie" if self.leaks > 1 else "group of copies lies"
            told.append(f"{self.leaks} {what} in several parts (train, test)")
        return "; ".join(told)


def scan(
    data: Any,
    *,
    out: str | Path | None = None,
    labels: str | Path | None = None,
    follow_links: bool = False,
    modality: Any = None,
    skipped: str | Path | None = None,
    hashes: str | Path | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ScanResult:
    """Read and decode everything once and say what is there.

    out: where to write a PNG with 12 samples. skipped: where to write one JSON line for each file
    that cannot be used. hashes: a file with the hash of each sample, written by the first scan
    and compared by later ones. Raises SelfsupError where there is nothing to read (E101, E102).
    """
    began = time.monotonic()
    for written in (out, skipped, hashes):
        if written is not None:
            keep_apart(written, data)
    with _whole(skipped) if skipped is not None else nullcontext() as list_of_bad:
        source, modality, good, result = _look(
            data, labels, follow_links, modality, list_of_bad, hashes, workers, progress
        )
    result.sheet_png = contact_sheet(source, modality, good)
    if out is not None:
        with _whole(out) as new:
            new.write_bytes(result.sheet_png)
        result.sheet = str(out)
    result.seconds = time.monotonic() - began
    return result


def _look(
    data: Any,
    labels: str | Path | None,
    follow_links: bool,
    modality: Any,
    skipped: Path | None,
    hashes: str | Path | None,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Source, Any, np.ndarray, ScanResult]:
    """Everything but the picture; the numbers of the samples that can be used."""
    source = open_source(data, follow_links=follow_links, labels=labels)
    if modality is None:
        from .modalities import find, of_content

        modality = find(of_content(source.content))()
        source = seen_as(source, modality)
        modality.learn(source)
    else:
        source = seen_as(source, modality)
    result = ScanResult(source.place, source.kind, source.content, ignored=source.ignored)
    result.unit = modality.raw_unit
    ledger = Ledger(skipped)

    def skip(name: str, code: str, reason: str) -> None:
        if ledger.skip(name, code, reason) and len(result.bad) < SHOWN:
            result.bad.append({"name": name, "code": code, "reason": reason})

    for problem in source.problems:
        skip(**problem)
    n = len(source)
    digests = np.zeros((n, 2), "S16")  # of the bytes, of the pixels
    sides = np.zeros((n, 2), np.int32)
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters is listed
        for i, seen in _each(source, modality, workers):
            faults.at("scan.sample")
            if isinstance(seen, BadSample):
                skip(source.name(i), seen.code, seen.reason)
            else:
                digests[i] = seen.digests
                sides[i] = seen.size
                formats[seen.format] += 1
                modes[seen.mode] += 1
                result.stored_bytes += seen.length
                result.one_colour += seen.one_colour
            if progress is not None:
                progress(i + 1, n)

    good = np.flatnonzero(sides[:, 0])
    result.used, result.found = len(good), source.found
    result.skipped = result.found - result.used
    result.reasons = ledger.counts()
    result.formats, result.modes = dict(formats.most_common()), dict(modes.most_common())
    if len(good):
        result.shorter_side = _spread(sides[good].min(1))
        result.longer_side = _spread(sides[good].max(1))
        if (sides[good] == sides[good[0]]).all():
            result.common_size = tuple(sides[good[0]].tolist())
    _find_duplicates(result, source, digests, good)
    _count_labels(result, source)
    if hashes is not None:
        result.damaged = _compare(Path(hashes), source, digests[:, 0], good)
    if len(modes) > 1 and result.content == "image":
        result.notes.append("pictures of different modes are all brought to three 8-bit channels")
    if "JPEG" in formats and hashes is None:
        result.notes.append(NOT_SEEN)
    result.notes += source.notes
    result.notes += [f"{what} ({count})" for what, count in modality.notes.most_common()]
    if source.kind in ("folder", "tar") and result.leaks:
        result.notes.append("copies in train and test make every score look better than it is")
    return source, modality, good, result


@contextmanager
def _whole(path: str | Path) -> Iterator[Path]:
    """A name to write under; the file comes to its place when the block ends well, else not."""
    new = Path(path).with_name(Path(path).name + ".new")
    new.unlink(missing_ok=True)
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def peek(source: Source, count: int = 64) -> list[tuple[int, int]]:
    """(height, width) of up to `count` samples spread over the source, from their headers."""
    sizes = []
    for i in evenly(len(source), count):
        try:
            raw = source.read(i)
            sizes.append(_header(raw)[2])
        except (BadSample, UnidentifiedImageError, OSError, Image.DecompressionBombError):
            continue
    return sizes


def duplicate_groups(digests: np.ndarray) -> list[np.ndarray]:
    """Places of equal digests, for each digest that occurs more than once."""
    if len(digests) < 2:
        return []
    order = np.argsort(digests, kind="stable")
    new = np.flatnonzero(np.append(True, digests[order][1:] != digests[order][:-1]))
    groups = np.split(order, new[1:])
    return sorted((np.sort(g) for g in groups if len(g) > 1), key=lambda group: int(group[0]))


def contact_sheet(source: Source, modality: Any, good: np.ndarray) -> bytes:
    """A PNG with 12 samples spread evenly over the usable ones, as they are decoded."""
    across, down = SHEET
    sheet = Image.new(
        "RGB", (across * (TILE + GAP) + GAP, down * (TILE + GAP) + GAP), (236, 236, 236)
    )
    chosen = good[evenly(len(good), across * down)]
    for place, i in enumerate(chosen):
        try:
            pixels = modality.thumbnail(modality.read(source.read(int(i))))
        except BadSample:
            continue  # it was fine a moment ago; a sheet with a gap says enough
        tile = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3])
        tile = tile.convert("RGB")
        scale = TILE / max(tile.size)
        smooth = Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST
        tile = tile.resize([max(1, round(side * scale)) for side in tile.size], smooth)
        row, column = divmod(place, across)
        left = GAP + column * (TILE + GAP) + (TILE - tile.width) // 2
        top = GAP + row * (TILE + GAP) + (TILE - tile.height) // 2
        sheet.paste(tile, (left, top))
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


@dataclass
class _Seen:
    digests: tuple[bytes, bytes]
    length: int
    format: str
    mode: str
    size: tuple[int, int]
    one_colour: bool


def _each(source: Source, modality: Any, workers: int) -> Iterator[tuple[int, _Seen | BadSample]]:
    """Each sample in order, decoded by a few threads, with a bounded number in flight."""

    def look(i: int) -> _Seen | BadSample:
        try:
            raw = source.read(i)
            pixels = modality.read(raw)
            form, mode, size = modality.describe(raw) or _header(raw)
        except BadSample as bad:
            return bad
        content = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
        if not isinstance(content, bytes):
            content = np.ascontiguousarray(pixels if isinstance(content, dict | Clip) else content)
        return _Seen(
            (_digest(content, ""), _digest(np.ascontiguousarray(pixels), str(pixels.shape))),
            len(content) if isinstance(content, bytes) else content.nbytes,
            form,
            mode,
            size,
            modality.unit == "px" and bool((pixels == pixels[0, 0]).all()),
        )

    with ThreadPoolExecutor(max(1, workers)) as threads:
        for start in range(0, len(source), WINDOW):
            stop.check()
            window = range(start, min(start + WINDOW, len(source)))
            for i, seen in zip(window, threads.map(look, window), strict=True):
                if i % 32 == 0:
                    stop.check()
                yield i, seen


def _header(raw: Any) -> tuple[str, str, tuple[int, int]]:
    """Format, mode, and (height, width) as stored, before any rotation."""
    if isinstance(raw, bytes):
        with Image.open(io.BytesIO(raw)) as image:
            return image.format or "unknown", image.mode, (image.height, image.width)
    if isinstance(raw, Image.Image):
        return raw.format or "in memory", raw.mode, (raw.height, raw.width)
    channels = raw.shape[2] if raw.ndim == 3 else 1
    return "array", f"{channels} x {raw.dtype}", raw.shape[:2]


def _digest(content: Any, salt: str) -> bytes:
    return hashlib.blake2b(content, digest_size=16, person=salt.encode()[:16]).digest()


def _find_duplicates(
    result: ScanResult, source: Source, digests: np.ndarray, good: np.ndarray
) -> None:
    groups = [good[g] for g in duplicate_groups(digests[good, 0])]
    result.duplicates = sum(len(group) - 1 for group in groups)
    result.duplicate_groups = [
        [source.name(int(i)) for i in group[:SHOWN]] for group in groups[:SHOWN]
    ]
    alike = [good[g] for g in duplicate_groups(digests[good, 1])]
    result.same_pixels = sum(len(group) - 1 for group in alike) - result.duplicates
    parts = source.splits()
    if parts is not None:
        result.leaks = sum(len(np.unique(parts[0][group])) > 1 for group in alike)
        result.parts = _counts(*parts)


def _count_labels(result: ScanResult, source: Source) -> None:
    classes = source.labels()
    if classes is not None:
        result.classes = _counts(*classes)


def _counts(numbers: np.ndarray, names: list[str]) -> dict[str, int]:
    counts = np.bincount(numbers[numbers >= 0], minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))


def _compare(path: Path, source: Source, digests: np.ndarray, good: np.ndarray) -> list[str]:
    """Names whose bytes are not those of an earlier scan; the first scan writes the list."""
    now = {source.name(int(i)): digests[i].tobytes().hex() for i in good}
    if not path.exists():
        with _whole(path) as new, new.open("w") as file:
            for name, digest in now.items():
                file.write(json.dumps({"name": name, "blake2b": digest}) + "\n")
        return []
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        before = {row["name"]: row["blake2b"] for row in rows}
    except (ValueError, KeyError, TypeError):
        raise SelfsupError(
            "E105", f"{path} is not a list of hashes", do="remove it; the next scan writes it again"
        ) from None
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def _spread(values: np.ndarray) -> dict[str, int]:
    low, middle, high = int(values.min()), int(np.median(values)), int(values.max())
    return {"min": low, "median": middle, "max": high}


def _counted(counts: dict[str, int], most: int = 6) -> str:
    listed = sorted(counts.items(), key=lambda item: -item[1])
    told = ", ".join(f"{number} {name}" for name, number in listed[:most])
    return told + (f" and {len(listed) - most} more" if len(listed) > most else "")
