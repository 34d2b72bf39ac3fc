"""Jobs on the simulated bench, with a tiny task and a twin that is hardly fitted."""

import asyncio
import functools
import itertools
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import lab.jobs.runner
import lab.jobs.service
import lab.jobs.supervision
import lab.scheduling.scheduler
import tiny_jobs
from drivers.errors import InstrumentTimeout
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.errors import ConfigError, Conflict, SystemClosed, UnknownName
from lab.jobs.files import FolderFiles
from lab.jobs.records import FitConfig, JobRecord, MetricRecord, Order
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.state_files import checkpoint_file, load_state, save_state, twin_file
from lab.jobs.store import Store
from lab.scheduling.scheduler import HardwareScheduler
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")
LIMIT_S = 60.0  # no wait in these tests lasts so long unless something hangs


@pytest.fixture
def tiny(monkeypatch, nursery):
    """Let jobs train on 24 made-up samples, in processes."""
    have_done(monkeypatch, tiny_jobs.tiny)
    runner = functools.partial(JobRunner, nursery=nursery)
    monkeypatch.setitem(globals(), "JobRunner", runner)


@asynccontextmanager
async def open_jobs(folder: Path, workers: int = 2) -> AsyncIterator[JobService]:
    with Store(folder) as store, open_bench(BENCH, start=False) as bench:
        async with HardwareScheduler(bench.systems) as scheduler:
            jobs = JobService(JobRunner(bench, scheduler, store), store, workers)
            await jobs.open()
            try:
                yield jobs
            finally:
                await jobs.close()


