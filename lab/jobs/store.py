"""What outlives the process: jobs, their metrics, twins and shot numbers, in one SQL database.

SQLAlchemy Core; SQLite by default, and the URL decides (`lab.jobs.database`). Parameters of twins,
checkpoints and uploads are files: beside an SQLite database, in tables of any other. Everything is
written as it happens. Blocking and thread-safe: for any thread but the event loop's. Everything
raises DatabaseAway when a disk or server stays out of reach (`lab.jobs.patience`).
"""

import copy
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from lab.errors import ConfigError, DatabaseAway
from lab.jobs.database import Database, open_database
from lab.jobs.files import Files, FolderFiles
from lab.jobs.patience import Outage
from lab.jobs.store_jobs import JobStore
from lab.jobs.store_results import ResultStore
from lab.jobs.store_shots import ShotStore
from lab.jobs.store_states import StateStore
from lab.jobs.store_twins import TwinStore
from lab.jobs.table_files import TableFiles
from lab.jobs.tables import metadata, pulse, upgrade

_CREATING = 0x706E6E6C6162  # number of the lock while tables are created


class Store(JobStore, StateStore, ResultStore, TwinStore, ShotStore):
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

    def __exit__(self, *error: object) -> None:
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


def _create_tables(connection: sa.Connection) -> None:
    """Create what is missing; on PostgreSQL another process may be about to do the same."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
    metadata.create_all(connection)
    upgrade(connection)
