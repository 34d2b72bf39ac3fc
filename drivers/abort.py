"""A request, from any thread, that the long operation of a driver end now."""

import threading

from drivers.errors import Aborted


class Abort:
    """What `Instrument.abort` sets, what long operations look at, and what `start` clears.

    A driver waits with `wait` instead of `time.sleep`, and calls `check` between the wire calls of
    a long operation, so that no abort waits for more than one wire call.
    """

    def __init__(self, name: str) -> None:
        """Take the instrument's name, for the error message."""
        self._name = name
        self._requested = threading.Event()

    def request(self) -> None:
        """Let the running operation, and any that follows, end with Aborted; thread-safe."""
        self._requested.set()

    def clear(self) -> None:
        """Allow operations again."""
        self._requested.clear()

    def check(self, asked: str) -> None:
        """Raise Aborted if an abort has been requested; `asked` says what is being done."""
        if self._requested.is_set():
            raise Aborted(self._name, f"{asked}: aborted")

    def wait(self, asked: str, seconds: float) -> None:
        """Wait for so long; raise Aborted as soon as an abort is requested."""
        if seconds > 0:
            self._requested.wait(seconds)
        self.check(asked)
