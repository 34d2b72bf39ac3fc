"""Where a job's numbers come from is kept with it, and the same job starts again from that."""

import functools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import opened_jobs
from lab.bench_config import BenchConfig
from lab.errors import Conflict, UnknownName
from lab.jobs.configs import CalibrateConfig, CompareConfig, EvaluateConfig
from lab.jobs.directory import Directory
from lab.jobs.kinds import JobConfig
from lab.jobs.records import FitConfig, JobRecord, Order
from lab.jobs.service import JobService
from opened_jobs import BENCH, BENCH_FILE, ended, metric, open_runner, reached, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

training = functools.partial(opened_jobs.training, seed=5)
TIMES = {"seconds": 0, "twin": "", "curve": []}


@asynccontextmanager
async def service(
    folder: Path, bench: BenchConfig | Path = BENCH_FILE
) -> AsyncIterator[JobService]:
    async with open_runner(folder, bench) as runner:
        runner.directory = Directory(runner.bench, "lab1")
        runner.scheduler.set_calibration("optics", "monday")
        async with serving(runner) as jobs:
            yield jobs


async def done(jobs: JobService, config: JobConfig, order: Order = Order()) -> JobRecord:  # noqa: B008
    record = await ended(jobs, (await jobs.submit(config, order)).id)
    assert (record.state, record.error) == ("succeeded", "")
    return record


async def test_a_job_keeps_all_that_its_numbers_come_from(tmp_path):
    async with service(tmp_path) as jobs:
        job = await done(jobs, training())
        found = await jobs.provenance(job.id)
        result = await jobs.result(job.id)
    assert found["config"] == job.config
    assert found["bench"]["config"] == BENCH.model_dump(mode="json")
    assert len(found["bench"]["text_digest"]) == 64
    assert found["packages"]["torch"]
    assert found["seeds"]["seed"] == 5
    assert found["calibrations"] == {"optics": "monday"}
    assert (found["started_s"], found["finished_s"]) == (job.started_s, job.finished_s)
    assert found["twins"] == {result["twin"]: result["twin_digest"]}
    [attempt] = found["attempts"]
    assert (attempt["attempt"], attempt["run"], attempt["host"]) == (1, 1, "lab1")
    assert attempt["changed"] == []


