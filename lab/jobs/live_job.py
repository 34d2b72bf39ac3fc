"""One job while it is in this process: how it is stopped, and how its watchers hear of news."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lab.deadlines import DeadlineTimer
from lab.errors import Stopped
from lab.jobs.kinds import JobConfig
from lab.jobs.news import NewsBoard
from lab.jobs.queues import ANYWHERE, COMPARISONS
from lab.jobs.records import JobKind, JobRecord, JobState
from lab.jobs.row_progress import RowProgress
from lab.jobs.store import Store


class LiveJob:
    """A run of a job in the process that works on it, from its claim to its end.

    The job's threads call `check`, `pause`, `stopped`, `metric`, `tell` and keep in `pass_ids` the
    passes that are under way; the rest belongs to the loop.
    is_shared: whether another host may take it over. continued_s: when somebody last had it
    continued, 0 for never. store: for the job's threads: it waits for disk and database until the
    job is to end. rows: what it has measured, for any thread. ends_as: in which state it ends if it
    is stopped, and why; None: it does not end, but goes on elsewhere or later. at_once: it is not
    to take a checkpoint first. deadline: the timer of its deadline.
    """

    def __init__(
        self, record: JobRecord, config: JobConfig, store: Store, board: NewsBoard
    ) -> None:
        """Work on the attempt that `record` was claimed for; its watchers are told on `board`."""
        self.id = record.id
        self.config = config
        self.client = record.client
        self.attempt = record.attempt
        self.started_s = record.started_s
        self.is_shared = record.queue in (ANYWHERE, COMPARISONS)
        self.continued_s = record.continued_s or 0.0
        self.rows = RowProgress()
        self.kind: JobKind = record.kind
        self.ends_as: tuple[JobState | None, str] = ("cancelled", "")
        self.at_once = False
        self.deadline: DeadlineTimer | None = None
        self.pass_ids: set[str] = set()
        self._stop = threading.Event()
        self._on_stop: list[Callable[[], object]] = []
        self.store = store.patient(self.pause)
        self._steps = 0
        self._board = board

    def stop(self, reason: str, state: JobState | None = "cancelled") -> None:
        """Ask the job to end, in `state` (see `ends_as`).

        The first reason counts, but that one which was to be paused may be cancelled.
        """
        if not self.stopped() or (self.ends_as[0], state) == ("paused", "cancelled"):
            self.ends_as = state, reason
        self._stop.set()
        for call in tuple(self._on_stop):
            call()

    @contextmanager
    def when_stopped(self, call: Callable[[], object]) -> Iterator[None]:
        """Have something called, on the loop, when the job is to end; inside the block.

        At once, and maybe twice, if it is to end already. It must not block.
        """
        self._on_stop.append(call)
        try:
            if self.stopped():
                call()
            yield
        finally:
            self._on_stop.remove(call)

    def stopped(self) -> bool:
        """Say whether the job is to end."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raise Stopped if the job is to end."""
        if self.stopped():
            raise Stopped(self.ends_as[1])

    def pause(self, seconds: float) -> None:
        """Wait, in a thread of the job's; raise Stopped as soon as the job is to end."""
        self._stop.wait(seconds)
        self.check()

    @property
    def told(self) -> int:
        """Get the number of its newest metric, 0 for none."""
        return self._steps

    def go_on_after(self, metrics: int, rows: int) -> None:
        """Go on with the metric after so many, and with so many rows measured before."""
        self._steps = metrics
        self.rows.count(rows)

    def metric(self, metric: Mapping[str, Any]) -> None:
        """Keep one metric under the next step number, and tell the watchers."""
        self._steps += 1
        self.store.add_metric(self.id, self._steps, metric, self.attempt)
        self.tell()

    def tell(self) -> None:
        """Tell the watchers, from any thread, that there is news in the store."""
        self._board.tell(self.id)

    def on_loop(self, call: Callable[[], object]) -> None:
        """Let the event loop call something, from any thread."""
        self._board.on_loop(call)


class Turns:
    """Let one thread at a time do the work that a key names; others wait or are stopped."""

    def __init__(self) -> None:
        """Start with no key taken."""
        self._changed = threading.Condition()
        self._taken: set[object] = set()

    @contextmanager
    def turn(self, key: object, stopped: Callable[[], bool]) -> Iterator[None]:
        """Hold the key; raise Stopped if `stopped` says so while waiting for it."""
        with self._changed:
            self._changed.wait_for(lambda: stopped() or key not in self._taken)
            if stopped():
                raise Stopped("stopped while another job did the same work first")
            self._taken.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._taken.discard(key)
                self._changed.notify_all()

    def wake(self) -> None:
        """Let those who wait ask again whether they are stopped."""
        with self._changed:
            self._changed.notify_all()
