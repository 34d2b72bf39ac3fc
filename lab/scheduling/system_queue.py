"""One physical system behind its queue: one asyncio task, one worker thread, one health state.

Every use of the instruments (start, call, recovery, safe state) runs in the worker thread while
this task holds the system's locks, so a second command is never sent while one may be on the wire.
State is changed on the event loop's thread only; no other lock is needed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import numpy as np

from drivers.errors import DriverError
from drivers.spec import Array
from lab.config import SchedulerConfig
from lab.errors import (
    DeadlineMissed,
    LabError,
    PassTimeout,
    ReservationLost,
    SystemClosed,
    SystemFaulted,
)
from lab.measurement import ForwardPass
from lab.scheduling import system_worker
from lab.scheduling.duty_cycle import BusyTime
from lab.scheduling.health import Health
from lab.scheduling.pass_queue import PassQueue
from lab.scheduling.reservations import Reservation
from lab.scheduling.rhythm import Rhythm
from lab.scheduling.ticket import HardwareCall, Portion, Ticket, finish
from lab.systems.base import PhysicalSystem, Rows

T = TypeVar("T")
log = logging.getLogger(__name__)

_NEWEST = 0.3  # weight of the newest call in the measured row time
_MOST_ROWS = 10_000  # of one call, however quick a row


class SystemQueue:
    """Run passes on one system, call by call, in the order that `PassQueue` gives."""

    def __init__(
        self,
        name: str,
        system: PhysicalSystem,
        shared: Sequence[asyncio.Lock],
        config: SchedulerConfig,
        *,
        first_shot: int = 0,
        shot_period_s: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the locks of the instruments that other systems use too, in the global order."""
        self.name = name
        self.system = system
        self.config = config
        self.calibration = ""
        self.passes = PassQueue(name, config)
        self.health = Health(config.recovery_attempts, config.recovery_delay_s)
        self.running: HardwareCall | None = None
        self.closed = True
        self.rows_done = self.idle_shots = 0
        self.next_shot = first_shot
        self.row_time_s: float | None = None
        self.rhythm: Rhythm | None = None
        self._shot_period_s, self._sleep = shot_period_s, sleep
        self._locks = (asyncio.Lock(), *shared)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"hardware-{name}")
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._started = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._alone_since = 0.0
        self._last_drive: tuple[Array, Array] | None = None
        self.now = time.monotonic
        self.busy = BusyTime(self.now())

    # --- opening and closing

    async def open(self) -> None:
        """Start the system; one that fails to start is faulted, with the reason in its status."""
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.busy = BusyTime(self.now())
        if self._shot_period_s is not None:
            self.rhythm = Rhythm(self._shot_period_s, self.now, self._sleep)
        self.closed = False
        self._task = asyncio.create_task(self._serve(), name=f"system-{self.name}")
        await self._started.wait()

    def close(self) -> asyncio.Task[None] | None:
        """Refuse new passes, end the others; return the task that ends in the safe state.

        A running pass ends after the instrument call in flight. Returns None if the queue was
        never opened.
        """
        if not self.closed:
            self.closed = True
            self._changed.set()
            for ticket in self.passes.remove_all():
                ticket.fail_stopped(SystemClosed)
            if self.running is not None:
                self.running.stop(SystemClosed)
            self._end_reservation()
        return self._task

    # --- passes

    def refuse(self, forward_pass: ForwardPass) -> None:
        """Raise why the system does not take this pass now, if it does not.

        SystemClosed; SystemFaulted (for good, or the pass does not wait for a recovery);
        DeadlineMissed; ReservationLost, UnknownName (its reservation); QueueFull.
        """
        if self.closed:
            raise SystemClosed(f"{self.name} is closed")
        if self.health.given_up or (self.health.reason and forward_pass.on_fault == "fail"):
            raise self._refusal()
        self.passes.refuse(forward_pass, self.row_time_s or 0.0)

    def put(self, forward_pass: ForwardPass) -> Ticket:
        """Queue a checked pass; raise what `refuse` raises."""
        self.refuse(forward_pass)
        if self.passes.next_rows == 0:
            self._alone_since = self.now()
        ticket = self.passes.put(forward_pass, self.now())
        if ticket.rows == 0:
            self._deliver_empty(ticket)
            return ticket
        if forward_pass.deadline_s is not None:
            left_s = forward_pass.deadline_s - time.time()
            timer = self._loop.call_later(left_s, self.withdraw, ticket, DeadlineMissed)
            ticket.timers.append(timer)
        if self.running is not None and self.running.gives_way_to(ticket):
            self.running.cut = True
        self._changed.set()
        return ticket

    def withdraw(self, ticket: Ticket, kind: type[LabError]) -> None:
        """End a waiting pass at once, a running one after the call in flight, with `kind`."""
        if ticket.outcome.done():
            return
        if self.passes.remove(ticket):
            ticket.fail_stopped(kind)
        else:
            ticket.stop(kind)

    def _deliver_empty(self, ticket: Ticket) -> None:
        no_rows = Rows(np.empty((0, *self.system.description.y.shape)), np.empty(0, dtype=bool))
        ticket.keep(no_rows, 0, 0, self.next_shot, ticket.submitted_s)
        ticket.deliver(self.calibration)

    # --- reservations

    async def reserve(self, owner: str, ttl_s: float) -> Reservation:
        """Reserve the system; return once the call in flight, if any, has ended."""
        if self.closed:
            raise SystemClosed(f"{self.name} is closed")
        granted = self.passes.reservations.grant(owner, ttl_s)
        self._expire_after(ttl_s)
        if self.running is not None:
            self.running.cut = True
        async with self._locks[0]:
            return self.passes.reservations.check(granted.number)

    def heartbeat(self, number: int) -> Reservation:
        """Let a reservation live for its ttl_s from now; raise ReservationLost, UnknownName."""
        renewed = self.passes.reservations.renew(number)
        self._expire_after(renewed.ttl_s)
        return renewed

    def release(self, number: int) -> None:
        """End a reservation and its passes; raise ReservationLost, UnknownName."""
        self.passes.reservations.check(number)
        self._end_reservation()

    def _expire_after(self, ttl_s: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self._loop.call_later(ttl_s, self._end_reservation)

    def _end_reservation(self) -> None:
        """Fence off the present reservation, if any: none of its rows starts any more."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self.passes.reservations.current is None:
            return
        for ticket in self.passes.end_reservation():
            ticket.fail_stopped(ReservationLost)
        for portion in self.running.portions if self.running is not None else ():
            if portion.ticket.forward_pass.reservation is not None:
                portion.ticket.stop(ReservationLost)
        self._alone_since = self.now()
        self._changed.set()

    # --- recovery

    async def recover(self) -> None:
        """Shut down (best effort) and start again; nothing happens if the system is ok.

        Raises what the start raised (the system then stays faulted), or SystemClosed.
        """
        if self._needs_recovery():
            async with self._hardware():
                # asked again: somebody else may have recovered or closed it meanwhile
                if self._needs_recovery():
                    error = await self._bring_up(system_worker.restart)
                    self._changed.set()
                    if error is not None:
                        raise error
        if self.closed:
            raise SystemClosed(f"{self.name} is closed")

    def _needs_recovery(self) -> bool:
        return bool(self.health.reason) and not self.closed

    # --- the task

    async def _serve(self) -> None:
        try:
            async with self._hardware():
                await self._bring_up(system_worker.start)
            self._started.set()
            while await self._something_to_do():
                async with self._hardware():
                    await self._do_next()
        finally:
            self._started.set()
            self.close()
            await self._leave_safe()

    async def _something_to_do(self) -> bool:
        """Wait for the next call, idle shot or recovery; return False when the queue has closed."""
        while not self.closed:
            delay_s = self._delay_s()
            if delay_s is not None and delay_s <= 0:
                return True
            self._changed.clear()
            timer = None if delay_s is None else self._loop.call_later(delay_s, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                if timer is not None:
                    timer.cancel()
        return False

    def _delay_s(self) -> float | None:
        """Return how long there is nothing to do; None: until something changes."""
        now, rows = self.now(), self.passes.next_rows
        if self.health.reason:
            return None if self.health.next_s is None else self.health.next_s - now
        if rows >= self.system.batch_rows:
            return 0.0
        company_s = self._alone_since + self.config.company_wait_s - now if rows else None
        if self.rhythm is None or self._last_drive is None:
            return company_s
        idle_s = self.rhythm.until_next(now)
        return idle_s if company_s is None else min(idle_s, company_s)

    async def _do_next(self) -> None:
        """Do what is due, chosen only now: the newest priorities and cancellations count."""
        if self.health.reason:
            if self.health.next_s is not None and self.health.next_s <= self.now():
                await self._bring_up(system_worker.restart)
            return
        call = self._next_call()
        if call.portions:
            await self._run(call)
        elif self._idle_shot_is_due():
            await self._run_idle()

    def _idle_shot_is_due(self) -> bool:
        due = self.rhythm is not None and self.rhythm.until_next(self.now()) <= 0
        return due and self._last_drive is not None

    def _next_call(self) -> HardwareCall:
        """Take passes from the queue until their rows fill a slice."""
        room = self._rows_of_a_slice()
        portions: list[Portion] = []
        while room > 0 and (ticket := self.passes.take(self.now())) is not None:
            rows = min(room, ticket.rows - ticket.done)
            portions.append(Portion(ticket, ticket.done + rows))
            room -= rows
        return HardwareCall(portions, self.next_shot, self._tell_finished)

    def _rows_of_a_slice(self) -> int:
        batch = self.system.batch_rows
        if self.row_time_s is None:
            return batch
        period_s = max(self.row_time_s, (self._shot_period_s or 0) / batch)
        return max(batch, int(min(self.config.slice_s / max(period_s, 1e-9), _MOST_ROWS)))

    def _tell_finished(self, ticket: Ticket) -> None:
        """Deliver a pass that is complete before its call is; from the worker thread."""
        self._loop.call_soon_threadsafe(self._deliver, ticket)

    def _deliver(self, ticket: Ticket) -> None:
        if not ticket.outcome.done():
            ticket.deliver(self.calibration)

    async def _run(self, call: HardwareCall) -> None:
        """Run one call, and bring each of its passes a step or its whole way on."""
        self.running = call
        for portion in call.portions:
            self._start_timeout(portion.ticket)
        planned_s = call.rows * (self.row_time_s or 0.0)
        watchdog = self._loop.call_later(self.config.call_timeout_s + planned_s, self._hangs, call)
        work = self._in_worker(system_worker.run, self.system, call, self.now, self.rhythm)
        try:
            await finish(work, self.close)
        finally:
            watchdog.cancel()
            self.running = None
            self._account(call)
            if call.error is not None:
                self._fault(call.error)
            for portion in call.portions:
                self._settle(portion.ticket, call)
            self._alone_since = self.now()

    def _start_timeout(self, ticket: Ticket) -> None:
        timeout_s = ticket.forward_pass.timeout_s
        if ticket.done == 0 and timeout_s is not None:
            timer = self._loop.call_later(timeout_s, self.withdraw, ticket, PassTimeout)
            ticket.timers.append(timer)

    def _hangs(self, call: HardwareCall) -> None:
        """Give up a call that does not return; its callers hear now, its system is faulted."""
        call.cut = call.abandoned = True
        error = PassTimeout(f"{self.name}: an instrument call does not return")
        self._fault(error)
        for portion in call.portions:
            if not portion.ticket.outcome.done():
                portion.ticket.stop(PassTimeout)
                portion.ticket.fail(error)

    def _account(self, call: HardwareCall) -> None:
        """Count what a call that left the worker has used."""
        self.next_shot = call.first_shot + call.executed
        if call.begun is None or call.ended is None:
            return
        spent_s = call.ended - call.begun
        self.busy.add(call.begun, call.ended)
        measured = sum(p.executed for p in call.portions)
        self.rows_done += measured
        if measured == 0:
            return
        self.health.works()
        for p in call.portions:
            share_s = spent_s * p.executed / measured
            self.passes.charge(p.ticket, share_s, self.now())
            if p.executed:
                self._last_drive = p.ticket.drive(p.ticket.done - 1)
        row_s = spent_s / measured
        before = self.row_time_s if self.row_time_s is not None else row_s
        self.row_time_s = before + _NEWEST * (row_s - before)

    def _settle(self, ticket: Ticket, call: HardwareCall) -> None:
        """End a pass that was in a call, or let it wait for its next slice."""
        if ticket.outcome.done():
            return
        if ticket.error is not None:
            ticket.fail(ticket.error)
        elif ticket.done == ticket.rows or ticket.stopped():
            ticket.deliver(self.calibration)
        elif self.closed:
            ticket.fail_stopped(SystemClosed)
        elif call.error is not None and ticket in call.interrupted:
            self._repeat_or_fail(ticket, call.interrupted[ticket], call.error)
        elif self.health.reason and not self._waits_for_recovery(ticket):
            ticket.fail(self._refusal())
        else:
            self.passes.put_back(ticket, self.now())

    def _repeat_or_fail(self, ticket: Ticket, rows: int, error: Exception) -> None:
        again = ticket.forward_pass.repeatable and not ticket.repeated
        if again and isinstance(error, DriverError) and not self.health.given_up:
            ticket.repeat(rows)
            self.passes.put_back(ticket, self.now())
        else:
            ticket.fail(error)

    def _waits_for_recovery(self, ticket: Ticket) -> bool:
        return ticket.forward_pass.on_fault == "wait" and not self.health.given_up

    async def _run_idle(self) -> None:
        """Repeat the last drive for nobody, to keep the rhythm."""
        begun = self.now()
        self.next_shot += 1
        self.idle_shots += 1
        try:
            work = self._in_worker(
                system_worker.idle_shot, self.system, self._last_drive, self.rhythm
            )
            await finish(work)
        except Exception as error:
            self._fault(error)
        self.busy.add(begun, self.now())

    async def _bring_up(self, call: Callable[[PhysicalSystem], None]) -> Exception | None:
        """Start or restart the system; return what went wrong, which is then its fault."""
        try:
            await finish(self._in_worker(call, self.system))
        except Exception as error:
            self._fault(error)
            return error
        self.health.recovered()
        return None

    async def _leave_safe(self) -> None:
        """Bring the instruments to their safe state; a failure is logged and in the status."""
        try:
            async with self._hardware():
                await finish(self._in_worker(self.system.shutdown))
        except Exception as error:
            self.health.reason = f"safe state not confirmed: {error!r}"
            log.exception("%s: %s", self.name, self.health.reason)
        finally:
            self._worker.shutdown()

    def _fault(self, error: Exception) -> None:
        """Mark the system faulted, and fail those that do not wait for its recovery."""
        reason = "; ".join([str(error) or repr(error), *getattr(error, "__notes__", [])])
        self.health.fault(reason, self.now())
        log.error("%s is faulted: %s", self.name, reason, exc_info=error)
        for ticket in self.passes.tickets():
            if not self._waits_for_recovery(ticket):
                self.passes.remove(ticket)
                refusal = self._refusal()
                refusal.__cause__ = error
                ticket.fail(refusal)

    def _refusal(self) -> SystemFaulted:
        return SystemFaulted(f"{self.name} is faulted: {self.health.reason}")

    @asynccontextmanager
    async def _hardware(self) -> AsyncIterator[None]:
        """Hold this system and the instruments it shares, taken in the one global order."""
        async with AsyncExitStack() as held:
            for lock in self._locks:
                await held.enter_async_context(lock)
            yield

    def _in_worker(self, call: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return self._loop.run_in_executor(self._worker, call, *arguments)