async def test_it_says_who_worked_on_the_job_and_what_had_changed(tmp_path):
    async with service(tmp_path) as jobs:
        job = await jobs.submit(training(epochs=100))
        await metric(jobs, job.id, "epoch")
    slower = BENCH.model_copy(update={"watchdog_s": 99.0})  # measures the same
    async with service(tmp_path, slower) as jobs:
        jobs._runner.software["packages"]["torch"] = "99.0"
        await ended(jobs, job.id)
        found = await jobs.provenance(job.id)
    first, second = found["attempts"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    [change] = second["changed"]
    assert change.startswith("torch ")
    assert change.endswith(" → 99.0")
    assert found["packages"]["torch"] != "99.0"
    assert found["bench"]["config"]["watchdog_s"] == BENCH.watchdog_s


async def test_a_training_and_a_fit_end_again_as_they_did(tmp_path):
    async with service(tmp_path) as jobs:
        late = time.time() + 3600
        trained = await done(jobs, training(deadline_s=late), Order(client="a", tags=("x",)))
        fit = await done(jobs, FitConfig(rows=20, kind="neural", seed=3))
        for job in (trained, fit):
            started, changed = await jobs.rerun(job.id, Order(client="b"))
            again = await ended(jobs, started.id)
            assert changed == []
            assert again.config == job.config | {"deadline_s": None}
            assert (again.origin, again.tags) == (f"rerun of {job.id}", job.tags)
            assert again.client == "b"
            then, now = [await jobs.result(j.id) for j in (job, again)]
            if job is trained:
                assert now | TIMES == then | TIMES
                curves = [[p | {"seconds": 0} for p in r["curve"]] for r in (then, now)]
                assert curves[0] == curves[1]
            else:
                assert now["report"]["digest"] == then["report"]["digest"]


async def test_jobs_that_look_at_a_device_run_again_too(tmp_path):
    async with service(tmp_path) as jobs:
        trained = await done(jobs, training())
        tested = await done(jobs, EvaluateConfig(job=trained.id, seed=4))
        calibrated = await done(jobs, CalibrateConfig(rows=128, name="tuesday"))
        twins = [(await jobs.provenance(job.id))["twins"] for job in (trained, tested)]
        assert twins[0] == twins[1] != {}
        started, _ = await jobs.rerun(tested.id)
        again = await ended(jobs, started.id)
        accuracies = [(await jobs.result(j.id))["accuracy"] for j in (tested, again)]
        assert accuracies[0] == accuracies[1]
        started, changed = await jobs.rerun(calibrated.id)
        assert changed == ["calibration of optics monday → tuesday"]
        assert (await ended(jobs, started.id)).state == "succeeded"


async def test_a_rerun_says_what_has_changed_since(tmp_path):
    async with service(tmp_path) as jobs:
        job = await done(jobs, training())
    rig = BENCH.rigs["optics"].model_copy(update={"gap": 2.0})
    async with service(tmp_path, BENCH.model_copy(update={"rigs": {"optics": rig}})) as jobs:
        _, changed = await jobs.rerun(job.id)
    assert changed == ["bench changed: rigs.optics.gap"]


async def test_a_rerun_of_a_job_that_was_continued_has_its_last_settings(tmp_path):
    async with service(tmp_path) as jobs:
        job = await jobs.submit(training(epochs=10_000))
        await metric(jobs, job.id, "epoch")
        await jobs.pause(job.id)
        await reached(jobs, job.id, "paused")
        await jobs.go_on(job.id, {"epochs": 5000, "priority": 7})
        await jobs.cancel(job.id)
        await ended(jobs, job.id)
        again, changed = await jobs.rerun(job.id)
        assert again.config == job.config | {"epochs": 5000, "priority": 7}
        assert changed == ["epochs 10000 → 5000, now from the start"]
        await jobs.cancel(again.id)


async def test_a_key_starts_a_rerun_once(tmp_path):
    async with service(tmp_path) as jobs:
        job = await done(jobs, training())
        twice = [(await jobs.rerun(job.id, Order(key="k")))[0].id for _ in range(2)]
        assert twice[0] == twice[1] != job.id
        await ended(jobs, twice[0])


async def test_what_has_not_started_has_no_provenance(tmp_path):
    async with service(tmp_path) as jobs:
        with pytest.raises(UnknownName):
            await jobs.provenance("nope")
        with pytest.raises(UnknownName):
            await jobs.rerun("nope")
        first = await jobs.submit(training(epochs=10_000))
        second = await jobs.submit(training(seed=6))
        with pytest.raises(Conflict, match="it is pending"):
            await jobs.provenance(second.id)
        for job in (second, first):
            await jobs.cancel(job.id)


async def test_a_comparison_runs_again_with_parts_of_its_own(tmp_path):
    small = {"methods": ["in-silico"], "controls": [], "seeds": 1, "epochs": 1, "layers": 1}
    config = CompareConfig.model_validate({**small, "twin_kind": "neural", "twin_rows": [20]})
    async with service(tmp_path) as jobs:
        job = await done(jobs, config)
        started, changed = await jobs.rerun(job.id)
        again = await ended(jobs, started.id)
        assert (again.state, again.config, changed) == ("succeeded", job.config, [])
        assert (await jobs.provenance(job.id))["config"] == job.config
        parts = [{j.id for j in await jobs.newest(parent=each.id)} for each in (job, again)]
        assert parts[0]
        assert len(parts[0]) == len(parts[1])
        assert not parts[0] & parts[1]
