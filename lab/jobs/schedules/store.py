"""The schedules in the database.

Several services may look after the same schedules. A change that only one of them may make is
conditional on what it had read, and says whether it was made. Blocking and thread-safe: for any
thread but the event loop's.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import sqlalchemy as sa

from lab.errors import Conflict, UnknownName
from lab.jobs.database import Database
from lab.jobs.schedules.records import ScheduleRecord
from lab.jobs.tables import launches, schedules

_JOBS_SHOWN = 5
_READ = ("created_s", "handled_s")  # what a schedule differs in from what it was, or was called
_COLUMNS = [f.name for f in fields(ScheduleRecord) if f.name in schedules.c]


class ScheduleStore:
    """The tables `schedules` and `launches` of a database, which is its owner's to close.

    Every method raises DatabaseAway, too.
    """

    def __init__(self, database: Database) -> None:
        """Use a database that has the tables: whoever owns it has made them."""
        self._database = database

    def add(self, schedule: ScheduleRecord) -> None:
        """Keep a new schedule; raise Conflict if there is one of its name."""
        values = {name: getattr(schedule, name) for name in _COLUMNS}
        try:
            self._database.change(sa.insert(schedules).values(values))
        except sa.exc.IntegrityError as error:
            raise Conflict(f"there is a schedule '{schedule.name}' already") from error

    def get(self, name: str) -> ScheduleRecord:
        """Return a schedule; raise UnknownName."""
        found = self._find(schedules.c.name == name)
        if not found:
            raise UnknownName(f"no schedule '{name}'")
        return found[0]

    def all(self) -> list[ScheduleRecord]:
        """Return every schedule, by name."""
        return self._find()

    def remove(self, name: str) -> None:
        """Forget a schedule; its jobs stay. Raises UnknownName."""
        if not self._database.change(sa.delete(schedules).where(schedules.c.name == name)):
            raise UnknownName(f"no schedule '{name}'")

    def pause(self, name: str) -> None:
        """Let no more ticks run; one whose job is being submitted still does. UnknownName."""
        self._set(name, paused=True)

    def go_on(self, name: str, now_s: float) -> None:
        """Let the ticks of a paused schedule run from now on; raise UnknownName."""
        paused = schedules.c.name == name, schedules.c.paused
        change = sa.update(schedules).where(*paused).values(paused=False, handled_s=now_s)
        if not self._database.change(change):
            self.get(name)  # it runs already, or there is none

    def skip(self, seen: ScheduleRecord, until_s: float, note: str = "") -> bool:
        """Count the ticks up to `until_s` as done with, and keep why where there is a reason.

        seen: the schedule as it was read. Changes nothing and returns False if it is another now.
        """
        return self._handle(seen, {"handled_s": until_s} | ({"note": note} if note else {}))

    def claim(self, seen: ScheduleRecord, tick_s: float, now_s: float) -> bool:
        """Take a tick, to run it, and count all up to it as done with; False as in `skip`."""
        return self._handle(seen, {"handled_s": tick_s, "launching_s": tick_s, "claimed_s": now_s})

    def _handle(self, seen: ScheduleRecord, values: dict[str, Any]) -> bool:
        same = [schedules.c[key] == getattr(seen, key) for key in ("name", *_READ)]
        free = schedules.c.launching_s.is_(None), sa.not_(schedules.c.paused)
        return bool(self._database.change(sa.update(schedules).where(*same, *free).values(values)))

    def launched(
        self, seen: ScheduleRecord, tick_s: float, *, job: str | None = None, error: str = ""
    ) -> bool:
        """Note the job of a claimed tick, or why there is none; False if somebody else has."""
        same = schedules.c.name == seen.name, schedules.c.created_s == seen.created_s
        change = sa.update(schedules).where(*same, schedules.c.launching_s == tick_s)
        values = {"launching_s": None, "claimed_s": None, "note": "", "error": error}
        launch = sa.insert(launches).values(schedule=seen.name, job=job)
        more = () if job is None else (launch,)
        return bool(self._database.change(change.values(**values), *more))

    def add_job(self, name: str, job: str) -> None:
        """Note a job that a schedule started beside its ticks, once; raise UnknownName."""
        # requests with one key may come at once: the schedule's row lets them take turns
        row = sa.select(schedules.c.name).where(schedules.c.name == name).with_for_update()
        noted = sa.select(launches.c.number).where(
            launches.c.schedule == name, launches.c.job == job
        )

        def note(connection: sa.Connection) -> None:
            if connection.execute(row).first() is None:
                raise UnknownName(f"no schedule '{name}'")
            if connection.execute(noted).first() is None:
                connection.execute(sa.insert(launches).values(schedule=name, job=job))

        self._database.write(note)

    def fail(self, name: str, error: str) -> None:
        """Note why a schedule cannot be looked after; raise UnknownName."""
        self._set(name, error=error)

    def _set(self, name: str, **values: Any) -> None:
        change = sa.update(schedules).where(schedules.c.name == name)
        if not self._database.change(change.values(**values)):
            raise UnknownName(f"no schedule '{name}'")

    def _find(self, *where: sa.ColumnElement[bool]) -> list[ScheduleRecord]:
        def find(connection: sa.Connection) -> list[ScheduleRecord]:
            rows = connection.execute(sa.select(schedules).where(*where).order_by("name"))
            found = [_record(row) for row in rows]
            return [replace(s, jobs=_newest_jobs(connection, s.name)) for s in found]

        return self._database.read(find)


def _newest_jobs(connection: sa.Connection, name: str) -> tuple[str, ...]:
    query = sa.select(launches.c.job).where(launches.c.schedule == name)
    newest = query.order_by(launches.c.number.desc()).limit(_JOBS_SHOWN)
    jobs: Sequence[str] = connection.scalars(newest).all()
    return tuple(jobs)


def _record(row: sa.Row[Any]) -> ScheduleRecord:
    values = dict(row._mapping)
    return ScheduleRecord(**{**values, "tags": tuple(values["tags"])})
