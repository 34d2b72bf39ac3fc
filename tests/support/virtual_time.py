"""An asyncio loop whose clock is virtual, though the hardware threads under it are real.

Time stands still while anything can run: a callback of the loop, or a thread of an executor. Only
when all of them wait does it jump to the next timer. So a test of hours takes milliseconds, and
what happens when is exact. A simulated instrument calls `sleep` in its thread.
"""

import asyncio
import selectors
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")

EPOCH_S = 2.0**30  # `wall_time` at virtual time 0: January 2004
REAL_LIMIT_S = 20.0  # no thread in these tests works so long unless it is blocked for good


class Stuck(BaseException):
    """Nothing is left to wait for, so the run would never end."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that counts the threads at work and jumps over the time in which none is.

    turns_before_work: asked for each executor job: how many turns of the loop come before its
    thread may begin. Lets a test choose who wins the race between the loop and a new job.
    """

    def __init__(self) -> None:
        self.turns_before_work: Callable[[], int] = lambda: 0
        self._now = 0.0
        self._working = 0
        self._blocked_callers = 0
        self._asleep: set[threading.Event] = set()
        self._resting: list[asyncio.Future[None]] = []
        self._over = False
        selector = _Selector()
        super().__init__(selector)
        selector.owner = self

    def time(self) -> float:
        return self._now

    def wall_time(self) -> float:
        """Return the virtual time as seconds since the epoch, in place of `time.time`."""
        return EPOCH_S + self._now

    async def at_rest(self) -> None:
        """Wait until nothing more happens at this instant: everybody waits for time to pass."""
        future: asyncio.Future[None] = self.create_future()
        self._resting.append(future)
        await future

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass in a hardware thread."""
        wake = threading.Event()
        self.call_soon_threadsafe(self._lie_down, seconds, wake)
        wake.wait()
        if self._over:
            raise Stuck("the virtual clock has stopped")

    def _lie_down(self, seconds: float, wake: threading.Event) -> None:
        self._asleep.add(wake)
        self.call_later(seconds, self._get_up, wake)
        self.count(-1)

    def _get_up(self, wake: threading.Event) -> None:
        self.count(+1)
        self._asleep.discard(wake)
        wake.set()

    def count(self, threads: int) -> None:
        """Add to the threads at work; on the loop's own thread only."""
        self._working += threads

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Count the thread until its result has been handed to the loop."""
        if executor is None:  # a caller that blocks; time may pass while it waits
            return self._run_blocked_caller(func, *args)
        gate = threading.Event()
        job = executor.submit(_once_open, gate, func, *args)
        future = asyncio.wrap_future(job, loop=self)
        self.count(+1)
        # called after the callback that hands over the result: callbacks run in their order
        job.add_done_callback(lambda _: self.call_soon_threadsafe(self.count, -1))
        self._open_after(self.turns_before_work(), gate)
        return future

    def _open_after(self, turns: int, gate: threading.Event) -> None:
        if turns == 0:
            gate.set()
        else:
            self.call_soon(self._open_after, turns - 1, gate)

    def _run_blocked_caller(self, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        future = super().run_in_executor(None, func, *args)
        self._blocked_callers += 1
        future.add_done_callback(lambda _: self._one_blocked_less())
        return future

    def _one_blocked_less(self) -> None:
        self._blocked_callers -= 1

    async def shutdown_default_executor(self) -> None:  # type: ignore[override]
        self._blocked_callers += 1  # a thread joins the others and then calls
        try:
            await super().shutdown_default_executor()
        finally:
            self._blocked_callers -= 1

    def close(self) -> None:
        self._let_threads_go()
        super().close()

    def _let_threads_go(self) -> None:
        self._over = True
        for wake in self._asleep:
            wake.set()

    def pass_time(self, timeout: float | None, select: Callable[[float], list[Any]]) -> list[Any]:
        """Jump by `timeout`, or wait in real time for a thread that works; raise Stuck."""
        if self._working > 0 or (timeout is None and self._blocked_callers > 0):
            if events := select(REAL_LIMIT_S):
                return events
            self._give_up(f"a thread has worked for {REAL_LIMIT_S:g} s of real time")
        if self._resting:
            self._resting.pop(0).set_result(None)
        elif timeout is None:
            self._give_up("nothing is left to wait for: no timer, no thread at work")
        else:
            self._now += timeout
        return []

    def _give_up(self, why: str) -> None:
        self._let_threads_go()
        tasks = "\n".join(f"  {task!r}" for task in asyncio.all_tasks(self))
        stacks = [
            "".join(traceback.format_stack(frame)[-3:])
            for ident, frame in sys._current_frames().items()
            if ident != threading.get_ident()
        ]
        raise Stuck(f"at {self._now:g} s {why}\ntasks:\n{tasks}\nthreads:\n" + "\n".join(stacks))


class _Selector(selectors.DefaultSelector):
    """Let the loop pass virtual time where it would have waited in real time."""

    owner: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        return self.owner.pass_time(timeout, super().select)


def _once_open(gate: threading.Event, func: Callable[..., T], *args: Any) -> T:
    gate.wait()
    return func(*args)


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function on a new virtual loop, with `time.time` virtual too."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        with mock.patch.object(time, "time", loop.wall_time):
            return runner.run(main())


def running_loop() -> VirtualTimeLoop:
    """Return the loop of the calling coroutine, which must be virtual."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), "the test needs the fixture virtual_time"
    return loop
