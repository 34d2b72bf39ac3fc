"""The task that looks at the clock and starts the jobs of the ticks that are due."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from lab.errors import DatabaseAway, SystemClosed, UnknownName
from lab.jobs.records import JobRecord
from lab.jobs.schedules.due import due
from lab.jobs.schedules.launching import Jobs, job_config, moment, shown, tick_order, utc_now
from lab.jobs.schedules.records import ScheduleRecord
from lab.jobs.schedules.store import ScheduleStore
from lab.jobs.schedules.timetable import Timetable
from lab.traces import trace_of

log = logging.getLogger(__name__)

# The clock may be set, and schedules added by another service: nobody tells of either.
LONGEST_PAUSE_S = 5.0
TAKEOVER_S = 15.0
AWAY = (SQLAlchemyError, DatabaseAway)  # no reason to give up a tick
_SHORTEST_PAUSE_S = 0.01


class ScheduleClock:
    """Look after all schedules of a database, of which there may be several lookers.

    now: the time, with its zone. pause: waits for so many seconds.
    """

    def __init__(
        self,
        store: ScheduleStore,
        jobs: Jobs,
        now: Callable[[], datetime] = utc_now,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Start jobs with `jobs`; nothing is done before `run` or `look`."""
        self._store = store
        self._jobs = jobs
        self._now = now
        self._pause = pause

    async def run(self) -> None:
        """Look at the clock at every tick and at least every LONGEST_PAUSE_S; until cancelled."""
        while True:
            pause_s = LONGEST_PAUSE_S
            try:
                pause_s = await self.look()
            except AWAY as error:  # its message says it all
                log.warning("schedules: the database cannot be used, looking again: %s", error)
            except Exception:
                log.exception("schedules: looking again")
            await self._pause(pause_s)

    async def look(self) -> float:
        """Run what is due on every schedule; return after how many seconds to look again.

        What goes wrong with one schedule is kept as its error. Raises AWAY.
        """
        pause_s = LONGEST_PAUSE_S
        for schedule in await asyncio.to_thread(self._store.all):
            try:
                pause_s = min(pause_s, await self._look_at(schedule))
            except AWAY:
                raise
            except Exception as error:
                await self._fail(schedule, error)
        return max(pause_s, _SHORTEST_PAUSE_S)

    async def _look_at(self, schedule: ScheduleRecord) -> float:
        """Run what is due on one schedule; return in how many seconds something else will be."""
        now = self._now()
        if schedule.launching_s is not None:
            await self._take_over(schedule, schedule.launching_s, now)
            return LONGEST_PAUSE_S
        if schedule.paused:
            return LONGEST_PAUSE_S
        timetable = Timetable(schedule.cron, schedule.time_zone)
        found = due(timetable, moment(schedule.handled_s), now, schedule.missed)
        if found.run is not None:
            await self._run(schedule, found.run, now)
        elif found.handled != moment(schedule.handled_s):
            note = f"tick {shown(schedule, found.drop)} was missed" if found.drop else ""
            await self._skip(schedule, found.handled, note)
        return (timetable.next_after(now) - self._now()).total_seconds()

    async def _run(self, schedule: ScheduleRecord, tick: datetime, now: datetime) -> None:
        job = await self._unfinished(schedule)
        if job is not None:
            note = f"tick {shown(schedule, tick)} skipped: job {job.id} is {job.state}"
            await self._skip(schedule, tick, note)
            return
        tick_s, now_s = tick.timestamp(), now.timestamp()
        if await asyncio.to_thread(self._store.claim, schedule, tick_s, now_s):
            await self._launch(schedule, tick_s)

    async def _skip(self, schedule: ScheduleRecord, until: datetime, note: str) -> None:
        if await asyncio.to_thread(self._store.skip, schedule, until.timestamp(), note) and note:
            log.warning("schedule %s: %s", schedule.name, note)

    async def _take_over(self, schedule: ScheduleRecord, tick_s: float, now: datetime) -> None:
        """Launch a claimed tick whose service seems to have died; if it has not, the key is one."""
        age_s = now.timestamp() - (schedule.claimed_s or 0.0)
        if abs(age_s) > TAKEOVER_S:  # a clock may have been set back
            await self._launch(schedule, tick_s)

    async def _unfinished(self, schedule: ScheduleRecord) -> JobRecord | None:
        """Return the schedule's last job if a tick is to be skipped for it."""
        if schedule.overlap == "queue" or not schedule.jobs:
            return None
        with suppress(UnknownName):  # it has been deleted
            job = await self._jobs.get(schedule.jobs[0])
            return None if job.ended else job
        return None

    async def _launch(self, schedule: ScheduleRecord, tick_s: float) -> None:
        order = tick_order(schedule, moment(tick_s))
        job, error = None, ""
        try:
            job = await self._jobs.submit(job_config(schedule), order)
        except SystemClosed:
            return  # the claim stays, for the next service
        except AWAY:
            raise  # likewise
        except Exception as failure:
            log.warning("%s failed: %s", order.origin, failure, exc_info=trace_of(failure))
            error = f"tick {shown(schedule, moment(tick_s))}: {type(failure).__name__}: {failure}"
        else:
            log.info("%s: job %s", order.origin, job.id)
        job_id = None if job is None else job.id
        await asyncio.to_thread(self._store.launched, schedule, tick_s, job=job_id, error=error)

    async def _fail(self, schedule: ScheduleRecord, failure: Exception) -> None:
        """Keep what makes it impossible to look after a schedule; once, not at every look."""
        error = f"{type(failure).__name__}: {failure}"
        if error != schedule.error:
            log.warning("schedule %s: %s", schedule.name, error, exc_info=trace_of(failure))
            with suppress(UnknownName):  # it has just been removed
                await asyncio.to_thread(self._store.fail, schedule.name, error)
