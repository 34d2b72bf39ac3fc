"""What a pass costs more through the service's REST API than in its own scheduler.

    python tests/benchmarks/remote_row_cost.py [--json] [--rounds N]

One service on the loopback, with a secret, in a process of its own for what comes over the wire;
the same bench opened here for what does not. The device takes no time, so that a pass is all
overhead: `here` through `measure_blocking` (`ScheduledRun`), `there` through `RemoteRun`. The sides
take turns, pass by pass; each figure is the median in ms, for a row, a batch and many rows. The
ratio says nothing of a real bench, whose rows take long; the difference does. The bounds are
for a quiet machine.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from fixed_rows import CHANNELS, FixedRows, OtherLoad

from drivers.row_key import row_keys
from lab.bench_config import BenchConfig, SystemConfig
from lab.measure import Run
from lab.remote import RemoteRun
from lab.scheduling.scheduled_run import ScheduledRun
from lab.scheduling.scheduler import HardwareScheduler
from server.app import create_app
from server.serve import serve

SECRET = "a-secret-of-the-benchmark"
ROWS = (1, 32, 1000)
MOST_MS = {1: 5.0, 32: 5.0}


def no_time(name: str, row_time_s: float, announce: object) -> FixedRows:
    """Return the device of the service's bench, as a bench file names it."""
    return FixedRows(0.0, name)


def serve_fixed_rows(folder: str, told: Connection) -> None:
    """Serve the device; tell the address."""
    part = SystemConfig(system="remote_row_cost:no_time", instruments={})
    bench = BenchConfig(name="fixed", instruments={}, systems={"bench": part})
    app = create_app(bench, data_dir=folder, secret=SECRET)
    serve(app, "127.0.0.1", 0, told.send)


@contextmanager
def service() -> Iterator[str]:
    """Yield the address of a service in a process of its own."""
    context = multiprocessing.get_context("spawn")
    heard, told = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=serve_fixed_rows, args=(folder, told))
        process.start()
        told.close()  # so that its end is heard
        try:
            yield heard.recv()
        finally:
            process.terminate()
            process.join()


@contextmanager
def scheduler() -> Iterator[HardwareScheduler]:
    """Yield a scheduler on an event loop of its own."""
    ready, end = threading.Event(), threading.Event()
    opened: list[HardwareScheduler] = []

    async def hold() -> None:
        async with HardwareScheduler({"bench": FixedRows(0.0)}) as here:
            opened.append(here)
            ready.set()
            await asyncio.to_thread(end.wait)

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    try:
        ready.wait()
        yield opened[0]
    finally:
        end.set()
        thread.join()


def pass_ms(run: Run, rows: int, number: int) -> float:
    """Return the time of one pass, ms."""
    x = np.full((rows, CHANNELS), 0.5)
    keys = row_keys(1, number * rows, rows, 0.75)
    begun = time.perf_counter()
    run(x, x, keys)
    return 1e3 * (time.perf_counter() - begun)


def measure(rounds: int) -> dict[str, float]:
    """Return the medians and ratios by side and rows."""
    found: dict[str, float] = {}
    load = OtherLoad()
    with scheduler() as opened, service() as url, RemoteRun(url, "bench", secret=SECRET) as there:
        here = ScheduledRun(opened, "bench")
        for rows in ROWS:
            for run in (here, there):
                pass_ms(run, rows, 0)  # warm up
            turns = [(pass_ms(here, rows, i), pass_ms(there, rows, i)) for i in range(rounds)]
            a, b = (statistics.median(side) for side in zip(*turns, strict=True))
            found |= {f"here_{rows}_ms": a, f"there_{rows}_ms": b, f"ratio_{rows}": b / a}
    return {**found, "other_load_cores": load.cores()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure what a pass costs over the wire.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=200, help="passes of each side and size")
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps({key: round(value, 4) for key, value in figures.items()}))
        return
    for rows in ROWS:
        here, there = figures[f"here_{rows}_ms"], figures[f"there_{rows}_ms"]
        bound = f"  (at most {MOST_MS[rows]:g} ms more)" if rows in MOST_MS else ""
        print(f"{rows:5} rows: here {here:7.3f} ms, there {there:7.3f} ms", end="")
        print(f", {there - here:6.3f} ms more, {there / here:5.1f} times{bound}")
    print(f"other processes kept {figures['other_load_cores']:.1f} processors busy")


if __name__ == "__main__":
    main()
