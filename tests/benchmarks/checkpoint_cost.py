"""What checkpoints cost a training: one file every 20 s, and a copy in memory every second.

Trains pat-refit, whose twin keeps the rows that it has seen, until its memory is full; the twin is
not fitted. Prints the bytes of a file, the median times of a copy and of a write to the disk
(sha256 and fsync included), and their share of the training's time.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.apparatus import open_apparatus
from lab.bench import open_bench
from lab.checkpoints import CheckpointFolder
from lab.config import TrainConfig
from lab.datasets import load
from lab.recipes import completed
from lab.snapshots import Snapshots
from lab.trainer import train
from lab.twins import FittedTwin
from twins.base import frozen
from twins.fitting import TwinError

ROOT = Path(__file__).parents[2]
STEPS = 70
COPY_S, WRITE_S = 1.0, 20.0
WORTH = 200  # see lab.snapshots
CASES = {"vowels": ("bench.toml", "optics"), "mnist": ("bench-circuit.toml", "circuit")}


class TimedSnapshots(Snapshots):
    """Copy and write after every step, and note how long that took, s."""

    copies: list[float]
    writes: list[float]

    def between_steps(self, step: int) -> None:
        self.copies.append(seconds(lambda: self.copy(step)))
        self.writes.append(seconds(self.write))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(task: str, folder: Path) -> dict[str, float]:
    file, system = CASES[task]
    TimedSnapshots.copies, TimedSnapshots.writes = [], []
    with open_bench(ROOT / file) as bench:
        asked = TrainConfig(system=system, task=task, method="pat-refit", test_images=20)
        config = completed(asked, bench.config.systems[system].system)
        rows = STEPS * config.batch * config.rows_a_sample
        config = config.model_copy(update={"rows": rows, "audit": False, "test_span_s": 0.0})
        twin = frozen(bench.new_twin(system, config.twin.kind))
        error = TwinError(r2=0.0, normalised=1.0, shape_r2=0.0)
        fitted = FittedTwin(twin, config.twin.kind, system, 0, 0, 0, 0.0, error, None)
        apparatus = open_apparatus(bench, system)
        train(config, load(task), fitted, apparatus, checkpoints=CheckpointFolder(folder))
    copy_s = statistics.median(TimedSnapshots.copies[-20:])
    write_s = statistics.median(TimedSnapshots.writes[-20:])
    return {
        "bytes": max(f.stat().st_size for f in folder.iterdir()),
        "copy_ms": 1e3 * copy_s,
        "write_ms": 1e3 * write_s,
        "share": copy_s / max(COPY_S, WORTH * copy_s) + (copy_s + write_s) / WRITE_S,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import lab.trainer

    lab.trainer.Snapshots = TimedSnapshots  # type: ignore[misc]
    results = {}
    for task in CASES:
        with TemporaryDirectory() as folder:
            results[task] = measure(task, Path(folder))
    if options.json:
        print(json.dumps(results))
        return
    for task, r in results.items():
        print(
            f"{task:8} {r['bytes'] / 1e6:6.2f} MB, copy {r['copy_ms']:6.2f} ms, "
            f"write {r['write_ms']:6.1f} ms, {100 * r['share']:.2f} % of the time"
        )


if __name__ == "__main__":
    main()
