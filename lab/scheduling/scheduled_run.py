"""Rows as passes in a scheduler's queue, for blocking callers in any threads."""

import threading
import uuid
from collections.abc import Callable, Sequence

from drivers.row_key import RowKey
from drivers.spec import Array
from lab.measurement import ForwardPass, Measurement
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import never


class ScheduledRun:
    """Execute rows of one client on one system through the scheduler (a `lab.measure.Run`).

    pass_ids: the passes under way, from before each is handed over until it has ended.
    """

    def __init__(
        self,
        scheduler: HardwareScheduler,
        system: str,
        *,
        client: str = "local",
        priority: int = 0,
        stopped: Callable[[], bool] = never,
        pass_ids: set[str] | None = None,
        measure: Callable[[ForwardPass, Callable[[], bool]], Measurement] | None = None,
    ) -> None:
        """Queue passes under `client`; once `stopped` says so, none is queued any more.

        measure: what queues a pass and waits for it, if not the scheduler's `measure_blocking`.
        Whoever makes `stopped` true on the scheduler's loop and then cancels `pass_ids` leaves no
        gap for a row.
        """
        self.pass_ids: set[str] = set() if pass_ids is None else pass_ids
        self._scheduler = scheduler
        self._system, self._client, self._priority = system, client, priority
        self._stopped = stopped
        self._measure = measure or scheduler.measure_blocking
        self._counting = threading.Lock()
        self._hardware_s = 0.0

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        """Return y in physical units; raises what `HardwareScheduler.submit` raises."""
        pass_id = uuid.uuid4().hex
        forward_pass = ForwardPass(
            system=self._system,
            x=x,
            theta=theta,
            keys=keys,
            priority=self._priority,
            client=self._client,
            pass_id=pass_id,
            depth=depth,
        )
        self.pass_ids.add(pass_id)
        try:
            measurement = self._measure(forward_pass, lambda: self._stopped() or stopped())
        finally:
            self.pass_ids.discard(pass_id)
        with self._counting:
            self._hardware_s += measurement.finished_s - measurement.started_s
        return measurement.y

    def cancel(self) -> None:
        """Have every pass under way cancelled, from any thread, without waiting for its end.

        A pass that is still on its way to the queue is refused there if its `stopped` is true.
        """
        for pass_id in tuple(self.pass_ids):  # at once: the others' threads change the set
            self._scheduler.cancel_soon(pass_id)

    def hardware_s(self) -> float:
        """Return the time from each pass's first row to its last one's end, summed, s."""
        return self._hardware_s
