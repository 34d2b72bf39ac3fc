"""What outlives the process: jobs, their metrics, twins and shot numbers, in one SQL database.

SQLAlchemy Core; SQLite by default, and the URL decides (`lab.jobs.database`). Parameters of twins,
checkpoints and uploads are files: beside an SQLite database, in tables of any other. Everything is
written as it happens. Blocking and thread-safe: for any thread but the event loop's. Everything
raises DatabaseAway when a disk or server stays out of reach (`lab.jobs.patience`).
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from lab.errors import DatabaseAway, UnknownName
from lab.jobs.database import open_database
from lab.jobs.files import Files, FolderFiles
from lab.jobs.patience import Outage
from lab.jobs.records import ENDED, JobKind, JobRecord, JobState, MetricRecord, TwinRecord
from lab.jobs.table_files import TableFiles
from lab.jobs.tables import jobs, metadata, metrics, pulse, shots, twins

_CREATING = 0x706E6E6C6162  # number of the lock while tables are created
SHOTS_AHEAD = 10**11  # shot numbers set aside for one run of the service: years of measuring


class Store:
    """The database and the files of one data folder; whoever opens it closes it (`with`)."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        """Open, and create what is missing; default: `pnnlab.sqlite` in the folder.

        Raises ConfigError for a URL of another kind than sqlite and postgresql, DatabaseAway.
        """
        self.folder = folder
        self._database = open_database(folder, url)
        self._database.write(_create_tables)

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
                now._insert(pulse, {"id": 1, "written_s": time.time()}, replaced=["written_s"])
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
    def engine(self) -> sa.Engine:
        """Get the database engine, for whoever wants to watch or back up."""
        return self._database.engine

    # jobs

    def add_job(self, job_id: str, kind: JobKind, config: Mapping[str, Any], client: str) -> None:
        """Keep a new job, pending."""
        row = {"id": job_id, "kind": kind, "state": "pending", "config": _plain(config)}
        self._insert(jobs, {**row, "client": client, "error": "", "created_s": time.time()})

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
        """Keep one metric, in place of one of the same step; steps count from 1.

        A number that is not finite is kept as null.
        """
        row = {"job_id": job_id, "step": step, "metric": _plain(metric)}
        self._insert(metrics, row, replaced=["metric"])

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
        self._insert(twins, {**record.__dict__, "report": _plain(record.report)})

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

    def _insert(
        self, table: sa.Table, values: Mapping[str, Any], replaced: Sequence[str] = ()
    ) -> None:
        self._write(self._database.insertion(table, values, replaced))

    def _write(self, statement: sa.Executable) -> None:
        self._database.write(lambda connection: connection.execute(statement))

    def _read(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        return self._database.read(lambda connection: list(connection.execute(query)))

    def _one(self, query: sa.Select[Any], missing: str) -> sa.Row[Any]:
        rows = self._read(query)
        if not rows:
            raise UnknownName(missing)
        return rows[0]


def _create_tables(connection: sa.Connection) -> None:
    """Create what is missing; on PostgreSQL another process may be about to do the same."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
    metadata.create_all(connection)


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


def _plain(value: Any) -> Any:
    """Return JSON data; what is not finite becomes null, which every database and client reads."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
