"""Measure what a row of simulated optics costs through driver and wire, and without them.

    python tests/benchmarks/plant_path.py [--json] [--rows N] [--rounds N]

Both ways measure the same rows (`lab.measure.DirectRun`, `lab.plant_run.PlantRun`) in one call, as
a batch of training is, and the program stops if a single bit differs. `physics` is the plant's
noise-free formula alone. Each figure is ms of this thread's CPU time a row, in the quickest of
several interleaved rounds: what else the machine does only adds to it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from drivers.row_key import row_keys
from lab.bench import Bench, open_bench
from lab.measure import DirectRun
from lab.plant_run import plant_run
from lab.systems.optics import FIELD_HIGH, FIELD_LOW, pixel_fields

ROOT = Path(__file__).resolve().parents[2]
TARGET_MS = 0.03  # a row without driver and wire


def ms_a_row(call: Callable[[], object], rows: int) -> float:
    """Return the time of a row in one call, ms."""
    begin = time.thread_time()
    call()
    return 1e3 * (time.thread_time() - begin) / rows


def ways(bench: Bench, rows: int) -> dict[str, Callable[[], Any]]:
    """Return what is measured, by the name of its figure."""
    system, plant = bench.system("optics"), bench.plant("optics")
    rng = np.random.default_rng(0)
    x, theta = rng.uniform(FIELD_LOW, FIELD_HIGH, (2, rows, 50))
    keys = row_keys(0, 0, rows, system.description.row_time_s)
    wire, quick = DirectRun(system), plant_run(bench, "optics")
    times_s = np.array([key.time_s for key in keys])
    wavelengths_m = np.linspace(773.365e-9, 776.635e-9, 101)
    physics: Any = plant
    return {
        "driver_and_wire_ms": lambda: wire(x, theta, keys),
        "plant_run_ms": lambda: quick(x, theta, keys),
        "physics_ms": lambda: physics.forward(pixel_fields(x, theta), times_s, wavelengths_m),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure a row with and without the wire.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, default=400, help="rows in a call")
    parser.add_argument("--rounds", type=int, default=15, help="rounds to take the quickest of")
    a = parser.parse_args()
    with open_bench(ROOT / "bench.toml") as bench:
        parts = ways(bench, a.rows)
        if not np.array_equal(parts["driver_and_wire_ms"](), parts["plant_run_ms"]()):
            sys.exit("the two ways differ")
        rounds = [{k: ms_a_row(c, a.rows) for k, c in parts.items()} for _ in range(a.rounds)]
    figures = {key: min(r[key] for r in rounds) for key in parts}
    figures["ratio"] = figures["driver_and_wire_ms"] / figures["plant_run_ms"]
    if a.json:
        print(json.dumps({key: round(value, 5) for key, value in figures.items()}))
        return
    for key, value in figures.items():
        bound = f"  (at most {TARGET_MS})" if key == "plant_run_ms" else ""
        print(f"{key:20} {value:8.4f}{bound}")


if __name__ == "__main__":
    main()
