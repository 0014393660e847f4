"""A signal asks to stop: what has nothing to save leaves at once, the training loop saves first.

The first SIGINT or SIGTERM raises `Stopped` in the main thread, wherever it is, except in a block
that polls the flag instead because it has something to bring to an end. The second ends all.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

PATIENCE = 2.0  # seconds that a command may take to leave, before it is ended
NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A request, not an error: no `except Exception` on the way may swallow it."""


class Stop:
    """A stop request. `exit_code` is 130 after Ctrl-C, 143 after SIGTERM, as shells expect."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._raises = False
        self._polling = 0

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
        """Raise `Stopped` if a stop was requested, except where the flag is polled."""
        if self.requested and not self._polling:
            raise Stopped(f"stopped by {signal.Signals(self.signal).name}")

    def install(self) -> None:
        """Handle SIGINT and SIGTERM. Signals reach only the main thread: elsewhere, do nothing."""
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                signal.signal(number, self._handle)

    @contextmanager
    def installed(self, patience: float | None = None) -> Iterator["Stop"]:
        """Handle the signals inside the block and give them back to their owners afterwards.

        With `patience` the process ends that many seconds after a signal that is not polled, also
        in the middle of a computation that no signal interrupts. For commands, not for libraries.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {n: signal.getsignal(n) for n in NUMBERS}
        raised, self._raises = self._raises, True
        self.install()
        try:
            with self._watched(patience) if patience is not None else nullcontext():
                yield self
        finally:
            self._raises = raised
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def polled(self) -> Iterator["Stop"]:
        """Inside the block a signal only sets the flag: it saves, or must not be cut."""
        self._polling += 1
        try:
            yield self
        finally:
            self._polling -= 1

    def _handle(self, number: int, frame: object) -> None:
        if self.requested:
            os._exit(128 + number)  # asked twice: now, whatever is going on
        self.request(number)
        if self._raises:
            self.check()

    @contextmanager
    def _watched(self, patience: float) -> Iterator[None]:
        """A thread that hears of signals while the main one is deep in a computation."""
        if sys.platform == "win32":
            yield
            return
        hears, speaks = os.pipe()
        os.set_blocking(speaks, False)
        over = threading.Event()
        before = signal.set_wakeup_fd(speaks, warn_on_full_buffer=False)
        arguments = (hears, over, patience)
        thread = threading.Thread(target=self._watch, args=arguments, name="stop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            signal.set_wakeup_fd(before)
            os.close(speaks)
            thread.join()
            os.close(hears)

    def _watch(self, hears: int, over: threading.Event, patience: float) -> None:
        while told := os.read(hears, 1):
            number = told[0]
            if number not in NUMBERS or self._polling:
                continue
            if over.wait(patience):
                return
            os.write(2, b"\nstopped in the middle of a computation; nothing was to be saved\n")
            os._exit(128 + number)


stop = Stop()
