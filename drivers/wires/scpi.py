"""One SCPI conversation that stays in step with the instrument, whatever goes wrong on the wire."""

import itertools
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum, auto
from functools import partial
from typing import Any

import numpy as np
from pymeasure.adapters import Adapter
from pyvisa.constants import StatusCode
from pyvisa.errors import VisaIOError

from drivers.errors import (
    ConnectionLost,
    DriverError,
    InstrumentRefused,
    InstrumentTimeout,
    ProtocolError,
)
from drivers.wires.blocks import Block, header, read_head, read_into, write_parts

_STALE_LINES_AT_MOST = 1000
_RESYNCHRONISED_WITHIN_S = 2.0
_SHORT = 16_384  # bytes: joining so few takes less time than sending them apart
_MARKS = range(171, 251)  # *ESE takes 0 to 255


class _Step(Enum):
    """How far host and instrument agree on what comes next."""

    NEW = auto()  # connected, not logged in
    IN_STEP = auto()
    UNSURE = auto()  # an answer may still be under way
    LOST = auto()
    CLOSED = auto()


_IN_STEP = _Step.IN_STEP  # looked up before each command


class ScpiLink:
    """Commands and answers over a PyMeasure adapter, with login and error translation.

    After a timeout or garbage an old answer may still arrive. The next command is therefore
    preceded by a marker (a fresh number written to and read from `*ESE`, which changes nothing
    here): whatever arrives before it is discarded, so it is never taken for a later answer.
    After a lost connection only `recover` opens a new one, as the instrument may have forgotten
    its settings.
    """

    def __init__(
        self, adapter: Adapter, name: str, user: str | None, password: str, terminator: str
    ) -> None:
        """Talk over `adapter`; log in as `user` first (None: no login); no I/O here."""
        self._adapter = adapter
        self._name = name
        self._user = user
        self._password = password
        self._terminator = terminator.encode()
        self._marks = itertools.cycle(_MARKS)
        self._step = _Step.NEW
        self._lock = threading.RLock()
        # what our own adapters offer beyond PyMeasure's; others do with their exact `read_bytes`
        self._read_head = getattr(adapter, "read_head", partial(read_head, adapter))
        self._read_into = getattr(adapter, "read_into", partial(read_into, adapter))
        self._read_over = getattr(adapter, "read_over", self._read_exactly)
        self._write_parts = getattr(adapter, "write_parts", partial(write_parts, adapter))
        self._unread = getattr(adapter, "unread", lambda: False)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._step is _Step.CLOSED

    @property
    def name(self) -> str:
        """The instrument's name, as it stands in every error."""
        return self._name

    def transaction(self) -> AbstractContextManager[Any]:
        """Keep other threads off the instrument for as long as the context lasts; reentrant.

        Every method takes it for itself; a write with its reads, or a whole measurement, needs it.
        """
        return self._lock

    def write(self, command: str) -> None:
        """Send one command; its terminator is added."""
        with self._lock:
            self._send(command, self._adapter.write, command)

    def write_block(self, command: str, data: Block) -> None:
        """Send `command` and `data` as an IEEE 488.2 definite-length block, in one message."""
        content = np.frombuffer(data, dtype=np.uint8).data if len(data) else b""
        head = f"{command} ".encode("ascii") + header(len(content))
        parts: tuple[bytes | memoryview, ...] = (head, content, self._terminator)
        if len(content) <= _SHORT:
            parts = (b"".join(parts),)
        with self._lock:
            if self._step is not _IN_STEP:
                self._get_in_step(command)
            self._push(command, self._write_parts, *parts)

    def read(self, asked: str = "answer") -> str:
        """Return one line without its terminator; `asked` is for the error message."""
        with self._lock:
            line: str = self._wire(asked, self._adapter.read)
            return line

    def ask(self, query: str) -> str:
        """Send a query and return its one-line answer."""
        with self._lock:
            self._send(query, self._adapter.write, query)
            line: str = self._wire(query, self._adapter.read)
            return line

    def ask_block(self, query: str, length: int) -> memoryview:
        """Return the IEEE 488.2 definite-length block of exactly `length` bytes that is answered.

        It is received where it stays, for `numpy.frombuffer` to look at, and belongs to the caller.
        Raises ProtocolError if it is no block, has another length, stops early or goes on.
        """
        with self._lock:
            self._send(query, self._adapter.write, query)
            self._check_head(query, self._wire(query, self._read_head), length)
            end = length + len(self._terminator)
            whole: memoryview = np.empty(end + 1, dtype=np.uint8).data
            try:
                got: int = self._wire(query, self._read_over, whole, end)
            except InstrumentTimeout as error:
                raise self.distrust(query, f"the block of {length} bytes stops early") from error
            if whole[length:end] != self._terminator:
                raise self.distrust(query, f"the block of {length} bytes is not terminated")
            if got > end:
                raise self.distrust(query, f"more than the block of {length} bytes was answered")
        return whole[:length]

    def _read_exactly(self, whole: memoryview, at_least: int) -> int:
        self._read_into(whole[:at_least])
        return at_least + bool(self._unread())

    def _check_head(self, query: str, head: bytes, length: int) -> None:
        digits = head[2:]
        if head[:1] != b"#" or not digits:
            raise self.distrust(query, f"answered {head!r} instead of a data block")
        if not digits.isdigit() or int(digits) != length:
            raise self.distrust(query, f"{digits!r} bytes announced, not {length}")

    def distrust(self, asked: str, what: str) -> ProtocolError:
        """Return the error for a wrong answer, and resynchronise before the next command."""
        if self._step is _Step.IN_STEP:
            self._step = _Step.UNSURE
        return ProtocolError(self._name, f"{asked}: {what}")

    def recover(self) -> None:
        """Get in step with the instrument, over a new connection if the old one is of no use."""
        with self._lock:
            if self._step is _Step.UNSURE or (self._step is _Step.IN_STEP and self._unread()):
                try:
                    self._resynchronise()
                except (InstrumentTimeout, ConnectionLost):
                    self._step = _Step.LOST
            if self._step is _Step.LOST:
                self._reopen()
            if self._step is not _IN_STEP:
                self._get_in_step("start")

    def close(self) -> None:
        """Log out and release the connection; idempotent."""
        with self._lock:
            if self.closed:
                return
            try:
                if self._user is not None and self._step in (_Step.IN_STEP, _Step.UNSURE):
                    self._wire("CLOSE", self._adapter.write, "CLOSE")
            finally:
                self._step = _Step.CLOSED
                self._adapter.close()

    def _get_in_step(self, asked: str) -> None:
        if self._step is _Step.CLOSED:
            raise ConnectionLost(self._name, f"{asked}: the driver has been closed")
        if self._step is _Step.LOST:
            raise ConnectionLost(self._name, f"{asked}: the connection was lost; start it again")
        if self._step is _Step.NEW:
            self._log_in()
        else:
            self._resynchronise()

    def _log_in(self) -> None:
        if self._user is not None:
            try:
                self._exchange_login(self._user)
            except DriverError:
                self._step = _Step.LOST  # half a login cannot be continued
                raise
        elif self._unread():  # a greeting
            self._resynchronise()
        self._step = _Step.IN_STEP

    def _exchange_login(self, user: str) -> None:
        asked = f'OPEN "{user}"'
        self._wire(asked, self._adapter.write, asked)
        answer: str = self._wire(asked, self._adapter.read)
        if answer != "AUTHENTICATE CRAM-MD5.":
            raise ProtocolError(self._name, f"{asked}: answered {answer!r}")
        self._wire("password", self._adapter.write, self._password)
        answer = self._wire("password", self._adapter.read)
        if answer != "READY":
            raise InstrumentRefused(self._name, f"login as '{user}': answered {answer!r}")

    def _resynchronise(self) -> None:
        mark = next(self._marks)
        wanted = re.compile(rb"(?<!\d)%d%s\Z" % (mark, re.escape(self._terminator)))
        asked = "resynchronisation"
        self._wire(asked, self._adapter.write, f"*ESE {mark}")
        self._wire(asked, self._adapter.write, "*ESE?")
        deadline = time.monotonic() + _RESYNCHRONISED_WITHIN_S
        for _ in range(_STALE_LINES_AT_MOST):
            if wanted.search(self._wire(asked, self._adapter.read_bytes, -1, True)):
                self._step = _Step.IN_STEP
                return
            if time.monotonic() > deadline:
                break
        self._step = _Step.LOST
        raise ProtocolError(self._name, "resynchronisation: answers do not come to an end")

    def _reopen(self) -> None:
        reopen = getattr(self._adapter, "reopen", None)
        if reopen is None:
            raise ConnectionLost(self._name, "the connection was lost and cannot be reopened")
        try:
            reopen()
        except ConnectionLost as error:
            raise ConnectionLost(self._name, str(error)) from error
        self._step = _Step.NEW

    def _send(self, asked: str, send: Callable[..., None], *arguments: Any) -> None:
        """Send in step: what arrived unasked must not be taken for the next answer."""
        if self._step is not _IN_STEP or self._unread():
            self._get_in_step(asked)
        self._push(asked, send, *arguments)

    def _push(self, asked: str, send: Callable[..., None], *arguments: Any) -> None:
        try:
            send(*arguments)
        except Exception as error:
            if _timed_out(error):
                self._step = _Step.LOST  # half a message cannot be taken back
                late = f"not taken within {self._patience()}; the connection is given up"
                raise InstrumentTimeout(self._name, f"{asked}: {late}") from error
            self._explain(asked, error)
            raise
        except BaseException:
            self._step = _Step.UNSURE
            raise

    def _wire(self, asked: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            self._explain(asked, error)
            raise
        except BaseException:
            # an interrupt between command and answer: the answer may still come
            self._step = _Step.UNSURE
            raise

    def _explain(self, asked: str, error: Exception) -> None:
        """Raise an adapter's exception as a driver error, and remember what it means."""
        self._step = _Step.UNSURE
        if _timed_out(error):
            message = f"{asked}: no answer within {self._patience()}"
            raise InstrumentTimeout(self._name, message) from error
        if isinstance(error, UnicodeDecodeError):
            raise ProtocolError(self._name, f"{asked}: answered {error.object!r}") from error
        if isinstance(error, VisaIOError | OSError):
            self._step = _Step.LOST
            what = error.description if isinstance(error, VisaIOError) else error
            raise ConnectionLost(self._name, f"{asked}: {what}") from error

    def _patience(self) -> str:
        """Return for how long one call on the wire is waited for."""
        timeout_ms = getattr(getattr(self._adapter, "connection", None), "timeout", None)
        return "the timeout" if timeout_ms is None else f"{timeout_ms / 1000:g} s"


def _timed_out(error: Exception) -> bool:
    return isinstance(error, VisaIOError) and error.error_code == StatusCode.error_timeout
