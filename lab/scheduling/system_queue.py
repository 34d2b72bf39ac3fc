"""One physical system behind its queue: one asyncio task, one worker thread, one health state.

Every use of the instruments (start, pass, recovery, safe state) runs in the worker thread while
this task holds the system's locks, so a second command is never sent while one may be on the wire.
State is changed on the event loop's thread only; no other lock is needed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

from drivers.errors import LimitError
from lab.errors import LabError, SystemClosed, SystemFaulted
from lab.measurement import ForwardPass
from lab.scheduling import system_worker
from lab.scheduling.duty_cycle import BusyTime
from lab.scheduling.waiting import Ticket, WaitingPasses, finish
from lab.systems.base import PhysicalSystem

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SystemStatus:
    """The health of one system.

    state:      ok (takes passes), faulted (takes none until recovered), closed.
    reason:     why it is faulted, or what its last shutdown could not confirm; else empty.
    since_s:    when the state began, seconds since the epoch.
    waiting:    number of queued passes; running: id of the pass on the hardware, or None.
    rows_done:  rows measured since start; next_shot: the shot number of the next row.
    busy_s:     hardware time used since start; duty_cycle: its share of the last minute, 0 to 1.
    """

    name: str
    state: Literal["ok", "faulted", "closed"]
    reason: str
    since_s: float
    waiting: int
    running: str | None
    rows_done: int
    next_shot: int
    busy_s: float
    duty_cycle: float


class SystemQueue:
    """Run passes on one system, one at a time, in the order that `WaitingPasses` gives."""

    def __init__(
        self, name: str, system: PhysicalSystem, shared: Sequence[asyncio.Lock], first_shot: int
    ) -> None:
        """Take the locks of the instruments that other systems use too, in the global order."""
        self.name = name
        self.system = system
        self._locks = (asyncio.Lock(), *shared)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"hardware-{name}")
        self._task: asyncio.Task[None] | None = None
        self._waiting = WaitingPasses()
        self._arrived = asyncio.Event()
        self._started = asyncio.Event()
        self._running: Ticket | None = None
        self._closed = True
        self._reason = ""
        self._since_s = time.time()
        self._rows_done = 0
        self._next_shot = first_shot
        self._busy = BusyTime(time.monotonic())

    async def open(self) -> None:
        """Start the system; one that fails to start is faulted, with the reason in its status."""
        self._closed, self._reason = False, "it has not started yet"
        self._task = asyncio.create_task(self._serve(), name=f"system-{self.name}")
        await self._started.wait()

    def refuse(self) -> None:
        """Raise SystemClosed or SystemFaulted if the system takes no passes now."""
        if self._closed:
            raise SystemClosed(f"{self.name} is closed")
        if self._reason:
            raise SystemFaulted(f"{self.name} is faulted: {self._reason}")

    def put(self, forward_pass: ForwardPass) -> Ticket:
        """Queue a checked pass; raise SystemClosed or SystemFaulted."""
        self.refuse()
        ticket = Ticket(forward_pass)
        self._waiting.add(ticket)
        self._arrived.set()
        return ticket

    def withdraw(self, ticket: Ticket, kind: type[LabError]) -> None:
        """End a waiting pass at once, a running one after the row in flight, with `kind`."""
        if self._waiting.remove(ticket):
            ticket.fail_stopped(kind)
        else:
            ticket.stop(kind)

    async def recover(self) -> None:
        """Shut down (best effort) and start again; nothing happens if the system is ok.

        Raises what the start raised (the system then stays faulted), or SystemClosed.
        """
        if self._needs_recovery():
            async with self._hardware():
                # asked again: somebody else may have recovered or closed it meanwhile
                if self._needs_recovery():
                    error = await self._bring_up(system_worker.restart)
                    if error is not None:
                        raise error
        self.refuse()

    def _needs_recovery(self) -> bool:
        return bool(self._reason) and not self._closed

    def close(self) -> asyncio.Task[None] | None:
        """Refuse new passes, end the others; return the task that ends in the safe state.

        A running pass ends after the row in flight. Returns None if the queue was never opened.
        """
        if not self._closed:
            self._closed, self._since_s = True, time.time()
            self._arrived.set()
            for ticket in self._waiting.pop_all():
                ticket.fail_stopped(SystemClosed)
            if self._running is not None:
                self._running.stop(SystemClosed)
        return self._task

    def status(self) -> SystemStatus:
        """Return the health of the system as of now."""
        ticket, now = self._running, time.monotonic()
        since = ticket.begun[1] if ticket is not None and ticket.begun is not None else None
        return SystemStatus(
            name=self.name,
            state="closed" if self._closed else "faulted" if self._reason else "ok",
            reason=self._reason,
            since_s=self._since_s,
            waiting=len(self._waiting),
            running=ticket.forward_pass.pass_id if ticket is not None else None,
            rows_done=self._rows_done,
            next_shot=self._next_shot,
            busy_s=self._busy.total_s + (now - since if since is not None else 0.0),
            duty_cycle=self._busy.share(now, since),
        )

    async def _serve(self) -> None:
        try:
            async with self._hardware():
                await self._bring_up(system_worker.start)
            self._started.set()
            while await self._pass_waits():
                async with self._hardware():
                    # chosen only now, so that the newest priorities and cancellations count
                    ticket = self._waiting.pop()
                    if ticket is not None:
                        await self._run(ticket)
        finally:
            self._started.set()
            self.close()
            await self._leave_safe()

    async def _pass_waits(self) -> bool:
        """Wait for a pass; return False when the queue has closed."""
        while not self._closed and not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return not self._closed

    async def _run(self, ticket: Ticket) -> None:
        """Run one pass to its one outcome."""
        first_shot = self._next_shot
        # after an error nobody knows how many rows ran: the numbers of all of them are spent
        self._next_shot += ticket.rows
        self._running = ticket
        try:
            rows = await finish(
                self._in_worker(system_worker.measure, self.system, ticket), self.close
            )
        except LimitError as error:
            ticket.fail(error)
        except Exception as error:
            self._fault(error)
            ticket.fail(error)
        else:
            self._next_shot = first_shot + len(rows.y)
            self._rows_done += len(rows.y)
            ticket.deliver(rows, first_shot)
        finally:
            self._running = None
            self._account(ticket)

    def _account(self, ticket: Ticket) -> None:
        """Count the hardware time of a pass that left the worker, and leave no caller waiting."""
        if ticket.begun is not None and ticket.ended is not None:
            self._busy.add(ticket.begun[1], ticket.ended[1])
        if not ticket.outcome.done():  # this task was cancelled from outside
            ticket.fail_stopped(SystemClosed)

    async def _bring_up(self, call: Callable[[PhysicalSystem], None]) -> Exception | None:
        """Start or restart the system; return what went wrong, which is then its fault."""
        try:
            await finish(self._in_worker(call, self.system))
        except Exception as error:
            self._fault(error)
            return error
        self._set_reason("")
        return None

    async def _leave_safe(self) -> None:
        """Bring the instruments to their safe state; a failure is logged and in the status."""
        try:
            async with self._hardware():
                await finish(self._in_worker(self.system.shutdown))
        except Exception as error:
            self._reason = f"safe state not confirmed: {error!r}"
            log.exception("%s: %s", self.name, self._reason)
        finally:
            self._worker.shutdown()

    def _fault(self, error: Exception) -> None:
        """Mark the system faulted and fail all that wait for it."""
        self._set_reason("; ".join([str(error) or repr(error), *getattr(error, "__notes__", [])]))
        log.error("%s is faulted: %s", self.name, self._reason, exc_info=error)
        for ticket in self._waiting.pop_all():
            refusal = SystemFaulted(f"{self.name} is faulted: {self._reason}")
            refusal.__cause__ = error
            ticket.fail(refusal)

    def _set_reason(self, reason: str) -> None:
        if not self._closed and bool(reason) != bool(self._reason):
            self._since_s = time.time()
        self._reason = reason

    @asynccontextmanager
    async def _hardware(self) -> AsyncIterator[None]:
        """Hold this system and the instruments it shares, taken in the one global order."""
        async with AsyncExitStack() as held:
            for lock in self._locks:
                await held.enter_async_context(lock)
            yield

    def _in_worker(self, call: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._worker, call, *arguments)
