"""A training whose disk or database fails for a while ends as if nothing had happened."""

import asyncio
import functools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import lab.jobs.database
import lab.jobs.runner
import tiny_jobs
from forwarder import Forwarder
from lab.errors import DatabaseAway
from lab.jobs.patience import Kind, Outages, Patience
from lab.jobs.store import Store
from opened_jobs import LIMIT_S, ended, metric, open_jobs, outcome, training
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

TRAINING = training(epochs=15, checkpoint_s=0)


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


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny: None) -> dict[str, Any]:
    """Return what the training leaves where nothing fails."""

    async def run() -> dict[str, Any]:
        async with open_jobs(tmp_path_factory.mktemp("whole")) as jobs:
            job = await jobs.submit(TRAINING)
            return await outcome(jobs, job.id)

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
    async with open_jobs(tmp_path, url=url) as jobs:
        store = jobs._store
        job = await jobs.submit(TRAINING)
        await metric(jobs, job.id, number=5)
        waited.clear()
        mend = await asyncio.to_thread(fail, store)
        assert await asyncio.to_thread(waited.wait, LIMIT_S)
        assert store.outage() is not None
        await asyncio.to_thread(mend)
        assert await outcome(jobs, job.id) == expected
        assert store.outage() is None


async def test_a_service_stops_at_once_though_its_jobs_wait(
    tmp_path: Path, postgres_url: str, waited: threading.Event
) -> None:
    there = sa.make_url(postgres_url)
    with Forwarder("127.0.0.1", there.port or 5432) as line:
        url = there.set(port=line.port).render_as_string(hide_password=False)
        async with open_jobs(tmp_path, url=url) as jobs:
            job = await jobs.submit(TRAINING.model_copy(update={"epochs": 10_000}))
            await metric(jobs, job.id, number=5)
            waited.clear()
            await asyncio.to_thread(line.cut)
            assert await asyncio.to_thread(waited.wait, LIMIT_S)
        # nothing goes on trying, which would keep the process from ending
        for thread in [t for t in threading.enumerate() if t.name.startswith("dbos-executor")]:
            await asyncio.to_thread(thread.join, LIMIT_S)
            assert not thread.is_alive()
    async with open_jobs(tmp_path, url=postgres_url) as jobs:  # and it goes on in the next one
        assert not (await jobs.get(job.id)).ended
        await jobs.cancel(job.id)
        assert (await ended(jobs, job.id)).state == "cancelled"


async def test_jobs_are_stopped_though_that_cannot_be_noted(
    tmp_path: Path, waited: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end as cancelled once it can."""
    short = functools.partial(Patience, limit_s=0.2)
    monkeypatch.setattr(lab.jobs.database, "Patience", short)
    async with open_jobs(tmp_path) as jobs:
        store = jobs._store
        running, pending = [
            await jobs.submit(TRAINING.model_copy(update={"epochs": 10_000})) for _ in range(2)
        ]
        await metric(jobs, running.id, number=5)
        mend = limit("query_only=ON", "query_only=OFF", store)
        await jobs.cancel_all("stopped by ann")
        assert await asyncio.to_thread(waited.wait, LIMIT_S)
        with pytest.raises(DatabaseAway):
            await asyncio.to_thread(store.impatient().wish, running.id, "", "")
        mend()
        for job in (running, pending):
            record = await ended(jobs, job.id)
            assert (record.state, record.error) == ("cancelled", "stopped by ann")
