"""Measure the time of one row of the systems that play series, driver and physics included.

    python tests/benchmarks/series_row_cost.py [--json] [--rows N] [--calls N] [--rounds N]

Rows are measured in calls of `--rows`, as a batch of training is: through the system, its driver,
the simulated instrument and the plant. Also printed: the plant alone, and its adjoint. Each figure
is ms of this thread's CPU time a row, in the quickest of several interleaved rounds: what else the
machine does only adds to it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from drivers.row_key import row_keys
from lab.bench import open_bench

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = {  # every system that plays series: its bench file, and full scale as its plant counts
    "circuit": (ROOT / "bench-circuit.toml", 10.0),
    "plate": (ROOT / "bench-plate.toml", 1.0),
}
TARGET_MS = 0.05  # a row, driver included, in calls of 100


def row_ms(call: Callable[[int], object], rows: int, calls: int) -> float:
    """Return the time of a row in `calls` calls, ms; each is told the number of its first row."""
    begin = time.thread_time()
    for i in range(calls):
        call(i * rows)
    return 1e3 * (time.thread_time() - begin) / (rows * calls)


def open_figures(name: str, rows: int, stack: ExitStack) -> dict[str, Callable[[int], object]]:
    """Return what is measured of one system, by the name of the figure."""
    file, full_scale = SYSTEMS[name]
    bench = stack.enter_context(open_bench(file))
    system, plant = bench.system(name), bench.plant(name)
    drive_time_s = system.description.row_time_s
    samples = system.description.x.shape
    rng = np.random.default_rng(0)
    x, theta = rng.uniform(-0.7, 0.7, (rows, *samples)), rng.uniform(-0.3, 0.3, (rows, *samples))
    physics: Any = plant
    drive = full_scale * (x + theta)
    g, times_s = rng.standard_normal(x.shape), np.zeros(rows)
    return {
        f"{name}_ms": lambda i: system.transform(x, theta, row_keys(0, i, rows, drive_time_s)),
        f"{name}_plant_ms": lambda i: physics.forward(drive, times_s),
        f"{name}_vjp_ms": lambda i: physics.vjp(drive, times_s, g),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure the time of one row of a series.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, default=100, help="rows in a call")
    parser.add_argument("--calls", type=int, default=10, help="calls in a round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the quickest of")
    a = parser.parse_args()
    with ExitStack() as stack:
        parts: dict[str, Callable[[int], object]] = {}
        for name in SYSTEMS:
            parts |= open_figures(name, a.rows, stack)
        for call in parts.values():
            call(0)  # compile
        rounds = [
            {k: row_ms(c, a.rows, a.calls) for k, c in parts.items()} for _ in range(a.rounds)
        ]
    figures = {key: min(r[key] for r in rounds) for key in parts}
    if a.json:
        print(json.dumps({key: round(value, 5) for key, value in figures.items()}))
        return
    for key, value in figures.items():
        bound = f"  (at most {TARGET_MS})" if key.removesuffix("_ms") in SYSTEMS else ""
        print(f"{key:20} {value:8.4f}{bound}")


if __name__ == "__main__":
    main()
