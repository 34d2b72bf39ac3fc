"""One SQL database, SQLite or PostgreSQL, and how its users wait for it.

The URL decides; without one it is a file of SQLite in the data folder.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lab.errors import ConfigError, UnknownName
from lab.jobs.patience import Outages, Patience

T = TypeVar("T")
FILE = "pnnlab.sqlite"

# A server that has gone, or its machine, is noticed in seconds and not in hours.
_POSTGRESQL: dict[str, Any] = {
    "application_name": "pnnlab",
    "connect_timeout": 2,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,  # ms
    # whoever is frozen within a transaction keeps its rows from the others for so many ms only
    "options": "-c idle_in_transaction_session_timeout=5000",
}
_SQLITE = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=1000", "foreign_keys=ON")


@dataclass(frozen=True)
class Database:
    """An engine, and how its user waits for it.

    Blocking and thread-safe. What it is given to do may be done twice: see `lab.jobs.patience`.
    """

    engine: sa.Engine
    patience: Patience
    turn: AbstractContextManager[object]

    def waiting(self, patience: Patience) -> Self:
        """Return the same database for a user with another patience."""
        return replace(self, patience=patience)

    @property
    def on_one_machine(self) -> bool:
        """Say whether it is a file that no other machine can use."""
        return self.engine.dialect.name == "sqlite"

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Return what `work` finds; raise DatabaseAway, or what ends the waiting.

        Raises ConfigError for a value that the database cannot take.
        """

        def attempt() -> T:
            with _refusing_values(), self.engine.connect() as connection:
                return work(connection)

        return self.patience.keep_trying(attempt, "read")

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Let `work` change the database, wholly or not at all; raise as `read` does."""

        def attempt() -> T:
            with _refusing_values(), self.turn, self.engine.begin() as connection:
                return work(connection)

        return self.patience.keep_trying(attempt, "write")

    def rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        """Return what a query finds; raise as `read` does."""
        return self.read(lambda connection: list(connection.execute(query)))

    def row(self, query: sa.Select[Any], missing: str) -> sa.Row[Any]:
        """Return the first row of a query; raise UnknownName with the text `missing` for none."""
        rows = self.rows(query)
        if not rows:
            raise UnknownName(missing)
        return rows[0]

    def change(self, first: sa.Executable, *more: sa.Executable) -> int:
        """Execute statements as one, the later ones only if the first met rows; return how many."""

        def change(connection: sa.Connection) -> int:
            met = connection.execute(first).rowcount
            for statement in more if met else ():
                connection.execute(statement)
            return met

        return self.write(change)

    def insert(
        self, table: sa.Table, values: Mapping[str, Any], replaced: Sequence[str] = ()
    ) -> None:
        """Add a row as `insertion` says."""
        self.change(self.insertion(table, values, replaced))

    def insertion(
        self, table: sa.Table, values: Mapping[str, Any], replaced: Sequence[str] = ()
    ) -> sa.Executable:
        """Return the insertion of a row; where its key is known, only `replaced` columns change.

        So a row that was written though its answer was lost can be written again.
        """
        new = sqlite.insert if self.on_one_machine else postgresql.insert
        row = new(table).values(**values)
        keys = list(table.primary_key.columns)
        if not replaced:
            return row.on_conflict_do_nothing(index_elements=keys)
        changes = {name: row.excluded[name] for name in replaced}
        return row.on_conflict_do_update(index_elements=keys, set_=changes)


@contextmanager
def _refusing_values() -> Iterator[None]:
    """Raise ConfigError for a text with a zero byte, or a number too large for its column."""
    try:
        yield
    except (sa.exc.DataError, OverflowError) as error:
        reason, *_ = str(getattr(error, "orig", error)).splitlines()
        raise ConfigError(f"a value that the database cannot take: {reason}") from error


def open_database(folder: Path, url: str | None = None) -> Database:
    """Open a database; no connection is made yet. Raises ConfigError for a URL of neither kind."""
    engine = open_engine(folder, url)
    # SQLite has one writer; waiting here is fair and never answers "database is locked"
    lite = engine.dialect.name == "sqlite"
    return Database(engine, Patience(Outages()), threading.Lock() if lite else nullcontext())


def open_engine(folder: Path, url: str | None = None) -> sa.Engine:
    """Return an engine of `url`, by default of the file in the data folder; raise ConfigError."""
    try:
        parsed = sa.make_url(url) if url else sa.URL.create("sqlite", database=str(folder / FILE))
    except sa.exc.ArgumentError as error:
        raise ConfigError(
            "the database's URL cannot be read: it must be postgresql://..."
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            engine = sa.create_engine(parsed)
            sa.event.listen(engine, "connect", _set_up_sqlite)
            return engine
        case "postgresql" | "postgres":
            return sa.create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                connect_args={k: v for k, v in _POSTGRESQL.items() if k not in parsed.query},
                pool_pre_ping=True,
                pool_timeout=5.0,
            )
        case other:
            raise ConfigError(f"a database of kind '{other}': it can be sqlite or postgresql")


def _set_up_sqlite(connection: Any, record: object) -> None:
    """Let readers and the writer go at once, and let a commit survive a power cut."""
    for pragma in _SQLITE:
        connection.execute(f"PRAGMA {pragma}").close()
