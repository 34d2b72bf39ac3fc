"""What it costs that a job computes in a process of its own and not in a thread of the service.

    python tests/benchmarks/trainer_process.py [--json] [--rounds N] [--epochs E]

The same training of the vowels with `pat-refit`, its twin fitted before, in a thread and in a
process, in turns: `ratio` is the median over the rounds of process over thread, wall time from
the job's start to its end. `first_row_s` is the median time from its start to its first measured
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
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.store import Store
from lab.scheduling.scheduler import HardwareScheduler
from server.serve import SWITCH_INTERVAL_S

ROOT = Path(__file__).resolve().parents[2]
TARGET_RATIO, TARGET_START_S = 1.02, 1.0


async def one_job(jobs: JobService, config: TrainConfig) -> tuple[float, float]:
    """Run a job; return the times from its start to its first row and to its end, s."""
    first_s = 0.0
    job = await jobs.submit(config)
    while not (record := await jobs.get(job.id)).ended:
        await asyncio.sleep(0.005)
        live = jobs._performer.live.get(job.id)
        if not first_s and live is not None and live.rows.estimate(None).rows_done:
            first_s = time.time()
    if record.state != "succeeded" or record.started_s is None or record.finished_s is None:
        raise RuntimeError(f"the job is {record.state}: {record.error}")
    return first_s - record.started_s, record.finished_s - record.started_s


async def jobs_in_a_row(nursery: Nursery | None, folder: Path, epochs: int) -> tuple[float, float]:
    """Return the times of a training whose twin is fitted before, in a service of its own."""
    config = TrainConfig.model_validate(
        {"task": "vowels", "method": "pat-refit", "epochs": epochs, "twin": {"rows": 100}}
    )
    folder.mkdir(exist_ok=True)
    with Store(folder) as store, open_bench(load_bench(ROOT / "bench.toml"), start=False) as bench:
        async with HardwareScheduler(bench.systems) as scheduler:
            jobs = JobService(JobRunner(bench, scheduler, store, nursery=nursery), store)
            await jobs.open()
            try:
                if not store.twins():
                    await one_job(jobs, config.model_copy(update={"epochs": 1}))
                return await one_job(jobs, config)
            finally:
                await jobs.close()


async def measure(nursery: Nursery, folder: Path, rounds: int, epochs: int) -> dict[str, float]:
    """Return the figures."""
    places: dict[str, Nursery | None] = {"thread": None, "process": nursery}
    seconds: dict[str, list[float]] = {name: [] for name in places}
    first_s: list[float] = []
    for number in range(rounds):
        for name in sorted(places, reverse=bool(number % 2)):
            began_s, whole_s = await jobs_in_a_row(places[name], folder / name, epochs)
            seconds[name].append(whole_s)
            first_s += [began_s] if name == "process" else []
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
