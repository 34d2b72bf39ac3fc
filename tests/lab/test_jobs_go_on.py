"""Jobs that a service leaves unfinished go on in the next one, as if nothing had happened."""

import asyncio
import functools
import random
import time
from pathlib import Path

import pytest
import torch

import lab.jobs.runner
import opened_jobs
import tiny_jobs
from lab.checkpoints import CheckpointFolder
from lab.errors import SystemClosed
from lab.jobs.records import FitConfig, MetricRecord, Order
from lab.jobs.state_files import checkpoints_folder
from lab.jobs.store import Store
from lab.jobs.tables import jobs as jobs_table
from opened_jobs import BENCH, ended, followed, metric, open_jobs, outcome
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

EPOCHS = 40
training = functools.partial(opened_jobs.training, epochs=EPOCHS, checkpoint_s=0)


async def test_a_training_goes_on_as_if_the_service_had_never_stopped(tmp_path):
    async with open_jobs(tmp_path / "whole") as jobs:
        whole = await jobs.submit(training())
        expected = await outcome(jobs, whole.id)
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(training(), Order(client="ann"))
        await metric(jobs, job.id, "epoch")
    for _ in range(2):
        async with open_jobs(tmp_path) as jobs:
            going_on = await jobs.get(job.id)
            assert (going_on.ended, going_on.client) == (False, "ann")
            await metric(jobs, job.id, "epoch", random.randrange(5, 10))
    async with open_jobs(tmp_path) as jobs:
        assert (await jobs.get(job.id)).last_step < EPOCHS
        assert await outcome(jobs, job.id) == expected
    assert not (tmp_path / checkpoints_folder(job.id)).exists()


