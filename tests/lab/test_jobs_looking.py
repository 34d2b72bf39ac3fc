"""Jobs that calibrate and evaluate, on the simulated bench with a tiny task."""

import asyncio
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import lab.jobs.runner
import opened_jobs
import tiny_jobs
from lab.errors import ConfigError, UnknownName
from lab.jobs.configs import CalibrateConfig, CompareConfig, EvaluateConfig
from lab.jobs.kinds import KINDS, kind_of
from lab.jobs.live_job import LiveJob
from lab.jobs.records import FitConfig, JobRecord, Order
from lab.jobs.service import JobService
from lab.jobs.state_files import checkpoint_file
from lab.scheduling.scheduler import HardwareScheduler
from opened_jobs import BENCH, LIMIT_S, ended, open_jobs
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

SMALL = CalibrateConfig(rows=128)
training = functools.partial(opened_jobs.training, method="pat")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(lab.jobs.runner, "load", tiny_jobs.tiny_dataset)
    have_done(monkeypatch, tiny_jobs.tiny)


@dataclass
class Opened:
    jobs: JobService

    @property
    def scheduler(self) -> HardwareScheduler:
        return self.jobs._runner.scheduler

    async def done(self, config) -> JobRecord:
        record = await self.jobs.submit(config, Order(client="ann"))
        return await ended(self.jobs, record.id)

    async def result(self, config) -> dict:
        record = await self.done(config)
        assert record.state == "succeeded", record.error
        return {**await self.jobs.result(record.id), "job_id": record.id}


@pytest.fixture
async def there(tmp_path):
    async with open_jobs(tmp_path, workers=2) as jobs:
        yield Opened(jobs)


async def test_every_config_has_its_kind():
    compared = CompareConfig(methods=("pat",))
    configs = [training(), FitConfig(), SMALL, EvaluateConfig(job="1"), compared]
    assert [kind_of(config) for config in configs] == list(KINDS)
    with pytest.raises(TypeError, match="BenchConfig"):
        kind_of(BENCH)


async def test_a_calibration_is_in_force_afterwards(there):
    result = await there.result(SMALL)
    name = f"calibrate-{result['job_id']}"
    assert (result["name"], result["applied"]) == (name, True)
    assert there.scheduler.status("optics").calibration == name
    metrics = await there.jobs.metrics(result["job_id"])
    assert [m.metric["round"] for m in metrics] == list(range(1, 9))
    record = await there.jobs.get(result["job_id"])
    assert (record.kind, record.client) == ("calibrate", "ann")


async def test_a_look_for_drift_leaves_the_calibration_as_it_is(there):
    named = SMALL.model_copy(update={"name": "monday"})
    first = await there.result(named)
    look = await there.result(SMALL.model_copy(update={"apply": False, "wait_s": 3600.0}))
    assert there.scheduler.status("optics").calibration == "monday"
    assert (look["since"]["job"], look["since"]["name"]) == (first["job_id"], "monday")
    assert look["since"]["digest"] == first["digest"]
    assert look["next_time_s"] > 3600 + first["next_time_s"]
    assert first["since"] is None


async def test_a_reserved_system_keeps_its_calibration(there, monkeypatch):
    """Somebody reserves it after the last row and before the calibration is named."""
    calibrate = lab.jobs.looking.calibrate
    reserved = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def reserve() -> None:
        await there.scheduler.reserve("optics", ttl_s=60, owner="eve")
        reserved.set()

    def then_reserved(*args, **options):
        found = calibrate(*args, **options)
        asyncio.run_coroutine_threadsafe(reserve(), loop).result(LIMIT_S)
        return found

    monkeypatch.setattr(lab.jobs.looking, "calibrate", then_reserved)
    record = await there.done(SMALL)
    assert record.state == "failed"
    assert record.error.startswith("Conflict: optics is reserved by eve")
    assert there.scheduler.status("optics").calibration == ""


async def a_second_calibration(there: Opened) -> CalibrateConfig:
    await there.result(SMALL)
    return SMALL


async def an_evaluation(there: Opened) -> EvaluateConfig:
    return EvaluateConfig(job=(await there.result(training()))["job_id"])


@contextmanager
def held_after(metrics: int) -> Iterator[asyncio.Event]:
    """Hold every job after so many metrics until it is stopped; give what tells that one is."""
    tell, reached, loop = LiveJob.metric, asyncio.Event(), asyncio.get_running_loop()

    def hold(job: LiveJob, metric: Mapping[str, Any]) -> None:
        tell(job, metric)
        if job._steps == metrics:
            loop.call_soon_threadsafe(reached.set)
            job.pause(LIMIT_S)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiveJob, "metric", hold)
        yield reached


@pytest.mark.parametrize("prepare", [a_second_calibration, an_evaluation])
async def test_an_interrupted_look_begins_anew_with_the_same_numbers(tmp_path, prepare):
    async with open_jobs(tmp_path / "peace", workers=2) as jobs:
        there = Opened(jobs)
        job = await jobs.submit(await prepare(there))
        assert (await ended(jobs, job.id)).state == "succeeded"
        expected, told = await jobs.result(job.id), await jobs.metrics(job.id)
    async with open_jobs(tmp_path, workers=2) as jobs:
        there = Opened(jobs)
        config = await prepare(there)
        with held_after(2) as reached:
            job = await jobs.submit(config)
            async with asyncio.timeout(LIMIT_S):
                await reached.wait()
            await jobs.close()
        assert not jobs._store.job(job.id).ended
    async with open_jobs(tmp_path, workers=2) as jobs:
        assert (await ended(jobs, job.id)).state == "succeeded"
        assert await jobs.metrics(job.id) == told
        again = await jobs.result(job.id)
    for result in (expected, again):
        for key in ("seconds", "job", "name"):
            result.pop(key, None)
        if "since" in result:
            result["since"] = result["since"]["change"]
    assert again == expected


async def test_a_trained_network_is_tested_again(there):
    trained = await there.result(training())
    found = await there.result(EvaluateConfig(job=trained["job_id"]))
    assert found["then"] == trained["test_accuracy"]
    assert found["confusion_then"] == trained["confusion"]
    assert found["classes"] == ["a", "b", "c"]
    assert found["samples"] == found["rows"] == 8
    record = await there.jobs.get(found["job_id"])
    assert (record.kind, record.config["system"]) == ("evaluate", "optics")


async def test_what_cannot_be_evaluated_is_refused(there):
    fit = await there.done(FitConfig(rows=20, kind="neural"))
    with pytest.raises(ConfigError, match=f"job '{fit.id}' is a fit job"):
        await there.jobs.submit(EvaluateConfig(job=fit.id))
    with pytest.raises(UnknownName, match="no job 'nope'"):
        await there.jobs.submit(EvaluateConfig(job="nope"))
    done = await there.done(training(method="in-silico"))
    with pytest.raises(ConfigError, match="trained on 'optics', not on 'plate'"):
        await there.jobs.submit(EvaluateConfig(job=done.id, system="plate"))
    there.jobs._store.files.delete(checkpoint_file(done.id))
    lost = await there.done(EvaluateConfig(job=done.id))
    assert (lost.state, lost.error.partition(":")[0]) == ("failed", "DataError")
    control = await there.done(training(control="identity"))
    with pytest.raises(ConfigError, match="control 'identity'"):
        await there.jobs.submit(EvaluateConfig(job=control.id))


async def test_an_evaluation_of_too_many_samples_fails(there):
    trained = await there.result(training())
    record = await there.done(EvaluateConfig(job=trained["job_id"], samples=9))
    assert record.state == "failed"
    assert "samples: 9 of the 8 test samples" in record.error
