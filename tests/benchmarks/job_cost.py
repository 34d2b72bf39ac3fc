"""What it costs a training that it is a job: of a service, and not `lab.trainer.train` alone.

    python tests/benchmarks/job_cost.py [--json] [--rounds N] [--epochs E]

The same training of the vowels with `pat-refit`, its twin fitted before, directly and as a job in a
trainer process, in turns, one thread of torch each. ratio: median over the rounds of the job's wall
time, from its start to its end, over the direct one; it can be below 1, for drivers and plant then
compute beside torch. claim_end_s: wall time of the job's claim and its end in the database. The
shares are of the job's wall time: engine: processor time of the engine's threads and of the sweep,
which share the cores with the training; serving: of the thread that serves its trainer process,
row by row; metrics: wall time for which that thread keeps metrics, while the training goes on;
checkpoints: wall time that the training waits for one every 20 s (they are written more often here
and counted as that many). The rest of the ratio is the process, its pipe, and the scheduler.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import torch

import lab.jobs.housekeeping
import lab.jobs.runner
import tiny_jobs
from lab.apparatus import open_apparatus
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.datasets import load
from lab.jobs.job_desk import JobDesk
from lab.jobs.nursery import Nursery
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.store import Store
from lab.recipes import completed
from lab.scheduling.scheduler import HardwareScheduler
from lab.trainer import train
from lab.twins import FittedTwin
from server.serve import SWITCH_INTERVAL_S
from twins.base import frozen
from twins.fitting import TwinError

ROOT = Path(__file__).resolve().parents[2]
EVERY_S, HERE_S = 20.0, 1.0  # between two checkpoints: as is usual, and in this benchmark
TARGETS = {"engine": 0.01}
_SERVING = ("dbos-executor",)  # the engine's, which a job keeps from its claim to its end
_ENGINES = ("queue", "dbos-background", "run_notification", "scheduler_loop", "_run_event_loop")
Spent = dict[str, list[float]]


@contextmanager
def noted(spent: Spent) -> Iterator[None]:
    """Note the time of what is done for a job beside its work, s."""
    with ExitStack() as stack:
        # its twin is fitted in a few steps, once
        stack.enter_context(patch.object(lab.jobs.runner, "do", tiny_jobs.real_data))
        for what, owner, name, clock in (
            ("claim and end", Store, "claim_job", time.perf_counter),
            ("claim and end", Store, "end_job", time.perf_counter),
            ("metrics", Store, "add_metric", time.perf_counter),
            ("checkpoints", JobDesk, "write", time.perf_counter),
            ("sweep", lab.jobs.housekeeping, "sweep", time.thread_time),
        ):
            call = timed(getattr(owner, name), spent[what], clock)
            stack.enter_context(patch.object(owner, name, call))
        yield


def timed(call: Callable[..., Any], times: list[float], clock: Callable[[], float]) -> Any:
    def calling(*args: Any, **options: Any) -> Any:
        began = clock()
        try:
            return call(*args, **options)
        finally:
            times.append(clock() - began)

    return calling


def threads_s(words: tuple[str, ...]) -> float:
    """Return the processor time so far of the threads that are called so, s."""
    found = 0.0
    for thread in threading.enumerate():
        ours = any(word in thread.name for word in words)
        if ours and thread.native_id is not None:
            stat = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
            found += int(stat.split()[0]) / 1e9
    return found


def directly(config: TrainConfig) -> float:
    """Return the time of the training alone, s."""
    with open_bench(ROOT / "bench.toml") as bench:
        system = bench.config.systems[config.system]
        config = completed(config, system.system)
        twin = frozen(bench.new_twin(config.system, config.twin.kind))
        error = TwinError(r2=0.0, normalised=1.0, shape_r2=0.0)
        fitted = FittedTwin(twin, config.twin.kind, config.system, 0, 0, 0, 0.0, error, None)
        began = time.perf_counter()
        train(config, load(config.task), fitted, open_apparatus(bench, config.system))
        return time.perf_counter() - began


async def as_job(config: TrainConfig, folder: Path, nursery: Nursery, spent: Spent) -> float:
    """Return the time of the training as a job, s."""
    folder.mkdir(exist_ok=True)
    with Store(folder) as store, open_bench(load_bench(ROOT / "bench.toml"), start=False) as bench:
        async with HardwareScheduler(bench.systems) as scheduler:
            jobs = JobService(JobRunner(bench, scheduler, store, nursery=nursery), store)
            await jobs.open()
            try:
                if not store.twins():
                    with noted(defaultdict(list)):
                        await one_job(jobs, config.model_copy(update={"epochs": 1}))
                began_s = threads_s(_ENGINES), threads_s(_SERVING)
                with noted(spent):
                    whole_s = await one_job(jobs, config)
                spent["engine's threads"].append(threads_s(_ENGINES) - began_s[0])
                spent["serving"].append(threads_s(_SERVING) - began_s[1])
                return whole_s
            finally:
                await jobs.close()


async def one_job(jobs: JobService, config: TrainConfig) -> float:
    job = await jobs.submit(config)
    *_, record = [item async for item in jobs.watch(job.id)]
    if record.state != "succeeded":  # type: ignore[union-attr]
        raise RuntimeError(f"the job has failed: {record}")
    return float(record.finished_s - record.started_s)  # type: ignore[union-attr, operator]


def measure(nursery: Nursery, folder: Path, rounds: int, epochs: int) -> dict[str, float]:
    """Return the figures."""
    config = TrainConfig.model_validate(
        {"task": "vowels", "method": "pat-refit", "epochs": epochs, "twin": {"rows": 100}}
        | {"checkpoint_s": HERE_S, "train_images": 64, "test_images": 16}
    )
    spent: Spent = defaultdict(list)
    alone: list[float] = []
    jobs: list[float] = []
    for number in range(rounds):
        ways: list[Callable[[], None]] = [
            lambda: alone.append(directly(config)),
            lambda: jobs.append(asyncio.run(as_job(config, folder, nursery, spent))),
        ]
        for way in ways if number % 2 else reversed(ways):
            way()
    whole = sum(jobs)
    own = sum(sum(spent[name]) for name in ("engine's threads", "sweep"))
    return {
        "direct_s": statistics.median(alone),
        "job_s": statistics.median(jobs),
        "ratio": statistics.median(j / d for j, d in zip(jobs, alone, strict=True)),
        "claim_end_s": sum(spent["claim and end"]) / rounds,
        "engine": own / whole,
        "serving": sum(spent["serving"]) / whole,
        "metrics": sum(spent["metrics"]) / whole,
        "checkpoints": statistics.mean(spent["checkpoints"]) / EVERY_S,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure what a job costs beside its work.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--epochs", type=int, default=20, help="length of a training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with closing(Nursery()) as nursery, tempfile.TemporaryDirectory() as folder:
        figures = measure(nursery, Path(folder) / "jobs", options.rounds, options.epochs)
    figures = {name: round(value, 4) for name, value in figures.items()}
    if options.json:
        print(json.dumps(figures | {"targets": TARGETS}))
        return
    for name, value in figures.items():
        target = TARGETS.get(name)
        print(f"{name:12} {value:8.4f}" + (f"  (at most {target})" if target else ""))


if __name__ == "__main__":
    main()
