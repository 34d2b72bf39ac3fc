"""The jobs of a folder on the simulated bench, as `pnnlab serve` opens them, and waits for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.config import TrainConfig
from lab.jobs.directory import Directory
from lab.jobs.hosts import HostBook
from lab.jobs.records import JobRecord, MetricRecord
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.state_files import checkpoint_file, load_state
from lab.jobs.store import Store
from lab.scheduling.scheduler import HardwareScheduler

BENCH_FILE = Path(__file__).parents[2] / "bench.toml"
BENCH = load_bench(BENCH_FILE)
LIMIT_S = 60.0  # no wait for a job lasts so long unless something hangs
LONG = {"epochs": 10_000}


@asynccontextmanager
async def open_runner(
    folder: Path,
    bench: BenchConfig | Path = BENCH,
    url: str | None = None,
    *,
    shared: bool = False,
    **parts: Any,
) -> AsyncIterator[JobRunner]:
    """Open what a service of jobs stands on; url: a database's, else SQLite.

    shared: with other services. parts: what else the runner is given.
    """
    folder.mkdir(exist_ok=True)
    with Store(folder, url) as store, open_bench(bench, start=False) as opened:
        async with HardwareScheduler(opened.systems) as scheduler:
            if shared:
                parts["directory"] = Directory(opened, book=HostBook(store.database))
            yield JobRunner(opened, scheduler, store, **parts)


@asynccontextmanager
async def serving(runner: JobRunner, workers: int = 1) -> AsyncIterator[JobService]:
    """Open a service of jobs."""
    jobs = JobService(runner, runner.store, workers)
    try:
        await jobs.open()
        yield jobs
    finally:
        await jobs.close()


@asynccontextmanager
async def open_jobs(
    folder: Path, bench: BenchConfig | Path = BENCH, *, workers: int = 1, **options: Any
) -> AsyncIterator[JobService]:
    """Open a service of jobs and what it stands on; options: see `open_runner`."""
    async with open_runner(folder, bench, **options) as runner, serving(runner, workers) as jobs:
        yield jobs


def training(**fields: Any) -> TrainConfig:
    """Return the config of a training that takes a moment."""
    small = {"task": "vowels", "epochs": 2, "network": {"layers": 1}}
    return TrainConfig.model_validate({**small, "twin": {"rows": 20}, **fields})


async def followed(jobs: JobService, job_id: str) -> list[JobRecord | MetricRecord]:
    """Return all that a watcher hears of a job until its end, or that of the service."""
    async with asyncio.timeout(LIMIT_S):
        return [item async for item in jobs.watch(job_id)]


async def ended(jobs: JobService, job_id: str) -> JobRecord:
    """Wait for the end of a job; return it as it ended."""
    last = (await followed(jobs, job_id))[-1]
    assert isinstance(last, JobRecord)
    assert last.ended
    return last


async def reached(jobs: JobService, job_id: str, state: str) -> JobRecord:
    """Wait until a job is in a state."""
    async with asyncio.timeout(LIMIT_S):
        async for item in jobs.watch(job_id):
            if isinstance(item, JobRecord) and (item.state == state or item.ended):
                assert item.state == state, item.error
                return item
    raise AssertionError(f"job {job_id} was not {state}")


async def metric(
    jobs: JobService, job_id: str, kind: str | None = None, number: int = 1, since: int = 0
) -> MetricRecord:
    """Wait for a job's metric of a kind (None: any), the `number`th after step `since`."""
    async with asyncio.timeout(LIMIT_S):
        async for item in jobs.watch(job_id, since=since):
            if isinstance(item, MetricRecord) and kind in (None, item.metric["kind"]):
                number -= 1
                if number == 0:
                    return item
    raise AssertionError(f"the job ended before: {item}")


async def outcome(jobs: JobService, job_id: str) -> dict[str, Any]:
    """Return all that a training leaves, but for times and random names."""
    record = await ended(jobs, job_id)
    assert (record.state, record.error) == ("succeeded", "")
    result = await jobs.result(job_id)
    curve = [m | {"seconds": 0} for m in result["curve"]]
    kept = load_state(jobs._store.files, checkpoint_file(job_id))
    return {
        "result": result | {"seconds": 0, "twin": "", "curve": curve},
        "metrics": [(m.step, m.metric | {"seconds": 0}) for m in await jobs.metrics(job_id)],
        **{name: {n: v.tolist() for n, v in kept[name].items()} for name in ("network", "twin")},
    }
