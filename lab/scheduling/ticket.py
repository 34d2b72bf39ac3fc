"""One accepted pass on its way to its one outcome, and the hardware call that carries its rows.

The worker thread hands rows to the ticket and moves `done`; everything else happens on
the event loop's thread. `stop_with` and `HardwareCall.cut` are read by the worker between
instrument calls: each is one assignment, hence no lock.
"""

import time
from asyncio import TimerHandle
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from drivers.spec import Array
from lab.deadlines import DeadlineTimer
from lab.errors import LabError
from lab.measurement import ForwardPass, Measurement
from lab.scheduling.finish import Outcome
from lab.systems.base import Rows, joined

_REPEATS = 3  # of the same rows of a persistent pass

AnyOutcome = Outcome[Measurement] | Future[Measurement]
"""What a coroutine waits for, or a thread."""


class Ticket:
    """A pass, the rows it has so far, and the future of its caller.

    number:     order of arrival. done: rows measured, from the first.
    started_s:  when its first row began, seconds since the epoch; 0 before.
    timed:      whether the time limit of the pass runs.
    repeat_until: up to where rows are flagged, for a fault has interrupted them.
    """

    def __init__(
        self, forward_pass: ForwardPass, number: int = 0, outcome: AnyOutcome | None = None
    ) -> None:
        """Take a checked pass; without an `outcome` it gets one of the running loop's."""
        self.forward_pass = forward_pass
        self.number = number
        self.rows = len(forward_pass.x)
        self.outcome: AnyOutcome = outcome or Outcome()
        self.stop_with: type[LabError] | None = None
        self.timers: list[TimerHandle | DeadlineTimer] = []
        self.submitted_s = time.time()
        self.started_s = self.finished_s = 0.0
        self._epoch_s = 0.0  # of the steady clock
        self.done = 0
        self.waiting_rows = 0  # as counted where it waits
        self.timed = False
        self.repeat_until = 0
        self._repeats: list[int] = []  # from which rows on
        self.error: Exception | None = None
        self._kept: list[tuple[Rows, int, float, int]] = []  # rows, shot, began, repeated

    def stopped(self) -> bool:
        """Say whether no further row may start; asked by the worker thread between rows."""
        return self.stop_with is not None

    def ends(self) -> bool:
        """Say whether it has ended, or must not go on once its call has."""
        return self.outcome.done() or self.error is not None or self.stopped()

    def stop(self, kind: type[LabError]) -> None:
        """Ask the pass to end with an error of `kind`; the first who asks decides."""
        self.stop_with = self.stop_with or kind

    def keep(
        self, rows: Rows, offset: int, count: int, shot: int, began: float, ended: float
    ) -> None:
        """Take `count` measured rows, `rows` from `offset` on; called by the worker thread.

        They are only noted here, between two instrument calls, and put together at the end.
        began, ended: by the steady clock, s, as are all times of a pass after its first row: what
        they differ by does not change when the wall clock is set.
        """
        if count < len(rows.y):
            rows = rows.part(slice(offset, offset + count))
        if self.done == 0:
            self._epoch_s = time.time() - ended
            self.started_s = self._epoch_s + began
        row_s = self._epoch_s + began
        self._kept.append((rows, shot, row_s, max(0, self.repeat_until - self.done)))
        self.done += count
        self.finished_s = self._epoch_s + ended

    def drive(self, row: int) -> tuple[Array, Array]:
        """Return x and theta of one row, (1, ...) each."""
        p = self.forward_pass
        return p.x[row : row + 1].copy(), p.theta[row : row + 1].copy()

    def may_repeat(self) -> bool:
        """Say whether rows that a fault has interrupted may be measured once more."""
        p = self.forward_pass
        if p.persistent:
            return p.repeatable and self._repeats.count(self.done) < _REPEATS
        return p.repeatable and not self._repeats

    def repeat(self, rows: int) -> None:
        """Have the next `rows`, which a fault interrupted, measured and flagged once more."""
        self._repeats.append(self.done)
        self.repeat_until = self.done + rows

    def fail(self, error: Exception) -> None:
        """End the pass with `error`."""
        self._end()
        self.outcome.set_exception(error)

    def fail_stopped(self, kind: type[LabError], calibration: str) -> None:
        """End the pass with an error of `kind` that has the rows which were measured."""
        p = self.forward_pass
        error = kind(f"pass {p.pass_id} on {p.system} ended after {self.done} of {self.rows} rows")
        if self.done:
            error.measured = self._measurement(calibration)
        self.fail(error)

    def deliver(self, calibration: str) -> None:
        """End the pass with its rows, or with the error it was stopped with."""
        if self.stop_with is not None:
            self.fail_stopped(self.stop_with, calibration)
            return
        self._end()
        self.outcome.set_result(self._measurement(calibration))

    def _end(self) -> None:
        for timer in self.timers:
            timer.cancel()

    def _measurement(self, calibration: str) -> Measurement:
        kept, counts = self._kept, [len(rows.y) for rows, *_ in self._kept]
        rows = joined([rows for rows, *_ in kept])
        again = [np.arange(n) < lost for (*_, lost), n in zip(kept, counts, strict=True)]
        shots = [np.arange(shot, shot + n) for (_, shot, *_), n in zip(kept, counts, strict=True)]
        return Measurement(
            pass_id=self.forward_pass.pass_id,
            system=self.forward_pass.system,
            y=rows.y,
            saturated=rows.saturated,
            retried=np.concatenate(again),
            out_of_sync=np.zeros(self.done, bool) if rows.out_of_sync is None else rows.out_of_sync,
            shots=np.concatenate(shots),
            row_s=np.repeat([began_s for _, _, began_s, _ in kept], counts),
            calibration=calibration,
            submitted_s=self.submitted_s,
            started_s=self.started_s,
            finished_s=self.finished_s,
        )


