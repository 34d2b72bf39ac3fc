"""A system whose every row waits at a gate that the test opens, and a scheduler in front of it."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.bench_config import SchedulerConfig
from lab.measurement import ForwardPass, Measurement
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import PhysicalSystem, Rows, SystemDescription

BY_HAND = SchedulerConfig(recovery_attempts=0)  # a faulted system waits for `recover`
LIMIT_S = 10.0  # no wait in these tests lasts so long unless something hangs


class FakeInstrument:
    """A name to share, and a check that nobody else uses it at the same time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_use = threading.Lock()


class GatedSystem(PhysicalSystem):
    """y = (x, theta); a row blocks until the test lets it pass; calls are written down in order."""

    def __init__(self, name: str = "rig", instruments: Sequence[Any] = (), gated: bool = True):
        super().__init__(
            announce=lambda keys, coming: self.calls.extend(("key", key.index) for key in keys)
        )
        scalar = ArraySpec("value", "V", (1,), 0.0, 1000.0)
        self.description = SystemDescription(
            name, scalar, scalar, ArraySpec("y", "V", (2,), 0.0, 1000.0), 0.0
        )
        self.instruments = tuple(instruments)
        self.gated = gated
        self.calls: list[Any] = []
        self.threads: set[int] = set()
        self.check_threads: list[int] = []
        self.raises: dict[Any, Exception] = {}  # row value, "start" or "shutdown" -> error
        self.rows_short = 0
        self._begun: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._gate = threading.Semaphore(0)

    def _call(self, what: Any) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(what)
        if what in self.raises:
            raise self.raises[what]

    def start(self) -> None:
        self._call("start")

    def shutdown(self) -> None:
        self._call("shutdown")

    def check(self, x: Array, theta: Array) -> tuple[Array, Array]:
        self.check_threads.append(threading.get_ident())
        return super().check(x, theta)

    def measure(self, x: Array, theta: Array, keys: Sequence[RowKey] | None = None) -> Rows:
        rows = super().measure(x, theta, keys)
        keep = len(rows.y) - self.rows_short
        return Rows(rows.y[:keep], rows.saturated[:keep])

    def _measure_row(self, x: Array, theta: Array) -> tuple[Array, bool]:
        held = [i.in_use.acquire(blocking=False) for i in self.instruments]
        assert all(held), "an instrument was used by two systems at once"
        try:
            value = float(x[0])
            self._begun.put(value)
            if self.gated:
                assert self._gate.acquire(timeout=LIMIT_S), "the test never opened the gate"
            self._call(value)
            return np.concatenate([x, theta]), value > 500
        finally:
            for instrument in self.instruments:
                instrument.in_use.release()

    async def row_begun(self) -> float:
        """Return the value of the next row that has begun."""
        return await asyncio.to_thread(self._begun.get, timeout=LIMIT_S)

    def open_gate(self, rows: int = 1) -> None:
        self._gate.release(rows)

    def open_for_good(self) -> None:
        self.gated = False
        self._gate.release()

    @property
    def measured(self) -> list[float]:
        return [c for c in self.calls if isinstance(c, float)]


def make_pass(*values: float, system: str = "rig", **options: Any) -> ForwardPass:
    x = np.array(values, dtype=float).reshape(-1, 1)
    return ForwardPass(system, x, x / 2, **options)


Submit = Callable[..., "asyncio.Task[Measurement]"]


class Bench:
    """An open scheduler with one gated system, `rig`."""

    def __init__(self, scheduler: HardwareScheduler, rig: GatedSystem) -> None:
        self.scheduler, self.rig = scheduler, rig

    async def submit(self, *values: float, **options: Any) -> "asyncio.Task[Measurement]":
        """Start a task that submits a pass; return once the pass is queued."""
        task = asyncio.create_task(self.scheduler.submit(make_pass(*values, **options)))
        await asyncio.sleep(0)  # a small pass queues in the task's first step
        return task

    async def submit_running(self, *values: float, **options: Any) -> "asyncio.Task[Measurement]":
        """Submit a pass and return when its first row is on the hardware."""
        task = await self.submit(*values, **options)
        assert await self.rig.row_begun() == values[0]
        return task


@asynccontextmanager
async def free_running(**systems: GatedSystem) -> AsyncIterator[HardwareScheduler]:
    for system in systems.values():
        system.gated = False
    async with asyncio.timeout(3 * LIMIT_S), HardwareScheduler(systems, BY_HAND) as scheduler:
        yield scheduler


async def several_loop_turns() -> None:
    """Give every ready callback its turn, so that `not task.done()` means something."""
    for _ in range(20):
        await asyncio.sleep(0)
