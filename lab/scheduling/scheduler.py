"""The hardware scheduler: an asyncio queue of forward passes in front of each physical system.

Semantics, where a lab user might ask:

- Order: higher priority first; among equals clients share the hardware time fairly, by weight;
  one client's jobs take turns, and within a job it is deepest first, then first come, first
  served (`lab.scheduling.waiting` states the whole policy). A pass has come once its arrays are
  checked; bad arrays are refused at once and never queue.
- Slices: a long pass is cut between instrument calls into slices of about `slice_s`, so that the
  others wait no longer; a pass of higher priority cuts the slice that runs. What waits for
  `longest_wait_s` gets the next slice, whatever its priority. So a pass may be measured in several
  stretches; its measurement says when each row was.
- Batches: where a system takes several rows in one instrument call, rows of different passes and
  clients share one. A pass that does not fill a batch waits `company_wait_s` for others.
- Every pass ends exactly once: with its measurement, or with an error. When it has ended, none
  of its rows reaches the hardware any more.
- Cancelling a waiting pass ends it at once. A running one ends after the instrument call in flight,
  which cannot be cancelled; rows already measured are dropped, even if they are all of them, so
  that "cancelled" has one meaning. A cancelled task waits for the call in flight too. A missed
  deadline, a timeout and a lost reservation act in the same way.
- Queues are bounded, per client and in all: QueueFull says when to come back.
- Reservation: one owner at a time; passes of others wait meanwhile, however urgent. It ends by
  release or when no heartbeat came for its time to live, and its passes with it; a late pass
  with its number is refused. One that was not released leaves the system to be brought to its
  safe state, and started again, before anything else runs.
- A LimitError fails its pass only. Any other error during a pass is a fault: the instruments go
  to their safe state and the system is recovered (safe state, clear, identify, apply settings,
  read them back) at once, then after a second, two, four and so on until `recovery_attempts` are
  spent; then somebody has to call `recover`. The rows in flight are measured once more after the
  recovery, if the pass is repeatable and an instrument (not a program) failed; else the pass fails
  with the error. Waiting passes stay queued or fail with SystemFaulted, as each asks; all fail
  once the recovery is given up. An instrument call that never returns faults the system too; it
  can be recovered when the call has come back.
- A stop aborts the call in flight, ends every pass with SystemStopped, reserved or not, and leaves
  the instruments in their safe state and the system out of use until somebody calls `recover`. An
  open interlock and an expired watchdog do the same, as faults that nothing recovers by itself.
- Closing refuses new passes, fails the waiting, lets the call in flight end, and leaves each
  system in its safe state; a safe state that cannot be confirmed is logged and in the status.
- Shot numbers count rows that went to the hardware, idle shots and failed rows included, and are
  never reused.
- With a shot period, instrument calls start on a steady beat, and while none waits the last drive
  is repeated for nobody.
- Systems run in parallel; two that share an instrument take turns, slice by slice, in the order
  of asking. The locks are asyncio's and not threads', because these are fair, block no thread,
  and let the next pass be chosen at the moment the instruments are free. They are taken in
  one global order, so there is no deadlock.

A client is who it says it is: the shares are fairness among colleagues, not security.
"""

import asyncio
import concurrent.futures
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from lab.bench_config import SchedulerConfig
from lab.errors import Conflict, NotPermitted, PassCancelled, SystemClosed, UnknownName, WrongThread
from lab.guarding import BenchGuard
from lab.measurement import ForwardPass, Measurement
from lab.protection import UNPROTECTED, Protection
from lab.scheduling.finish import Outcome, finish
from lab.scheduling.hardware import Hardware
from lab.scheduling.reservations import Reservation
from lab.scheduling.safe_state import SystemStop
from lab.scheduling.status import QueuedPass, SystemStatus, queued_passes, system_status
from lab.scheduling.system_queue import SystemQueue
from lab.scheduling.ticket import AnyOutcome, Ticket
from lab.systems.base import PhysicalSystem, never

