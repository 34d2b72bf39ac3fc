"""One system's instruments as the event loop uses them: one worker thread, its locks, its counts.

Every use of the instruments (start, call, idle shot, recovery, safe state) runs in the worker
thread while the caller holds the system's locks (`hold`), so a second command is never sent while
one may be on the wire.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import TypeVar

from drivers.spec import Array
from lab.scheduling import system_worker
from lab.scheduling.duty_cycle import BusyTime
from lab.scheduling.finish import finish
from lab.scheduling.rhythm import Rhythm
from lab.scheduling.ticket import HardwareCall
from lab.systems.base import PhysicalSystem

T = TypeVar("T")
log = logging.getLogger(__name__)

_NEWEST = 0.3  # weight of the newest call in the measured row time
_MOST_ROWS = 10_000  # of one call, however quick a row


class Hardware:
    """The instruments of one system.

    running:    the call on the hardware, as far as the loop knows, or None.
    planned:    the call that follows it without a pause, or None; once the worker has begun it,
                `unplan` does not find it any more, and soon it is `running`.
    row_time_s: hardware time of a row as last measured, None before the first.
    next_shot:  the number of the next row on the hardware.
    """

    def __init__(
        self,
        system: PhysicalSystem,
        shared: Sequence[asyncio.Lock],
        *,
        first_shot: int,
        shot_period_s: float | None,
        wait: Callable[[threading.Event, float], object],
    ) -> None:
        """Take the locks of the instruments that other systems use too, in the global order."""
        self.system = system
        self.running: HardwareCall | None = None
        self.planned: HardwareCall | None = None
        self._slot: deque[HardwareCall] = deque(maxlen=1)  # its append and pop are atomic
        self.row_time_s: float | None = None
        self.rows_done = self.idle_shots = 0
        self.next_shot = first_shot
        self.rhythm: Rhythm | None = None
        self.now: Callable[[], float] = time.monotonic
        self.busy = BusyTime(self.now())
        self._shot_period_s, self._wait = shot_period_s, wait
        self._halted = threading.Event()
        self._last_drive: tuple[Array, Array] | None = None
        self._locks = (asyncio.Lock(), *shared)
        self._worker = ThreadPoolExecutor(
            1, thread_name_prefix=f"hardware-{system.description.name}"
        )

    def open(self) -> None:
        """Take the running loop, and its clock."""
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.busy = BusyTime(self.now())
        if self._shot_period_s is not None:
            self.rhythm = Rhythm(self._shot_period_s, self.now, partial(self._wait, self._halted))

    def hold(self) -> AbstractAsyncContextManager[None]:
        """Hold this system and the instruments it shares, taken in the one global order."""
        return _AllOf(self._locks)

    @property
    def is_shared(self) -> bool:
        """Get whether others use some of its instruments, and so want a turn between calls."""
        return len(self._locks) > 1

    @property
    def beat_s(self) -> float:
        """Get for how long a call may wait for its slot, s."""
        return self._shot_period_s or 0.0

    async def quiet(self) -> None:
        """Wait until whoever holds the system has let it go."""
        async with self._locks[0]:
            pass

    async def start(self) -> None:
        """Start the system; raises what went wrong, the system then being safe if reachable."""
        self._halted.clear()
        await finish(self._in_worker(system_worker.start, self.system))

    async def restart(self) -> None:
        """Shut down as far as possible and start again; raises what `start` raises."""
        self._halted.clear()
        await finish(self._in_worker(system_worker.restart, self.system, self._halted))

    def halt(self) -> None:
        """Wait for the beat no more, and do not begin to start, until the next start or restart."""
        self._halted.set()

    async def make_safe(self) -> dict[str, str]:
        """Bring the instruments to their safe state; return what went wrong, by instrument."""
        return await finish(self._in_worker(system_worker.unsafe, self.system))

    async def rearm(self, rearm: Callable[[], None]) -> None:
        """Re-arm what protects the bench, in the worker thread; raises what that raises."""
        await finish(self._in_worker(rearm))

    async def leave_safe(self) -> None:
        """Bring the instruments to their safe state, for the last time; raises if it cannot."""
        try:
            async with self.hold():
                await finish(self._in_worker(self.system.shutdown))
        finally:
            self._worker.shutdown()

    def rows_in(self, slice_s: float) -> int:
        """Return how many rows fill a slice: whole instrument calls, at least one."""
        batch = self.system.batch_rows
        if self.row_time_s is None:
            return batch
        row_s = max(self.row_time_s, self.beat_s / batch, 1e-9)
        calls = int(min(slice_s / row_s, _MOST_ROWS) / batch)
        return batch * max(1, calls)

    def expected_s(self, rows: int) -> float:
        """Return the time that rows should take, s; 0 while nothing is known."""
        return rows * (self.row_time_s or 0.0)

    async def run(
        self,
        call: HardwareCall,
        begins: Callable[[HardwareCall], object],
        ends: Callable[[HardwareCall], object],
        on_cancel: Callable[[], object],
    ) -> None:
        """Run a call, and then whatever has been planned behind it, without a pause.

        begins, ends: called on the loop for each call, once the worker has begun or ended it; by
        the end it has been counted. Errors stay on the call. on_cancel: see `finish`.
        """

        def following(ended: HardwareCall) -> HardwareCall | None:
            follower = self._take_planned(ended)
            if follower is not None:
                self._loop.call_soon_threadsafe(goes_on, ended, follower)
            return follower

        def goes_on(ended: HardwareCall, follower: HardwareCall) -> None:
            self.running = follower
            if self.planned is follower:
                self.planned = None
            self._count(ended)
            ends(ended)
            begins(follower)

        self.running = call
        begins(call)
        work = self._in_worker(
            system_worker.run_planned, self.system, call, following, self.now, self.rhythm
        )
        try:
            await finish(work, on_cancel)
        finally:
            last, self.running = self.running, None
            self._count(last)
            ends(last)

    def plan(self, call: HardwareCall) -> None:
        """Have a call follow the running one without a pause."""
        self.planned = call
        self._slot.append(call)

    def unplan(self) -> HardwareCall | None:
        """Take back the planned call and return it; None if there is none, or it has begun."""
        try:
            self._slot.pop()
        except IndexError:
            return None
        call, self.planned = self.planned, None
        return call

    def _take_planned(self, ended: HardwareCall) -> HardwareCall | None:
        """Return what follows a call; in the worker thread."""
        if ended.abandoned:
            return None
        try:
            return self._slot.pop()
        except IndexError:
            return None

    def _count(self, call: HardwareCall) -> None:
        self.next_shot = call.first_shot + call.executed
        self.busy.add(call.begun_s + call.paused_s, call.ended_s)
        measured = sum(portion.executed for portion in call.portions)
        self.rows_done += measured
        if measured and self.rhythm is not None:
            last = next(p.ticket for p in reversed(call.portions) if p.executed)
            self._last_drive = last.drive(last.done - 1)
        if measured:
            row_s = (call.ended_s - call.begun_s) / measured
            before = self.row_time_s if self.row_time_s is not None else row_s
            self.row_time_s = before + _NEWEST * (row_s - before)

    def until_idle_shot(self) -> float | None:
        """Return the time, s, until an idle shot is due; None where none ever is."""
        if self.rhythm is None or self._last_drive is None:
            return None
        return self.rhythm.until_next(self.now())

    async def idle_shot(self) -> None:
        """Repeat the last drive for nobody, to keep the rhythm; raises what went wrong."""
        begun_s = self.now()
        self.next_shot += 1
        self.idle_shots += 1
        try:
            work = self._in_worker(
                system_worker.idle_shot, self.system, self._last_drive, self.rhythm
            )
            await finish(work)
        finally:
            self.busy.add(begun_s, self.now())

    def _in_worker(self, call: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return self._loop.run_in_executor(self._worker, call, *arguments)


class _AllOf:
    """All of some locks, held from `async with` to its end, taken in their order."""

    def __init__(self, locks: Sequence[asyncio.Lock]) -> None:
        self._locks = locks

    async def __aenter__(self) -> None:
        for taken, lock in enumerate(self._locks):
            try:
                await lock.acquire()
            except BaseException:
                self._release(taken)
                raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release(len(self._locks))

    def _release(self, taken: int) -> None:
        for lock in reversed(self._locks[:taken]):
            lock.release()
