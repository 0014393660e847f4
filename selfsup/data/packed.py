"""Tables packed with gzip (a.csv.gz), read as a stream and never beyond a bound."""

import gzip
import io
import os
import zlib
from typing import IO

from ..errors import SelfsupError

LARGEST = 1 << 32  # bytes that a packed table may hold
SMALL, RATIO = 1 << 26, 100  # above so many, also at most so many times its packed size


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
