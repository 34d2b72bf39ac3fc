"""How the scheduler bears many passes: waits, loop lag, long queues, memory.

    python tests/benchmarks/scheduler_scale.py [--json] [--seconds S] [--passes N]

`interactive_wait_ms`: one client's 1000-row passes of 1 ms a row keep the hardware busy; another
           asks for single rows now and then. Time from asking to the result, less the row itself;
           `urgent` has a higher priority, `equal` the same.
`loop_lag_ms`: how much later than asked a sleep of 5 ms ends, meanwhile and (`idle`) before.
`submit_us`, `dispatch_us`: what a pass costs on its way into a queue of 10 or of 10,000, and from
           there through the hardware to its end, one pass an instrument call, a device without
           time. Both queues stand side by side and take turns; the depth stays as it is.
`memory_mb`: by how much the process has grown between a tenth of the passes and all of them
           (`--passes 1000000`), a hundred callers at a time; `objects`: the same in Python objects.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from fixed_rows import CHANNELS, FixedRows, OtherLoad

from drivers.row_key import RowKey
from drivers.spec import Array
from lab.bench_config import SchedulerConfig
from lab.measurement import ForwardPass
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import Rows

SWITCH_INTERVAL_S = 0.001  # as the service sets it (`server.serve`)
TICK_S = 0.005
DEPTHS = (10, 10_000)
MOST_RATIO = 2.0
CALLERS = 100
_TOP_UP = 5  # passes by which a queue's depth varies

X, THETA = (np.full((1, CHANNELS), 0.5) for _ in range(2))
ROW = ForwardPass("bench", X, THETA)

Figures = dict[str, float]


class GatedRows(FixedRows):
    """A device without time whose every row waits until it is let through."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.gate = threading.Semaphore(0)

    def measure(self, x: Array, theta: Array, keys: Sequence[RowKey] | None = None) -> Rows:
        self.gate.acquire()
        return super().measure(x, theta, keys)


class FreeRows(FixedRows):
    """A device without time, nor records that would grow."""

    def measure(self, x: Array, theta: Array, keys: Sequence[RowKey] | None = None) -> Rows:
        return Rows(x, np.zeros(len(x), dtype=bool))


async def interactive(seconds: float) -> dict[str, Figures]:
    """Return waits and lags beside a bulk job."""
    system = FixedRows(1e-3)
    figures = {}
    idle = await lags_ms(seconds / 2)
    async with HardwareScheduler({"bench": system}) as scheduler:
        bulk = asyncio.create_task(keep_busy(scheduler))
        await asyncio.sleep(0.2)
        lags = asyncio.create_task(lags_ms(2 * seconds))
        for name, priority in (("urgent", 1), ("equal", 0)):
            figures[name] = percentiles(await waits_ms(scheduler, priority, seconds))
        figures["loop_lag_ms"] = percentiles(await lags)
        figures["idle_lag_ms"] = percentiles(idle)
        bulk.cancel()
        await asyncio.wait([bulk])
    return figures


async def keep_busy(scheduler: HardwareScheduler) -> None:
    """Let one client always have two passes of 1000 rows in the queue."""
    rows = replace(ROW, x=X.repeat(1000, 0), theta=THETA.repeat(1000, 0), client="bulk")

    async def again() -> None:
        while True:
            await scheduler.submit(rows)

    await asyncio.gather(again(), again())


async def waits_ms(scheduler: HardwareScheduler, priority: int, seconds: float) -> list[float]:
    """Ask for rows at uneven times; return how long each took beyond the row's own time, ms."""
    row = replace(ROW, client="interactive", priority=priority)
    pauses = np.random.default_rng(0)
    found = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await scheduler.submit(row)
        found.append(1e3 * (time.perf_counter() - begin) - 1.0)
        await asyncio.sleep(pauses.uniform(0.001, 0.02))
    return found


async def lags_ms(seconds: float) -> list[float]:
    """Sleep again and again; return by how much each sleep was too long, ms."""
    found = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await asyncio.sleep(TICK_S)
        found.append(1e3 * (time.perf_counter() - begin - TICK_S))
    return found


