"""How long to wait between two tries at a service that does not answer."""

import time
from collections.abc import Callable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class Tries:
    """Wait 0.1 s before the next try, then twice as long each time, 2 s at most."""

    def __init__(self, patience_s: float) -> None:
        """Let the waiting take `patience_s` from the first failure on, s."""
        self._patience_s = patience_s
        self.start_over()

    def start_over(self) -> None:
        """Count from the next failure on: there was an answer."""
        self._pause_s = _FIRST_PAUSE_S
        self._until_s: float | None = None

    def wait(self, sleep: Callable[[float], object] | None = None) -> bool:
        """Wait after a failure; return False at once where that would be beyond the patience.

        sleep(seconds): what waits, instead of `time.sleep`.
        """
        now_s = time.monotonic()
        self._until_s = now_s + self._patience_s if self._until_s is None else self._until_s
        if now_s + self._pause_s > self._until_s:
            return False
        (sleep or time.sleep)(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return True
