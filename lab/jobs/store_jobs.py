"""The jobs of a store: those that are new, and those that are looked for."""

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa

from lab.errors import Conflict
from lab.jobs.database import Database
from lab.jobs.plain import plain
from lab.jobs.records import ACTIVE, JobKind, JobRecord, JobState, Order
from lab.jobs.tables import jobs

_NO_ORDER = Order()
_SHOWN = {field.name for field in fields(JobRecord)}
_TURN = (jobs.c.priority.desc(), jobs.c.created_s, jobs.c.id)  # the order of those that wait


class JobStore:
    """Add jobs to a database and find them; a part of `lab.jobs.store.Store`."""

    _database: Database

    def add_job(
        self,
        job_id: str,
        kind: JobKind,
        config: Mapping[str, Any],
        order: Order = _NO_ORDER,
        *,
        queue: str = "",
    ) -> str:
        """Keep a new job, pending, and return its id; where the order's key is known, that job's.

        Raises Conflict if the key belongs to a job with another config.
        """
        kept = plain(config)
        values = {
            "id": job_id,
            "kind": kind,
            "state": "pending",
            "config": kept,
            "asked": None if order.key is None else _digest(kind, kept),
            "error": "",
            "created_s": time.time(),
            "queue": queue,
            "priority": config.get("priority", 0),
            "deadline_s": config.get("deadline_s"),
            **asdict(order),
            "tags": list(order.tags),
        }
        known = None if order.key is None else self._keyed(order.key, kind, kept)
        if known is not None:
            return known
        try:
            self._database.insert(jobs, values)
        except sa.exc.IntegrityError:
            # the same key, at the same time
            known = None if order.key is None else self._keyed(order.key, kind, kept)
            if known is None:
                raise
            return known
        return job_id

    def keyed_job(self, key: str) -> JobRecord | None:
        """Return the job that was submitted with an idempotency key, None where there is none."""
        found = self._database.rows(job_rows().where(jobs.c.key == key))
        return job_of(found[0]) if found else None

    def _keyed(self, key: str, kind: JobKind, config: Mapping[str, Any]) -> str | None:
        found = self._database.rows(sa.select(jobs.c.id, jobs.c.asked).where(jobs.c.key == key))
        if not found:
            return None
        # not its present config, which may have changed when it was continued
        if found[0].asked != _digest(kind, config):
            raise Conflict(
                f"idempotency key '{key}' belongs to job {found[0].id}, which has another config"
            )
        return str(found[0].id)

    def job(self, job_id: str) -> JobRecord:
        """Return a job; raise UnknownName."""
        return find_job(self._database, job_id)

    def jobs(
        self,
        state: JobState | None = None,
        limit: int = 100,
        *,
        parent: str | None = None,
        tag: str | None = None,
    ) -> list[JobRecord]:
        """Return the newest jobs, newest first, of one state, comparison or tag if given."""
        query = job_rows().order_by(jobs.c.created_s.desc(), jobs.c.id).limit(limit)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if parent is not None:
            query = query.where(jobs.c.parent == parent)
        if tag is not None:
            # tags are a JSON list of words without quotes
            word = json.dumps(tag)
            query = query.where(sa.cast(jobs.c.tags, sa.Text).contains(word, autoescape=True))
        return [job_of(row) for row in self._database.rows(query)]

    def unfinished_jobs(self, queues: Collection[str] | None = None) -> list[JobRecord]:
        """Return the jobs that are pending or running, by priority, then the oldest first."""
        query = job_rows().where(jobs.c.state.in_(ACTIVE))
        if queues is not None:
            query = query.where(jobs.c.queue.in_(queues))
        return [job_of(row) for row in self._database.rows(query.order_by(*_TURN))]

    def moving_jobs(self, queues: Collection[str], since_s: float) -> list[JobRecord]:
        """Return those of the unfinished jobs of some queues with which something may be the case.

        They run, or ran before, have missed their deadline, or were submitted or continued since
        then (seconds since the epoch); the others wait for their turn, and there may be many.
        """
        query = job_rows().where(jobs.c.state.in_(ACTIVE), jobs.c.queue.in_(queues))
        moving = sa.or_(
            jobs.c.attempt > 0,
            jobs.c.deadline_s <= time.time(),
            jobs.c.created_s >= since_s,
            jobs.c.continued_s >= since_s,
        )
        return [job_of(row) for row in self._database.rows(query.where(moving).order_by(*_TURN))]

    def next_jobs(self, queue: str, limit: int) -> list[str]:
        """Return the ids of the jobs of a queue that start next, the first first."""
        query = sa.select(jobs.c.id).where(jobs.c.state == "pending", jobs.c.queue == queue)
        rows = self._database.rows(query.order_by(*_TURN).limit(limit))
        return [row.id for row in rows]


def find_job(database: Database, job_id: str) -> JobRecord:
    """Return a job; raise UnknownName."""
    query = job_rows().where(jobs.c.id == job_id)
    return job_of(database.row(query, f"no job '{job_id}'"))


def job_rows() -> sa.Select[Any]:
    """Return the query of all jobs as they are shown."""
    return sa.select(*(c for c in jobs.c if c.name in _SHOWN))


def job_of(row: sa.Row[Any]) -> JobRecord:
    """Return a job that `job_rows` has found."""
    return JobRecord(**{**row._mapping, "tags": tuple(row.tags)})


def _digest(kind: JobKind, config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([kind, config], sort_keys=True).encode()).hexdigest()