# Above this many numbers, checking takes longer than the hop to another thread (about 0.1 ms).
CHECK_ON_LOOP = 50_000


class HardwareScheduler:
    """Run forward passes on physical systems; `async with` starts and safely stops them.

    Methods are for the event loop that entered it, but for `measure_blocking` and `cancel_soon`.
    """

    def __init__(
        self,
        systems: Mapping[str, PhysicalSystem],
        config: SchedulerConfig | None = None,
        *,
        first_shot: Mapping[str, int] | None = None,
        shot_period_s: Mapping[str, float | None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        protection: Protection = UNPROTECTED,
    ) -> None:
        """Take the systems by name.

        first_shot: each one's first shot number (default 0). shot_period_s: its steady beat, s
        (default: none). sleep: how the beat is waited for, in the hardware's thread. protection:
        what has to permit driving, and the guard that is to be shown that the loop lives.
        """
        shots, periods = first_shot or {}, shot_period_s or {}
        locks = _shared_instrument_locks(systems)
        self._queues = {
            name: SystemQueue(
                name,
                Hardware(
                    system,
                    locks[name],
                    first_shot=shots.get(name, 0),
                    shot_period_s=periods.get(name),
                    sleep=sleep,
                ),
                config or SchedulerConfig(),
                protection.rearm,
            )
            for name, system in systems.items()
        }
        self._protection = protection
        self._alive: asyncio.Task[None] | None = None
        self._live: dict[str, Ticket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        """Start every system, in parallel; one that fails is faulted and the others work."""
        if self._loop is not None:
            raise RuntimeError("a scheduler is entered once; make a new one")
        self._loop = asyncio.get_running_loop()
        if self._protection.guard is not None:
            self._alive = asyncio.create_task(_show_alive(self._protection.guard))
        try:
            await asyncio.gather(*(queue.open() for queue in self._queues.values()))
            self._protection.listen(self._may_not_drive)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; see `close`."""
        await self.close()

    async def close(self) -> None:
        """End all passes with SystemClosed and bring every system to its safe state; idempotent.

        Waits for the rows in flight, even if it is cancelled meanwhile.
        """
        tasks = [task for queue in self._queues.values() if (task := queue.close()) is not None]
        outcomes = await finish(asyncio.gather(*tasks, return_exceptions=True))
        if self._alive is not None:
            self._alive.cancel()
        for outcome in outcomes:
            # a task cancelled from outside has left its system safe too; that is no error here
            if isinstance(outcome, Exception):
                raise outcome

    async def submit(self, forward_pass: ForwardPass) -> Measurement:
        """Queue a pass and return its measurement, in the rows' own order.

        Raises UnknownName (system), LimitError or ValueError (arrays, before queueing),
        Conflict (pass_id already queued), QueueFull, PassCancelled, DeadlineMissed, PassTimeout,
        ReservationLost, SystemFaulted, SystemClosed, or the DriverError that made the pass fail.
        """
        queue = self._queue(forward_pass.system)
        queue.refuse(forward_pass)
        if np.size(forward_pass.x) + np.size(forward_pass.theta) > CHECK_ON_LOOP:
            checked = await asyncio.to_thread(_checked, queue.hardware.system, forward_pass)
        else:
            checked = _checked(queue.hardware.system, forward_pass)
        return await self._measure(queue, checked)

    def measure_blocking(
        self, forward_pass: ForwardPass, stopped: Callable[[], bool] = never
    ) -> Measurement:
        """Do as `submit`, blocking, from any thread but the event loop's own.

        stopped: asked on the loop just before the pass is queued; true ends it with PassCancelled.
        Whoever makes it true on the loop and then cancels the pass leaves no gap for a row.
        Raises what `submit` raises, and WrongThread at once on the loop's thread. An exception
        in the waiting thread, such as KeyboardInterrupt, cancels the pass.
        """
        if self._loop is not None and _running_loop() is self._loop:
            raise WrongThread(f"{forward_pass.system}: a blocking pass on the event loop's thread")
        queue = self._queue(forward_pass.system)
        outcome = self._hand_over(queue, _checked(queue.hardware.system, forward_pass), stopped)
        try:
            return outcome.result()
        finally:
            if not outcome.done():  # an exception of this thread's own
                self._let_go(outcome)

    async def cancel(self, pass_id: str) -> None:
        """Cancel a waiting or running pass and return when it has ended; its caller hears too.

        Raises UnknownName if no such pass waits or runs.
        """
        ticket = self._live.get(pass_id)
        if ticket is None or ticket.outcome.done():
            raise UnknownName(f"no pass '{pass_id}' waits or runs")
        ended = asyncio.Event()
        ticket.outcome.add_done_callback(lambda _: ended.set())
        self._queues[ticket.forward_pass.system].withdraw(ticket, PassCancelled)
        await ended.wait()

    def cancel_soon(self, pass_id: str) -> None:
        """Have a pass cancelled, from any thread, without waiting; nothing if it has ended."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and all passes with it
                self._loop.call_soon_threadsafe(self._cancel_now, pass_id)

    def _cancel_now(self, pass_id: str) -> None:
        ticket = self._live.get(pass_id)
        if ticket is not None:
            self._queues[ticket.forward_pass.system].withdraw(ticket, PassCancelled)

    async def stop(self, reason: str) -> list[SystemStop]:
        """Put every system into its safe state at once, whoever holds it, and out of use.

        Passes end with SystemStopped, the rows in flight are void. Returns what each instrument
        confirmed; a second stop asks them again. `recover` takes a system into use again.
        """
        for queue in self._queues.values():
            queue.hold_back(reason, stopped=True)
        queues = self._queues.values()
        outcomes = await asyncio.gather(*(queue.safe_state.outcomes() for queue in queues))
        return [
            SystemStop(queue.name, queue.health.reason, outcome)
            for queue, outcome in zip(queues, outcomes, strict=True)
        ]

    def _may_not_drive(self, error: NotPermitted) -> None:
        """Hold every system back; from any thread."""
        if self._loop is not None:
            for queue in self._queues.values():
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(queue.hold_back, str(error))

    async def recover(self, system: str) -> None:
        """Restart a faulted or stopped system (shutdown as far as possible, then start).

        Nothing happens if it is ok. Raises UnknownName, NotPermitted while the bench may not be
        driven, SystemClosed, or what the start raised.
        """
        await self._queue(system).recover()

    def status(self, system: str) -> SystemStatus:
        """Return the health of one system; raise UnknownName."""
        return system_status(self._queue(system))

    def statuses(self) -> list[SystemStatus]:
        """Return the health of every system."""
        return [system_status(queue) for queue in self._queues.values()]

    def queued(self, system: str, limit: int = 100) -> list[QueuedPass]:
        """Return passes that run or wait, the next to finish first, with estimated times."""
        return queued_passes(self._queue(system), limit)

    async def reserve(self, system: str, owner: str, ttl_s: float) -> Reservation:
        """Reserve a system for `owner`, for ttl_s from now and from each heartbeat (1 to 3600 s).

        Returns once the instrument call in flight has ended: from then on only passes that name
        the reservation's number run. Raises UnknownName, Conflict while it is reserved,
        ValueError for a ttl_s out of range, SystemClosed.
        """
        return await self._queue(system).reserved.reserve(owner, ttl_s)

    def heartbeat(self, system: str, number: int) -> Reservation:
        """Let a reservation live on; raise UnknownName, ReservationLost."""
        return self._queue(system).reserved.heartbeat(number)

    def release(self, system: str, number: int) -> None:
        """End a reservation and the passes under it; raise UnknownName, ReservationLost."""
        self._queue(system).reserved.release(number)

    def set_calibration(self, system: str, name: str) -> None:
        """Name the calibration that is in force from now on; measurements carry it."""
        self._queue(system).calibration = name

    def _queue(self, system: str) -> SystemQueue:
        queue = self._queues.get(system)
        if queue is None:
            raise UnknownName(f"no system '{system}' (there are: {', '.join(self._queues)})")
        return queue

    async def _measure(self, queue: SystemQueue, checked: ForwardPass) -> Measurement:
        """Queue a checked pass and wait for its end."""
        outcome: Outcome[Measurement] = Outcome()
        ticket = self._put(queue, checked, outcome)
        try:
            return await outcome.end(lambda: queue.withdraw(ticket, PassCancelled))
        finally:
            del self._live[checked.pass_id]

    def _put(self, queue: SystemQueue, checked: ForwardPass, outcome: AnyOutcome) -> Ticket:
        if checked.pass_id in self._live:
            raise Conflict(f"a pass '{checked.pass_id}' is already queued")
        ticket = self._live[checked.pass_id] = queue.put(checked, outcome)
        return ticket

    def _hand_over(
        self, queue: SystemQueue, checked: ForwardPass, stopped: Callable[[], bool]
    ) -> concurrent.futures.Future[Measurement]:
        """Have the loop queue a checked pass, from another thread; return its outcome."""
        outcome: concurrent.futures.Future[Measurement] = concurrent.futures.Future()
        if self._loop is None:
            raise SystemClosed(f"{queue.name} is closed")
        try:
            self._loop.call_soon_threadsafe(self._take_over, queue, checked, stopped, outcome)
        except RuntimeError as error:
            raise SystemClosed(f"{queue.name}: the event loop has ended") from error
        return outcome

    def _take_over(
        self,
        queue: SystemQueue,
        checked: ForwardPass,
        stopped: Callable[[], bool],
        outcome: concurrent.futures.Future[Measurement],
    ) -> None:
        """Queue a checked pass of a caller who waits in another thread."""
        pass_id = checked.pass_id
        try:
            if stopped():
                raise PassCancelled(f"pass {pass_id} on {queue.name} ended before it was queued")
            self._put(queue, checked, outcome)
        except Exception as error:
            outcome.set_exception(error)
        else:
            outcome.add_done_callback(lambda _: self._live.pop(pass_id))

    def _let_go(self, outcome: concurrent.futures.Future[Measurement]) -> None:
        """Have the pass of a caller who waits no more cancelled, from that caller's thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the pass with it
                self._loop.call_soon_threadsafe(self._withdraw, outcome)

    def _withdraw(self, outcome: concurrent.futures.Future[Measurement]) -> None:
        for ticket in self._live.values():
            if ticket.outcome is outcome:
                self._queues[ticket.forward_pass.system].withdraw(ticket, PassCancelled)
                return


async def _show_alive(guard: BenchGuard) -> None:
    """Show the guard that the event loop lives, until cancelled."""
    try:
        while True:
            guard.pulse()
            await asyncio.sleep(guard.pulse_every_s)
    finally:
        guard.pulse_ends()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in the calling thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _checked(system: PhysicalSystem, forward_pass: ForwardPass) -> ForwardPass:
    """Return the pass with checked copies of its arrays (the caller may reuse its own) and an id.

    Raises LimitError or ValueError.
    """
    p = forward_pass
    x, theta = system.check(p.x, p.theta)
    if p.keys is not None and len(p.keys) != len(x):
        raise ValueError(f"{p.system}: {len(x)} rows but {len(p.keys)} row keys")
    keys = None if p.keys is None else tuple(p.keys)
    pass_id = p.pass_id or secrets.token_hex(16)
    return replace(p, x=x, theta=theta, keys=keys, pass_id=pass_id)


def _shared_instrument_locks(
    systems: Mapping[str, PhysicalSystem],
) -> dict[str, list[asyncio.Lock]]:
    """Return for each system the locks of the instruments it shares, in one global order."""
    used = {name: {id(instrument) for instrument in s.instruments} for name, s in systems.items()}
    users = Counter(instrument for instruments in used.values() for instrument in instruments)
    locks = {instrument: asyncio.Lock() for instrument in sorted(users) if users[instrument] > 1}
    return {name: [locks[i] for i in locks if i in used[name]] for name in systems}
