"""Jobs in processes of their own: what becomes of a job, and of the others, when one dies."""

import functools
import inspect
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import drivers.errors
import lab.errors
import lab.jobs.supervision
import opened_jobs
import tiny_jobs
from drivers.errors import DriverError, LimitError
from drivers.row_key import RowKey
from lab.config import TrainConfig
from lab.errors import DatabaseAway, QueueFull, Stopped
from lab.jobs.nursery import CAN_FORK, Nursery
from lab.jobs.pipe_desk import pack_keys, unpack_keys
from lab.jobs.service import JobService
from lab.jobs.store import Store
from lab.jobs.supervision import Patience
from lab.jobs.told_errors import tell
from lab.recording.known_rows import PartlyKnown
from opened_jobs import LIMIT_S, ended, metric, open_jobs, outcome
from tiny_jobs import have_done

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not CAN_FORK, reason="jobs compute in threads here"),
]

training = functools.partial(opened_jobs.training, epochs=25, checkpoint_s=0)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    have_done(monkeypatch, tiny_jobs.tiny)


async def alone(folder: Path, config: TrainConfig) -> dict[str, Any]:
    """Return the outcome of a training in a thread of this process."""
    async with open_jobs(folder) as jobs:
        job = await jobs.submit(config)
        return await outcome(jobs, job.id)


def kill(jobs: JobService, job_id: str) -> None:
    os.kill(jobs._runner.trainers[job_id].pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "fields", [{"method": "ideal"}, {"method": "pat-refit", "micro_batches": 2, "checks": 2}]
)
async def test_a_process_computes_the_same_bits_as_a_thread(nursery, tmp_path, fields):
    config = training(**fields, epochs=3, network={"layers": 2})
    expected = await alone(tmp_path / "thread", config)
    async with open_jobs(tmp_path / "process", nursery=nursery) as jobs:
        job = await jobs.submit(config)
        assert await outcome(jobs, job.id) == expected


async def test_a_training_whose_process_is_killed_ends_with_the_same_bits(nursery, tmp_path):
    expected = await alone(tmp_path / "thread", training())
    async with open_jobs(tmp_path / "process", nursery=nursery) as jobs:
        other = training(twin={"rows": 21})
        job, sibling = await jobs.submit(training()), await jobs.submit(other)
        pids, step = set(), 0
        for _ in range(4):
            step = (await metric(jobs, job.id, since=step + random.randrange(4))).step
            pids.add(jobs._runner.trainers[job.id].pid)
            kill(jobs, job.id)
        assert await outcome(jobs, job.id) == expected
        assert len(pids) > 1
        assert (await ended(jobs, sibling.id)).state == "succeeded"
        assert jobs._runner.trainers == {}
        assert jobs._runner.scheduler.queued("optics") == []


async def test_rows_are_counted_from_the_checkpoint_when_a_process_was_killed(nursery, tmp_path):
    async with open_jobs(tmp_path, nursery=nursery) as jobs:
        job = await jobs.submit(training(epochs=10))
        await metric(jobs, job.id, since=4)
        live = jobs._performer.live[job.id]
        kill(jobs, job.id)
        assert (await ended(jobs, job.id)).state == "succeeded"
        estimate = live.rows.estimate(None)
        result = await jobs.result(job.id)
        assert estimate.rows_planned is not None
        assert estimate.rows_done <= estimate.rows_planned
        assert sum(result["ledger"].values()) - estimate.rows_done <= result["ledger"]["twin"]


async def test_who_waits_for_the_twin_of_a_killed_process_fits_it(nursery, tmp_path, monkeypatch):
    have_done(monkeypatch, tiny_jobs.tiny_with_slow_fit)
    async with open_jobs(tmp_path, nursery=nursery, patience=Patience(deaths=1)) as jobs:
        first = await jobs.submit(training(epochs=1))
        await metric(jobs, first.id)
        have_done(monkeypatch, tiny_jobs.tiny)
        second = await jobs.submit(training(epochs=1, seed=1))
        kill(jobs, first.id)
        assert (await ended(jobs, first.id)).state == "failed"
        assert (await ended(jobs, second.id)).state == "succeeded"


