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
from datetime import UTC, datetime
from typing import Literal, Self, TypeVar

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
    "25P03",  # the transaction was idle for too long: this process was frozen
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


Kind = Literal["read", "write", "file"]
"""What is done: the database is read or written, a file of a folder is written."""
_ENDED_BY: dict[Kind, tuple[Kind, ...]] = {
    "read": ("read",),
    "write": ("read", "write"),
    "file": ("file",),
}
_CANNOT = {
    "read": "the database cannot be read",
    "write": "the database cannot be written",
    "file": "files cannot be written",
}


@dataclass(frozen=True)
class Outage:
    """Since when (seconds since the epoch) something cannot be written or read, and why."""

    since_s: float
    reason: str

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since_s, UTC).isoformat(timespec="seconds")
        return f"away since {since} ({self.reason})"


@dataclass
class _Failing:
    """An outage while it lasts; began_s, tried_s: by the steady clock."""

    outage: Outage
    began_s: float
    tried_s: float


class Outages:
    """What is out of reach at the moment, as all that use one database have seen it; thread-safe.

    A full disk can still be read: what reads ends an outage of reading only, what writes both.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with all well; clock: seconds since the epoch, steady: of one that never jumps."""
        self._clock, self._steady = clock, steady
        self._lock = threading.Lock()
        self._failing: dict[Kind, _Failing] = {}
        self._over = threading.Event()

    def now(self) -> Outage | None:
        """Return the oldest outage that there is at present, None while all is well."""
        with self._lock:
            known = [failing.outage for failing in self._failing.values()]
        return min(known, key=lambda outage: outage.since_s, default=None)

    def failed(self, kind: Kind, reason: str) -> float:
        """Note a failure; return for how long there have been nothing else, s."""
        with self._lock:
            now = self._steady()
            if kind not in self._failing:
                log.warning("%s: %s", _CANNOT[kind], reason)
                self._failing[kind] = _Failing(Outage(self._clock(), reason), now, now)
            self._failing[kind].tried_s = now
            return now - self._failing[kind].began_s

    def worked(self, kind: Kind) -> None:
        """Note a success."""
        if not self._failing:
            return
        with self._lock:
            for ended in _ENDED_BY[kind]:
                if failing := self._failing.pop(ended, None):
                    lasted_s = self._steady() - failing.began_s
                    log.warning("no longer, after %.1f s: %s", lasted_s, _CANNOT[ended])

    def hopeless(self, kind: Kind, limit_s: float) -> str | None:
        """Return why not even to try: an outage lasts longer, and somebody has just tried."""
        with self._lock:
            failing, now = self._failing.get(kind), self._steady()
            if failing is None or now - failing.began_s < limit_s:
                return None
            return failing.outage.reason if now - failing.tried_s < _NEXT_TRY_S else None

    def hurry(self) -> None:
        """Let those wait no longer who do not wait without end anyway."""
        self._over.set()

    def hurried(self, seconds: float) -> bool:
        """Wait; say whether nobody is to wait any more."""
        return self._over.wait(seconds)


@dataclass(frozen=True)
class Patience:
    """How long one user of a database waits for it.

    limit_s: of an outage's beginning, s; 0: not at all. pause(seconds): waits between two tries;
    may raise, to end the waiting. Default: until `Outages.hurry`.
    """

    outages: Outages
    limit_s: float = LIMIT_S
    pause: Callable[[float], object] | None = None

    def endless(self, pause: Callable[[float], object]) -> Self:
        """Return the patience of a job's thread: until `pause` raises."""
        return replace(self, limit_s=math.inf, pause=pause)

    def none(self) -> Self:
        """Return the patience of who can do without: one try."""
        return replace(self, limit_s=0.0)

    def keep_trying(self, call: Callable[[], T], kind: Kind) -> T:
        """Return what `call` returns, as soon as nothing stands in its way.

        Raises DatabaseAway after `limit_s`, what `pause` raises, and what does not pass.
        """
        hopeless = self.outages.hopeless(kind, self.limit_s)
        if hopeless is not None:
            raise DatabaseAway(hopeless, LIMIT_S)
        pause_s, longest_s = _PAUSES_S
        while True:
            try:
                result = call()
            except Exception as error:
                self._wait_after(error, kind, pause_s)
            else:
                self.outages.worked(kind)
                return result
            pause_s = min(2 * pause_s, longest_s)

    def _wait_after(self, error: Exception, kind: Kind, pause_s: float) -> None:
        """Wait for a moment, or raise what ends the trying."""
        reason = passing(error)
        if reason is None:
            raise error
        over = self.outages.failed(kind, reason) >= self.limit_s
        if over or (self.pause is None and self.outages.hurried(pause_s)):
            raise DatabaseAway(reason, LIMIT_S) from error
        if self.pause is not None:
            self.pause(pause_s)
