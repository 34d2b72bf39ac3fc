"""Jobs on the simulated bench, with a tiny task and a twin that is hardly fitted."""

import asyncio
import functools
import itertools

import numpy as np
import pytest

import lab.jobs.service
import opened_jobs
import tiny_jobs
from drivers.errors import InstrumentTimeout
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from lab.bench import Bench
from lab.config import TrainConfig
from lab.errors import ConfigError, Conflict, SystemClosed, UnknownName
from lab.jobs.files import FolderFiles
from lab.jobs.records import MetricRecord, Order
from lab.jobs.state_files import checkpoint_file, load_state
from lab.jobs.store import Store
from opened_jobs import LONG, ended, followed, metric, open_jobs
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

training = functools.partial(opened_jobs.training, method="pat")


async def test_a_second_service_in_the_process_is_refused_and_harms_nothing(jobs, tmp_path):
    other = tmp_path / "other"
    with pytest.raises(ConfigError, match="one process runs the jobs of one service only"):
        async with open_jobs(other):
            pass
    record = await jobs.submit(training())
    assert (await ended(jobs, record.id)).state == "succeeded"


async def test_training_is_kept_as_it_happens(jobs, tmp_path):
    record = await jobs.submit(training(seed=4), Order(client="ann"))
    assert (record.state, record.kind, record.client) == ("pending", "train", "ann")
    assert TrainConfig.model_validate(record.config) == training(seed=4)
    seen = await followed(jobs, record.id)
    last = seen[-1]
    assert (last.state, last.error) == ("succeeded", "")
    metrics = await jobs.metrics(record.id)
    assert [m for m in seen if isinstance(m, MetricRecord)] == metrics
    assert [m.step for m in metrics] == list(range(1, len(metrics) + 1))
    epochs = [m.metric for m in metrics if m.metric["kind"] == "epoch"]
    assert [m["epoch"] for m in epochs] == [1, 2]
    assert metrics[0].metric["kind"] == "fit"
    result = await jobs.result(record.id)
    assert result["curve"] == [{k: v for k, v in m.items() if k != "kind"} for m in epochs]
    assert np.sum(result["confusion"]) == 8  # the held-out samples
    checkpoint = load_state(FolderFiles(tmp_path), checkpoint_file(record.id))
    assert checkpoint["network"]["blocks.0.layer.theta"].shape == (1, 50)
    assert checkpoint["twin_id"] == result["twin"]
    assert TrainConfig.model_validate(checkpoint["config"]) == training(seed=4)


async def test_the_same_config_gives_the_same_result(jobs):
    first, second = [await jobs.submit(training()) for _ in range(2)]
    for job in (first, second):
        assert (await ended(jobs, job.id)).state == "succeeded"
    a, b = await jobs.result(first.id), await jobs.result(second.id)
    assert [m["loss"] for m in a["curve"]] == [m["loss"] for m in b["curve"]]
    assert a["twin"] == b["twin"]


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"system": "nope"}, UnknownName, "no system 'nope'"),
        ({"twin": {"id": "nope"}}, UnknownName, "no twin 'nope'"),
    ],
)
async def test_what_is_known_not_to_work_is_refused_at_once(jobs, fields, error, says):
    with pytest.raises(error, match=says):
        await jobs.submit(training(**fields))
    assert await jobs.newest() == []


async def test_the_ideal_method_needs_a_simulated_bench(tmp_path, monkeypatch):
    monkeypatch.setattr(Bench, "rig", lambda bench, name: None)
    async with open_jobs(tmp_path) as jobs:
        with pytest.raises(ConfigError, match="ideal"):
            await jobs.submit(training(method="ideal"))


async def test_a_failed_job_is_data_and_its_sibling_goes_on(jobs, caplog):
    bad = await jobs.submit(training(split="talker"))
    good = await jobs.submit(training(method="in-silico"))
    failed = await ended(jobs, bad.id)
    assert failed.state == "failed"
    assert failed.error.startswith("ConfigError: split 'talker'")
    assert (await ended(jobs, good.id)).state == "succeeded"
    with pytest.raises(Conflict, match="it has failed"):
        await jobs.result(bad.id)
    assert "split 'talker'" in caplog.text


async def test_a_fault_of_an_instrument_fails_the_job(jobs, monkeypatch):
    def time_out(spectrometer) -> None:
        raise InstrumentTimeout(spectrometer.name, "no answer in 5 s")

    monkeypatch.setattr(YokogawaAQ6370, "measure", time_out)
    job = await jobs.submit(training())
    failed = await ended(jobs, job.id)
    assert (failed.state, failed.error) == (
        "failed",
        "InstrumentTimeout: spectrometer: no answer in 5 s",
    )


async def test_a_watcher_sees_each_metric_once_from_where_it_starts(jobs):
    job = await jobs.submit(training())
    await ended(jobs, job.id)
    every = await jobs.metrics(job.id)
    later = [m async for m in jobs.watch(job.id, since=2) if isinstance(m, MetricRecord)]
    assert later == every[2:]
    assert await jobs.metrics(job.id, since=1, limit=1) == every[1:2]


async def test_a_watcher_of_many_metrics_gets_them_all(jobs, monkeypatch):
    monkeypatch.setattr(lab.jobs.service, "_METRICS_AT_ONCE", 2)
    job = await jobs.submit(training())
    await ended(jobs, job.id)
    steps = [m.step async for m in jobs.watch(job.id) if isinstance(m, MetricRecord)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 2


async def test_closing_stops_what_runs_and_what_waits(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        ids = [(await jobs.submit(training(**LONG))).id for _ in range(2)]
        await metric(jobs, ids[0], "epoch")
        watching = [asyncio.create_task(followed(jobs, job_id)) for job_id in ids]
        await jobs.close()
        await asyncio.gather(*watching)
        assert [(await jobs.get(job_id)).state for job_id in ids] == ["pending", "pending"]
        with pytest.raises(SystemClosed):
            await jobs.submit(training())
        await jobs.close()


async def test_a_job_whose_end_cannot_be_written_ends_once_that_is_possible(
    jobs, monkeypatch, caplog
):
    end, times = Store.end_job, []

    def fail_twice(*args, **values) -> None:
        times.append(1)
        if len(times) < 3:
            raise OSError("disk full")
        end(*args, **values)

    monkeypatch.setattr(Store, "end_job", fail_twice)
    job = await jobs.submit(training(method="in-silico"))
    assert (await ended(jobs, job.id)).state == "succeeded"
    assert caplog.text.count("could not be written") == 2


async def test_torch_uses_one_thread_in_a_job(jobs, monkeypatch):
    have_done(monkeypatch, tiny_jobs.tell_threads)
    job = await jobs.submit(training())
    assert (await ended(jobs, job.id)).error == "RuntimeError: 1 threads of torch"


async def test_with_one_worker_one_job_runs_at_a_time_the_most_urgent_first(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        first = await jobs.submit(training(**LONG))
        await metric(jobs, first.id, "epoch")
        short = {"epochs": 1, "method": "in-silico"}
        low, high, late = [
            await jobs.submit(training(**short, priority=priority)) for priority in (-1, 5, 5)
        ]
        await jobs.cancel(first.id)
        ran = [await ended(jobs, job.id) for job in (first, high, late, low)]
        for before, after in itertools.pairwise(ran):
            assert before.finished_s <= after.started_s