@pytest.mark.parametrize("work", [tiny_jobs.die, tiny_jobs.die_after_a_metric])
async def test_a_job_whose_process_dies_again_and_again_fails(nursery, tmp_path, monkeypatch, work):
    have_done(monkeypatch, work)
    async with open_jobs(tmp_path, nursery=nursery) as jobs:
        job = await jobs.submit(training())
        failed = await ended(jobs, job.id)
        assert failed.state == "failed"
        assert failed.error == (
            "TrainerDied: the trainer process died 3 times (killed by signal 9: out of memory?)"
        )
        have_done(monkeypatch, tiny_jobs.tiny)
        after = await jobs.submit(training(epochs=1))
        assert (await ended(jobs, after.id)).state == "succeeded"


async def test_a_process_that_hangs_is_killed(nursery, tmp_path, monkeypatch):
    monkeypatch.setattr(lab.jobs.supervision, "_LOOK_EVERY_S", 0.01)
    have_done(monkeypatch, tiny_jobs.hang)
    async with open_jobs(
        tmp_path, nursery=nursery, patience=Patience(deaths=2, hang_s=0.1)
    ) as jobs:
        job = await jobs.submit(training())
        failed = await ended(jobs, job.id)
        assert "died 2 times (no sign of life for 0.1 s: killed)" in failed.error


async def test_too_much_memory_fails_the_job_alone(nursery, tmp_path, monkeypatch):
    have_done(monkeypatch, tiny_jobs.take_memory)
    async with open_jobs(tmp_path, nursery=nursery) as jobs:
        job = await jobs.submit(training())
        failed = await ended(jobs, job.id)
        assert failed.state == "failed"
        assert "MemoryError" in failed.error


async def test_an_error_is_logged_with_the_trace_of_its_process(
    nursery, tmp_path, monkeypatch, caplog
):
    have_done(monkeypatch, tiny_jobs.tell_threads)
    async with open_jobs(tmp_path, nursery=nursery) as jobs:
        job = await jobs.submit(training())
        await ended(jobs, job.id)
    assert "tiny_jobs.py" in caplog.text
    assert "in tell_threads" in caplog.text


@pytest.mark.parametrize("how", ["at once", "at the service's end"])
async def test_a_job_that_never_looks_up_can_be_ended(nursery, tmp_path, monkeypatch, how):
    have_done(monkeypatch, tiny_jobs.leave_a_sign)
    async with open_jobs(tmp_path, nursery=nursery, patience=Patience(goodbye_s=0)) as jobs:
        job = await jobs.submit(training())
        await metric(jobs, job.id)
        if how == "at once":
            await jobs.cancel(job.id, at_once=True)
            assert (await ended(jobs, job.id)).state == "cancelled"
    with Store(tmp_path) as store:
        assert store.job(job.id).state == ("cancelled" if how == "at once" else "pending")


async def test_a_process_has_nothing_of_the_services_open(nursery, tmp_path, monkeypatch):
    have_done(monkeypatch, tiny_jobs.tell_files)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = os.readlink(f"/proc/self/fd/{listener.fileno()}")
        async with open_jobs(tmp_path, nursery=nursery) as jobs:
            job = await jobs.submit(training())
            assert (await ended(jobs, job.id)).error == ""
            there = (await jobs.result(job.id))["open"]
    assert ours not in there
    assert len([name for name in there if name.startswith("socket:")]) == 1  # its line
    assert not [name for name in there if str(tmp_path) in name]


