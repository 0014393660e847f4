"""Files packed with gzip, read as a stream and never beyond a bound, or from any place."""

import gzip
import io
import os
import zlib
from typing import IO

from ..errors import SelfsupError

LARGEST = 1 << 32  # bytes that a packed table may hold
SMALL, RATIO = 1 << 26, 100  # above so many, also at most so many times its packed size
CHUNK = 1 << 16  # bytes of a file that are unpacked at once


def suffix(path: str) -> str:
    """
    >>> suffix("Hits.CSV.gz")
    '.csv'
    """
    return os.path.splitext(path.lower().removesuffix(".gz"))[1]


def is_packed(path: str) -> bool:
    return path.lower().endswith(".gz")


def opened(path: str) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends in .gz.

    Reading raises SelfsupError E106 where a packed one is damaged or holds more than the bound.
    """
    return io.BufferedReader(_Unpacked(path)) if is_packed(path) else open(path, "rb")


class _Unpacked(io.RawIOBase):
    def __init__(self, path: str):
        self.path, self.file = path, gzip.open(path)  # noqa: SIM115
        self.left = min(LARGEST, max(SMALL, RATIO * os.path.getsize(path)))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            count = self.file.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SelfsupError(
                "E106", f"{self.path} cannot be unpacked", where=self.path, why=str(error)
            ) from None
        self.left -= count
        if self.left < 0:
            raise SelfsupError(
                "E106",
                f"{self.path} unpacks to far more than its size",
                where=self.path,
                why=f"at most {LARGEST >> 30} GiB are read of a packed table, and {RATIO} times "
                "its size",
                do=f"if it is right, unpack it first: gunzip {os.path.basename(self.path)}",
            )
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


class GzipStream:
    """A gzip file that can be read from any place after one pass over it.

    `zlib` decompressors can be copied; one copy (about 40 kB) every `spacing` bytes of output is
    kept, at most `points` of them: when there are more, every second one is dropped.
    """

    def __init__(self, file, spacing: int = 1 << 20, points: int = 1024):
        self.file, self.spacing, self.points = file, spacing, points
        self._restart()
        # (place in the output, place in the file, decompressor as it was there)
        self._saved = [(0, 0, self._decompressor.copy())]

    @property
    def reached(self) -> int:
        """How many bytes of output have come so far."""
        return self._end

    def tell(self) -> int:
        return self._place

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET
        ready = self._end - len(self._buffer)
        if not ready <= place or (place > self._end and self._before(place)[0] > self._end):
            self._rewind(place)
        self._place = place
        return place

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "read what a member holds, never the whole stream"
        pieces = []
        while size > 0:
            skip = self._place - (self._end - len(self._buffer))
            if skip < len(self._buffer):
                piece = self._buffer[skip : skip + size]
                pieces.append(piece)
                size -= len(piece)
                self._place += len(piece)
            elif not self._more():
                break
        return b"".join(pieces)

    def _restart(self) -> None:
        self.file.seek(0)
        self._decompressor = zlib.decompressobj(31)  # 31: a gzip header, 32 kB window
        self._buffer, self._end, self._place, self._at = b"", 0, 0, 0

    def _before(self, place: int) -> tuple:
        low, high = 0, len(self._saved)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._saved[middle][0] <= place else (low, middle)
        return self._saved[low]

    def _rewind(self, place: int) -> None:
        self._end, self._at, saved = self._before(place)
        self._decompressor, self._buffer = saved.copy(), b""

    def _more(self) -> bool:
        """Decompress the next piece of the file into the buffer; False at the end."""
        content = os.pread(self.file.fileno(), CHUNK, self._at)
        if not content:
            return False
        output = self._decompressor.decompress(content)
        while self._decompressor.eof:  # gzip members may follow one another
            rest = self._decompressor.unused_data
            self._decompressor = zlib.decompressobj(31)
            if not rest.lstrip(b"\0"):
                break
            output += self._decompressor.decompress(rest)
        self._at += len(content)  # not before: what is damaged stays so when it is asked for again
        self._buffer = output
        self._end += len(output)
        if self._end - self._saved[-1][0] >= self.spacing:
            self._saved.append((self._end, self._at, self._decompressor.copy()))
            if len(self._saved) > self.points:
                self._saved = self._saved[::2]
                self.spacing *= 2
        return True