async def test_its_count_of_rows_goes_on(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        twin = await jobs.submit(FitConfig(rows=20, kind="neural"))
        fitted = (await ended(jobs, twin.id)) and (await jobs.result(twin.id))["twin"]
        job = await jobs.submit(training(twin={"id": fitted}))
        await metric(jobs, job.id, "epoch", 5)
    async with open_jobs(tmp_path) as jobs:
        await metric(jobs, job.id, "epoch", 7)  # the job lives again
        live = jobs._performer.live[job.id]
        await ended(jobs, job.id)
        estimate = live.rows.estimate(None)
        assert estimate.rows_done >= estimate.rows_planned > EPOCHS * 16


async def test_what_waits_runs_in_the_next_service(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        first, second = [await jobs.submit(training(seed=seed)) for seed in (0, 1)]
        await metric(jobs, first.id, "epoch")
    with Store(tmp_path) as store:
        assert [store.job(job.id).state for job in (first, second)] == ["pending", "pending"]
    async with open_jobs(tmp_path) as jobs:
        for job in (first, second):
            assert (await ended(jobs, job.id)).state == "succeeded"


async def test_a_watcher_hears_no_end_when_the_service_stops(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(training())
        await metric(jobs, job.id, "epoch")
        watching = asyncio.create_task(followed(jobs, job.id))
        await asyncio.sleep(0)
        await jobs.close()
        last = (await watching)[-1]
        assert isinstance(last, MetricRecord) or not last.ended
        with pytest.raises(SystemClosed):
            await jobs.submit(training())


async def test_what_was_cancelled_stays_cancelled_with_a_checkpoint(tmp_path, monkeypatch):
    have_done(monkeypatch, tiny_jobs.tiny_with_copies)
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(training(epochs=10_000, checkpoint_s=1000))
        await metric(jobs, job.id, "epoch", 6)
        await jobs.cancel(job.id)
        assert (await ended(jobs, job.id)).state == "cancelled"
        last_step = (await jobs.get(job.id)).last_step
        step = (await jobs.metrics(job.id, since=last_step - 1))[0].metric["step"]
    async with open_jobs(tmp_path) as jobs:
        assert (await jobs.get(job.id)).state == "cancelled"
        assert jobs._performer.live == {}
    known = CheckpointFolder(tmp_path / checkpoints_folder(job.id)).newest()
    assert step - 1 <= known.step <= step  # a step that was broken off is not in it


async def test_what_was_being_cancelled_when_the_service_died_is_cancelled(tmp_path):
    job_id = await stopped_in_training(tmp_path)
    with Store(tmp_path) as store:  # the request was answered, and then came the end
        died = jobs_table.update().values(state="running")
        with store.engine.begin() as connection:
            connection.execute(died)
        assert store.wish(job_id, "cancel", "cancelled by request")
    async with open_jobs(tmp_path) as jobs:
        record = await ended(jobs, job_id)
        assert (record.state, record.error) == ("cancelled", "cancelled by request")


async def test_a_request_to_cancel_is_on_the_disk_before_the_job_hears_of_it(tmp_path, monkeypatch):
    noted = []
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(training(epochs=10_000))
        await metric(jobs, job.id, "epoch")
        live = jobs._performer.live[job.id]
        note = Store.wish
        monkeypatch.setattr(Store, "wish", lambda *a: noted.append(live.stopped()) or note(*a))
        await jobs.cancel(job.id)
        assert (await ended(jobs, job.id)).state == "cancelled"
    assert noted == [False]


async def test_what_an_emergency_stop_cancels_does_not_go_on(tmp_path, monkeypatch):
    """Though the service dies before the jobs have ended."""
    with monkeypatch.context() as patch:
        patch.setattr(Store, "end_job", lambda *args, **values: None)
        async with open_jobs(tmp_path) as jobs:
            ids = [(await jobs.submit(training(epochs=10_000))).id for _ in range(2)]
            await metric(jobs, ids[0], "epoch")
            await jobs.cancel_all("stopped by ann")
    async with open_jobs(tmp_path) as jobs:
        records = [await ended(jobs, job_id) for job_id in ids]
        assert {(job.state, job.error) for job in records} == {("cancelled", "stopped by ann")}


async def test_a_training_stopped_in_its_twins_fit_fits_it_again(tmp_path, monkeypatch):
    have_done(monkeypatch, tiny_jobs.tiny_with_slow_fit)
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(training(epochs=2))
        await metric(jobs, job.id, "fit")
    have_done(monkeypatch, tiny_jobs.tiny)
    async with open_jobs(tmp_path) as jobs:
        assert (await ended(jobs, job.id)).state == "succeeded"
        metrics = await jobs.metrics(job.id)
        assert [m.step for m in metrics] == list(range(1, len(metrics) + 1))
        assert {m.metric["of"] for m in metrics if m.metric["kind"] == "fit"} == {3}


async def test_a_fit_is_run_again_and_its_twin_kept_once(tmp_path, monkeypatch):
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(FitConfig(rows=20, kind="neural"))
        expected = (await ended(jobs, job.id)) and await jobs.result(job.id)
        metrics = await jobs.metrics(job.id)
    with Store(tmp_path) as store:  # as after a kill between the twin's record and the job's end
        unfinished = jobs_table.update().values(state="running", result=None)
        with store.engine.begin() as connection:
            connection.execute(unfinished)
    async with open_jobs(tmp_path) as jobs:
        await ended(jobs, job.id)
        assert await jobs.result(job.id) == expected
        assert await jobs.metrics(job.id) == metrics
    with Store(tmp_path) as store:
        assert len(store.twins()) == 1


async def stopped_in_training(folder: Path, **fields: object) -> str:
    async with open_jobs(folder) as jobs:
        job = await jobs.submit(training(**fields))
        await metric(jobs, job.id, "epoch")
    return job.id


async def test_it_goes_on_with_its_twin_though_there_is_a_newer_one(tmp_path):
    job_id = await stopped_in_training(tmp_path)
    with Store(tmp_path) as store:
        [own] = store.twins()
    newer = {**own.__dict__, "id": "newer", "created_s": time.time(), "job": job_id}
    with Store(tmp_path) as store:
        store.add_twin(type(own)(**newer))  # without a file: whoever used it would fail
    async with open_jobs(tmp_path) as jobs:
        assert (await ended(jobs, job_id)).state == "succeeded"
        assert (await jobs.result(job_id))["twin"] == own.id


async def test_what_cannot_go_on_is_unknown_and_says_why(tmp_path, caplog):
    job_id = await stopped_in_training(tmp_path)
    systems = {"other": BENCH.systems["optics"]}
    async with open_jobs(tmp_path, BENCH.model_copy(update={"systems": systems})) as jobs:
        record = await ended(jobs, job_id)
        assert record.state == "unknown"
        assert "no system 'optics'" in record.error
    assert "cannot go on" in caplog.text


async def test_a_training_does_not_go_on_on_another_bench(tmp_path):
    job_id = await stopped_in_training(tmp_path)
    rig = BENCH.rigs["optics"].model_copy(update={"gap": 0.5})
    async with open_jobs(tmp_path, BENCH.model_copy(update={"rigs": {"optics": rig}})) as jobs:
        record = await ended(jobs, job_id)
        assert record.state == "unknown"
        assert "it is of another bench" in record.error


async def test_a_deadline_that_passed_meanwhile_fails_the_job(tmp_path, monkeypatch):
    job_id = await stopped_in_training(tmp_path, deadline_s=time.time() + 3600)
    late = time.time() + 3601
    monkeypatch.setattr(lab.jobs.runner.time, "time", lambda: late)
    async with open_jobs(tmp_path) as jobs:
        record = await ended(jobs, job_id)
        assert (record.state, record.error.split(":")[0]) == ("failed", "DeadlineMissed")


async def test_checkpoints_of_what_has_succeeded_are_deleted_later_too(tmp_path):
    with Store(tmp_path) as store:
        for name, state in (("done", "succeeded"), ("lost", "failed")):
            store.add_job(name, "train", {})
            store.end_job(name, state)
            CheckpointFolder(tmp_path / checkpoints_folder(name)).keep(1, {}, {})
    async with open_jobs(tmp_path):
        pass
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["lost"]


async def test_a_job_whose_end_could_not_be_written_ends_in_the_next_service(tmp_path, monkeypatch):
    def fail(*args, **values) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "end_job", fail)
        async with open_jobs(tmp_path) as jobs:
            job = await jobs.submit(training(epochs=2))
            await metric(jobs, job.id, "epoch", 2)
    async with open_jobs(tmp_path) as jobs:
        assert (await ended(jobs, job.id)).state == "succeeded"
        assert torch.isfinite(torch.tensor((await jobs.result(job.id))["test_accuracy"]))
