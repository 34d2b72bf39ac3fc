"""What outlives the process: jobs, their metrics, twins and shot numbers, in one SQL database.

SQLAlchemy Core; SQLite by default, and the URL decides. Parameters of twins and checkpoints are
files beside the database. Everything is written as it happens. Blocking and thread-safe: for any
thread but the event loop's.
"""

import math
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from lab.errors import UnknownName
from lab.jobs.records import ENDED, JobKind, JobRecord, JobState, MetricRecord, TwinRecord
from lab.jobs.tables import jobs, metadata, metrics, shots, twins

SHOTS_AHEAD = 10**11  # shot numbers set aside for one run of the service: years of measuring


class Store:
    """The database and the files of one data folder; whoever opens it closes it (`with`)."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        """Open, and create what is missing; default: `pnnlab.sqlite` in the folder."""
        self.folder = folder
        self._engine = sa.create_engine(url or f"sqlite:///{folder / 'pnnlab.sqlite'}")
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
        # SQLite has one writer; waiting here is fair and never answers "database is locked"
        self._writing = threading.Lock()
        metadata.create_all(self._engine)

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
        self._engine.dispose()

    @property
    def engine(self) -> sa.Engine:
        """Get the database engine, for whoever wants to watch or back up."""
        return self._engine

    # jobs

    def add_job(self, job_id: str, kind: JobKind, config: Mapping[str, Any], client: str) -> None:
        """Keep a new job, pending."""
        row = {"id": job_id, "kind": kind, "state": "pending", "config": _plain(config)}
        self._write(sa.insert(jobs).values(**row, client=client, error="", created_s=time.time()))

    def start_job(self, job_id: str) -> None:
        """Mark a pending job as running."""
        change = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state == "pending")
        self._write(change.values(state="running", started_s=time.time()))

    def cancelling_job(self, job_id: str, reason: str) -> None:
        """Note why a job is being cancelled, so that it does not go on in the next service."""
        change = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state.not_in(ENDED))
        self._write(change.values(error=reason))

    def end_job(
        self,
        job_id: str,
        state: JobState,
        *,
        error: str = "",
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """Give a job its final state, and its result where it succeeded; once only."""
        change = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state.not_in(ENDED))
        values = {"state": state, "error": error, "finished_s": time.time()}
        self._write(change.values(**values, result=None if result is None else _plain(result)))

    def unfinished_jobs(self) -> list[JobRecord]:
        """Return the jobs that have not ended, oldest first."""
        query = _job_rows().where(jobs.c.state.not_in(ENDED))
        return [_job(row) for row in self._read(query.order_by(jobs.c.created_s, jobs.c.id))]

    def job(self, job_id: str) -> JobRecord:
        """Return a job; raise UnknownName."""
        return _job(self._one(_job_rows().where(jobs.c.id == job_id), f"no job '{job_id}'"))

    def jobs(self, state: JobState | None = None, limit: int = 100) -> list[JobRecord]:
        """Return the newest jobs, newest first, of one state if given."""
        query = _job_rows().order_by(jobs.c.created_s.desc(), jobs.c.id).limit(limit)
        if state is not None:
            query = query.where(jobs.c.state == state)
        return [_job(row) for row in self._read(query)]

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Return a job's result, None while it has none; raise UnknownName."""
        row = self._one(sa.select(jobs.c.result).where(jobs.c.id == job_id), f"no job '{job_id}'")
        result: dict[str, Any] | None = row.result
        return result

    # metrics

    def add_metric(self, job_id: str, step: int, metric: Mapping[str, Any]) -> None:
        """Keep one metric; steps count from 1. A number that is not finite is kept as null."""
        self._write(sa.insert(metrics).values(job_id=job_id, step=step, metric=_plain(metric)))

    def metrics(self, job_id: str, since: int = 0, limit: int = 1000) -> list[MetricRecord]:
        """Return the first `limit` metrics after step `since`, in order."""
        query = sa.select(metrics.c.step, metrics.c.metric).where(
            metrics.c.job_id == job_id, metrics.c.step > since
        )
        rows = self._read(query.order_by(metrics.c.step).limit(limit))
        return [MetricRecord(row.step, row.metric) for row in rows]

    def drop_metrics(self, job_id: str, after: int) -> None:
        """Forget the metrics after step `after`: the job measures them again."""
        later = (metrics.c.job_id == job_id, metrics.c.step > after)
        self._write(sa.delete(metrics).where(*later))

    # twins

    def add_twin(self, record: TwinRecord) -> None:
        """Keep a twin; its parameters' file must be there already."""
        values = {**record.__dict__, "report": _plain(record.report)}
        self._write(sa.insert(twins).values(**values))

    def twin(self, twin_id: str) -> TwinRecord:
        """Return a twin; raise UnknownName."""
        return _twin(self._one(_twin_rows().where(twins.c.id == twin_id), f"no twin '{twin_id}'"))

    def twins(self, limit: int = 100) -> list[TwinRecord]:
        """Return the newest twins, newest first."""
        query = _twin_rows().order_by(twins.c.created_s.desc(), twins.c.id).limit(limit)
        return [_twin(row) for row in self._read(query)]

    def find_twin(self, **wanted: str | int) -> TwinRecord | None:
        """Return the newest twin whose columns equal `wanted`, or None."""
        query = _twin_rows().filter_by(**wanted).order_by(twins.c.created_s.desc()).limit(1)
        rows = self._read(query)
        return _twin(rows[0]) if rows else None

    # shot numbers

    def reserve_shots(self, systems: Iterable[str]) -> dict[str, int]:
        """Return each system's first free shot number, and set many aside.

        A process that dies before `release_shots` leaves a gap, but no number is used twice.
        """
        first: dict[str, int] = {}
        with self._writing, self._engine.begin() as connection:
            for system in systems:
                query = sa.select(shots.c.next_shot).where(shots.c.system == system)
                known = connection.scalar(query)
                first[system] = known or 0
                if known is None:
                    connection.execute(sa.insert(shots).values(system=system, next_shot=0))
                _set_next_shot(connection, system, first[system] + SHOTS_AHEAD)
        return first

    def release_shots(self, next_shots: Mapping[str, int]) -> None:
        """Give back the unused numbers: the next of each system, now that none is measured."""
        with self._writing, self._engine.begin() as connection:
            for system, next_shot in next_shots.items():
                _set_next_shot(connection, system, next_shot)

    def _write(self, statement: sa.Insert | sa.Update | sa.Delete) -> None:
        with self._writing, self._engine.begin() as connection:
            connection.execute(statement)

    def _read(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        with self._engine.connect() as connection:
            return list(connection.execute(query))

    def _one(self, query: sa.Select[Any], missing: str) -> sa.Row[Any]:
        rows = self._read(query)
        if not rows:
            raise UnknownName(missing)
        return rows[0]


def _set_up_sqlite(connection: Any, record: object) -> None:
    """Let readers and the writer go at once, and let a commit survive a power cut."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _job_rows() -> sa.Select[Any]:
    last = sa.select(sa.func.max(metrics.c.step)).where(metrics.c.job_id == jobs.c.id)
    columns = [c for c in jobs.c if c.name != "result"]
    return sa.select(*columns, last.scalar_subquery().label("last_step"))


def _job(row: sa.Row[Any]) -> JobRecord:
    values = dict(row._mapping)
    return JobRecord(**{**values, "last_step": values["last_step"] or 0})


def _twin_rows() -> sa.Select[Any]:
    return sa.select(twins)


def _twin(row: sa.Row[Any]) -> TwinRecord:
    return TwinRecord(**row._mapping)


def _set_next_shot(connection: sa.Connection, system: str, next_shot: int) -> None:
    change = sa.update(shots).where(shots.c.system == system)
    connection.execute(change.values(next_shot=next_shot))


def _plain(value: Any) -> Any:
    """Return JSON data; what is not finite becomes null, which every database and client reads."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
