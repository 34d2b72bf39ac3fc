"""One physical system behind its queue: who is let in, what runs next, what becomes of each pass.

One asyncio task serves the queue, call by call; `Hardware` does what it says. All state is changed
on the event loop's thread, so no lock but the hardware's own is needed.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import numpy as np

from drivers.errors import DriverError
from lab.bench_config import SchedulerConfig
from lab.errors import (
    DeadlineMissed,
    LabError,
    NotPermitted,
    PassTimeout,
    SystemClosed,
    SystemFaulted,
    SystemStopped,
)
from lab.measurement import ForwardPass
from lab.scheduling.finish import finish
from lab.scheduling.hardware import Hardware
from lab.scheduling.health import Health
from lab.scheduling.pass_queue import PassQueue
from lab.scheduling.planning import Planning
from lab.scheduling.reserved_use import ReservedUse
from lab.scheduling.safe_state import SafeStateOnDemand
from lab.scheduling.ticket import AnyOutcome, HardwareCall, Portion, Ticket
from lab.systems.base import Rows

log = logging.getLogger(__name__)


class SystemQueue:
    """Run passes on one system, in the order that `PassQueue` gives."""

    def __init__(
        self,
        name: str,
        hardware: Hardware,
        config: SchedulerConfig,
        rearm: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve `hardware`, which must not be used by anybody else.

        rearm: re-arms what protects the bench, blocking; raises NotPermitted.
        """
        self.name = name
        self.hardware = hardware
        self.config = config
        self.calibration = ""
        self.passes = PassQueue(name, config)
        self.health = Health(config.recovery_attempts, config.recovery_delay_s)
        self.closed = True
        self._rearm = rearm
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._started = asyncio.Event()
        self._alone_since = 0.0
        self._restart_due = False
        self.planning = Planning(
            hardware, self.passes, config.slice_s, self._tell_beginning, self._tell_finished
        )
        self.reserved = ReservedUse(
            name,
            hardware,
            self.passes,
            self.planning,
            closed=lambda: self.closed,
            has_ended=self._look_again,
            lost=self._let_restart,
        )
        self.safe_state = SafeStateOnDemand(
            hardware, closed=lambda: self.health.reason if self.closed else None
        )

    # --- opening and closing

    async def open(self) -> None:
        """Start the system; one that fails to start is faulted, with the reason in its status."""
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.hardware.open()
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
            self.planning.unplan()
            for call in self.planning.on_hardware():
                self._keep_apart(call)
                call.stop(SystemClosed)
            for ticket in self.passes.remove_all():
                ticket.fail_stopped(SystemClosed)
            self.reserved.end()
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
        call = self.hardware.running
        # of a call only the last pass can have rows to come
        running = [] if call is None else [call.portions[-1].ticket]
        self.passes.refuse(forward_pass, self.hardware.row_time_s or 0.0, running)

    def put(self, forward_pass: ForwardPass, outcome: AnyOutcome | None = None) -> Ticket:
        """Queue a checked pass, which ends with `outcome`; raise what `refuse` raises."""
        self.refuse(forward_pass)
        if self.passes.next_rows == 0:
            self._alone_since = self.now()
        ticket = self.passes.put(forward_pass, self.now(), outcome)
        if ticket.rows == 0:
            self._deliver_empty(ticket)
            return ticket
        if forward_pass.deadline_s is not None:
            left_s = forward_pass.deadline_s - time.time()
            timer = self._loop.call_later(left_s, self.withdraw, ticket, DeadlineMissed)
            ticket.timers.append(timer)
        self._changed.set()
        self._consider(ticket)
        return ticket

    def withdraw(self, ticket: Ticket, kind: type[LabError]) -> None:
        """End a waiting pass at once, a running one after the call in flight, with `kind`."""
        if ticket.outcome.done():
            return
        self.planning.unplan()
        carried = any(call.carries(ticket) for call in self.planning.on_hardware())
        waited = self.passes.remove(ticket)
        if carried:
            ticket.stop(kind)
            for call in self.planning.on_hardware():
                call.cut = True  # the others of its slice go on in the next one
        elif waited:
            ticket.fail_stopped(kind)
        self._plan()

    def _let_restart(self) -> None:
        """Have the system brought to its safe state, ready for use, before anything else runs."""
        self._restart_due = True
        self._changed.set()

    def _look_again(self) -> None:
        """Look for something to do: other passes may run now."""
        self._alone_since = self.now()
        self._changed.set()

    def _deliver_empty(self, ticket: Ticket) -> None:
        shape = self.hardware.system.description.y.shape
        no_rows = Rows(np.empty((0, *shape)), np.empty(0, dtype=bool))
        ticket.keep(no_rows, 0, 0, self.hardware.next_shot, ticket.submitted_s)
        ticket.deliver(self.calibration)

    # --- stop and recovery

    def hold_back(self, reason: str, *, stopped: bool = False) -> None:
        """Take the system out of use at once, until `recover`: end its passes, make it safe.

        stopped: somebody asked for it. The call in flight is aborted; its rows are void.
        """
        if self.closed:
            return
        self._hold(reason, stopped=stopped)
        self.planning.unplan()
        for call in self.planning.on_hardware():
            self._keep_apart(call)
            call.stop(SystemStopped if stopped else NotPermitted)
        for ticket in self.passes.remove_all():
            ticket.fail(self._refusal())
        self.hardware.system.abort()
        self.safe_state.soon()

    async def recover(self) -> None:
        """Re-arm, shut down (best effort) and start again; nothing happens if the system is ok.

        Raises NotPermitted while the bench may not be driven, what the start raised (the system
        then stays faulted), or SystemClosed.
        """
        if self._needs_recovery():
            async with self.hardware.hold():
                # asked again: somebody else may have recovered or closed it meanwhile
                if self._needs_recovery():
                    error = await self._rearm_and_restart()
                    self._changed.set()
                    if error is not None:
                        raise error
        if self.closed:
            raise SystemClosed(f"{self.name} is closed")

    async def _rearm_and_restart(self) -> Exception | None:
        """Return what went wrong; a stop that comes meanwhile holds."""
        reason, stopped = self.health.reason, self.health.stopped
        self.health.rearm()
        try:
            await self.hardware.rearm(self._rearm)
        except NotPermitted as error:
            self.health.hold(reason if stopped else str(error), stopped=stopped)
            return error
        if self.health.held:
            return self._refusal()
        return await self._bring_up(self.hardware.restart)

    def _needs_recovery(self) -> bool:
        return bool(self.health.reason) and not self.closed

    # --- the task

    async def _serve(self) -> None:
        try:
            async with self.hardware.hold():
                await self._bring_up(self.hardware.start)
            self._started.set()
            while await self._something_to_do():
                async with self.hardware.hold():
                    await self._do_next()
        finally:
            self._started.set()
            self.close()
            # however often this task is cancelled meanwhile
            await finish(asyncio.create_task(self._leave_safe()))
            await self.safe_state.finish()

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
        now, rows, idle_s = self.now(), self.passes.next_rows, self.hardware.until_idle_shot()
        if self.health.reason:
            return None if self.health.next_s is None else self.health.next_s - now
        if self._restart_due:
            return 0.0
        if rows >= self.hardware.system.batch_rows:
            return 0.0
        if rows == 0:
            return idle_s
        company_s = self._alone_since + self.config.company_wait_s - now
        return company_s if idle_s is None else min(idle_s, company_s)

    async def _do_next(self) -> None:
        """Do what is due, chosen only now: the newest priorities and cancellations count."""
        if self.closed:
            return
        if self.health.reason:
            if self.health.next_s is not None and self.health.next_s <= self.now():
                await self._bring_up(self.hardware.restart)
            return
        if self._restart_due:
            await self._bring_up(self.hardware.restart)
            return
        call = self.planning.next_call(self.now())
        if call.portions:
            await self._run(call)
        elif (idle_s := self.hardware.until_idle_shot()) is not None and idle_s <= 0:
            await self._run_idle()

    def _tell_beginning(self, ticket: Ticket) -> None:
        """Let the time limit of a pass run; from the worker thread."""
        self._loop.call_soon_threadsafe(self._start_timeout, ticket)

    def _tell_finished(self, ticket: Ticket) -> None:
        """Deliver a pass that is complete before its call is; from the worker thread."""
        self._loop.call_soon_threadsafe(self._deliver, ticket)

    def _deliver(self, ticket: Ticket) -> None:
        if not ticket.outcome.done():
            ticket.deliver(self.calibration)

    async def _run(self, call: HardwareCall) -> None:
        """Run a call and those that follow it; bring each pass a step or its whole way on."""
        await self.hardware.run(call, self._begins, self._ends, self.close)

    def _begins(self, call: HardwareCall) -> None:
        call.expected_s = self.hardware.expected_s(call.rows)
        longest_s = self.config.call_timeout_s + call.expected_s
        self._watchdog = self._loop.call_later(longest_s, self._hangs, call)
        self.passes.served(call.portions[0].ticket, self.now())  # at least one row of it runs
        for portion in call.portions:
            self.passes.take_planned(portion.ticket)
            self._charge_planned(portion)
            # the rest waits for its next slice, unless the pass was ended before this was heard of
            if portion.until < portion.ticket.rows and not portion.ticket.ends():
                self.passes.put_back(portion.ticket, self.now())
        self._plan()

    def _ends(self, call: HardwareCall) -> None:
        self._watchdog.cancel()
        goes_on = self.hardware.running
        if goes_on is None:
            self.planning.unplan()
        self._charge(call)
        if call.error is not None and not call.abandoned:  # else the fault is known
            self._keep_apart(call)
            self._fault(call.error)
        for portion in call.portions:
            if goes_on is None or not goes_on.carries(portion.ticket):
                self._settle(portion.ticket, call)
        self._alone_since = self.now()

    # --- what follows the running call

    def _consider(self, ticket: Ticket) -> None:
        """Let a pass that has just come take its place among what runs and what is planned."""
        if self.hardware.running is not None:
            self._plan()
            for call in self.planning.on_hardware():
                call.cut = call.cut or call.gives_way_to(ticket)

    def _plan(self) -> None:
        """Choose again what follows the running call, unless the system does nothing more."""
        if not (self.closed or self.health.reason or self._restart_due):
            self.planning.plan(self.now())

    def _keep_apart(self, call: HardwareCall) -> None:
        """Take the passes of a call out of the queue: what ends the others does not end them."""
        for portion in call.portions:
            self.passes.remove(portion.ticket)

    def _start_timeout(self, ticket: Ticket) -> None:
        timeout_s = ticket.forward_pass.timeout_s
        if timeout_s is not None and not ticket.timed and not ticket.outcome.done():
            ticket.timed = True
            timer = self._loop.call_later(timeout_s, self.withdraw, ticket, PassTimeout)
            ticket.timers.append(timer)

    def _hangs(self, call: HardwareCall) -> None:
        """Give up a call that does not return; its callers hear now, its system is faulted."""
        call.cut = call.abandoned = True
        self.planning.unplan()
        self._keep_apart(call)
        error = PassTimeout(f"{self.name}: an instrument call does not return")
        self._fault(error)
        for portion in call.portions:
            if not portion.ticket.outcome.done():
                portion.ticket.stop(PassTimeout)
                portion.ticket.fail(error)

    def _charge_planned(self, portion: Portion) -> None:
        """Let a pass's client pay in advance, so that the next choice knows of it."""
        portion.charged_s = self.hardware.expected_s(portion.left)
        self.passes.charge(portion.ticket, portion.charged_s)

    def _charge(self, call: HardwareCall) -> None:
        """Let each pass's client pay for its rows, no more and no less."""
        measured = sum(portion.executed for portion in call.portions)
        if measured:
            self.health.works()
        for p in call.portions:
            spent_s = (call.ended_s - call.begun_s) * p.executed / measured if measured else 0.0
            self.passes.charge(p.ticket, spent_s - p.charged_s)
            if p.executed:
                self.passes.served(p.ticket, self.now())

    def _settle(self, ticket: Ticket, call: HardwareCall) -> None:
        """End a pass that was in a call, or let it wait for its next slice."""
        if self._goes_on(ticket, call):
            if not self.passes.waits(ticket):
                self.passes.put_back(ticket, self.now())
            return
        self.passes.remove(ticket)
        if ticket.outcome.done():
            return
        if ticket.error is not None:
            ticket.fail(ticket.error)
        elif self._is_void(ticket, call):
            ticket.fail(self._refusal(call.error))
        elif call.error is not None and ticket in call.interrupted:
            self._repeat_or_fail(ticket, call.interrupted[ticket], call.error)
        elif ticket.done == ticket.rows or ticket.stopped():
            ticket.deliver(self.calibration)
        elif self.closed:
            ticket.fail_stopped(SystemClosed)
        else:
            ticket.fail(self._refusal(call.error))

    def _is_void(self, ticket: Ticket, call: HardwareCall) -> bool:
        """Say whether a stop, or a permit that was withdrawn, has hit the pass."""
        interrupted = isinstance(call.error, NotPermitted) and ticket in call.interrupted
        return interrupted or ticket.stop_with in (SystemStopped, NotPermitted)

    def _goes_on(self, ticket: Ticket, call: HardwareCall) -> bool:
        """Say whether a pass that was in a call has rows to come, and nothing speaks against it."""
        if ticket.ends() or ticket.done == ticket.rows or self.closed or ticket in call.interrupted:
            return False
        return not self.health.reason or self._waits_for_recovery(ticket)

    def _repeat_or_fail(self, ticket: Ticket, rows: int, error: Exception) -> None:
        again = ticket.forward_pass.repeatable and not (ticket.repeated or ticket.stopped())
        if again and isinstance(error, DriverError) and not self.health.given_up:
            ticket.repeat(rows)
            self.passes.put_back(ticket, self.now())
        else:
            ticket.fail(error)

    def _waits_for_recovery(self, ticket: Ticket) -> bool:
        return ticket.forward_pass.on_fault == "wait" and not self.health.given_up

    async def _run_idle(self) -> None:
        try:
            await self.hardware.idle_shot()
        except Exception as error:
            self._fault(error)

    async def _bring_up(self, call: Callable[[], Awaitable[None]]) -> Exception | None:
        """Start or restart the system; return what went wrong, which is then its fault."""
        self._restart_due = False
        try:
            await call()
        except Exception as error:
            self._fault(error)
            return error
        self.health.recovered()
        return None

    async def _leave_safe(self) -> None:
        """Bring the instruments to their safe state; a failure is logged and in the status."""
        try:
            await self.hardware.leave_safe()
        except Exception as error:
            self.health.reason = f"safe state not confirmed: {error!r}"
            log.exception("%s: %s", self.name, self.health.reason)

    def _fault(self, error: Exception) -> None:
        """Mark the system faulted, and fail those that do not wait for its recovery."""
        if self.health.held:
            return  # that is known, and nobody waits
        reason = "; ".join([str(error) or repr(error), *getattr(error, "__notes__", [])])
        if isinstance(error, NotPermitted):
            self._hold(reason)
        else:
            self.health.fault(reason, self.now())
            log.error("%s is faulted: %s", self.name, reason, exc_info=error)
        for ticket in self.passes.tickets():
            if not self._waits_for_recovery(ticket):
                self.passes.remove(ticket)
                ticket.fail(self._refusal(error))

    def _hold(self, reason: str, *, stopped: bool = False) -> None:
        if self.health.reason != reason:
            log.warning("%s is out of use: %s", self.name, reason)
        self.health.hold(reason, stopped=stopped)

    def _refusal(self, cause: Exception | None = None) -> SystemFaulted:
        if self.health.stopped:
            refusal: SystemFaulted = SystemStopped(f"{self.name} is stopped: {self.health.reason}")
        else:
            refusal = SystemFaulted(f"{self.name} is faulted: {self.health.reason}")
        refusal.__cause__ = cause
        return refusal