@pytest.fixture
async def jobs(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        yield jobs


def training(**fields) -> TrainConfig:
    small = {"task": "vowels", "method": "pat", "epochs": 2, "network": {"layers": 1}}
    return TrainConfig.model_validate({**small, "twin": {"rows": 20}, **fields})


LONG = {"epochs": 10_000}


async def ended(jobs: JobService, job_id: str) -> JobRecord:
    async with asyncio.timeout(LIMIT_S):
        seen = [item async for item in jobs.watch(job_id)]
    return seen[-1]


async def first_epoch(jobs: JobService, job_id: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        async for item in jobs.watch(job_id):
            if isinstance(item, MetricRecord) and item.metric["kind"] == "epoch":
                return
    raise AssertionError(f"the job ended before its first epoch: {item}")


async def test_a_second_service_in_the_process_is_refused_and_harms_nothing(jobs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ConfigError, match="one process runs the jobs of one service only"):
        async with open_jobs(other):
            pass
    record = await jobs.submit(training())
    assert (await ended(jobs, record.id)).state == "succeeded"


async def test_training_is_kept_as_it_happens(jobs, tmp_path):
    record = await jobs.submit(training(seed=4), Order(client="ann"))
    assert (record.state, record.kind, record.client) == ("pending", "train", "ann")
    assert TrainConfig.model_validate(record.config) == training(seed=4)
    async with asyncio.timeout(LIMIT_S):
        seen = [item async for item in jobs.watch(record.id)]
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


async def test_jobs_that_want_the_same_twin_fit_it_once(jobs, tmp_path):
    ids = [(await jobs.submit(training(seed=seed, method="in-silico"))).id for seed in range(3)]
    for job_id in ids:
        assert (await ended(jobs, job_id)).state == "succeeded"
    with Store(tmp_path) as store:
        [twin] = store.twins()
    assert {(await jobs.result(job_id))["twin"] for job_id in ids} == {twin.id}
    assert twin.report["task"] is not None


async def test_a_bench_that_only_waits_longer_reuses_a_twin(tmp_path, monkeypatch):
    slow = {name: i.model_copy(update={"timeout_s": 1.5}) for name, i in BENCH.instruments.items()}
    twins = []
    for changed in (BENCH, BENCH.model_copy(update={"instruments": slow})):
        monkeypatch.setitem(globals(), "BENCH", changed)
        async with open_jobs(tmp_path) as jobs:
            job = await jobs.submit(training(method="in-silico"))
            assert (await ended(jobs, job.id)).state == "succeeded"
            twins.append((await jobs.result(job.id))["twin"])
    assert twins[0] == twins[1]


async def test_another_bench_does_not_reuse_a_twin(tmp_path, monkeypatch):
    twins = []
    for gap in (1.0, 0.5):
        rig = BENCH.rigs["optics"].model_copy(update={"gap": gap})
        changed = BENCH.model_copy(update={"rigs": {"optics": rig}})
        monkeypatch.setitem(globals(), "BENCH", changed)
        async with open_jobs(tmp_path) as jobs:
            job = await jobs.submit(training(method="in-silico"))
            await ended(jobs, job.id)
            twins.append((await jobs.result(job.id))["twin"])
    assert twins[0] != twins[1]


async def test_a_named_twin_of_another_bench_is_refused(tmp_path, monkeypatch):
    async with open_jobs(tmp_path) as jobs:
        fit = await jobs.submit(FitConfig(rows=20, kind="neural"))
        await ended(jobs, fit.id)
        twin = (await jobs.result(fit.id))["twin"]
    rig = BENCH.rigs["optics"].model_copy(update={"gap": 0.5})
    monkeypatch.setitem(globals(), "BENCH", BENCH.model_copy(update={"rigs": {"optics": rig}}))
    async with open_jobs(tmp_path) as jobs:
        with pytest.raises(ConfigError, match=rf"twin\.id: twin '{twin}' was fitted on another"):
            await jobs.submit(training(twin={"id": twin}))
        assert [job.id for job in await jobs.newest()] == [fit.id]


async def test_a_twin_says_what_its_task_error_belongs_to(jobs, monkeypatch):
    """A second task re-uses the twin, whose fit knows no task, but not the first one's error."""
    have_done(monkeypatch, tiny_jobs.tell_twin)
    reports, errors = [], []
    for task in ("digits", "vowels", "digits"):
        job = await jobs.submit(training(task=task, method="in-silico", twin={"rows": 20}))
        assert (await ended(jobs, job.id)).state == "succeeded"
        result = await jobs.result(job.id)
        reports.append(jobs._store.twin(result["twin"]).report)
        assert result["fitted"]["digest"] == reports[-1]["digest"]
        errors.append(result["fitted"]["task"])
    assert len({report["digest"] for report in reports}) == 1
    assert {(r["task_name"], r["task_split"]) for r in reports} == {("digits", "random")}
    assert errors[1] is None
    assert errors[0] == errors[2] is not None


async def test_a_fit_without_a_task_has_no_task_error(jobs):
    fit = await jobs.submit(FitConfig(rows=20, kind="neural"))
    await ended(jobs, fit.id)
    report = (await jobs.result(fit.id))["report"]
    assert [report[key] for key in ("task", "task_name", "task_split")] == [None] * 3


async def test_a_fit_is_a_job_and_its_twin_can_be_named(jobs, tmp_path):
    fit = await jobs.submit(FitConfig(rows=20, kind="neural", seed=7, task="vowels"))
    assert (await ended(jobs, fit.id)).state == "succeeded"
    result = await jobs.result(fit.id)
    assert result["report"]["hardware_rows"] > 100
    assert result["report"]["task"]["normalised"] > 0
    job = await jobs.submit(training(method="in-silico", twin={"id": result["twin"]}))
    assert (await ended(jobs, job.id)).state == "succeeded"
    assert (await jobs.result(job.id))["twin"] == result["twin"]
    with Store(tmp_path) as store:
        record = store.twin(result["twin"])
        assert (record.kind, record.rows, record.seed, record.job) == ("neural", 20, 7, fit.id)
        digest = record.report["digest"]
    assert (await jobs.result(job.id))["twin_digest"] == digest


async def test_a_twin_whose_file_was_changed_is_not_used(jobs, tmp_path):
    fit = await jobs.submit(FitConfig(rows=20, kind="neural"))
    await ended(jobs, fit.id)
    twin = (await jobs.result(fit.id))["twin"]
    kept = FolderFiles(tmp_path), twin_file(twin)
    save_state(*kept, {name: value + 1 for name, value in load_state(*kept).items()})
    job = await jobs.submit(training(twin={"id": twin}))
    failed = await ended(jobs, job.id)
    assert failed.state == "failed"
    assert "is not the one that its fit wrote" in failed.error


async def test_a_fit_asked_for_again_is_made_again(jobs):
    twins = set()
    for _ in range(2):
        fit = await jobs.submit(FitConfig(rows=20, kind="neural"))
        await ended(jobs, fit.id)
        twins.add((await jobs.result(fit.id))["twin"])
    assert len(twins) == 2


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


@pytest.mark.parametrize(("config", "field"), [(FitConfig(), "kind"), (training(), r"twin\.kind")])
async def test_a_kind_of_twin_that_there_is_not_is_refused_by_its_field(
    jobs, monkeypatch, config, field
):
    def refuse(*args, **options) -> None:
        raise ValueError("no structured twin for 'mine'")

    monkeypatch.setattr(lab.bench.Bench, "new_twin", refuse)
    with pytest.raises(ConfigError, match=rf"^{field}: no structured twin"):
        await jobs.submit(config)


async def test_the_ideal_method_needs_a_simulated_bench(tmp_path, monkeypatch):
    monkeypatch.setattr(lab.bench.Bench, "rig", lambda bench, name: None)
    async with open_jobs(tmp_path) as jobs:
        with pytest.raises(ConfigError, match="ideal"):
            await jobs.submit(training(method="ideal"))


async def test_a_twin_of_another_system_is_refused(tmp_path, monkeypatch):
    both = {"optics": BENCH.systems["optics"], "other": BENCH.systems["optics"]}
    monkeypatch.setitem(globals(), "BENCH", BENCH.model_copy(update={"systems": both}))
    async with open_jobs(tmp_path) as jobs:
        fit = await jobs.submit(FitConfig(system="other", rows=20, kind="neural"))
        await ended(jobs, fit.id)
        twin = (await jobs.result(fit.id))["twin"]
        with pytest.raises(ConfigError, match="belongs to system 'other'"):
            await jobs.submit(training(twin={"id": twin}))


async def test_a_failed_job_is_data_and_its_sibling_goes_on(jobs, caplog):
    bad = await jobs.submit(training(split="talker"))
    good = await jobs.submit(training(method="in-silico"))
    failed = await ended(jobs, bad.id)
    assert failed.state == "failed"
    assert failed.error.startswith("ConfigError: split 'talker'")
    assert (await ended(jobs, good.id)).state == "succeeded"
    with pytest.raises(Conflict, match="it is failed"):
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


@pytest.mark.parametrize("micro_batches", [1, 4])
async def test_cancelling_a_running_job_ends_it_between_steps(jobs, micro_batches):
    job = await jobs.submit(training(**LONG, micro_batches=micro_batches))
    await first_epoch(jobs, job.id)
    await jobs.cancel(job.id)
    last = await ended(jobs, job.id)
    assert (last.state, last.error) == ("cancelled", "cancelled by request")
    assert last.last_step < 10_000
    assert not [t for t in threading.enumerate() if t.name.startswith("micro-batch")]
    assert jobs._runner.scheduler.queued("optics") == []
    with pytest.raises(Conflict, match="it is cancelled"):
        await jobs.cancel(job.id)


async def test_cancelling_a_job_cancels_its_pass(jobs, monkeypatch):
    """A pass takes minutes on a real bench; the job does not wait for all its rows."""
    rows, go_on = threading.Semaphore(0), threading.Semaphore(0)
    measure = YokogawaAQ6370.measure

    def gated(spectrometer):
        rows.release()
        go_on.acquire()
        return measure(spectrometer)

    monkeypatch.setattr(YokogawaAQ6370, "measure", gated)
    job = await jobs.submit(training())
    await asyncio.to_thread(rows.acquire)
    cancelling = asyncio.create_task(jobs.cancel(job.id))
    while not jobs._performer.live[job.id].stopped():
        await asyncio.sleep(0)
    go_on.release(2)  # the request is in; only now may the row end
    await cancelling
    assert (await ended(jobs, job.id)).state == "cancelled"
    status = jobs._runner.scheduler.status("optics")
    assert status.rows_done <= 2
    assert status.state == "ok"


@pytest.mark.parametrize("gap", ["before the pass has a name", "before it is queued"])
async def test_a_pass_on_its_way_to_the_queue_is_not_measured(jobs, monkeypatch, gap):
    on_its_way, go_on = threading.Event(), threading.Event()

    def gated(call, *args):
        on_its_way.set()
        go_on.wait(LIMIT_S)
        return call(*args)

    if gap == "before it is queued":
        measure = functools.partial(gated, lab.scheduling.scheduler.queue_from_thread)
        monkeypatch.setattr(lab.scheduling.scheduler, "queue_from_thread", measure)
    else:
        name = SimpleNamespace(uuid4=functools.partial(gated, uuid.uuid4))
        monkeypatch.setattr(lab.jobs.supervision, "uuid", name)
    job = await jobs.submit(training())
    await asyncio.to_thread(on_its_way.wait, LIMIT_S)
    await jobs.cancel(job.id)
    go_on.set()
    assert (await ended(jobs, job.id)).state == "cancelled"
    status = jobs._runner.scheduler.status("optics")
    assert (status.rows_done, status.next_shot) == (0, 0)


async def test_a_pending_job_is_cancelled_at_once(tmp_path):
    async with open_jobs(tmp_path, workers=1) as jobs:
        running = await jobs.submit(training(**LONG))
        waiting = await jobs.submit(training())
        await first_epoch(jobs, running.id)
        record = await jobs.cancel(waiting.id)
        assert (record.state, record.started_s) == ("cancelled", None)
        assert (await ended(jobs, waiting.id)).state == "cancelled"
        assert (await jobs.get(running.id)).state == "running"


async def test_a_job_that_waits_for_anothers_fit_can_be_cancelled(jobs, monkeypatch):
    fits, go_on = threading.Event(), threading.Event()
    measure = YokogawaAQ6370.measure

    def gated(spectrometer):
        fits.set()
        go_on.wait(LIMIT_S)
        return measure(spectrometer)

    monkeypatch.setattr(YokogawaAQ6370, "measure", gated)
    first = await jobs.submit(training())
    await asyncio.to_thread(fits.wait)
    second = await jobs.submit(training(seed=1))
    async for item in jobs.watch(second.id):
        if isinstance(item, JobRecord) and item.state == "running":
            break
    await jobs.cancel(second.id)
    assert (await ended(jobs, second.id)).state == "cancelled"
    go_on.set()
    assert (await ended(jobs, first.id)).state == "succeeded"


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
    async with open_jobs(tmp_path, workers=1) as jobs:
        ids = [(await jobs.submit(training(**LONG))).id for _ in range(2)]
        await first_epoch(jobs, ids[0])
        watching = [asyncio.create_task(ended(jobs, job_id)) for job_id in ids]
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
    async with open_jobs(tmp_path, workers=1) as jobs:
        first = await jobs.submit(training(**LONG))
        await first_epoch(jobs, first.id)
        short = {"epochs": 1, "method": "in-silico"}
        low, high, late = [
            await jobs.submit(training(**short, priority=priority)) for priority in (-1, 5, 5)
        ]
        await jobs.cancel(first.id)
        ran = [await ended(jobs, job.id) for job in (first, high, late, low)]
        for before, after in itertools.pairwise(ran):
            assert before.finished_s <= after.started_s
