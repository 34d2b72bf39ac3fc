"""A job's rows are all recorded, once, also of one that was broken off and went on."""

import asyncio
import functools
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import opened_jobs
import tiny_jobs
from lab.jobs.nursery import Nursery
from lab.jobs.records import FitConfig
from lab.jobs.service import JobService
from lab.recording.reading import open_rows
from lab.recording.recorder import RowRecorder
from lab.recording.writer import read_metadata
from lab.systems.base import PhysicalSystem
from lab.twins import HELD_OUT_ROWS
from opened_jobs import LIMIT_S, open_runner, reached, serving
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

training = functools.partial(
    opened_jobs.training, epochs=12, checkpoint_s=0, twin={"rows": 20, "kind": "neural"}
)
VALUES = ("time_s", "x", "theta", "y", "saturated")


@pytest.fixture
def tiny(monkeypatch):
    have_done(monkeypatch, tiny_jobs.tiny)


@asynccontextmanager
async def service(folder: Path, nursery: Nursery | None = None) -> AsyncIterator[JobService]:
    """Open jobs whose rows are recorded."""
    async with open_runner(folder, nursery=nursery) as runner:
        with RowRecorder(
            folder / "rows",
            lambda name: runner.bench.system(name).description,
            bench="",
            ended=lambda job: runner.store.job(job).ended,
        ) as recorder:
            runner.recorder = recorder
            async with serving(runner) as jobs:
                yield jobs


class Slowly:
    """What measures as `measure` does, in 1 ms more; counts rows."""

    def __init__(self, measure: Callable[..., Any]) -> None:
        self.rows = 0
        self._measure = measure

    def __call__(self, *arguments: Any) -> Any:
        time.sleep(0.001)
        rows = self._measure(*arguments)
        self.rows += len(rows.y)
        return rows

    async def more(self, jobs: JobService, job_id: str, rows: int) -> None:
        """Wait until so many rows more have been measured, or the job has ended."""
        until = self.rows + rows
        async with asyncio.timeout(LIMIT_S):
            while self.rows < until and not (await jobs.get(job_id)).ended:
                await asyncio.sleep(0.002)


@pytest.fixture
def slowly(monkeypatch) -> Slowly:
    slowly = Slowly(PhysicalSystem.measure)
    monkeypatch.setattr(PhysicalSystem, "measure", lambda *arguments: slowly(*arguments))
    return slowly


def rows_of(folder: Path, job_id: str) -> xr.Dataset:
    """Return what is recorded of a job, in the order of the keys."""
    found = open_rows(folder / "rows" / f"{job_id}.zarr").load()
    return found.isel(row=np.lexsort((found["index"].values, found.stream.values)))


async def test_the_rows_of_a_training_are_those_of_its_ledger_and_its_twins_fit(tmp_path):
    async with service(tmp_path) as jobs:
        job = await jobs.submit(training(method="pat-refit", checks=2))
        await reached(jobs, job.id, "succeeded")
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
        await reached(jobs, job.id, "succeeded")
    assert rows_of(tmp_path, job.id).sizes["row"] == 20 + HELD_OUT_ROWS


@pytest.mark.parametrize(
    "config",
    [training(), training(network={"layers": 3}, micro_batches=2), FitConfig(rows=99)],
    ids=["training", "training in micro-batches", "fit"],
)
async def test_what_is_stopped_anywhere_measures_no_row_twice(tmp_path, slowly, nursery, config):
    """Neither those of the step in which it was stopped, nor those of a fit."""
    async with service(tmp_path / "whole", nursery) as jobs:
        whole = await jobs.submit(config)
        await reached(jobs, whole.id, "succeeded")
    expected = rows_of(tmp_path / "whole", whole.id)
    rows, folder = expected.sizes["row"], tmp_path / "parts"
    async with service(folder, nursery) as jobs:
        job = await jobs.submit(config)
    stops = 0
    while True:
        async with service(folder, nursery) as jobs:
            await slowly.more(jobs, job.id, random.randrange(rows // 4, rows // 2))
            if (await jobs.get(job.id)).ended:
                break
        stops += 1
    assert stops > 1
    found = rows_of(folder, job.id)
    for name in ("stream", "index", *VALUES):
        assert found[name].values.tobytes() == expected[name].values.tobytes(), name
    assert recorded(folder, job.id) == rows


async def test_what_is_continued_by_hand_measures_anew(tmp_path, slowly, nursery):
    """Who does so may have mended what was wrong with the rows."""
    async with service(tmp_path, nursery) as jobs:
        job = await jobs.submit(FitConfig(rows=99))
        await slowly.more(jobs, job.id, 10)
        await jobs.pause(job.id)
        await reached(jobs, job.id, "paused")
        before = recorded(tmp_path, job.id)
        await jobs.go_on(job.id)
        await reached(jobs, job.id, "succeeded")
    assert recorded(tmp_path, job.id) == before + 99 + HELD_OUT_ROWS


def recorded(folder: Path, job_id: str) -> int:
    """Return how many rows were recorded; one that was measured twice counts twice."""
    found = read_metadata(folder / "rows" / f"{job_id}.zarr")
    return int(found["metadata"]["index/.zarray"]["shape"][0])
