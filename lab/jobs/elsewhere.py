"""Measure a job's rows on the bench of another service of the same database."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from drivers.row_key import RowKey
from drivers.spec import Array
from lab.jobs.desk import Assignment, Desk
from lab.measure import Run
from lab.remote import RemoteRun
from lab.systems.base import never


@contextmanager
def open_run(assignment: Assignment, desk: Desk) -> Iterator[Run]:
    """Return what executes a job's rows: at its desk, or at the service that has the system."""
    there, config = assignment.elsewhere, assignment.config
    if there is None:
        yield desk.run()
        return
    with (
        RemoteRun(
            there.url,
            config.system,
            client=there.client,
            priority=config.priority,
            deadline_s=config.deadline_s,
            job=assignment.job,
            attempt=there.attempt,
            stopped=desk.stopped,
        ) as run,
        desk.when_stopped(run.cancel),
    ):
        yield CountedRun(run, desk)


class CountedRun:
    """Execute rows elsewhere and have them counted at the desk (a `lab.measure.Run`)."""

    def __init__(self, run: Run, desk: Desk) -> None:
        """Measure with `run`."""
        self._run, self._desk = run, desk
        self._counting = threading.Lock()

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        """Return y in physical units; see `Run`."""
        y = self._run(x, theta, keys, depth=depth, stopped=stopped)
        with self._counting:
            self._desk.count_rows(len(y))
        return y

    def cancel(self) -> None:
        """Cancel the calls that are under way."""
        self._run.cancel()

    def hardware_s(self) -> float:
        """Return the time from each call's first row to its last one's end, summed, s."""
        return self._run.hardware_s()
