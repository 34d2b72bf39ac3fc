"""What outlives the process: jobs, their metrics, twins and shot numbers, in one SQL database.

SQLAlchemy Core; SQLite by default, and the URL decides (`lab.jobs.database`). Parameters of twins,
checkpoints and uploads are files: beside an SQLite database, in tables of any other. Everything is
written as it happens. Blocking and thread-safe: for any thread but the event loop's. Everything
raises DatabaseAway when a disk or server stays out of reach (`lab.jobs.patience`).
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from lab.errors import ConfigError, Conflict, DatabaseAway, Superseded
from lab.jobs.database import Database, open_database
from lab.jobs.files import Files, FolderFiles
from lab.jobs.patience import Outage
from lab.jobs.records import (
    ACTIVE,
    ENDED,
    STOPPED,
    WISHES,
    JobKind,
    JobRecord,
    JobState,
    MetricRecord,
    Order,
    TwinRecord,
    Wish,
)
from lab.jobs.table_files import TableFiles
from lab.jobs.tables import jobs, metadata, metrics, pulse, shots, twins, upgrade

_NO_ORDER = Order()
_SHOWN = {field.name for field in fields(JobRecord)}
_TURN = (jobs.c.priority.desc(), jobs.c.created_s, jobs.c.id)  # the order of those that wait
_CREATING = 0x706E6E6C6162  # number of the lock while tables are created
SHOTS_AHEAD = 10**11  # shot numbers set aside for one run of the service: years of measuring


class Store:
    """The database and the files of one data folder; whoever opens it closes it (`with`)."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        """Open, and create what is missing; default: `pnnlab.sqlite` in the folder.

        Raises ConfigError for a URL of another kind than sqlite and postgresql, or a database that
        cannot be used (not there, a wrong password, no right to create tables); DatabaseAway.
        """
        self.folder = folder
        self._database = open_database(folder, url)
        try:
            self._database.write(_create_tables)
        except sa.exc.DBAPIError as error:
            self._database.engine.dispose()
            why = " ".join(str(error.orig).split())
            where = self._database.engine.url.render_as_string(hide_password=True)
            raise ConfigError(f"database {where}: cannot be used ({why})") from error

    def patient(self, pause: Callable[[float], object]) -> Self:
        """Return this store for a thread that waits for disk and server until `pause` raises.

        pause(seconds): waits between two tries. Whoever opened the store closes it.
        """
        other = copy.copy(self)
        other._database = self._database.waiting(self._database.patience.endless(pause))
        return other

    def impatient(self) -> Self:
        """Return this store for who can do without what is not possible now."""
        other = copy.copy(self)
        other._database = self._database.waiting(self._database.patience.none())
        return other

    def outage(self) -> Outage | None:
        """Return since when and why something cannot be kept or read, None while all is well."""
        return self._database.patience.outages.now()

    def look(self) -> Outage | None:
        """Return the same; where there is an outage, try first whether it has ended."""
        if self.outage() is not None:
            now = self.impatient()
            with suppress(DatabaseAway):
                beat = {"id": 1, "written_s": time.time()}
                now._database.insert(pulse, beat, replaced=["written_s"])
                now.files.write("pulse", b"")
        return self.outage()

    def hurry(self) -> None:
        """Let no request wait any longer for disk or server: the service is about to end."""
        self._database.patience.outages.hurry()

    @property
    def files(self) -> Files:
        """Get the files that every process with this database finds."""
        if self._database.on_one_machine:
            return FolderFiles(self.folder, self._database.patience)
        return TableFiles(self._database)

    @property
    def files_without_waiting(self) -> Files:
        """Get the same files; what cannot be written now fails: OSError or DatabaseAway."""
        if self._database.on_one_machine:
            return FolderFiles(self.folder)
        return TableFiles(self._database, hasty=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; idempotent."""
        self._database.engine.dispose()

    @property
    def database(self) -> Database:
        """Get the database, for those who keep tables of their own in it."""
        return self._database

    @property
    def engine(self) -> sa.Engine:
        """Get the database engine, for whoever wants to watch or back up."""
        return self._database.engine

    # jobs

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
        plain = _plain(config)
        values = {
            "id": job_id,
            "kind": kind,
            "state": "pending",
            "config": plain,
            "asked": None if order.key is None else _digest(kind, plain),
            "error": "",
            "created_s": time.time(),
            "queue": queue,
            "priority": config.get("priority", 0),
            "deadline_s": config.get("deadline_s"),
            **asdict(order),
            "tags": list(order.tags),
        }
        known = None if order.key is None else self._keyed(order.key, kind, plain)
        if known is not None:
            return known
        try:
            self._database.insert(jobs, values)
        except sa.exc.IntegrityError:
            # the same key, at the same time
            known = None if order.key is None else self._keyed(order.key, kind, plain)
            if known is None:
                raise
            return known
        return job_id

    def keyed_job(self, key: str) -> JobRecord | None:
        """Return the job that was submitted with an idempotency key, None where there is none."""
        found = self._database.rows(_job_rows().where(jobs.c.key == key))
        return _job(found[0]) if found else None

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
        query = _job_rows().where(jobs.c.id == job_id)

        def claim(connection: sa.Connection) -> sa.Row[Any] | None:
            # at once: later the job may be another host's, under a newer attempt
            return connection.execute(query).one() if connection.execute(change).rowcount else None

        row = self._database.write(claim)
        return None if row is None else _job(row)

    def deaths(self, job_id: str) -> int:
        """Return how often in a row its process has died without a metric in between."""
        query = sa.select(jobs.c.deaths).where(jobs.c.id == job_id)
        return int(self._database.row(query, f"no job '{job_id}'").deaths)

    def holds(self, job_id: str, attempt: int) -> bool:
        """Say whether an attempt is still the one that counts."""
        query = sa.select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.attempt == attempt)
        return bool(self._database.rows(query))

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
            "config": _plain(config),
            "priority": config.get("priority", 0),
            "deadline_s": config.get("deadline_s"),
        }
        cleared = {"error": "", "wish": "", "finished_s": None, "deaths": 0}
        values["continued_s"] = time.time()
        return (
            self.job(job_id).run
            if self._database.change(change.values(**values, **cleared))
            else None
        )

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
            "result": None if result is None else _plain(result),
        }
        if not self._database.change(change.values(**values)) and attempt is not None:
            self._refuse_superseded(job_id, attempt)

    def _refuse_superseded(self, job_id: str, attempt: int) -> None:
        if not self.holds(job_id, attempt):
            raise Superseded(f"job {job_id}: another process has taken it over")

    def unfinished_jobs(self, queues: Collection[str] | None = None) -> list[JobRecord]:
        """Return the jobs that are pending or running, by priority, then the oldest first."""
        query = _job_rows().where(jobs.c.state.in_(ACTIVE))
        if queues is not None:
            query = query.where(jobs.c.queue.in_(queues))
        return [_job(row) for row in self._database.rows(query.order_by(*_TURN))]

    def next_jobs(self, queue: str, limit: int) -> list[str]:
        """Return the ids of the jobs of a queue that start next, the first first."""
        query = sa.select(jobs.c.id).where(jobs.c.state == "pending", jobs.c.queue == queue)
        rows = self._database.rows(query.order_by(*_TURN).limit(limit))
        return [row.id for row in rows]

    def job(self, job_id: str) -> JobRecord:
        """Return a job; raise UnknownName."""
        query = _job_rows().where(jobs.c.id == job_id)
        return _job(self._database.row(query, f"no job '{job_id}'"))

    def jobs(
        self,
        state: JobState | None = None,
        limit: int = 100,
        *,
        parent: str | None = None,
        tag: str | None = None,
    ) -> list[JobRecord]:
        """Return the newest jobs, newest first, of one state, comparison or tag if given."""
        query = _job_rows().order_by(jobs.c.created_s.desc(), jobs.c.id).limit(limit)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if parent is not None:
            query = query.where(jobs.c.parent == parent)
        if tag is not None:
            # tags are a JSON list of words without quotes
            word = json.dumps(tag)
            query = query.where(sa.cast(jobs.c.tags, sa.Text).contains(word, autoescape=True))
        return [_job(row) for row in self._database.rows(query)]

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Return a job's result, None while it has none; raise UnknownName."""
        query = sa.select(jobs.c.result).where(jobs.c.id == job_id)
        result: dict[str, Any] | None = self._database.row(query, f"no job '{job_id}'").result
        return result

    def provenance(self, job_id: str) -> dict[str, Any] | None:
        """Return what is kept of where a job's numbers come from; raise UnknownName."""
        query = sa.select(jobs.c.provenance).where(jobs.c.id == job_id)
        found: dict[str, Any] | None = self._database.row(query, f"no job '{job_id}'").provenance
        return found

    def keep_provenance(self, job_id: str, attempt: int, provenance: Mapping[str, Any]) -> None:
        """Keep where a job's numbers come from; raise Superseded if the attempt does not count."""
        change = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.attempt == attempt)
        if not self._database.change(change.values(provenance=_plain(provenance))):
            self._refuse_superseded(job_id, attempt)

    def last_calibration(
        self, system: str, until_s: float | None = None
    ) -> tuple[str, dict[str, Any]] | None:
        """Return id and result of a system's newest calibration that had ended by `until_s`."""
        query = sa.select(jobs.c.id, jobs.c.result).where(
            jobs.c.kind == "calibrate",
            jobs.c.state == "succeeded",
            jobs.c.config["system"].as_string() == system,
        )
        if until_s is not None:
            query = query.where(jobs.c.finished_s <= until_s)
        rows = self._database.rows(query.order_by(jobs.c.finished_s.desc(), jobs.c.id).limit(1))
        return (rows[0].id, rows[0].result) if rows else None

    # metrics

    def add_metric(
        self, job_id: str, step: int, metric: Mapping[str, Any], attempt: int | None = None
    ) -> None:
        """Keep one metric; steps count from 1. A number that is not finite is kept as null.

        Raises Superseded if the attempt does not count any more.
        """
        told = sa.update(jobs).where(jobs.c.id == job_id).values(last_step=step, deaths=0)
        if attempt is not None:
            told = told.where(jobs.c.attempt == attempt)
        values = {"job_id": job_id, "step": step, "metric": _plain(metric)}
        row = self._database.insertion(metrics, values, replaced=["metric"])
        if not self._database.change(told, row):
            raise Superseded(f"job {job_id}: another process has taken it over")

    def metrics(self, job_id: str, since: int = 0, limit: int = 1000) -> list[MetricRecord]:
        """Return the first `limit` metrics after step `since`, in order."""
        query = sa.select(metrics.c.step, metrics.c.metric).where(
            metrics.c.job_id == job_id, metrics.c.step > since
        )
        rows = self._database.rows(query.order_by(metrics.c.step).limit(limit))
        return [MetricRecord(row.step, row.metric) for row in rows]

    def drop_metrics(self, job_id: str, after: int, attempt: int | None = None) -> None:
        """Forget the metrics after step `after`: the job measures them again.

        Raises Superseded if the attempt does not count any more.
        """
        back = sa.update(jobs).where(jobs.c.id == job_id).values(last_step=after)
        if attempt is not None:
            back = back.where(jobs.c.attempt == attempt)
        later = (metrics.c.job_id == job_id, metrics.c.step > after)
        if not self._database.change(back, sa.delete(metrics).where(*later)):
            raise Superseded(f"job {job_id}: another process has taken it over")

    # twins

    def add_twin(self, record: TwinRecord) -> None:
        """Keep a twin; its parameters' file must be there already."""
        self._database.insert(twins, {**record.__dict__, "report": _plain(record.report)})

    def twin(self, twin_id: str) -> TwinRecord:
        """Return a twin; raise UnknownName."""
        query = _twin_rows().where(twins.c.id == twin_id)
        return _twin(self._database.row(query, f"no twin '{twin_id}'"))

    def twins(self, limit: int = 100) -> list[TwinRecord]:
        """Return the newest twins, newest first."""
        query = _twin_rows().order_by(twins.c.created_s.desc(), twins.c.id).limit(limit)
        return [_twin(row) for row in self._database.rows(query)]

    def find_twin(self, **wanted: str | int) -> TwinRecord | None:
        """Return the newest twin whose columns equal `wanted`, or None."""
        query = _twin_rows().filter_by(**wanted).order_by(twins.c.created_s.desc()).limit(1)
        rows = self._database.rows(query)
        return _twin(rows[0]) if rows else None

    # shot numbers

    def reserve_shots(self, systems: Iterable[str]) -> dict[str, int]:
        """Return each system's first free shot number, and set many aside.

        A process that dies before `release_shots` leaves a gap, but no number is used twice.
        """
        names = sorted(systems)  # in one order, for two hosts at once

        def reserve(connection: sa.Connection) -> dict[str, int]:
            return {system: self._reserve(connection, system) for system in names}

        return self._database.write(reserve)

    def release_shots(self, next_shots: Mapping[str, int]) -> None:
        """Give back the unused numbers: the next of each system, now that none is measured.

        Nothing is given back where somebody else has reserved numbers since.
        """

        def release(connection: sa.Connection) -> None:
            for system, next_shot in next_shots.items():
                ours = shots.c.next_shot <= next_shot + SHOTS_AHEAD
                change = sa.update(shots).where(shots.c.system == system, ours)
                connection.execute(change.values(next_shot=next_shot))

        self._database.write(release)

    def _reserve(self, connection: sa.Connection, system: str) -> int:
        new = {"system": system, "next_shot": 0}
        connection.execute(self._database.insertion(shots, new))
        query = sa.select(shots.c.next_shot).where(shots.c.system == system).with_for_update()
        first: int = connection.execute(query).scalar_one()
        change = sa.update(shots).where(shots.c.system == system)
        connection.execute(change.values(next_shot=first + SHOTS_AHEAD))
        return first


def _create_tables(connection: sa.Connection) -> None:
    """Create what is missing; on PostgreSQL another process may be about to do the same."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
    metadata.create_all(connection)
    upgrade(connection)


def _digest(kind: JobKind, config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([kind, config], sort_keys=True).encode()).hexdigest()


def _active(job_id: str) -> sa.Update:
    return sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(ACTIVE))


def _job_rows() -> sa.Select[Any]:
    return sa.select(*(c for c in jobs.c if c.name in _SHOWN))


def _job(row: sa.Row[Any]) -> JobRecord:
    return JobRecord(**{**row._mapping, "tags": tuple(row.tags)})


def _twin_rows() -> sa.Select[Any]:
    return sa.select(twins)


def _twin(row: sa.Row[Any]) -> TwinRecord:
    return TwinRecord(**row._mapping)


def _plain(value: Any) -> Any:
    """Return JSON data; what is not finite becomes null, which every database and client reads."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