def percentiles(values: list[float]) -> Figures:
    cuts = statistics.quantiles(values, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


class LongQueue:
    """A scheduler whose queue is kept at one depth."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.system = GatedRows()
        many = 2 * max(DEPTHS)
        # slices of one row: every pass is an instrument call of its own, however quick
        config = SchedulerConfig(slice_s=1e-9, max_waiting=many, max_waiting_per_client=many)
        self.scheduler = HardwareScheduler({"bench": self.system}, config)
        self.submit_us: list[float] = []
        self.dispatch_us: list[float] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._numbers = 0
        self._awaited = 0
        self._done = asyncio.Event()

    async def submit(self, passes: int) -> float:
        """Put passes into the queue; return the time, us, that each took."""
        ready = []
        for _ in range(passes):
            self._numbers += 1
            client, priority = f"client {self._numbers % 10}", self._numbers % 3
            ready.append(replace(ROW, client=client, priority=priority))
        begin = time.perf_counter()
        for forward_pass in ready:
            task = asyncio.create_task(self.scheduler.submit(forward_pass))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        await asyncio.sleep(0)  # every task runs up to where it waits
        return 1e6 * (time.perf_counter() - begin) / passes

    async def dispatch(self, passes: int) -> float:
        """Let passes through to their callers; return the time, us, that each took."""
        self._awaited = passes
        self._done.clear()
        begin = time.perf_counter()
        self.system.gate.release(passes)
        await self._done.wait()
        return 1e6 * (time.perf_counter() - begin) / passes

    async def turn(self, rounds: int) -> None:
        for _ in range(rounds):
            self.submit_us.append(await self.submit(_TOP_UP))
            self.dispatch_us.append(await self.dispatch(_TOP_UP))

    async def drain(self) -> None:
        self.system.gate.release(10 * max(DEPTHS))
        await asyncio.gather(*self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._awaited -= 1
        if self._awaited == 0:
            self._done.set()


async def long_queues(turns: int, rounds: int) -> dict[str, Figures]:
    """Return medians for each depth, and the ratio deep to shallow."""
    queues = [LongQueue(depth) for depth in DEPTHS]
    for queue in queues:
        await queue.scheduler.__aenter__()
        await queue.submit(queue.depth + 1)  # one is in the instrument call
    for _ in range(turns):
        for queue in queues:
            await queue.turn(rounds)
    figures: dict[str, Figures] = {"submit_us": {}, "dispatch_us": {}}
    for queue in queues:
        figures["submit_us"][str(queue.depth)] = statistics.median(queue.submit_us)
        figures["dispatch_us"][str(queue.depth)] = statistics.median(queue.dispatch_us)
        await queue.drain()
        await queue.scheduler.close()
    for f in figures.values():
        shallow, deep = (f[str(depth)] for depth in DEPTHS)
        f["ratio"] = deep / shallow
    return figures


async def memory(passes: int) -> Figures:
    """Return how the process grows between a tenth of the passes and all of them."""
    begin = time.perf_counter()
    async with HardwareScheduler({"bench": FreeRows(0.0)}) as scheduler:
        await run_passes(scheduler, passes // 10)
        before = in_use()
        await run_passes(scheduler, passes - passes // 10)
        after = in_use()
    return {
        "memory_mb": after[0] - before[0],
        "objects": after[1] - before[1],
        "passes": passes,
        "passes_per_s": passes / (time.perf_counter() - begin),
    }


async def run_passes(scheduler: HardwareScheduler, passes: int) -> None:
    async def caller(number: int) -> None:
        row = replace(ROW, client=f"client {number}", priority=number % 3)
        for _ in range(passes // CALLERS):
            await scheduler.submit(row)

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))


def in_use() -> tuple[float, int]:
    """Return the resident memory, MB, and the number of Python's own objects."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20, len(gc.get_objects())


async def measure(seconds: float, passes: int) -> dict[str, Any]:
    """Return all figures."""
    load = OtherLoad()
    beside_bulk = await interactive(seconds)
    figures: dict[str, Any] = {
        "interactive_wait_ms": beside_bulk["urgent"],
        "equal_wait_ms": beside_bulk["equal"],
        "loop_lag_ms": beside_bulk["loop_lag_ms"],
        "idle_lag_ms": beside_bulk["idle_lag_ms"],
    }
    figures |= await long_queues(turns=20, rounds=20)
    return figures | await memory(passes) | {"other_load_cores": load.cores()}


def print_table(figures: dict[str, Any]) -> None:
    print(f"other processes kept {figures['other_load_cores']:.1f} processors busy")
    for name in ("interactive_wait_ms", "equal_wait_ms", "loop_lag_ms", "idle_lag_ms"):
        print(f"{name:20} p50 {figures[name]['p50']:7.2f}  p99 {figures[name]['p99']:7.2f}")
    for name in ("submit_us", "dispatch_us"):
        costs = "  ".join(f"{depth} queued {figures[name][str(depth)]:6.0f}" for depth in DEPTHS)
        print(f"{name:20} {costs}  ratio {figures[name]['ratio']:.2f} (at most {MOST_RATIO:g})")
    print(
        f"{'memory_mb':20} {figures['memory_mb']:+.2f} from {figures['passes'] // 10} "
        f"to {figures['passes']} passes ({figures['objects']:+d} objects; "
        f"{figures['passes_per_s']:.0f} passes/s)"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure waits, long queues and memory.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a phase with waits")
    parser.add_argument("--passes", type=int, default=200_000, help="passes of the memory phase")
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    figures = asyncio.run(measure(arguments.seconds, arguments.passes))
    if arguments.json:
        print(json.dumps(figures))
        return
    print_table(figures)


if __name__ == "__main__":
    main()
