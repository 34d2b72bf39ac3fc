"""What a pass of one row costs beyond the device's own time: ours, a bare queue, Bluesky.

    python tests/benchmarks/scheduler_overhead.py [--json] [--rounds N] [--passes N]

One caller asks for the next pass as soon as it has the last one's result. What a pass costs is
the time between the end of one device call and the beginning of the next, the way back and the
way there; so it is the same measure for all, and the device's own time is not in it. The sides
take turns within one run; every figure is the median over all passes of all rounds.

ours:  `HardwareScheduler`, from a blocking thread (`measure_blocking`) or a coroutine (`submit`).
bare:  a coroutine that takes calls from an `asyncio.Queue` and runs them in one thread.
count: Bluesky's plan of that name, in its RunEngine; one run a turn. The device measures in one
       thread of its own, when it is triggered.
lean:  the same device and the fewest messages: trigger, wait, create, read, save.
read:  fewer still, for a device that blocks the RunEngine's own event loop while it is read:
       create, read, save. Nothing else can go on meanwhile; a lower bound rather than a peer.

Bluesky is optional (`pip install pnnlab[bluesky]`); its sides are left out where it is missing.
"""

import argparse
import asyncio
import concurrent.futures
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from fixed_rows import CHANNELS, FixedRows, OtherLoad

from drivers.spec import Array
from lab.measurement import ForwardPass
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import Rows

try:
    import bluesky
    from bluesky.plans import count
    from bluesky.run_engine import RunEngine
    from bluesky.utils import Msg

    BLUESKY = f"bluesky {bluesky.__version__}"
except ImportError as reason:
    BLUESKY = ""
    NO_BLUESKY = f"count and lean left out: {reason}"

DEVICE_MS = (0, 1)
SWITCH_INTERVAL_S = 0.001  # as the service sets it (`server.serve`)
MOST_TIMES_BARE, TIMES_LESS_THAN_COUNT, TIMES_LESS_THAN_LEAN = 3.0, 10.0, 5.0
_WARM_UP = 20

X, THETA = (np.full((1, CHANNELS), 0.5) for _ in range(2))

Side = Callable[[int], Awaitable[None]]
"""Has a number of passes measured, one after the other."""


class BareQueue:
    """The least that does the job: a queue, a worker coroutine, one thread."""

    def __init__(self, system: FixedRows) -> None:
        self.system = system
        self.queue: asyncio.Queue[tuple[Array, Array, asyncio.Future[Rows]]] = asyncio.Queue()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            while True:
                x, theta, future = await self.queue.get()
                future.set_result(await loop.run_in_executor(thread, self.system.measure, x, theta))

    async def submit(self, x: Array, theta: Array) -> Rows:
        future: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((x, theta, future))
        return await future


