"""Wait for a time of day, whichever way the clock is set meanwhile."""

import asyncio
import time
from collections.abc import Callable

LOOK_EVERY_S = 10.0  # how late a deadline is noticed, at most, over which the clock has jumped


class DeadlineTimer:
    """Call something once the wall clock has come to a time; on the event loop.

    The loop's own timers go by the steady clock: an hour after a laptop's clock was set back by
    one, a deadline of theirs would be missed an hour early.
    """

    def __init__(self, deadline_s: float, call: Callable[[], object]) -> None:
        """Call `call` on the running loop at `deadline_s`, seconds since the epoch."""
        self._loop = asyncio.get_running_loop()
        self._deadline_s, self._call = deadline_s, call
        self._handle = self._wait(deadline_s - time.time())

    def cancel(self) -> None:
        """Do not call it any more; idempotent."""
        self._handle.cancel()

    def _wait(self, left_s: float) -> asyncio.TimerHandle:
        return self._loop.call_later(min(left_s, LOOK_EVERY_S), self._look)

    def _look(self) -> None:
        left_s = self._deadline_s - time.time()
        if left_s > 0:
            self._handle = self._wait(left_s)
        else:
            self._call()
