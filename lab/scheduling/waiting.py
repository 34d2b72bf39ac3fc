"""The passes that wait in front of one system, and the order in which they go.

`WaitingPasses` is the whole ordering policy: whoever wants another order (fair shares, ageing)
changes `pop` here and nothing else. Everything here runs on the event loop's thread, save where a
comment says otherwise.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from lab.errors import LabError
from lab.measurement import ForwardPass, Measurement
from lab.systems.base import Rows

T = TypeVar("T")


class Ticket:
    """One accepted pass on its way to its one outcome.

    `begun` and `ended` (wall clock, monotonic clock; seconds) are written by the worker thread
    and read by the loop; `stop_with` the other way round. Each is one assignment, hence no lock.
    """

    def __init__(self, forward_pass: ForwardPass) -> None:
        """Take a checked pass; its future belongs to the running loop."""
        self.forward_pass = forward_pass
        self.outcome: asyncio.Future[Measurement] = asyncio.get_running_loop().create_future()
        self.stop_with: type[LabError] | None = None
        self.submitted_s = time.time()
        self.begun: tuple[float, float] | None = None
        self.ended: tuple[float, float] | None = None

    @property
    def rows(self) -> int:
        """Return how many rows the pass asks for."""
        return len(self.forward_pass.x)

    def stopped(self) -> bool:
        """Say whether no further row may start; asked by the worker thread between rows."""
        return self.stop_with is not None

    def stop(self, kind: type[LabError]) -> None:
        """Ask the pass to end with an error of `kind`; the first who asks decides."""
        self.stop_with = self.stop_with or kind

    def fail(self, error: Exception) -> None:
        """End the pass with `error`."""
        self.outcome.set_exception(error)

    def deliver(self, rows: Rows, first_shot: int) -> None:
        """End the pass with its rows, or with the error it was stopped with."""
        if self.stop_with is not None:
            self.fail_stopped(self.stop_with, measured=len(rows.y))
        else:
            self.outcome.set_result(self._measurement(rows, first_shot))

    def fail_stopped(self, kind: type[LabError], measured: int = 0) -> None:
        """End the pass with an error of `kind` that says how far it came."""
        p = self.forward_pass
        self.fail(
            kind(f"pass {p.pass_id} on {p.system} ended after {measured} of {self.rows} rows")
        )

    def _measurement(self, rows: Rows, first_shot: int) -> Measurement:
        if self.begun is None or self.ended is None:
            raise RuntimeError(f"pass {self.forward_pass.pass_id} has rows but was never run")
        return Measurement(
            pass_id=self.forward_pass.pass_id,
            system=self.forward_pass.system,
            y=rows.y,
            saturated=rows.saturated,
            first_shot=first_shot,
            submitted_s=self.submitted_s,
            started_s=self.begun[0],
            finished_s=self.ended[0],
        )


class WaitingPasses:
    """Keep tickets in order: higher priority first, then first come, first served.

    Adding, taking and removing cost the same however many wait.
    """

    def __init__(self) -> None:
        """Start empty."""
        # ordered dicts: a plain dict's front gets slow to find after many removals
        self._by_priority: dict[int, OrderedDict[str, Ticket]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many passes wait."""
        return self._count

    def add(self, ticket: Ticket) -> None:
        """Queue a ticket behind its equals."""
        p = ticket.forward_pass
        self._by_priority.setdefault(p.priority, OrderedDict())[p.pass_id] = ticket
        self._count += 1

    def pop(self) -> Ticket | None:
        """Take the ticket that goes next, or None."""
        if not self._by_priority:
            return None
        equals = self._by_priority[max(self._by_priority)]
        ticket = next(iter(equals.values()))
        self.remove(ticket)
        return ticket

    def pop_all(self) -> list[Ticket]:
        """Take out every ticket, in order."""
        by_priority, self._by_priority, self._count = self._by_priority, {}, 0
        return [t for p in sorted(by_priority, reverse=True) for t in by_priority[p].values()]

    def remove(self, ticket: Ticket) -> bool:
        """Take out a ticket wherever it stands; return whether it was waiting."""
        p = ticket.forward_pass
        equals = self._by_priority.get(p.priority)
        if equals is None or equals.pop(p.pass_id, None) is None:
            return False
        self._count -= 1
        if not equals:
            del self._by_priority[p.priority]
        return True


async def finish(future: asyncio.Future[T], on_cancel: Callable[[], object] | None = None) -> T:
    """Wait for `future` to its end even if this task is cancelled meanwhile.

    A cancelled task calls `on_cancel`, still waits for the call in flight, and is only then
    cancelled: whoever goes on after it finds the hardware at rest.
    """
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if future.cancelled():
            raise
        if on_cancel is not None:
            on_cancel()
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue  # asked once more; the first request is raised below
        if not future.cancelled():
            future.exception()  # seen: the canceller gets CancelledError instead
        raise