class TriggeredDetector:
    """A Bluesky device that measures a row in a thread of its own when it is triggered."""

    name = "detector"
    parent = None

    def __init__(self, system: FixedRows) -> None:
        self.system = system
        self.thread = concurrent.futures.ThreadPoolExecutor(1)

    def trigger(self) -> "ThreadStatus":
        return ThreadStatus(self.thread.submit(self.system.measure, X, THETA))

    def read(self) -> dict[str, Any]:
        return {"detector": {"value": 0.5, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        return {"detector": {"source": "bench", "dtype": "number", "shape": []}}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    describe_configuration = read_configuration


class ReadDetector(TriggeredDetector):
    """A Bluesky device that measures a row when it is read."""

    trigger = None  # type: ignore[assignment]

    def read(self) -> dict[str, Any]:
        self.system.measure(X, THETA)
        return super().read()


class ThreadStatus:
    """Bluesky's Status of a call in a thread."""

    def __init__(self, future: concurrent.futures.Future[Rows]) -> None:
        self.future = future

    @property
    def done(self) -> bool:
        return self.future.done()

    @property
    def success(self) -> bool:
        return self.done and self.future.exception() is None

    def add_callback(self, callback: Callable[["ThreadStatus"], None]) -> None:
        self.future.add_done_callback(lambda _: callback(self))

    def exception(self, timeout: float | None = 0.0) -> BaseException | None:
        return self.future.exception(timeout)


def lean_plan(detector: TriggeredDetector, passes: int) -> Iterator[Any]:
    """Say only what an event needs."""
    yield Msg("open_run")
    for _ in range(passes):
        if detector.trigger is not None:
            yield Msg("trigger", detector, group="row")
            yield Msg("wait", None, group="row")
        yield Msg("create", name="primary")
        yield Msg("read", detector)
        yield Msg("save")
    yield Msg("close_run")


async def measure(rounds: int, passes: int) -> dict[str, Any]:
    """Return the figures by kind of caller, device time and side."""
    figures: dict[str, Any] = {}
    load = OtherLoad()
    for device_ms in DEVICE_MS:
        system = FixedRows(1e-3 * device_ms)
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(HardwareScheduler({"bench": system}))
            bare = BareQueue(system)
            worker = asyncio.create_task(bare.serve())
            stack.callback(worker.cancel)
            bluesky_sides = open_bluesky(system) if BLUESKY else {}
            for caller, sides in our_sides(scheduler, bare).items():
                found = await take_turns(system, sides | bluesky_sides, rounds, passes)
                figures.setdefault(caller, {})[f"{device_ms}ms"] = found
    return {**figures, "other_load_cores": load.cores()}


def our_sides(scheduler: HardwareScheduler, bare: BareQueue) -> dict[str, dict[str, Side]]:
    """Return the scheduler and the bare queue, for a thread that blocks and for a coroutine."""
    loop = asyncio.get_running_loop()
    p = ForwardPass("bench", X, THETA, client="benchmark")

    async def ours_coroutine(passes: int) -> None:
        for _ in range(passes):
            await scheduler.submit(p)

    async def bare_coroutine(passes: int) -> None:
        for _ in range(passes):
            await bare.submit(X, THETA)

    def ours_thread(passes: int) -> None:
        for _ in range(passes):
            scheduler.measure_blocking(p)

    def bare_thread(passes: int) -> None:
        for _ in range(passes):
            asyncio.run_coroutine_threadsafe(bare.submit(X, THETA), loop).result()

    return {
        "thread": {
            "ours": partial(asyncio.to_thread, ours_thread),
            "bare_queue": partial(asyncio.to_thread, bare_thread),
        },
        "coroutine": {"ours": ours_coroutine, "bare_queue": bare_coroutine},
    }


def open_bluesky(system: FixedRows) -> dict[str, Side]:
    """Return Bluesky's two plans; its RunEngine has an event loop and a thread of its own."""
    engine = RunEngine({}, context_managers=[])
    triggered, read = TriggeredDetector(system), ReadDetector(system)

    plans: dict[str, Callable[[int], Any]] = {
        "count": lambda passes: count([triggered], num=passes),
        "lean": lambda passes: lean_plan(triggered, passes),
        "read": lambda passes: lean_plan(read, passes),
    }

    async def run(plan: Callable[[int], Any], passes: int) -> None:
        await asyncio.to_thread(engine, plan(passes))

    return {name: partial(run, plan) for name, plan in plans.items()}


async def take_turns(
    system: FixedRows, sides: dict[str, Side], rounds: int, passes: int
) -> dict[str, float]:
    """Return each side's median, 95th percentile and processor time of a pass, us."""
    gaps: dict[str, list[Array]] = {side: [] for side in sides}
    cpu_s = dict.fromkeys(sides, 0.0)
    for _ in range(rounds):
        for name, side in sides.items():
            await side(_WARM_UP)
            system.forget()
            before_s = time.process_time()
            await side(passes)
            cpu_s[name] += time.process_time() - before_s
            gaps[name].append(system.gaps_us())
    figures = {}
    for name, found in gaps.items():
        every = np.concatenate(found)
        figures[f"{name}_us"] = float(np.median(every))
        figures[f"{name}_p95_us"] = float(np.percentile(every, 95))
        figures[f"{name}_cpu_us"] = 1e6 * cpu_s[name] / (rounds * passes)
    return figures


def print_table(figures: dict[str, Any]) -> None:
    """Print the medians, the ratios and what they should be."""
    print(f"{BLUESKY or NO_BLUESKY}")
    print(f"other processes kept {figures['other_load_cores']:.1f} processors busy")
    print(f"{'caller':10} {'device':>6} {'side':>10} {'median us':>10} {'p95 us':>8} {'cpu us':>8}")
    for caller in ("thread", "coroutine"):
        for device, f in figures[caller].items():
            for side in [k.removesuffix("_p95_us") for k in f if k.endswith("_p95_us")]:
                median, p95, cpu = (f[f"{side}{part}"] for part in ("_us", "_p95_us", "_cpu_us"))
                print(f"{caller:10} {device:>6} {side:>10} {median:10.0f} {p95:8.0f} {cpu:8.0f}")
            print(f"{'':18} ours/bare {f['ours_us'] / f['bare_queue_us']:.2f}", end="")
            print(f" (at most {MOST_TIMES_BARE:g})", end="")
            if "count_us" in f:
                print(f", count/ours {f['count_us'] / f['ours_us']:.1f}", end="")
                print(f" (at least {TIMES_LESS_THAN_COUNT:g})", end="")
                print(f", lean/ours {f['lean_us'] / f['ours_us']:.1f}", end="")
                print(f" (at least {TIMES_LESS_THAN_LEAN:g})", end="")
            print()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure what a pass of one row costs.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each side")
    parser.add_argument("--passes", type=int, default=200, help="passes of a turn")
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    figures = asyncio.run(measure(arguments.rounds, arguments.passes))
    if arguments.json:
        print(json.dumps(figures))
        return
    print_table(figures)


if __name__ == "__main__":
    main()
