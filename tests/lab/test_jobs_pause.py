"""Jobs are paused, continued with and without changes, and cancelled in two ways."""

import asyncio
import functools
import threading
import time
from pathlib import Path

import pytest

import lab.jobs.runner
import lab.jobs.tidying
import opened_jobs
import tiny_jobs
from drivers.errors import InstrumentTimeout
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from lab.checkpoints import CheckpointFolder
from lab.errors import ConfigError, Conflict
from lab.jobs.configs import CalibrateConfig
from lab.jobs.files import FolderFiles
from lab.jobs.records import FitConfig, Order
from lab.jobs.state_files import checkpoints_folder
from lab.jobs.store import Store
from lab.jobs.tables import jobs as jobs_table
from lab.jobs.tidying import KEPT_DAYS, tidy
from opened_jobs import LIMIT_S, metric, open_jobs, outcome, reached
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny_checks")]

EPOCHS = 30
training = functools.partial(opened_jobs.training, epochs=EPOCHS, checkpoint_s=0)


@pytest.fixture
def tiny_checks(monkeypatch, tiny):
    """Let jobs be checked against the samples that they train on."""
    monkeypatch.setattr(lab.jobs.runner, "load", tiny_jobs.tiny_dataset)


def known(folder: Path, job_id: str) -> list[int]:
    """Return the steps of a job's checkpoints."""
    names = FolderFiles(folder / checkpoints_folder(job_id)).names()
    return [int(name.partition("-")[0]) for name in names]


async def test_a_paused_training_outlives_the_service_and_goes_on_bit_for_bit(tmp_path):
    """Paused, cancelled, or failed by its instrument: it is continued from where it stopped."""
    async with open_jobs(tmp_path / "whole") as jobs:
        whole = await jobs.submit(training())
        expected = await outcome(jobs, whole.id)
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(training())
        await metric(jobs, job.id, "epoch", 3)
        await jobs.pause(job.id)
        paused = await reached(jobs, job.id, "paused")
        assert (paused.error, paused.finished_s) == ("paused by request", None)
        with pytest.raises(Conflict, match="it is paused"):
            await jobs.pause(job.id)
    async with open_jobs(tmp_path) as jobs:
        other = await jobs.submit(training(epochs=1))
        await reached(jobs, other.id, "succeeded")  # the only worker did not wait for the other
        assert (await jobs.get(job.id)).state == "paused"
        assert len(known(tmp_path, job.id)) > 1
        await jobs.go_on(job.id)
        await metric(jobs, job.id, "epoch", 8)
        await jobs.cancel(job.id)
        await reached(jobs, job.id, "cancelled")
        [step] = known(tmp_path, job.id)
        assert step >= 8
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(YokogawaAQ6370, "measure", _time_out)
            await jobs.go_on(job.id)
            failed = await reached(jobs, job.id, "failed")
            assert failed.error.startswith("InstrumentTimeout")
        assert known(tmp_path, job.id) == [step]
        again = await jobs.go_on(job.id)
        assert (again.error, again.finished_s, again.run) == ("", None, 4)
        assert await outcome(jobs, job.id) == expected
    assert known(tmp_path, job.id) == []


def _time_out(spectrometer: YokogawaAQ6370) -> None:
    raise InstrumentTimeout(spectrometer.name, "no answer in 5 s")


