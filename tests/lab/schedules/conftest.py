"""Schedules in a database of each kind, with a clock that is set by hand and jobs that are none."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

import postgres
from lab.errors import UnknownName
from lab.jobs.database import Database
from lab.jobs.kinds import JobConfig, kind_of
from lab.jobs.records import JobRecord, JobState, Order
from lab.jobs.schedules.records import ScheduleRecord
from lab.jobs.schedules.store import ScheduleStore
from lab.jobs.store import Store
from lab.jobs.tables import schedules

START = datetime(2026, 11, 22, 12, tzinfo=UTC)


class HandClock:
    """A clock on the wall that stands still until it is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def go(self, **time: float) -> None:
        """Let so much time pass, or go back."""
        self.now += timedelta(**time)

    async def pause(self, seconds: float) -> None:
        """Let time pass in place of `asyncio.sleep`."""
        self.go(seconds=seconds)


class KeyedJobs:
    """Jobs that only stand in a list; the same key is answered with the same job.

    before, after: called within `submit`, before and after the job is kept.
    """

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.configs: list[JobConfig] = []
        self.before: Callable[[JobConfig], None] = lambda config: None
        self.after: Callable[[JobConfig], None] = lambda config: None
        self._records: dict[str, JobRecord] = {}

    async def check(self, config: JobConfig) -> JobConfig:
        if config.system == "nowhere":
            raise UnknownName("no system 'nowhere'")
        return config

    async def submit(self, config: JobConfig, order: Order) -> JobRecord:
        self.before(config)
        await asyncio.sleep(0)  # where two services may take turns
        job = next((i for i, o in self.orders.items() if o.key == order.key and o.key), None)
        if job is None:
            job = f"job{len(self.orders) + 1}"
            self.orders[job] = order
            self.configs.append(config)
            times = {"created_s": 0.0, "started_s": None, "finished_s": None}
            plain = config.model_dump(mode="json")
            facts: dict[str, Any] = {"config": plain, "client": order.client, "error": ""}
            self._records[job] = JobRecord(
                job, kind_of(config), "pending", **facts, **times, last_step=0
            )
        self.after(config)
        return self._records[job]

    async def get(self, job_id: str) -> JobRecord:
        if job_id not in self._records:
            raise UnknownName(f"no job '{job_id}'")
        return self._records[job_id]

    def turn(self, job_id: str, state: JobState) -> None:
        """Give a job another state."""
        self._records[job_id] = replace(self._records[job_id], state=state)

    def forget(self, job_id: str) -> None:
        """Delete a job's record, as a service may delete old ones."""
        del self._records[job_id]

    @property
    def keys(self) -> list[str | None]:
        """Get the keys of the jobs, oldest first."""
        return [order.key for order in self.orders.values()]


@pytest.fixture
def wall() -> HandClock:
    return HandClock()


@pytest.fixture
def jobs() -> KeyedJobs:
    return KeyedJobs()


@pytest.fixture(scope="session")
def jobs_and_wall() -> Callable[[], tuple[KeyedJobs, HandClock]]:
    """Return what makes new ones, for a test with many examples."""
    return lambda: (KeyedJobs(), HandClock())


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory) -> Iterator[Database]:
    """Return a PostgreSQL database with the tables, or skip the test."""
    if reason := postgres.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("store")
    with postgres.open_database() as url, Store(folder, url) as store:
        yield store.database


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path) -> Iterator[Database]:
    """Return a database of each kind, without a schedule."""
    if request.param == "postgresql":
        database = request.getfixturevalue("postgresql")
        yield database
        with database.engine.begin() as connection:
            connection.execute(sa.delete(schedules))
        return
    with Store(tmp_path) as store:
        yield store.database


@pytest.fixture
def store(database: Database) -> ScheduleStore:
    return ScheduleStore(database)


@pytest.fixture(scope="session")
def schedule() -> Callable[..., ScheduleRecord]:
    """Return what makes the record of a schedule that fits a twin at every full hour."""

    def made(name: str = "refit", **fields: Any) -> ScheduleRecord:
        usual: dict[str, Any] = {"cron": "0 * * * *", "time_zone": "Europe/Zurich", "kind": "fit"}
        usual |= {"config": {"rows": 40}, "missed": "once", "overlap": "skip", "client": "ann"}
        usual |= {"tags": ("nightly",), "created_s": START.timestamp()}
        return ScheduleRecord(name, **(usual | {"handled_s": START.timestamp()} | fields))

    return made
