"""What a job goes on from was damaged, or its process dies of it again and again."""

import hashlib
import shutil
from pathlib import Path

import pytest

import lab.jobs.service
from lab.jobs.state_files import checkpoints_folder
from lab.jobs.store import Store
from opened_jobs import ended, metric, open_jobs, outcome, training

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

HOUR_S = 3600.0
TRAINING = training(epochs=12, checkpoint_s=0)


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
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_jobs(tmp_path / "whole") as jobs:
        whole = await jobs.submit(TRAINING)
        expected = await outcome(jobs, whole.id)
    async with open_jobs(tmp_path / "stopped") as jobs:
        job = await jobs.submit(TRAINING)
        await metric(jobs, job.id, "epoch", 4)
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
        async with open_jobs(folder) as jobs:
            assert await outcome(jobs, job.id) == expected, names
        assert caplog.text.count("is passed over") >= len(names)


async def test_a_job_that_kills_its_service_again_and_again_fails(tmp_path: Path) -> None:
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(TRAINING)
        await metric(jobs, job.id, "epoch")
    with Store(tmp_path) as store:
        run = store.job(job.id).run
        for _ in range(11):  # what a service does, up to the moment in which it is killed
            assert store.claim_job(job.id, run, "local")
        assert store.deaths(job.id) == 10
    async with open_jobs(tmp_path) as jobs:
        failed = await ended(jobs, job.id)
        assert failed.state == "failed"
        assert failed.error == ("its process died 10 times in a row, without a metric in between")
        assert (await jobs.go_on(job.id)).state == "pending"  # from its last checkpoint
        assert (await ended(jobs, job.id)).state == "succeeded"


async def test_what_waits_is_cancelled_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_jobs(tmp_path) as jobs:
        running = await jobs.submit(TRAINING.model_copy(update={"epochs": 10_000}))
        await metric(jobs, running.id, "epoch")
        waiting = await jobs.submit(TRAINING)
        wall = lab.jobs.service.time.time
        monkeypatch.setattr(lab.jobs.service.time, "time", lambda: wall() - HOUR_S)
        await jobs.cancel_all("stopped by somebody")
        for job in (running, waiting):
            assert (await ended(jobs, job.id)).state == "cancelled"