ORPHANS = """
from lab.jobs.files import FolderFiles
from lab.jobs.nursery import Nursery
import opened_jobs
import tiny_jobs
trainer = Nursery().trainer()
trainer.line.send((tiny_jobs.leave_a_sign, None))
_, _, (metric,) = trainer.line.recv()
print(metric["done"], metric["of"], flush=True)
trainer.line.recv()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_nothing_outlives_a_killed_service():
    """In the midst of arithmetic that never looks up."""
    command = [sys.executable, "-c", ORPHANS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        watched = [os.pidfd_open(pid) for pid in pids]
        assert select.select(watched, [], [], 0)[0] == []
        parent.kill()
    for fd in watched:
        assert select.select([fd], [], [], LIMIT_S)[0] == [fd]
        os.close(fd)


def test_where_processes_come_from_is_started_again_when_it_has_died():
    with socket.socket():  # whatever else is open
        nursery = Nursery()
        trainers = [nursery.trainer()]
        assert nursery._cradle is not None
        nursery._cradle.kill()
        nursery._cradle.wait()
        trainers.append(nursery.trainer())
        for trainer, end in zip(trainers, ("nobody saw how", "killed by signal 9"), strict=True):
            trainer.kill()
            assert trainer.end().startswith(end)
        nursery.close()
        nursery.close()


def test_who_waits_for_a_process_can_be_stopped():
    """While that which it comes from is still importing."""
    nursery = Nursery()
    with pytest.raises(Stopped, match="before its process had started"):
        nursery.trainer(lambda: True)
    nursery.close()


def answer_to(record: Callable[..., object], ended: Exception | object, **fields: Any) -> Any:
    """Return what is said to a process of a pass that has ended so, with what its desk does."""
    job = SimpleNamespace(pass_ids=set())
    asked = {name: None for name in lab.jobs.supervision._ASKED}
    desk = SimpleNamespace(job=job, record=record, **asked)
    session = lab.jobs.supervision.Session(SimpleNamespace(), desk, Patience())
    future: Future[Any] = Future()
    if isinstance(ended, Exception):
        future.set_exception(ended)
    else:
        future.set_result(ended)
    owned = SimpleNamespace(forward_pass=SimpleNamespace(pass_id="p"), **fields)
    session._measured(7, owned, future)
    return session._answers.get_nowait()


def test_who_waits_for_a_pass_hears_also_of_an_error_after_it():
    def whole(measured: object) -> None:
        raise ValueError("rows of another size")

    measured = SimpleNamespace(started_s=0.0, finished_s=1.0)
    number, well, told = answer_to(lambda *what: None, measured, whole=whole)
    assert (number, well, str(told.rebuilt())) == (7, False, "rows of another size")


def test_rows_of_a_pass_that_was_broken_off_are_recorded_and_not_sent():
    error, kept = lab.errors.PassCancelled("ended after 2 of 5 rows"), []
    error.measured = np.zeros(10_000)
    _, _, told = answer_to(lambda owned, ended: kept.append(ended.measured), error)
    assert len(kept[0]) == 10_000
    assert told.rebuilt().measured is None
    assert len(told.pickled) < 1000


def test_who_waits_for_the_database_before_a_pass_does_not_take_its_process_for_hung(monkeypatch):
    """The pass ends at once, for all its rows are known."""
    now, ended = [0.0], Future()

    def own(forward_pass: object) -> Any:
        now[0] += 10_000.0
        return PartlyKnown(forward_pass)

    monkeypatch.setattr(lab.jobs.supervision.time, "monotonic", lambda: now[0])
    config = SimpleNamespace(system="optics")
    job = SimpleNamespace(pass_ids=set(), config=config, stopped=lambda: False)
    asked = {name: None for name in lab.jobs.supervision._ASKED}
    scheduler = SimpleNamespace(measure_soon=lambda rest, stopped: ended)
    desk = SimpleNamespace(
        job=job, own=own, scheduler=scheduler, record=lambda *what: None, **asked
    )
    session = lab.jobs.supervision.Session(SimpleNamespace(), desk, Patience())
    ended.set_exception(QueueFull("full", 1.0))
    session._answer(0, "measure", (np.zeros((0, 1)), np.zeros((0, 1)), pack_keys([]), 0))
    assert not session._passes
    assert session._may_go_on()


def every_error() -> list[Exception]:
    later = (QueueFull, DatabaseAway)
    found: list[Exception] = [kind("full", 3.0) for kind in later]
    found.append(LimitError("osa", "power", "too much"))
    for module in (lab.errors, drivers.errors):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, DriverError) and kind is not LimitError:
                found.append(kind("osa", "no"))
            elif issubclass(kind, lab.errors.LabError) and kind not in later:
                found.append(kind("no"))
    return [*found, FileNotFoundError(2, "No such file", "a.pt"), KeyError("a"), MemoryError()]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_left(error):
    error.add_note("and the lamp is dark")
    there = tell(error).rebuilt()
    assert (type(there), str(there)) == (type(error), str(error))
    assert there.__dict__ == error.__dict__


def test_a_group_and_an_error_that_cannot_travel_arrive_too():
    class Local(Exception):
        pass

    group = tell(ExceptionGroup("two", [LimitError("osa", "power", "much"), Local("x")])).rebuilt()
    assert isinstance(group, ExceptionGroup)
    assert group.message == "two"
    first, second = group.exceptions
    assert isinstance(first, LimitError)
    assert first.quantity == "power"
    assert (type(second), str(second)) == (RuntimeError, "Local: x")


_NUMBER = st.integers(0, 2**63 - 1)
_TIME = st.floats(0, 1e12)


@given(st.lists(st.builds(RowKey, _NUMBER, _NUMBER, _TIME)))
def test_keys_arrive_as_they_left(keys):
    assert unpack_keys(pack_keys(keys)) == keys
