"""The engine behind the jobs: it queues runs, hands each to one process, and never forgets one.

DBOS (https://docs.dbos.dev) on SQLite or PostgreSQL; this is the only module that knows it. It
holds no truth about jobs: the store does. A run (job, number) is a workflow named JOB-NUMBER. When
a process has died, DBOS hands its runs out again as soon as one of the same host is there; what
another host takes over becomes a new run.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import dbos._sys_db
import sqlalchemy as sa
from dbos import (
    DBOS,
    DBOSClient,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetEnqueueOptions,
    SetWorkflowID,
    run_dbos_database_migrations,
)

from lab.config import PRIORITIES
from lab.errors import ConfigError, DatabaseAway
from lab.jobs.patience import LIMIT_S

RunState = Literal["waiting", "running", "over"]

_APP = "pnnlab"
# Fixed, and not DBOS's own hash: with another version every run that waits would wait for ever.
_VERSION = "jobs-1"
_FLOW = "job"
# A run starts so much later at most; polling more often takes more of a core (.05 s: a tenth).
_POLL_S = 0.5
_SELDOM_S = 10.0  # for messages, of which there are none
_STATES: Mapping[str, RunState] = {
    "ENQUEUED": "waiting",
    "DELAYED": "waiting",
    "PENDING": "running",
}

Perform = Callable[[str, int], None]

# DBOS is one object a process: a second engine would queue its runs in the first one's database,
# and end it by its own end. Held from an engine's start to its end.
_THE_ONLY_ONE = threading.Lock()


class Engine:
    """Queues of runs, of which this process works on some; one engine a process.

    url: SQLAlchemy's, of SQLite or PostgreSQL. host: this process's lasting name, which no other
    living process may have.
    """

    def __init__(self, url: str, host: str, perform: Perform) -> None:
        """Have `perform(job, run)` called in a thread for every run; it must not raise."""
        self._url = url
        self._host = host
        self._perform = perform
        self._opened = False
        self._time = _Time()
        self._dbos: DBOS | None = None

    def open(self, queues: Mapping[str, int]) -> None:
        """Start to work on these queues, on so many runs of each at once (0: on none); blocking.

        Runs that an earlier process of this host was working on are handed out again. Raises
        ConfigError if this process has an open engine already, DatabaseAway where the disk is
        full, say.
        """
        if not _THE_ONLY_ONE.acquire(blocking=False):
            raise ConfigError(
                f"the jobs of '{self._host}': this process has an open service already, and one "
                "process runs the jobs of one service only; open the second one in its own"
            )
        self._opened = True
        try:
            self._launch(queues)
        except (sqlite3.OperationalError, sa.exc.OperationalError) as error:
            self.close()
            reason = str(error.orig if isinstance(error, sa.exc.OperationalError) else error)
            raise DatabaseAway(reason, LIMIT_S) from error
        except BaseException:
            self.close()
            raise

    def _launch(self, queues: Mapping[str, int]) -> None:
        url = self._url
        self._time = _Time()
        dbos._sys_db.time = self._time  # type: ignore[attr-defined, assignment]
        _use_wal(url)
        run_dbos_database_migrations(url)
        # before the launch, which then listens to them from the first moment on
        client = DBOSClient(system_database_url=url, application_name=_APP)
        try:
            for name, at_once in queues.items():
                client.register_queue(
                    name, worker_concurrency=at_once or 1, polling_interval_sec=_POLL_S
                )
        finally:
            client.destroy()
        config: DBOSConfig = {
            "name": _APP,
            "system_database_url": url,
            "executor_id": self._host,
            "application_version": _VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "ERROR",
            "notification_listener_polling_interval_sec": _SELDOM_S,
            "use_listen_notify": False,  # nothing here sends or awaits messages
        }
        self._dbos = DBOS(config=config)

        # None: a run is handed out again for as long as its job is not over
        @DBOS.workflow(name=_FLOW, max_recovery_attempts=None)
        def flow(job_id: str, run: int) -> None:
            self._perform(job_id, run)

        self._flow = flow
        DBOS.listen_queues([name for name, at_once in queues.items() if at_once])
        DBOS.launch()

    def enqueue(self, queue: str, job_id: str, run: int, priority: int) -> None:
        """Queue a run, higher priorities first; again is the same as once."""
        urgency = PRIORITIES[1] + 1 - priority  # DBOS: lower first, and unset before all others
        with SetWorkflowID(_name(job_id, run)), SetEnqueueOptions(priority=urgency):
            DBOS.enqueue_workflow(queue, self._flow, job_id, run)

    def states(self, runs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], RunState]:
        """Return what has become of runs; those that were never queued are left out."""
        wanted = {_name(*run): run for run in runs}
        if not wanted:
            return {}
        found = DBOS.list_workflows(workflow_ids=list(wanted), load_input=False, load_output=False)
        return {wanted[flow.workflow_id]: _STATES.get(flow.status, "over") for flow in found}

    def forget(self, ended_before_s: float) -> None:
        """Delete what is kept of runs that were over by then (seconds since the epoch)."""
        found = DBOS.list_workflows(
            completed_before=_iso(ended_before_s), limit=1000, load_input=False, load_output=False
        )
        DBOS.delete_workflows([flow.workflow_id for flow in found])

    def close(self) -> None:
        """Hand out no more runs; those that are under way end by themselves. Blocking, idempotent.

        Does nothing to an engine that was not opened.
        """
        if not self._opened:
            return
        self._opened = False
        try:
            self._give_up()
            DBOS.destroy(destroy_registry=True)
        finally:
            _THE_ONLY_ONE.release()

    def _give_up(self) -> None:
        """Let no thread try again to reach a database that is out of reach.

        DBOS would try for ever, so that the process never ended; what is not noted now is done
        again by whoever starts next.
        """
        database = None if self._dbos is None else self._dbos._sys_db_field
        if database is not None:
            database._retry_connection_errors = False
        self._time.ended.set()


class _Time:
    """The module `time` for DBOS's database, with pauses between two tries that can be ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def sleep(self, seconds: float) -> None:
        """Sleep, until `ended` is set at most."""
        self.ended.wait(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def engine_url(folder: Path, store: sa.URL) -> str:
    """Return where the engine keeps its runs: in the store's database, or in a file of its own.

    SQLite has one writer at a time, so that two files disturb each other less than one.
    """
    if store.get_backend_name() == "sqlite":
        return f"sqlite:///{folder / 'engine.sqlite'}"
    return store.render_as_string(hide_password=False)


def _name(job_id: str, run: int) -> str:
    return f"{job_id}-{run}"


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat()


def _use_wal(url: str) -> None:
    """Let a file of SQLite's be read while it is written, and written faster; it stays so."""
    parts = sa.make_url(url)
    if parts.get_backend_name() == "sqlite" and parts.database:
        with closing(sqlite3.connect(parts.database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
