"""How much of the recent past an instrument was in use."""

from collections import deque


class BusyTime:
    """Add up busy intervals: the total, and the share of a sliding window.

    Times are monotonic seconds. The window is kept as one sum per whole second, so memory stays
    the same however many passes there are; its oldest second counts in proportion.
    """

    def __init__(self, opened_s: float, window_s: int = 60) -> None:
        """Start at `opened_s`; the share looks back `window_s` seconds, or to the start."""
        self.total_s = 0.0
        self._opened_s = opened_s
        self._window_s = window_s
        self._seconds: deque[tuple[int, float]] = deque(maxlen=window_s + 1)

    def add(self, start_s: float, end_s: float) -> None:
        """Count one busy interval; intervals come in order and do not overlap."""
        self.total_s += end_s - start_s
        at = max(start_s, end_s - self._window_s)
        while at < end_s:
            second = int(at // 1)
            until = min(end_s, second + 1.0)
            self._count(second, until - at)
            at = until

    def share(self, now_s: float, busy_since_s: float | None = None) -> float:
        """Return the busy share, 0 to 1, of the window that ends at `now_s`.

        `busy_since_s` is the start of an interval that still goes on.
        """
        begin = max(self._opened_s, now_s - self._window_s)
        if now_s <= begin:
            return 0.0
        busy = sum(part * self._overlap(second, begin) for second, part in self._seconds)
        if busy_since_s is not None:
            busy += now_s - max(busy_since_s, begin)
        return min(1.0, busy / (now_s - begin))

    def _count(self, second: int, busy_s: float) -> None:
        if self._seconds and self._seconds[-1][0] == second:
            busy_s += self._seconds.pop()[1]
        self._seconds.append((second, busy_s))

    @staticmethod
    def _overlap(second: int, begin_s: float) -> float:
        """Return which share of a whole second lies after `begin_s`."""
        return min(1.0, max(0.0, second + 1.0 - begin_s))
