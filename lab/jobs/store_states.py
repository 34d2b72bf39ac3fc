"""What becomes of the jobs of a store: who works on them, what they are asked for, their ends.

An attempt is one process's work on a job; only the newest counts (`lab.jobs.records.JobRecord`).
"""

import time
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from lab.errors import Superseded
from lab.jobs.database import Database
from lab.jobs.plain import plain
from lab.jobs.records import ACTIVE, ENDED, STOPPED, WISHES, JobRecord, JobState, Wish
from lab.jobs.store_jobs import find_job, job_of, job_rows
from lab.jobs.tables import jobs


class StateStore:
    """Change the states of jobs in a database; a part of `lab.jobs.store.Store`."""

    _database: Database

    def claim_job(self, job_id: str, run: int, host: str) -> JobRecord | None:
        """Let this process work on a run of a job: it runs from now on, under a new attempt.

        None where there is nothing to do: it has ended or is paused, or a later run counts.
        """
        died = sa.case((jobs.c.state == "running", jobs.c.deaths + 1), else_=jobs.c.deaths)
        change = (
            _active(job_id)
            .where(jobs.c.run == run)
            .values(
                state="running",
                host=host,
                attempt=jobs.c.attempt + 1,
                deaths=died,
                started_s=sa.func.coalesce(jobs.c.started_s, time.time()),
            )
        )
        query = job_rows().where(jobs.c.id == job_id)

        def claim(connection: sa.Connection) -> sa.Row[Any] | None:
            # at once: later the job may be another host's, under a newer attempt
            return connection.execute(query).one() if connection.execute(change).rowcount else None

        row = self._database.write(claim)
        return None if row is None else job_of(row)

    def deaths(self, job_id: str) -> int:
        """Return how often in a row its process has died without a metric in between."""
        query = sa.select(jobs.c.deaths).where(jobs.c.id == job_id)
        return int(self._database.row(query, f"no job '{job_id}'").deaths)

    def holds(self, job_id: str, attempt: int) -> bool:
        """Say whether an attempt is still the one that counts."""
        return _holds(self._database, job_id, attempt)

    def superseded(self, attempts: Mapping[str, int]) -> list[str]:
        """Return the ids of those of some jobs whose attempt does not count any more."""
        query = sa.select(jobs.c.id, jobs.c.attempt).where(jobs.c.id.in_(attempts))
        return [row.id for row in self._database.rows(query) if row.attempt != attempts[row.id]]

    def hand_back(self, job_id: str, attempt: int) -> None:
        """Let a job go on elsewhere or later: it is pending again."""
        change = _active(job_id).where(jobs.c.attempt == attempt)
        self._database.change(change.values(state="pending", deaths=0))

    def wish(self, job_id: str, wish: Wish, reason: str) -> bool:
        """Ask a running job for something, also for after a crash; say whether it is asked now.

        It is not where it does not run any more, or has been asked for more already.
        """
        change = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state == "running")
        change = change.where(jobs.c.wish.in_(WISHES[: WISHES.index(wish) + 1]))
        return self._database.change(change.values(wish=wish, error=reason)) > 0

    def wishes(self, job_ids: Collection[str]) -> dict[str, tuple[Wish, str]]:
        """Return what some of these jobs have been asked for, and why."""
        query = sa.select(jobs.c.id, jobs.c.wish, jobs.c.error)
        rows = self._database.rows(query.where(jobs.c.id.in_(job_ids), jobs.c.wish != ""))
        return {row.id: (row.wish, row.error) for row in rows}

    def settle_pending(self, job_id: str, state: JobState, reason: str = "") -> bool:
        """Pause or end a job that does not run; say whether it was pending or paused."""
        waiting = jobs.c.state.in_(("pending", "paused"))
        change = sa.update(jobs).where(jobs.c.id == job_id, waiting)
        finished_s = time.time() if state in ENDED else None
        values = {"state": state, "error": reason, "finished_s": finished_s}
        return self._database.change(change.values(**values)) > 0

    def continue_job(self, job_id: str, config: Mapping[str, Any]) -> int | None:
        """Let a job that is paused or has ended without success run again; return its new run.

        None where it is in another state.
        """
        change = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(STOPPED))
        values: dict[str, Any] = {
            "state": "pending",
            "run": jobs.c.run + 1,
            "config": plain(config),
            "priority": config.get("priority", 0),
            "deadline_s": config.get("deadline_s"),
            "continued_s": time.time(),
        }
        cleared = {"error": "", "wish": "", "finished_s": None, "deaths": 0}
        again = self._database.change(change.values(**values, **cleared))
        return find_job(self._database, job_id).run if again else None

    def next_run(self, job_id: str, run: int, *, unclaimed: bool = False) -> bool:
        """Count a new run of a job whose last one was handed back; say whether it still was.

        unclaimed: only if nobody works on it.
        """
        change = _active(job_id).where(jobs.c.run == run)
        if unclaimed:
            change = change.where(jobs.c.state == "pending")
        return self._database.change(change.values(run=run + 1)) > 0

    def take_over(self, job_id: str, run: int, host: str) -> bool:
        """Count a new run of a job that a dead host was working on; say whether it still was.

        Should that host wake, its attempt does not count any more.
        """
        change = _active(job_id).where(
            jobs.c.run == run, jobs.c.host == host, jobs.c.state == "running"
        )
        again = {"run": run + 1, "attempt": jobs.c.attempt + 1, "state": "pending"}
        return self._database.change(change.values(**again, deaths=jobs.c.deaths + 1)) > 0

    def end_job(
        self,
        job_id: str,
        state: JobState,
        *,
        error: str = "",
        result: Mapping[str, Any] | None = None,
        attempt: int | None = None,
    ) -> None:
        """Give a job its final state, or pause it, with its result where it succeeded; once only.

        Raises Superseded if the attempt does not count any more.
        """
        change = _active(job_id)
        if attempt is not None:
            change = change.where(jobs.c.attempt == attempt)
        values = {
            "state": state,
            "error": error,
            "wish": "",
            "finished_s": time.time() if state in ENDED else None,
            "result": None if result is None else plain(result),
        }
        if not self._database.change(change.values(**values)) and attempt is not None:
            refuse_superseded(self._database, job_id, attempt)


def refuse_superseded(database: Database, job_id: str, attempt: int) -> None:
    """Raise Superseded unless an attempt is still the one that counts."""
    if not _holds(database, job_id, attempt):
        raise superseded(job_id)


def superseded(job_id: str) -> Superseded:
    """Return the error of an attempt that does not count any more."""
    return Superseded(f"job {job_id}: another process has taken it over")


def _holds(database: Database, job_id: str, attempt: int) -> bool:
    query = sa.select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.attempt == attempt)
    return bool(database.rows(query))


def _active(job_id: str) -> sa.Update:
    return sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(ACTIVE))
