"""Wait for a disk or database that fails for a while: full, read-only, locked, out of reach.

A job's thread waits as long as it takes and then goes on; whoever asks over HTTP waits through the
first seconds of an outage only, and is told to come back. What has failed for good is raised as it
is. Whatever is tried again must be harmless when it is done twice: the answer may have been lost.
"""

import errno
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import sqlalchemy as sa

from lab.errors import DatabaseAway

log = logging.getLogger(__name__)

T = TypeVar("T")
LIMIT_S = 5.0  # of an outage's beginning, which a request waits through
_PAUSES_S = (0.05, 2.0)  # the first and the longest between two tries
_NEXT_TRY_S = 1.0  # while an outage lasts, requests do not try more often

_SQLITE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL_CLASSES = ("08", "53")  # connection, resources (disk full, too many connections)
_POSTGRESQL = {
    "57P01",  # admin shutdown
    "57P02",  # crash shutdown
    "57P03",  # cannot connect now: starting up
    "57P05",  # idle session timeout
    "25006",  # read-only transaction: a standby that is taking over
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock not available
    "58030",  # I/O error
}
# A server that refuses a connection says so without a code.
_REFUSALS_THAT_PASS = ("starting up", "shutting down", "recovery", "accepting conn", "too many")
_DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
}


def passing(error: BaseException) -> str | None:
    """Return in one line what fails, if that may pass without a change of ours; else None."""
    if isinstance(error, DatabaseAway):
        return error.reason
    if isinstance(error, OSError):
        return str(error) if error.errno in _DISK else None
    if isinstance(error, sa.exc.TimeoutError):
        return "no connection to the database is free"
    if isinstance(error, sa.exc.DBAPIError) and error.orig is not None:
        first, *_ = str(error.orig).splitlines() or [type(error.orig).__name__]
        return first if _passes(error) else None
    return None


def _passes(error: sa.exc.DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        # the lowest byte: the rest says more exactly what it was
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _SQLITE
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state in _POSTGRESQL or state.startswith(_POSTGRESQL_CLASSES)
    said = str(error.orig)
    if "FATAL:" in said:
        return any(refusal in said for refusal in _REFUSALS_THAT_PASS)
    return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)


@dataclass(frozen=True)
class Outage:
    """Since when (seconds since the epoch) nothing can be written or read, and why."""

    since_s: float
    reason: str


class Outages:
    """What is out of reach at the moment, as all that use one database have seen it; thread-safe.

    A full disk can still be read: what reads ends an outage of reading only, what writes any.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with all well; clock: seconds since the epoch, steady: of one that never jumps."""
        self._clock, self._steady = clock, steady
        self._lock = threading.Lock()
        self._known: dict[bool, Outage] = {}  # by whether it is of writing
        self._began: dict[bool, float] = {}
        self._failed: dict[bool, float] = {}

    def now(self) -> Outage | None:
        """Return the present outage, None while all is well."""
        with self._lock:
            return min(self._known.values(), key=lambda outage: outage.since_s, default=None)

    def failed(self, reason: str, *, writing: bool) -> float:
        """Note a failure; return for how long there have been nothing else, s."""
        with self._lock:
            now = self._failed[writing] = self._steady()
            if writing not in self._known:
                self._known[writing] = Outage(self._clock(), reason)
                self._began[writing] = now
                log.warning("the database cannot be %s: %s", _done(writing), reason)
            return now - self._began[writing]

    def worked(self, *, writing: bool) -> None:
        """Note a success."""
        if not self._known:
            return
        with self._lock:
            for kind in (False, True) if writing else (False,):
                if self._known.pop(kind, None) is not None:
                    lasted_s = self._steady() - self._began[kind]
                    log.warning("the database can be %s again, %.1f s later", _done(kind), lasted_s)

    def hopeless(self, limit_s: float, *, writing: bool) -> str | None:
        """Return why not even to try: an outage lasts longer, and somebody has just tried."""
        with self._lock:
            outage = self._known.get(writing)
            now = self._steady()
            if outage is None or now - self._began[writing] < limit_s:
                return None
            return outage.reason if now - self._failed[writing] < _NEXT_TRY_S else None


def _done(writing: bool) -> str:
    return "written" if writing else "read"


@dataclass(frozen=True)
class Patience:
    """How long one user of a database waits for it.

    limit_s: of an outage's beginning, s; 0: not at all. pause(seconds): waits between two tries;
    may raise, to end the waiting.
    """

    outages: Outages
    limit_s: float = LIMIT_S
    pause: Callable[[float], object] = time.sleep

    def endless(self, pause: Callable[[float], object]) -> Self:
        """Return the patience of a job's thread: until `pause` raises."""
        return replace(self, limit_s=math.inf, pause=pause)

    def none(self) -> Self:
        """Return the patience of who can do without: one try."""
        return replace(self, limit_s=0.0)

    def keep_trying(self, call: Callable[[], T], *, writing: bool) -> T:
        """Return what `call` returns, as soon as nothing stands in its way.

        Raises DatabaseAway after `limit_s`, what `pause` raises, and what does not pass.
        """
        hopeless = self.outages.hopeless(self.limit_s, writing=writing)
        if hopeless is not None:
            raise DatabaseAway(hopeless, LIMIT_S)
        pause_s, longest_s = _PAUSES_S
        while True:
            try:
                result = call()
            except Exception as error:
                reason = passing(error)
                if reason is None:
                    raise
                if self.outages.failed(reason, writing=writing) >= self.limit_s:
                    raise DatabaseAway(reason, LIMIT_S) from error
            else:
                self.outages.worked(writing=writing)
                return result
            self.pause(pause_s)
            pause_s = min(2 * pause_s, longest_s)
