"""What a schedule's job is: its config, and what is asked for beside it."""

from datetime import UTC, datetime
from typing import Protocol

from lab.errors import ConfigError
from lab.jobs.kinds import JobConfig, read_job_config
from lab.jobs.records import JobRecord, Order
from lab.jobs.schedules.records import ScheduleRecord
from lab.jobs.schedules.zones import find_zone


class Jobs(Protocol):
    """What schedules need of the service that runs jobs.

    `submit` answers with the same job to the same key.
    """

    async def check(self, config: JobConfig) -> JobConfig:
        """Return the config as it would run; raise what can be known not to work."""
        ...

    async def submit(self, config: JobConfig, order: Order) -> JobRecord:
        """Keep a new job, to run."""
        ...

    async def get(self, job_id: str) -> JobRecord:
        """Return a job; raise UnknownName."""
        ...


def utc_now() -> datetime:
    """Return the time on this machine's clock."""
    return datetime.now(UTC)


def moment(seconds: float) -> datetime:
    """Return a time in seconds since the epoch as a datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def shown(schedule: ScheduleRecord, tick: datetime) -> str:
    """Return a tick as the schedule's owner reads it: ISO, in the schedule's zone."""
    return tick.astimezone(find_zone(schedule.time_zone)).isoformat(timespec="seconds")


def job_config(schedule: ScheduleRecord) -> JobConfig:
    """Return the config of a schedule's jobs; raise ConfigError."""
    config = read_job_config(schedule.kind, schedule.config)
    if config.deadline_s is not None:
        raise ConfigError("config.deadline_s: one moment cannot be the deadline of every job")
    return config


def tick_order(schedule: ScheduleRecord, tick: datetime) -> Order:
    """Return what to ask for a tick's job: it has one key, whoever submits it."""
    key = f"schedule:{schedule.name}:{tick.astimezone(UTC).isoformat(timespec='seconds')}"
    origin = f"schedule {schedule.name}, tick {shown(schedule, tick)}"
    return Order(schedule.client, key, schedule.tags, origin)
