"""Jobs are cancelled while they wait, measure and train."""

import asyncio
import functools
import threading
import uuid
from types import SimpleNamespace

import pytest

import lab.jobs.supervision
import lab.scheduling.scheduler
import opened_jobs
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from lab.errors import Conflict
from opened_jobs import LIMIT_S, LONG, ended, metric, open_jobs, reached

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

training = functools.partial(opened_jobs.training, method="pat")


@pytest.mark.parametrize("micro_batches", [1, 4])
async def test_cancelling_a_running_job_ends_it_between_steps(jobs, micro_batches):
    job = await jobs.submit(training(**LONG, micro_batches=micro_batches))
    await metric(jobs, job.id, "epoch")
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
    async with open_jobs(tmp_path) as jobs:
        running = await jobs.submit(training(**LONG))
        waiting = await jobs.submit(training())
        await metric(jobs, running.id, "epoch")
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
    await reached(jobs, second.id, "running")
    await jobs.cancel(second.id)
    assert (await ended(jobs, second.id)).state == "cancelled"
    go_on.set()
    assert (await ended(jobs, first.id)).state == "succeeded"
