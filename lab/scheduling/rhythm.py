"""A steady rhythm of shots: one instrument call in every period, so that nothing warms or cools."""

import math
import threading
from collections.abc import Callable

_ON_TIME = 0.1  # of a period: a shot so long after its slot still counts as on the beat


class Rhythm:
    """Slots at whole multiples of `period_s` from the first shot on.

    Used by the worker thread, asked by the loop. late: shots that missed their slot, because the
    one before took too long or nobody drove the system; they wait for the next slot.
    """

    def __init__(
        self, period_s: float, clock: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        """Take the period, a monotonic clock and what waits, both in seconds; it may end early."""
        self.period_s = period_s
        self.late = 0
        self._clock, self._sleep = clock, sleep
        self._next: float | None = None
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Wait for the next slot and take it; return how long it should take, s."""
        with self._lock:
            now = self._clock()
            slot = now if self._next is None else self._next
            if now - slot > _ON_TIME * self.period_s:
                self.late += 1
                slot += self.period_s * math.ceil((now - slot) / self.period_s)
            self._next = slot + self.period_s
        if slot > now:
            self._sleep(slot - now)
        return slot - now

    def until_next(self, now: float) -> float:
        """Return the time, s, until the next slot; 0 or less once it is there."""
        return 0.0 if self._next is None else self._next - now
