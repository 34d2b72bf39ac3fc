"""What recording its measured rows costs a training job.

Trains on the simulated bench and notes every pass with its moment; then hands the same passes to a
recorder at the same moments, in a process that does nothing else. Prints the processor time of
recording as a share of the training's time (of one core; the recorder has threads of its own, so
this is the most that the training can be slowed down by), the time that handing over a pass takes
the job, and the size on disk beside that of the plain numbers.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from drivers.row_key import RowKey
from drivers.spec import Array
from lab.apparatus import open_apparatus
from lab.bench import Bench, open_bench
from lab.config import TrainConfig
from lab.datasets import load
from lab.measure import DirectRun
from lab.measurement import ForwardPass, Measurement
from lab.recipes import completed
from lab.recording.recorder import RowRecorder
from lab.systems.base import PhysicalSystem, never
from lab.trainer import train
from lab.twins import FittedTwin
from twins.base import frozen
from twins.fitting import TwinError

ROOT = Path(__file__).parents[2]
CASES = {"vowels": ("bench.toml", "optics"), "mnist": ("bench-circuit.toml", "circuit")}
ROWS = {"vowels": 4_000, "mnist": 40_000}


@dataclass
class NotedRun:
    """A `lab.measure.Run` that notes what it measures, and when."""

    system: PhysicalSystem
    passes: list[tuple[float, ForwardPass, Measurement]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._run = DirectRun(self.system)
        self._name = self.system.description.name

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        y = self._run(x, theta, keys, depth=depth, stopped=stopped)
        forward_pass = ForwardPass(self._name, x, theta, keys, job="noted")
        flags = [np.zeros(len(y), dtype=bool)] * 3
        shots, times = np.arange(len(y)), np.full(len(y), time.time())
        measured = Measurement("", self._name, y, *flags, shots, times, "", 0.0, 0.0, 0.0)
        self.passes.append((time.perf_counter(), forward_pass, measured))
        return y

    def cancel(self) -> None:
        self._run.cancel()

    def hardware_s(self) -> float:
        return self._run.hardware_s()


def trained(bench: Bench, system: str, task: str) -> tuple[NotedRun, float]:
    """Train; return what was measured, and how long all of it took, s."""
    asked = TrainConfig(system=system, task=task, method="pat", test_images=20)
    config = completed(asked, bench.config.systems[system].system)
    config = config.model_copy(update={"rows": ROWS[task], "audit": False, "test_span_s": 0.0})
    twin = frozen(bench.new_twin(system, config.twin.kind))
    error = TwinError(r2=0.0, normalised=1.0, shape_r2=0.0)
    fitted = FittedTwin(twin, config.twin.kind, system, 0, 0, 0, 0.0, error, None)
    run = NotedRun(bench.system(system))
    dataset = load(task)
    start = time.perf_counter()
    train(config, dataset, fitted, open_apparatus(bench, system, run))
    return run, time.perf_counter() - start


def recorded(run: NotedRun, folder: Path) -> dict[str, Any]:
    """Hand the passes to a recorder in their rhythm; return what that took."""
    waiting_s, _ = rhythm(run, lambda *_: None)
    with RowRecorder(
        folder, lambda _: run.system.description, bench="", ended=lambda _: False
    ) as recorder:
        before_s = time.process_time()
        _, handing_s = rhythm(run, recorder.add)
        recorder.flush()
        cpu_s = time.process_time() - before_s - waiting_s
        size = recorder.recorded("noted").bytes
    plain = sum(p.x.nbytes + p.theta.nbytes + m.y.nbytes for _, p, m in run.passes)
    return {
        "cpu_s": cpu_s,
        "handing_us": 1e6 * handing_s / len(run.passes),
        "bytes": size,
        "plain_bytes": plain,
    }


def rhythm(run: NotedRun, add: Callable[[ForwardPass, Measurement], object]) -> tuple[float, float]:
    """Hand over each pass at its moment; return processor time and time in `add`, s."""
    handing_s, start, first = 0.0, time.perf_counter(), run.passes[0][0]
    cpu_s = time.process_time()
    for moment, forward_pass, measurement in run.passes:
        time.sleep(max(0.0, moment - first - (time.perf_counter() - start)))
        before = time.perf_counter()
        add(forward_pass, measurement)
        handing_s += time.perf_counter() - before
    return time.process_time() - cpu_s, handing_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {}
    for task, (file, system) in CASES.items():
        with open_bench(ROOT / file) as bench, TemporaryDirectory() as folder:
            run, wall_s = trained(bench, system, task)
            found = recorded(run, Path(folder))
        rows = sum(len(m.y) for _, _, m in run.passes)
        results[task] = {"rows": rows, "s": wall_s, "share": found["cpu_s"] / wall_s, **found}
    if options.json:
        print(json.dumps(results))
        return
    for task, r in results.items():
        print(
            f"{task:8} {r['rows']} rows in {r['s']:.1f} s: recording takes {100 * r['share']:.2f} %"
            f" of a core, handing over {r['handing_us']:.0f} us a pass; "
            f"{r['bytes'] / 1e6:.1f} MB for {r['plain_bytes'] / 1e6:.1f} MB of numbers"
        )


if __name__ == "__main__":
    main()
