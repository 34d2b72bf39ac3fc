"""One living service of a name: the second one refuses to start.

On PostgreSQL the name is an advisory lock of a connection of its own, which ends with its process,
and within half a minute with its machine. On one machine the data folder's lock does the same
(`lab.jobs.data_folder`).
"""

import logging
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from lab.errors import ConfigError
from lab.jobs.database import Database

log = logging.getLogger(__name__)

_CLASS = 0x706E6E  # of our advisory locks among others'
_LOOK_EVERY_S = 2.0
# so that the server notices within seconds that the machine at the other end has no power
_KEEPALIVES = {"tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3}


@contextmanager
def hold_identity(database: Database, name: str, lost: Callable[[str], None]) -> Iterator[None]:
    """Be the one living service of a name until the end of the block.

    lost(reason): called, in another thread, when another service has taken the name while the
    database was away; whoever hears it must stop. Raises ConfigError if there is another one.
    """
    if database.on_one_machine:
        yield
        return
    lock = _Lock(database.engine, name)
    if not lock.take():
        raise ConfigError(
            f"host name '{name}': another service of this name is using the database; give this "
            "one another --host-name, or stop the other"
        )
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(lock, ended, lost), name="identity", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        lock.drop()


class _Lock:
    """An advisory lock; for one thread at a time."""

    def __init__(self, engine: sa.Engine, name: str) -> None:
        self.name = name
        self._engine = engine
        self._number = zlib.crc32(name.encode()) - 2**31
        self._connection: sa.Connection | None = None

    def take(self) -> bool:
        """Say whether the name is this process's now; raise what the database raises."""
        connection = self._engine.connect()
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        for setting, value in _KEEPALIVES.items():
            connection.execute(sa.text(f"SET {setting} = {value}"))
        ours = connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_CLASS, self._number)))
        if ours:
            self._connection = connection
        else:
            connection.close()
        return bool(ours)

    def held(self) -> bool:
        """Say whether the connection that has the lock is still there."""
        if self._connection is None:
            return False
        try:
            self._connection.execute(sa.select(1))
        except sa.exc.DBAPIError:
            self.drop()
            return False
        return True

    def drop(self) -> None:
        """Give the name back."""
        if self._connection is not None:
            self._connection.invalidate()  # the lock ends with the session
            self._connection.close()
            self._connection = None


def _keep(lock: _Lock, ended: threading.Event, lost: Callable[[str], None]) -> None:
    """Take the lock again where its connection has ended; say so where that fails."""
    while not ended.wait(_LOOK_EVERY_S):
        if lock.held():
            continue
        try:
            if lock.take():
                log.warning("host name '%s': the database was away; it is ours again", lock.name)
                continue
        except sa.exc.SQLAlchemyError:
            continue  # it is still away
        lost(f"another service has taken the host name '{lock.name}' while the database was away")
        return