@dataclass(eq=False)
class Portion:
    """The rows of one ticket in a hardware call: from where it stands up to row `until`."""

    ticket: Ticket
    until: int
    executed: int = 0
    charged_s: float = 0.0  # in advance

    @property
    def left(self) -> int:
        """Get the rows still to be measured; none once the pass is stopped or has failed."""
        if self.ticket.stopped() or self.ticket.error is not None:
            return 0
        return self.until - self.ticket.done


@dataclass(eq=False)
class HardwareCall:
    """What the worker thread does in one go: portions of passes, in order.

    begins:    called in the worker thread before the first row of a ticket with a timeout.
    finished:  called in the worker thread for each ticket that is complete before the call is.
    cut:       set by the loop: end after the instrument call in flight.
    abandoned: set by the loop, which waits no more: also leave the system safe.
    executed:  rows that went to the hardware, measured or not.
    begun_s, ended_s: monotonic times; paused_s: of that, waited for the beat;
    expected_s: what it should take.
    error:     what went wrong; interrupted: the tickets it hit, with their rows in flight.
    """

    portions: list[Portion]
    first_shot: int
    begins: Callable[[Ticket], object]
    finished: Callable[[Ticket], object]
    cut: bool = False
    abandoned: bool = False
    executed: int = 0
    begun_s: float = 0.0
    ended_s: float = 0.0
    paused_s: float = 0.0
    expected_s: float = 0.0
    error: Exception | None = None
    interrupted: dict[Ticket, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Note the lowest priority in it, once: every pass that comes asks for it."""
        self.lowest = min((p.ticket.forward_pass.priority for p in self.portions), default=0)

    @property
    def rows(self) -> int:
        """Get the rows planned."""
        return sum(p.left for p in self.portions)

    def carries(self, ticket: Ticket) -> bool:
        """Say whether rows of a ticket are in it."""
        return any(portion.ticket is ticket for portion in self.portions)

    def gives_way_to(self, ticket: Ticket) -> bool:
        """Say whether a pass that has just come goes before some of this call's."""
        return ticket.forward_pass.priority > self.lowest

    def stop(self, kind: type[LabError]) -> None:
        """Stop every pass in it."""
        self.cut = True
        for portion in self.portions:
            portion.ticket.stop(kind)
