"""One flag that every loop of every verb polls: a signal asks to stop, the loop saves and leaves.

The first SIGINT or SIGTERM raises the flag. The second ends the process at once.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):  # noqa: N818 (a request, not an error)
    """A loop that has nothing of its own to save was asked to stop."""


class Stop:
    """A stop request. `exit_code` is 130 after Ctrl-C, 143 after SIGTERM, as shells expect."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return 0 if self.signal is None else 128 + self.signal

    def request(self, number: int = signal.SIGTERM) -> None:
        """Ask to stop, as the signal `number` would."""
        self.signal = int(number)

    def check(self) -> None:
        """Raise `Stopped` if a stop was requested."""
        if self.requested:
            raise Stopped(f"stopped by {signal.Signals(self.signal).name}")

    def install(self) -> None:
        """Handle SIGINT and SIGTERM. Signals reach only the main thread: elsewhere, do nothing."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._handle)

    @contextmanager
    def installed(self) -> Iterator["Stop"]:
        """Handle the signals inside the block and give them back to their owners afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self.install()
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.requested:
            os._exit(128 + number)  # asked twice: now, whatever is going on
        self.request(number)


stop = Stop()
