"""A steady rhythm of shots: one instrument call in every period, so that nothing warms or cools."""

import math
import threading
from collections.abc import Callable


class Rhythm:
    """Slots at whole multiples of `period_s`; used by the worker thread, asked by the loop.

    late: shots that came after their slot, because the one before took longer than a period.
    """

    def __init__(
        self, period_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        """Take the period, a monotonic clock and what waits, both in seconds."""
        self.period_s = period_s
        self.late = 0
        self._clock, self._sleep = clock, sleep
        self._next = clock()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for the next slot and take it."""
        with self._lock:
            slot, now = self._next, self._clock()
            if now - slot > self.period_s:
                self.late += 1
                slot += self.period_s * math.floor((now - slot) / self.period_s)
            self._next = slot + self.period_s
        if slot > now:
            self._sleep(slot - now)

    def until_next(self, now: float) -> float:
        """Return the time, s, until the next slot; 0 or less once it is there."""
        return self._next - now
