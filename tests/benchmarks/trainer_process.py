"""What it costs that a job computes in a process of its own and not in a thread of the service.

    python tests/benchmarks/trainer_process.py [--json] [--rounds N] [--epochs E]

The same training of the vowels with `pat-refit`, its twin fitted before, in a thread and in a
process, in turns: `ratio` is the median over the rounds of process over thread, wall time from
submission to end. `first_row_s` is the median time from submission to the job's first measured
row, `ready_s` that from the nursery's start until it can give a process.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.jobs.nursery import Nursery
from lab.jobs.records import FitConfig, JobRecord
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.store import Store
from lab.scheduling.scheduler import HardwareScheduler
from server.serve import SWITCH_INTERVAL_S

ROOT = Path(__file__).resolve().parents[2]
TARGET_RATIO, TARGET_START_S = 1.02, 1.0


async def one_job(jobs: JobService, config: TrainConfig | FitConfig) -> tuple[float, float]:
    """Run a job; return the times to its first row and to its end, s."""
    begin, first_s = time.perf_counter(), 0.0
    job = await jobs.submit(config)
    while (live := jobs._live.get(job.id)) is not None:
        await asyncio.sleep(0.002)
        if not first_s and live.rows.estimate(None).rows_done:
            first_s = time.perf_counter() - begin
    whole_s = time.perf_counter() - begin
    record: JobRecord = await jobs.get(job.id)
    if record.state != "succeeded":
        raise RuntimeError(f"the job is {record.state}: {record.error}")
    return first_s, whole_s


async def measure(nursery: Nursery, folder: Path, rounds: int, epochs: int) -> dict[str, float]:
    """Return the figures."""
    config = TrainConfig.model_validate(
        {"task": "vowels", "method": "pat-refit", "epochs": epochs, "twin": {"rows": 100}}
    )
    seconds: dict[str, list[float]] = {"thread": [], "process": []}
    first_s: list[float] = []
    with Store(folder) as store, open_bench(load_bench(ROOT / "bench.toml"), start=False) as bench:
        async with HardwareScheduler(bench.systems) as scheduler:
            places = {
                "thread": JobService(JobRunner(bench, scheduler, store), store),
                "process": JobService(JobRunner(bench, scheduler, store, nursery=nursery), store),
            }
            await one_job(places["thread"], config)
            for number in range(rounds):
                for name in sorted(places, reverse=bool(number % 2)):
                    began_s, whole_s = await one_job(places[name], config)
                    seconds[name].append(whole_s)
                    first_s += [began_s] if name == "process" else []
            for jobs in places.values():
                await jobs.close()
    ratios = [p / t for p, t in zip(seconds["process"], seconds["thread"], strict=True)]
    return {
        **{f"{name}_s": statistics.median(found) for name, found in seconds.items()},
        "ratio": statistics.median(ratios),
        "first_row_s": statistics.median(first_s),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure what trainer processes cost.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=3, help="jobs of each kind")
    parser.add_argument("--epochs", type=int, default=20, help="length of a job")
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    begin = time.perf_counter()
    with closing(Nursery()) as nursery, tempfile.TemporaryDirectory() as folder:
        trainer = nursery.trainer()
        figures = {"ready_s": time.perf_counter() - begin}
        trainer.kill()
        trainer.end()
        work = measure(nursery, Path(folder), arguments.rounds, arguments.epochs)
        figures |= asyncio.run(work)
    figures = {name: round(value, 3) for name, value in figures.items()}
    targets = {"target_ratio": TARGET_RATIO, "target_first_row_s": TARGET_START_S}
    if arguments.json:
        print(json.dumps(figures | targets))
        return
    for name, value in figures.items():
        target = targets.get(f"target_{name}")
        print(f"{name:12} {value:7.3f}" + (f"  (at most {target})" if target else ""))


if __name__ == "__main__":
    main()