async def test_a_job_that_waits_is_paused_at_once_and_does_not_start(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        first, second = [await jobs.submit(training(epochs=10_000)) for _ in range(2)]
        assert (await jobs.pause(second.id)).state == "paused"
        await metric(jobs, first.id, "epoch")
        await jobs.cancel(first.id)
        await reached(jobs, first.id, "cancelled")
    async with open_jobs(tmp_path) as jobs:
        last = await jobs.submit(training(epochs=1))
        await reached(jobs, last.id, "succeeded")
        record = await jobs.get(second.id)
        assert (record.state, record.started_s, record.last_step) == ("paused", None, 0)
        await jobs.go_on(second.id, {"epochs": 2})
        await reached(jobs, second.id, "succeeded")


async def test_epochs_and_rates_change_from_where_it_stands(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(training(epochs=10_000))
        await metric(jobs, job.id, "epoch", 3)
        await jobs.pause(job.id)
        await reached(jobs, job.id, "paused")
        step = known(tmp_path, job.id)[-1]
        with pytest.raises(ConfigError, match=rf"epochs: 1 epochs are 1 steps .* {step} already"):
            await jobs.go_on(job.id, {"epochs": 1})
        with pytest.raises(ConfigError, match="greater than or equal to 1"):
            await jobs.go_on(job.id, {"epochs": 0})
        with pytest.raises(ConfigError, match="batch: a train job cannot be continued with"):
            await jobs.go_on(job.id, {"batch": 3})
        assert (await jobs.get(job.id)).state == "paused"
        changed = await jobs.go_on(job.id, {"epochs": step + 3, "rate_theta": 0.5, "priority": 2})
        assert (changed.config["rate_theta"], changed.config["priority"]) == (0.5, 2)
        await reached(jobs, job.id, "succeeded")
        curve = (await jobs.result(job.id))["curve"]
        assert [m["step"] for m in curve] == list(range(1, step + 4))
        assert [m["of"] for m in curve] == [10_000] * step + [step + 3] * 3
        with pytest.raises(Conflict, match="it has succeeded"):
            await jobs.go_on(job.id)


async def test_with_a_database_server_it_goes_on_in_another_folder(tmp_path, postgres_url):
    async with open_jobs(tmp_path / "here", url=postgres_url) as jobs:
        job = await jobs.submit(training(epochs=10_000))
        await metric(jobs, job.id, "epoch", 3)
        await jobs.pause(job.id)
        stopped = (await reached(jobs, job.id, "paused")).last_step
    async with open_jobs(tmp_path / "there", url=postgres_url) as jobs:
        steps = (await jobs.metrics(job.id, since=stopped - 1))[0].metric["step"]
        await jobs.go_on(job.id, {"epochs": steps + 4})
        await reached(jobs, job.id, "succeeded")
        curve = (await jobs.result(job.id))["curve"]
        assert [m["step"] for m in curve] == list(range(1, steps + 5))
        assert {m["of"] for m in curve[:steps]} == {10_000}  # these are not done again


async def test_cancelled_at_once_it_has_no_checkpoint_of_where_it_stopped(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        ids = []
        for at_once in (False, True):
            job = await jobs.submit(training(epochs=10_000, checkpoint_s=1000))
            await metric(jobs, job.id, "epoch")
            with pytest.raises(Conflict, match="it is running"):
                await jobs.go_on(job.id)
            await jobs.cancel(job.id, at_once=at_once)
            await reached(jobs, job.id, "cancelled")
            ids.append(job.id)
        gracefully, at_once = [known(tmp_path, job_id) for job_id in ids]
        assert len(gracefully) == 1
        assert at_once == []
        await jobs.go_on(ids[1], {"epochs": 2})  # from its beginning, with its own twin
        await reached(jobs, ids[1], "succeeded")
        assert [m["step"] for m in (await jobs.result(ids[1]))["curve"]] == [1, 2]


async def test_a_job_that_does_not_get_to_its_pause_is_cancelled(tmp_path, monkeypatch):
    have_done(monkeypatch, tiny_jobs.leave_a_sign)
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(training())
        await metric(jobs, job.id, "fit")
        assert (await jobs.pause(job.id)).wish == "pause"
        assert (await jobs.cancel(job.id)).wish == "cancel"
        with pytest.raises(Conflict, match="it has been asked to cancel"):
            await jobs.pause(job.id)
        await jobs.cancel(job.id, at_once=True)
        record = await reached(jobs, job.id, "cancelled")
        assert record.error == "cancelled by request"


async def test_other_kinds_of_job_start_anew(tmp_path, monkeypatch):
    have_done(monkeypatch, tiny_jobs.tiny_with_slow_fit)
    async with open_jobs(tmp_path) as jobs:
        fit = await jobs.submit(FitConfig(rows=20, kind="neural"))
        await metric(jobs, fit.id, "fit")
        await jobs.pause(fit.id)
        await reached(jobs, fit.id, "paused")
        with pytest.raises(ConfigError, match=r"rows: a fit job .* deadline_s, priority"):
            await jobs.go_on(fit.id, {"rows": 30})
        calibration = await jobs.submit(CalibrateConfig())
        await metric(jobs, calibration.id, "round", 2)
        await jobs.pause(calibration.id)
        await reached(jobs, calibration.id, "paused")
    have_done(monkeypatch, tiny_jobs.tiny)
    async with open_jobs(tmp_path) as jobs:
        for job, kind in ((fit, "fit"), (calibration, "round")):
            await jobs.go_on(job.id)
            await reached(jobs, job.id, "succeeded")
            metrics = await jobs.metrics(job.id)
            assert [m.step for m in metrics] == list(range(1, len(metrics) + 1))
            counted = [m.metric["done" if kind == "fit" else "round"] for m in metrics]
            assert counted == sorted(set(counted))  # each told once


async def test_the_newest_checkpoint_of_an_ended_job_is_kept_for_some_days(
    tmp_path, monkeypatch, database_url
):
    def left(job_id: str) -> list[int]:
        names = store.files.under(checkpoints_folder(job_id)).names()
        return [int(name.partition("-")[0]) for name in names]

    with Store(tmp_path, database_url) as store:
        for job_id, state in (("ended", "failed"), ("paused", "paused"), ("waits", "pending")):
            store.add_job(job_id, "train", {}, Order())
            files = store.files.under(checkpoints_folder(job_id))
            checkpoints = CheckpointFolder(files)
            for step in (1, 2, 3):
                checkpoints.keep(step, {}, {})
            if state != "pending":
                store.end_job(job_id, state)
            if state == "failed":
                files.write(files.names()[-1], b"damaged")
        tidy(store)
        kept = {job_id: left(job_id) for job_id in ("ended", "paused", "waits")}
        assert kept == {"ended": [2], "paused": [1, 2, 3], "waits": [1, 2, 3]}
        now = time.time()
        for days, expected in ((KEPT_DAYS - 1, [2]), (KEPT_DAYS + 1, [])):
            later = now + 86400 * days
            monkeypatch.setattr(lab.jobs.tidying.time, "time", lambda at=later: at)
            tidy(store)
            assert left("ended") == expected
        assert left("paused") == [1, 2, 3]


async def test_a_run_that_ends_slowly_leaves_the_next_one_to_be_stopped(tmp_path, monkeypatch):
    """Its last deed is to tidy up; meanwhile the job goes on, and is to be cancelled."""
    tidied = threading.Event()
    monkeypatch.setattr("lab.jobs.performing.drop_checkpoints", lambda *about: tidied.wait(LIMIT_S))
    async with open_jobs(tmp_path, workers=2) as jobs:
        job = await jobs.submit(training(epochs=10_000))
        await metric(jobs, job.id)
        await jobs.cancel(job.id)
        await reached(jobs, job.id, "cancelled")
        first = jobs._performer.live[job.id]
        await jobs.go_on(job.id)
        async with asyncio.timeout(LIMIT_S):
            while jobs._performer.live[job.id] is first:
                await asyncio.sleep(0.01)
            tidied.set()
            while jobs._performer._working > 1:
                await asyncio.sleep(0.01)
        assert job.id in jobs._performer.live
        await jobs.cancel(job.id, at_once=True)
        await reached(jobs, job.id, "cancelled")


async def test_a_job_that_was_taken_over_meanwhile_is_stopped(tmp_path, postgres_url, monkeypatch):
    """A service that was frozen wakes up with it, measuring, and far from its next metric."""
    have_done(monkeypatch, tiny_jobs.hang)
    async with open_jobs(tmp_path, url=postgres_url, shared=True) as jobs:
        job = await jobs.submit(training())
        await reached(jobs, job.id, "running")
        live = jobs._performer.live[job.id]
        with Store(tmp_path, postgres_url) as other:
            other.database.change(jobs_table.update().values(queue="host other"))
            assert other.take_over(job.id, 1, "local")
            attempt = other.claim_job(job.id, 2, "other").attempt
            async with asyncio.timeout(LIMIT_S):
                while not live.stopped():
                    await asyncio.sleep(0.05)
                while jobs._performer.live:
                    await asyncio.sleep(0.05)
            assert (other.job(job.id).state, other.job(job.id).attempt) == ("running", attempt)
