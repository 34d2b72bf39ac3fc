"""A job's rows are all recorded, once, also of one that was broken off and went on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tiny_jobs
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.jobs.records import FitConfig, MetricRecord
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.store import Store
from lab.recording.reading import open_rows
from lab.recording.recorder import RowRecorder
from lab.scheduling.scheduler import HardwareScheduler
from lab.twins import HELD_OUT_ROWS
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

BENCH = load_bench(Path(__file__).parents[3] / "bench.toml")
LIMIT_S = 60.0
VALUES = ("time_s", "x", "theta", "y", "saturated")


@pytest.fixture
def tiny(monkeypatch):
    have_done(monkeypatch, tiny_jobs.tiny)


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[JobService]:
    folder.mkdir(exist_ok=True)
    with (
        Store(folder) as store,
        open_bench(BENCH, start=False) as bench,
        RowRecorder(
            folder / "rows",
            lambda name: bench.system(name).description,
            bench="",
            ended=lambda job: store.job(job).ended,
        ) as recorder,
    ):
        async with HardwareScheduler(bench.systems) as scheduler:
            jobs = JobService(JobRunner(bench, scheduler, store, recorder=recorder), store, 1)
            try:
                await jobs.open()
                yield jobs
            finally:
                await jobs.close()


def training(**fields) -> TrainConfig:
    small = {"task": "vowels", "epochs": 12, "network": {"layers": 1}, "checkpoint_s": 0}
    return TrainConfig.model_validate({**small, "twin": {"rows": 20, "kind": "neural"}, **fields})


async def ended(jobs: JobService, job_id: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        async for item in jobs.watch(job_id):
            last = item
    assert last.state == "succeeded", last.error


async def epochs(jobs: JobService, job_id: str, number: int) -> None:
    """Wait for so many epochs."""
    async with asyncio.timeout(LIMIT_S):
        async for item in jobs.watch(job_id):
            if isinstance(item, MetricRecord) and item.metric["kind"] == "epoch":
                number -= 1
                if number == 0:
                    return


def rows_of(folder: Path, job_id: str) -> xr.Dataset:
    """Return what is recorded of a job, in the order of the keys."""
    found = open_rows(folder / "rows" / f"{job_id}.zarr").load()
    return found.isel(row=np.lexsort((found["index"].values, found.stream.values)))


async def test_the_rows_of_a_training_are_those_of_its_ledger_and_its_twins_fit(tmp_path):
    async with service(tmp_path) as jobs:
        job = await jobs.submit(training(method="pat-refit", checks=2))
        await ended(jobs, job.id)
        result = await jobs.result(job.id)
        found = rows_of(tmp_path, job.id)  # all of them, as soon as the job has ended
    assert result["ledger"]["twin"] > HELD_OUT_ROWS
    assert found.sizes["row"] == sum(result["ledger"].values())
    assert found.attrs["system"] == "optics"
    assert found.y.units == "W"
    assert (found.shot.values < found.sizes["row"]).all()
    assert len(set(found.shot.values.tolist())) == found.sizes["row"]


async def test_a_fits_rows_are_recorded(tmp_path):
    async with service(tmp_path) as jobs:
        job = await jobs.submit(FitConfig(rows=20, kind="neural"))
        await ended(jobs, job.id)
    assert rows_of(tmp_path, job.id).sizes["row"] == 20 + HELD_OUT_ROWS


async def test_a_job_that_went_on_has_the_rows_of_one_that_never_stopped(tmp_path):
    async with service(tmp_path / "whole") as jobs:
        whole = await jobs.submit(training())
        await ended(jobs, whole.id)
    async with service(tmp_path / "parts") as jobs:
        job = await jobs.submit(training())
        await epochs(jobs, job.id, 2)
    async with service(tmp_path / "parts") as jobs:
        await epochs(jobs, job.id, 5)
    async with service(tmp_path / "parts") as jobs:
        await ended(jobs, job.id)
    expected, found = rows_of(tmp_path / "whole", whole.id), rows_of(tmp_path / "parts", job.id)
    for name in ("stream", "index", *VALUES):
        assert found[name].values.tobytes() == expected[name].values.tobytes(), name
