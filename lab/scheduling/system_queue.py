"""One physical system behind its queue: who is let in, when something runs, what a call changes.

One asyncio task serves the queue, call by call; `Hardware` does what it says, `Planning` chooses
what runs next, `Settling` says what becomes of each pass. All state is changed
on the event loop's thread, so no lock but the hardware's own is needed.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import numpy as np

from lab.bench_config import SchedulerConfig
from lab.deadlines import DeadlineTimer
from lab.errors import (
    DeadlineMissed,
    LabError,
    NotPermitted,
    PassTimeout,
    SystemClosed,
    SystemStopped,
)
from lab.measurement import ForwardPass
from lab.scheduling.faults import Faults
from lab.scheduling.finish import finish
from lab.scheduling.hardware import Hardware
from lab.scheduling.health import Health
from lab.scheduling.pass_queue import PassQueue
from lab.scheduling.planning import Planning
from lab.scheduling.recovery import Recovery
from lab.scheduling.reserved_use import ReservedUse
from lab.scheduling.safe_state import SafeStateOnDemand
from lab.scheduling.settling import Settling
from lab.scheduling.ticket import AnyOutcome, HardwareCall, Ticket
from lab.systems.base import Rows


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
        self.closed = True
        self.passes = PassQueue(name, config)
        self.health = Health(config.recovery_attempts, config.recovery_delay_s)
        self.faults = Faults(name, self.health, self.passes, lambda: hardware.now())
        self.recovery = Recovery(name, hardware, self.faults, rearm)
        self.settling = Settling(
            hardware,
            self.passes,
            self.faults,
            closed=lambda: self.closed,
            calibration=lambda: self.calibration,
        )
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._started = asyncio.Event()
        self._alone_since = 0.0
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
            calibration=lambda: self.calibration,
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
            self.hardware.halt()
            self.planning.unplan()
            for call in self.planning.on_hardware():
                self._keep_apart(call)
                call.stop(SystemClosed)
            for ticket in self.passes.remove_all():
                ticket.fail_stopped(SystemClosed, self.calibration)
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
            raise self.faults.refusal()
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
            missed = partial(self.withdraw, ticket, DeadlineMissed)
            ticket.timers.append(DeadlineTimer(forward_pass.deadline_s, missed))
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
            ticket.fail_stopped(kind, self.calibration)
        self._plan()

    def _let_restart(self) -> None:
        """Have the system brought to its safe state, ready for use, before anything else runs."""
        self.recovery.due = True
        self._changed.set()

    def _look_again(self) -> None:
        """Look for something to do: other passes may run now."""
        self._alone_since = self.now()
        self._changed.set()

    def _deliver_empty(self, ticket: Ticket) -> None:
        shape = self.hardware.system.description.y.shape
        no_rows = Rows(np.empty((0, *shape)), np.empty(0, dtype=bool))
        now = self.now()  # once: it takes no time
        ticket.keep(no_rows, 0, 0, self.hardware.next_shot, now, now)
        ticket.deliver(self.calibration)

    # --- stop and recovery

    def hold_back(self, reason: str, *, stopped: bool = False) -> None:
        """Take the system out of use at once, until `recover`: end its passes, make it safe.

        stopped: somebody asked for it. The call in flight is aborted; its rows are void.
        """
        if self.closed:
            return
        self.faults.hold(reason, stopped=stopped)
        self.planning.unplan()
        for call in self.planning.on_hardware():
            self._keep_apart(call)
            call.stop(SystemStopped if stopped else NotPermitted)
        for ticket in self.passes.remove_all():
            ticket.fail(self.faults.refusal())
        self.hardware.halt()
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
                    error = await self.recovery.rearm_and_restart()
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
            async with self.hardware.hold():
                await self.recovery.start()
            self._started.set()
            while await self._something_to_do():
                async with self.hardware.hold():
                    await self._do_next()
        finally:
            self._started.set()
            self.close()
            # however often this task is cancelled meanwhile
            await finish(asyncio.create_task(self.recovery.leave_safe()))
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
        if self.recovery.due:
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
                await self.recovery.restart()
            return
        if self.recovery.due:
            await self.recovery.restart()
            return
        call = self.planning.next_call(self.now())
        if call.portions:
            await self.hardware.run(call, self._begins, self._ends, self.close)
        elif (idle_s := self.hardware.until_idle_shot()) is not None and idle_s <= 0:
            await self._run_idle()

    def _tell_beginning(self, ticket: Ticket) -> None:
        """Let the time limit of a pass run; from the worker thread."""
        self._loop.call_soon_threadsafe(self._start_timeout, ticket)

    def _tell_finished(self, ticket: Ticket) -> None:
        """Deliver a pass that is complete before its call is; from the worker thread."""
        self._loop.call_soon_threadsafe(self.settling.deliver, ticket)

    def _begins(self, call: HardwareCall) -> None:
        call.expected_s = self.hardware.expected_s(call.rows)
        longest_s = self.config.call_timeout_s + call.expected_s + self.hardware.beat_s
        self._hang_timer = self._loop.call_later(longest_s, self._hangs, call)
        self.passes.served(call.portions[0].ticket, self.now())  # at least one row of it runs
        for portion in call.portions:
            self.passes.take_planned(portion.ticket)
            self.settling.charge_planned(portion)
            # the rest waits for its next slice, unless the pass was ended before this was heard of
            if portion.until < portion.ticket.rows and not portion.ticket.ends():
                self.passes.put_back(portion.ticket, self.now())
        self._plan()

    def _ends(self, call: HardwareCall) -> None:
        self._hang_timer.cancel()
        goes_on = self.hardware.running
        if goes_on is None:
            self.planning.unplan()
        self.settling.charge(call)
        if call.error is not None and not call.abandoned:  # else the fault is known
            self._keep_apart(call)
            self.faults.fault(call.error)
        for portion in call.portions:
            if goes_on is None or not goes_on.carries(portion.ticket):
                self.settling.settle(portion.ticket, call)
        self._alone_since = self.now()

    # --- the calls, and what follows the running one

    def _consider(self, ticket: Ticket) -> None:
        """Let a pass that has just come take its place among what runs and what is planned."""
        if self.hardware.running is not None:
            self._plan()
            for call in self.planning.on_hardware():
                call.cut = call.cut or call.gives_way_to(ticket)

    def _plan(self) -> None:
        """Choose again what follows the running call, unless the system does nothing more."""
        if not (self.closed or self.health.reason or self.recovery.due):
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
        self.faults.fault(error)
        for portion in call.portions:
            if not portion.ticket.outcome.done():
                portion.ticket.stop(PassTimeout)
                portion.ticket.fail(error)

    async def _run_idle(self) -> None:
        try:
            await self.hardware.idle_shot()
        except Exception as error:
            self.faults.fault(error)
