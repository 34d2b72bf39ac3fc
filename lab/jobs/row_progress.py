"""How many rows a job has measured, how many it will, and at which pace."""

import threading
import time
from collections.abc import Callable

from lab.jobs.records import JobEstimate


class RowProgress:
    """Count one job's rows; thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing measured or planned.

        clock: seconds since the epoch, steady: of a clock that never jumps.
        """
        self._clock, self._steady = clock, steady
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start anew: what was measured is measured again, or counted when the job goes on."""
        with self._lock:
            self._done = 0
            self._planned: int | None = None
            self._pace_from: tuple[float, int] | None = None

    def count(self, rows: int) -> None:
        """Count rows that have been measured."""
        with self._lock:
            self._done += rows

    def plan(self, rows: int) -> None:
        """Expect so many rows more than planned so far."""
        with self._lock:
            self._planned = (self._planned or 0) + rows

    def start_pace(self) -> None:
        """Take the pace from here on: the rows that are left are like those that come now."""
        with self._lock:
            self._pace_from = self._steady(), self._done

    def estimate(self, start_s: float | None) -> JobEstimate:
        """Return how far the job is."""
        with self._lock:
            return JobEstimate(self._done, self._planned, start_s, self._finish_s())

    def _finish_s(self) -> float | None:
        if self._planned is None or self._pace_from is None:
            return None
        began, before = self._pace_from
        if self._done == before:
            return None
        row_s = (self._steady() - began) / (self._done - before)
        return self._clock() + max(0, self._planned - self._done) * row_s
