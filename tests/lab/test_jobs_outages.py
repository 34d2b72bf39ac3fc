"""A training whose disk or database fails for a while ends as if nothing had happened."""

import asyncio
import functools
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import lab.jobs.database
import lab.jobs.runner
import tiny_jobs
from forwarder import Forwarder
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.errors import DatabaseAway
from lab.jobs.patience import Kind, Outages, Patience
from lab.jobs.records import JobRecord, MetricRecord
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.state_files import checkpoint_file, load_state
from lab.jobs.store import Store
from lab.scheduling.scheduler import HardwareScheduler
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")
LIMIT_S = 60.0  # no wait in these tests lasts so long unless something hangs
TRAINING = TrainConfig.model_validate(
    {
        "task": "vowels",
        "epochs": 15,
        "network": {"layers": 1},
        "checkpoint_s": 0,
        "twin": {"rows": 20},
    }
)


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        have_done(patch, tiny_jobs.tiny)
        yield


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what is set as soon as a thread waits for the database."""
    event, failed = threading.Event(), Outages.failed

    def note(outages: Outages, kind: Kind, reason: str) -> float:
        event.set()
        return failed(outages, kind, reason)

    monkeypatch.setattr(Outages, "failed", note)
    return event


@asynccontextmanager
async def service(folder: Path, url: str | None = None) -> AsyncIterator[tuple[JobService, Store]]:
    folder.mkdir(exist_ok=True)
    with Store(folder, url) as store, open_bench(BENCH, start=False) as opened:
        async with HardwareScheduler(opened.systems) as scheduler:
            jobs = JobService(JobRunner(opened, scheduler, store), store, 1)
            try:
                await jobs.open()
                yield jobs, store
            finally:
                await jobs.close()


async def metrics(jobs: JobService, job_id: str, number: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        async for item in jobs.watch(job_id):
            number -= isinstance(item, MetricRecord)
            if number == 0:
                return
    raise AssertionError(f"the job ended before: {item}")


async def ended(jobs: JobService, job_id: str) -> JobRecord:
    async with asyncio.timeout(LIMIT_S):
        seen = [item async for item in jobs.watch(job_id)]
    last = seen[-1]
    assert isinstance(last, JobRecord)
    return last


async def outcome(jobs: JobService, store: Store, job_id: str) -> dict[str, Any]:
    """Return all that a training leaves, but for times and random names."""
    record = await ended(jobs, job_id)
    assert (record.state, record.error) == ("succeeded", "")
    result = await jobs.result(job_id)
    told = await jobs.metrics(job_id)
    kept = load_state(store.files, checkpoint_file(job_id))
    return {
        "result": result | {"seconds": 0, "twin": "", "curve": len(result["curve"])},
        "steps": [m.step for m in told],
        "metrics": [m.metric | {"seconds": 0} for m in told],
        **{name: {n: v.tolist() for n, v in kept[name].items()} for name in ("network", "twin")},
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny: None) -> dict[str, Any]:
    """Return what the training leaves where nothing fails."""

    async def run() -> dict[str, Any]:
        async with service(tmp_path_factory.mktemp("whole")) as (jobs, store):
            job = await jobs.submit(TRAINING)
            return await outcome(jobs, store, job.id)

    return asyncio.run(run())


@pytest.fixture(params=["another's lock", "read-only", "full", "server gone"])
def failing(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str | None, Callable[[Store], Callable[[], object]]]]:
    """Return a database's URL, and what lets it fail: that returns what mends it."""
    if request.param == "server gone":
        there = sa.make_url(request.getfixturevalue("postgres_url"))
        with Forwarder("127.0.0.1", there.port or 5432) as line:
            url = there.set(port=line.port).render_as_string(hide_password=False)
            yield url, lambda store: (line.cut(), line.mend)[1]
        return
    monkeypatch.setattr(lab.jobs.database, "_SQLITE", ("journal_mode=WAL", "busy_timeout=0"))
    if request.param == "another's lock":
        yield None, lock
    else:
        pragmas = {
            "read-only": ("query_only=ON", "query_only=OFF"),
            "full": ("max_page_count=1", "max_page_count=1000000"),
        }
        yield None, functools.partial(limit, *pragmas[request.param])


def lock(store: Store) -> Callable[[], object]:
    other = sqlite3.connect(
        store.folder / "pnnlab.sqlite", isolation_level=None, check_same_thread=False
    )
    with store._database.turn:  # between two of its writes
        other.execute("BEGIN EXCLUSIVE")
    return other.close


def limit(pragma: str, lifted: str, store: Store) -> Callable[[], object]:
    now = [pragma]

    def checkout(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA {now[0]}").close()

    sa.event.listen(store.engine, "checkout", checkout)
    return lambda: now.__setitem__(0, lifted)


async def test_a_training_goes_on_when_the_cause_is_gone(
    tmp_path: Path,
    expected: dict[str, Any],
    failing: tuple[str | None, Callable[[Store], Callable[[], object]]],
    waited: threading.Event,
) -> None:
    url, fail = failing
    async with service(tmp_path, url) as (jobs, store):
        job = await jobs.submit(TRAINING)
        await metrics(jobs, job.id, 5)
        waited.clear()
        mend = await asyncio.to_thread(fail, store)
        assert await asyncio.to_thread(waited.wait, LIMIT_S)
        assert store.outage() is not None
        await asyncio.to_thread(mend)
        assert await outcome(jobs, store, job.id) == expected
        assert store.outage() is None


async def test_a_service_stops_at_once_though_its_jobs_wait(
    tmp_path: Path, postgres_url: str, waited: threading.Event
) -> None:
    there = sa.make_url(postgres_url)
    with Forwarder("127.0.0.1", there.port or 5432) as line:
        url = there.set(port=line.port).render_as_string(hide_password=False)
        async with service(tmp_path, url) as (jobs, _):
            job = await jobs.submit(TRAINING.model_copy(update={"epochs": 10_000}))
            await metrics(jobs, job.id, 5)
            waited.clear()
            await asyncio.to_thread(line.cut)
            assert await asyncio.to_thread(waited.wait, LIMIT_S)
        # nothing goes on trying, which would keep the process from ending
        for thread in [t for t in threading.enumerate() if t.name.startswith("dbos-executor")]:
            await asyncio.to_thread(thread.join, LIMIT_S)
            assert not thread.is_alive()
    async with service(tmp_path, postgres_url) as (jobs, _):  # and it goes on in the next one
        assert not (await jobs.get(job.id)).ended
        await jobs.cancel(job.id)
        assert (await ended(jobs, job.id)).state == "cancelled"


async def test_jobs_are_stopped_though_that_cannot_be_noted(
    tmp_path: Path, waited: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end as cancelled once it can."""
    short = functools.partial(Patience, limit_s=0.2)
    monkeypatch.setattr(lab.jobs.database, "Patience", short)
    async with service(tmp_path) as (jobs, store):
        running, pending = [
            await jobs.submit(TRAINING.model_copy(update={"epochs": 10_000})) for _ in range(2)
        ]
        await metrics(jobs, running.id, 5)
        mend = limit("query_only=ON", "query_only=OFF", store)
        await jobs.cancel_all("stopped by ann")
        assert await asyncio.to_thread(waited.wait, LIMIT_S)
        with pytest.raises(DatabaseAway):
            await asyncio.to_thread(store.impatient().wish, running.id, "", "")
        mend()
        for job in (running, pending):
            record = await ended(jobs, job.id)
            assert (record.state, record.error) == ("cancelled", "stopped by ann")
