"""What a job goes on from was damaged, or its process dies of it again and again."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import lab.jobs.service
import tiny_jobs
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.jobs.nursery import Nursery
from lab.jobs.records import JobRecord, MetricRecord
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.state_files import checkpoint_file, checkpoints_folder, load_state
from lab.jobs.store import Store
from lab.scheduling.scheduler import HardwareScheduler
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")
LIMIT_S = 60.0  # no wait in these tests lasts so long unless something hangs
HOUR_S = 3600.0
SMALL = {"task": "vowels", "epochs": 12, "network": {"layers": 1}, "checkpoint_s": 0}
TRAINING = TrainConfig.model_validate({**SMALL, "twin": {"rows": 20}})

Opened = tuple[JobService, Store]
OpenJobs = Callable[[Path], Any]


@pytest.fixture
def open_jobs(monkeypatch: pytest.MonkeyPatch, nursery: Nursery | None) -> OpenJobs:
    """Return what opens a service whose trainings are tiny."""
    have_done(monkeypatch, tiny_jobs.tiny)

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Opened]:
        folder.mkdir(exist_ok=True)
        with Store(folder) as store, open_bench(BENCH, start=False) as bench:
            async with HardwareScheduler(bench.systems) as scheduler:
                runner = JobRunner(bench, scheduler, store, nursery=nursery)
                jobs = JobService(runner, store, 1)
                try:
                    await jobs.open()
                    yield jobs, store
                finally:
                    await jobs.close()

    return opened


async def ended(jobs: JobService, job_id: str) -> JobRecord:
    async with asyncio.timeout(LIMIT_S):
        seen = [item async for item in jobs.watch(job_id)]
    assert isinstance(seen[-1], JobRecord)
    return seen[-1]


async def epoch(jobs: JobService, job_id: str, number: int) -> None:
    """Wait for an epoch of a training."""
    async with asyncio.timeout(LIMIT_S):
        async for item in jobs.watch(job_id):
            if isinstance(item, MetricRecord) and item.metric.get("epoch") == number:
                return
    raise AssertionError(f"the job ended before: {item}")


async def outcome(jobs: JobService, store: Store, job_id: str) -> dict[str, Any]:
    """Return all that a training leaves, but for times and random names."""
    record = await ended(jobs, job_id)
    assert (record.state, record.error) == ("succeeded", "")
    kept = load_state(store.files, checkpoint_file(job_id))
    told = await jobs.metrics(job_id)
    return {
        "steps": [m.step for m in told],
        "metrics": [m.metric | {"seconds": 0} for m in told],
        **{name: {n: v.tolist() for n, v in kept[name].items()} for name in ("network", "twin")},
    }


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x55
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def add_a_foreign_one(file: Path) -> None:
    """Put a later file beside it that is whole, but no checkpoint."""
    content = b"holiday pictures"
    file.with_name(f"{10**9}-{hashlib.sha256(content).hexdigest()}.pt").write_bytes(content)


async def test_a_training_goes_on_from_before_what_was_damaged(
    open_jobs: OpenJobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_jobs(tmp_path / "whole") as (jobs, store):
        whole = await jobs.submit(TRAINING)
        expected = await outcome(jobs, store, whole.id)
    async with open_jobs(tmp_path / "stopped") as (jobs, _):
        job = await jobs.submit(TRAINING)
        await epoch(jobs, job.id, 4)
    # of three, the newest first; the last time from its beginning
    for damages in ([truncate, flip], [add_a_foreign_one, empty], [flip, truncate, empty]):
        names = [damage.__name__ for damage in damages]
        folder = tmp_path / " and ".join(names)
        shutil.copytree(tmp_path / "stopped", folder)
        newest = sorted((folder / checkpoints_folder(job.id)).iterdir(), reverse=True)
        assert len(newest) == 3
        for damage, file in zip(damages, newest, strict=False):
            damage(file)
        caplog.clear()
        async with open_jobs(folder) as (jobs, store):
            assert await outcome(jobs, store, job.id) == expected, names
        assert caplog.text.count("is passed over") >= len(names)


async def test_a_job_that_kills_its_service_again_and_again_fails(
    open_jobs: OpenJobs, tmp_path: Path
) -> None:
    async with open_jobs(tmp_path) as (jobs, _):
        job = await jobs.submit(TRAINING)
        await epoch(jobs, job.id, 1)
    with Store(tmp_path) as store:
        run = store.job(job.id).run
        for _ in range(11):  # what a service does, up to the moment in which it is killed
            assert store.claim_job(job.id, run, "local")
        assert store.deaths(job.id) == 10
    async with open_jobs(tmp_path) as (jobs, _):
        failed = await ended(jobs, job.id)
        assert failed.state == "failed"
        assert failed.error == ("its process died 10 times in a row, without a metric in between")
        assert (await jobs.go_on(job.id)).state == "pending"  # from its last checkpoint
        assert (await ended(jobs, job.id)).state == "succeeded"


async def test_what_waits_is_cancelled_though_the_clock_was_set_back(
    open_jobs: OpenJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_jobs(tmp_path) as (jobs, _):
        running = await jobs.submit(TRAINING.model_copy(update={"epochs": 10_000}))
        await epoch(jobs, running.id, 1)
        waiting = await jobs.submit(TRAINING)
        wall = lab.jobs.service.time.time
        monkeypatch.setattr(lab.jobs.service.time, "time", lambda: wall() - HOUR_S)
        await jobs.cancel_all("stopped by somebody")
        for job in (running, waiting):
            assert (await ended(jobs, job.id)).state == "cancelled"
