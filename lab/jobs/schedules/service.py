"""What a client does with schedules: add, look at, pause, start and remove them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from lab.errors import ConfigError
from lab.jobs.records import JobRecord, Order
from lab.jobs.schedules.launching import Jobs, job_config, utc_now
from lab.jobs.schedules.records import ScheduleConfig, ScheduleRecord
from lab.jobs.schedules.store import ScheduleStore
from lab.jobs.schedules.timetable import Timetable
from lab.jobs.schedules.zones import machine_zone

_TICKS_SHOWN = 3


class ScheduleService:
    """Keep schedules, whose jobs the `ScheduleClock` of any service on their database starts.

    now: the time, with its zone.
    """

    def __init__(
        self, store: ScheduleStore, jobs: Jobs, now: Callable[[], datetime] = utc_now
    ) -> None:
        """Check the jobs of schedules with `jobs`."""
        self._store = store
        self._jobs = jobs
        self._now = now

    async def add(self, asked: ScheduleConfig, client: str = "local") -> ScheduleRecord:
        """Keep a new schedule of `client`'s; its ticks run from now on.

        Raises ConfigError (cron, time zone, or a config that cannot work), UnknownName (system,
        twin), Conflict if there is one of its name.
        """
        now_s = self._now().timestamp()
        fields = asked.model_dump(mode="json")
        zone = machine_zone() if asked.time_zone is None else asked.time_zone
        filled = fields | {"time_zone": zone, "tags": asked.tags}
        schedule = ScheduleRecord(**filled, client=client, created_s=now_s, handled_s=now_s)
        shown = self._with_ticks(schedule)
        try:
            await self._jobs.check(job_config(schedule))
        except ConfigError as error:
            raise ConfigError(f"config: {error}") from error
        await asyncio.to_thread(self._store.add, schedule)
        return shown

    async def get(self, name: str) -> ScheduleRecord:
        """Return a schedule; raise UnknownName."""
        return self._shown(await asyncio.to_thread(self._store.get, name))

    async def all(self) -> list[ScheduleRecord]:
        """Return every schedule, by name."""
        return [self._shown(schedule) for schedule in await asyncio.to_thread(self._store.all)]

    async def remove(self, name: str) -> None:
        """Forget a schedule; its jobs stay and go on. Raises UnknownName."""
        await asyncio.to_thread(self._store.remove, name)

    async def pause(self, name: str) -> ScheduleRecord:
        """Let no more ticks run and return the schedule; raise UnknownName."""
        await asyncio.to_thread(self._store.pause, name)
        return await self.get(name)

    async def go_on(self, name: str) -> ScheduleRecord:
        """Let a paused schedule's ticks run from now on and return it; raise UnknownName.

        Those that came while it was paused do not run.
        """
        await asyncio.to_thread(self._store.go_on, name, self._now().timestamp())
        return await self.get(name)

    async def run(self, name: str, key: str | None = None) -> JobRecord:
        """Start a schedule's job now, whatever it waits for, and return the job.

        key: idempotency key. Raises UnknownName, and what submitting the job raises.
        """
        schedule = await asyncio.to_thread(self._store.get, name)
        order = Order(schedule.client, key, schedule.tags, f"schedule {name}, by request")
        job = await self._jobs.submit(job_config(schedule), order)
        if job.id not in schedule.jobs:  # the key may have been answered with a job that is there
            await asyncio.to_thread(self._store.add_job, name, job.id)
        return job

    def _shown(self, schedule: ScheduleRecord) -> ScheduleRecord:
        """Return a schedule with its next ticks; with an error if its zone is not known here."""
        try:
            return self._with_ticks(schedule)
        except ConfigError as error:
            return replace(schedule, error=str(error))

    def _with_ticks(self, schedule: ScheduleRecord) -> ScheduleRecord:
        if schedule.paused:
            return schedule
        timetable = Timetable(schedule.cron, schedule.time_zone)
        ticks = timetable.upcoming(self._now(), _TICKS_SHOWN)
        iso = tuple(tick.isoformat(timespec="seconds") for tick in ticks)
        return replace(schedule, next_ticks=iso)
