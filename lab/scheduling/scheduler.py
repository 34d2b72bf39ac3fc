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
  with the error. A persistent pass is repeated at every fault, as long as it gets further. Waiting
  passes stay queued or fail with SystemFaulted, as each asks; all fail once the recovery is given
  up. An instrument call that never returns faults the system too; it can be recovered when the
  call has come back.
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
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import numpy as np

from lab.bench_config import SchedulerConfig
from lab.errors import NotPermitted, UnknownName
from lab.guarding import BenchGuard
from lab.measurement import ForwardPass, Measurement
from lab.protection import UNPROTECTED, Protection
from lab.scheduling.blocking_callers import (
    call_soon,
    queue_from_thread,
    refuse_own_thread,
    wait_in_thread,
)
from lab.scheduling.checking import checked
from lab.scheduling.finish import finish
from lab.scheduling.hardware import Hardware
from lab.scheduling.live_passes import LivePasses
from lab.scheduling.reservations import Reservation
from lab.scheduling.safe_state import SystemStop
from lab.scheduling.shared_locks import shared_locks
from lab.scheduling.status import QueuedPass, SystemStatus, queued_passes, system_status
from lab.scheduling.system_queue import SystemQueue
from lab.systems.base import PhysicalSystem, never

# Above this many numbers, checking takes longer than the hop to another thread (about 0.1 ms).
CHECK_ON_LOOP = 50_000


class HardwareScheduler:
    """Run forward passes on physical systems; `async with` starts and safely stops them.

    Methods are for the event loop that entered it, but for `measure_blocking`,
    `measure_soon` and `cancel_soon`.
    """

    def __init__(
        self,
        systems: Mapping[str, PhysicalSystem],
        config: SchedulerConfig | None = None,
        *,
        first_shot: Mapping[str, int] | None = None,
        shot_period_s: Mapping[str, float | None] | None = None,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
        protection: Protection = UNPROTECTED,
    ) -> None:
        """Take the systems by name.

        first_shot: each one's first shot number (default 0). shot_period_s: its steady beat, s
        (default: none). wait: how the beat is waited for, in the hardware's thread, until an event
        at the latest. protection: what has to permit driving, and the guard that is to be shown
        that the loop lives.
        """
        shots, periods = first_shot or {}, shot_period_s or {}
        locks = shared_locks(systems)
        self._queues = {
            name: SystemQueue(
                name,
                Hardware(
                    system,
                    locks[name],
                    first_shot=shots.get(name, 0),
                    shot_period_s=periods.get(name),
                    wait=wait,
                ),
                config or SchedulerConfig(),
                protection.rearm,
            )
            for name, system in systems.items()
        }
        self._protection = protection
        self._alive: asyncio.Task[None] | None = None
        self._live = LivePasses()
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
            accepted = await asyncio.to_thread(checked, queue.hardware.system, forward_pass)
        else:
            accepted = checked(queue.hardware.system, forward_pass)
        return await self._live.measure(queue, accepted)

    def measure_blocking(
        self, forward_pass: ForwardPass, stopped: Callable[[], bool] = never
    ) -> Measurement:
        """Do as `submit`, blocking, from any thread but the event loop's own.

        stopped: asked on the loop just before the pass is queued; true ends it with PassCancelled.
        Whoever makes it true on the loop and then cancels the pass leaves no gap for a row.
        Raises what `submit` raises, and WrongThread at once on the loop's thread. An exception
        in the waiting thread, such as KeyboardInterrupt, cancels the pass.
        """
        refuse_own_thread(self._loop, forward_pass.system)
        return wait_in_thread(self._loop, self._live, self.measure_soon(forward_pass, stopped))

    def measure_soon(
        self, forward_pass: ForwardPass, stopped: Callable[[], bool] = never
    ) -> Future[Measurement]:
        """Do as `measure_blocking`, from any thread, but do not wait for the measurement.

        Raises what is known at once (UnknownName, LimitError, ValueError, SystemClosed); the rest
        comes out of the future, whose callbacks run on the loop and must not block.
        """
        queue = self._queue(forward_pass.system)
        accepted = checked(queue.hardware.system, forward_pass)
        return queue_from_thread(self._loop, self._live, queue, accepted, stopped)

    async def cancel(self, pass_id: str) -> None:
        """Cancel a waiting or running pass and return when it has ended; its caller hears too.

        Raises UnknownName if no such pass waits or runs.
        """
        await self._live.cancel(pass_id)

    def cancel_soon(self, pass_id: str) -> None:
        """Have a pass cancelled, from any thread, without waiting; nothing if it has ended."""
        call_soon(self._loop, self._live.withdraw, pass_id)

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
        for queue in self._queues.values():
            call_soon(self._loop, queue.hold_back, str(error))

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

    def calibration(self, system: str) -> str:
        """Return the name of the calibration in force, empty for none; for any thread."""
        return self._queue(system).calibration

    def set_calibration(self, system: str, name: str) -> None:
        """Name the calibration that is in force from now on; measurements carry it."""
        self._queue(system).calibration = name

    def _queue(self, system: str) -> SystemQueue:
        queue = self._queues.get(system)
        if queue is None:
            raise UnknownName(f"no system '{system}' (there are: {', '.join(self._queues)})")
        return queue


async def _show_alive(guard: BenchGuard) -> None:
    """Show the guard that the event loop lives, until cancelled."""
    try:
        while True:
            guard.pulse()
            await asyncio.sleep(guard.pulse_every_s)
    finally:
        guard.pulse_ends()
