"""One SCPI conversation that stays in step with the instrument, whatever goes wrong on the wire."""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

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

_STALE_LINES_AT_MOST = 1000
_MARKS = range(171, 251)  # *ESE takes 0 to 255


class _Step(Enum):
    """How far host and instrument agree on what comes next."""

    NEW = auto()  # connected, not logged in
    IN_STEP = auto()
    UNSURE = auto()  # an answer may still be under way
    LOST = auto()
    CLOSED = auto()


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

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._step is _Step.CLOSED

    def write(self, command: str) -> None:
        """Send one command; its terminator is added."""
        if self._step is not _Step.IN_STEP:
            self._get_in_step(command)
        with self._translated(command):
            self._adapter.write(command)

    def read(self, asked: str = "answer") -> str:
        """Return one line without its terminator; `asked` is for the error message."""
        with self._translated(asked):
            line: str = self._adapter.read()
        return line

    def ask(self, query: str) -> str:
        """Send a query and return its one-line answer."""
        self.write(query)
        return self.read(query)

    def ask_block(self, query: str, length: int) -> bytes:
        """Return the IEEE 488.2 definite-length block of exactly `length` bytes that is answered.

        Raises ProtocolError if it is no block, has another length or stops early.
        """
        self.write(query)
        with self._translated(query):
            head: bytes = self._adapter.read_bytes(2)
        if re.fullmatch(rb"#[1-9]", head) is None:
            raise self.distrust(query, f"answered {head!r} instead of a data block")
        try:
            with self._translated(query):
                digits: bytes = self._adapter.read_bytes(int(head[1:]))
                if not digits.isdigit() or int(digits) != length:
                    raise self.distrust(query, f"{digits!r} bytes announced, not {length}")
                data: bytes = self._adapter.read_bytes(length + len(self._terminator))
        except InstrumentTimeout as error:
            raise self.distrust(query, f"the block of {length} bytes stops early") from error
        if len(data) != length + len(self._terminator) or not data.endswith(self._terminator):
            raise self.distrust(query, f"the block of {length} bytes is not terminated")
        return data[:length]

    def distrust(self, asked: str, what: str) -> ProtocolError:
        """Return the error for a wrong answer, and resynchronise before the next command."""
        if self._step is _Step.IN_STEP:
            self._step = _Step.UNSURE
        return ProtocolError(self._name, f"{asked}: {what}")

    def recover(self) -> None:
        """Get in step with the instrument, over a new connection if the old one is of no use."""
        if self._step is _Step.UNSURE:
            try:
                self._resynchronise()
            except (InstrumentTimeout, ConnectionLost):
                self._step = _Step.LOST
        if self._step is _Step.LOST:
            self._reopen()
        self._get_in_step("start")

    def close(self) -> None:
        """Log out and release the connection; idempotent."""
        if self.closed:
            return
        try:
            if self._user is not None and self._step in (_Step.IN_STEP, _Step.UNSURE):
                with self._translated("CLOSE"):
                    self._adapter.write("CLOSE")
        finally:
            self._step = _Step.CLOSED
            self._adapter.close()

    def _get_in_step(self, asked: str) -> None:
        if self._step is _Step.CLOSED:
            raise ConnectionLost(self._name, f"{asked}: the driver has been closed")
        if self._step is _Step.LOST:
            raise ConnectionLost(self._name, f"{asked}: the connection was lost; start it again")
        if self._step is _Step.UNSURE:
            self._resynchronise()
        if self._step is _Step.NEW:
            self._log_in()

    def _log_in(self) -> None:
        if self._user is not None:
            try:
                self._exchange_login(self._user)
            except DriverError:
                self._step = _Step.LOST  # half a login cannot be continued
                raise
        self._step = _Step.IN_STEP

    def _exchange_login(self, user: str) -> None:
        asked = f'OPEN "{user}"'
        with self._translated(asked):
            self._adapter.write(asked)
            answer = self._adapter.read()
        if answer != "AUTHENTICATE CRAM-MD5.":
            raise ProtocolError(self._name, f"{asked}: answered {answer!r}")
        with self._translated("password"):
            self._adapter.write(self._password)
            answer = self._adapter.read()
        if answer != "READY":
            raise InstrumentRefused(self._name, f"login as '{user}': answered {answer!r}")

    def _resynchronise(self) -> None:
        mark = next(self._marks)
        wanted = re.compile(rb"(?<!\d)%d%s\Z" % (mark, re.escape(self._terminator)))
        with self._translated("resynchronisation"):
            self._adapter.write(f"*ESE {mark}")
            self._adapter.write("*ESE?")
            for _ in range(_STALE_LINES_AT_MOST):
                if wanted.search(self._adapter.read_bytes(-1, break_on_termchar=True)):
                    self._step = _Step.IN_STEP
                    return
        self._step = _Step.LOST
        raise ProtocolError(self._name, "resynchronisation: answers do not come to an end")

    def _reopen(self) -> None:
        reopen = getattr(self._adapter, "reopen", None)
        if reopen is None:
            raise ConnectionLost(self._name, "the connection was lost and cannot be reopened")
        with self._translated("reconnecting"):
            try:
                reopen()
            except ConnectionLost as error:
                raise ConnectionLost(self._name, str(error)) from error
        self._step = _Step.NEW

    @contextmanager
    def _translated(self, asked: str) -> Iterator[None]:
        """Turn the adapter's exceptions into driver errors, and remember what they mean."""
        try:
            yield
        except VisaIOError as error:
            if error.error_code == StatusCode.error_timeout:
                self._step = _Step.UNSURE
                message = f"{asked}: no answer within the timeout"
                raise InstrumentTimeout(self._name, message) from error
            self._step = _Step.LOST
            raise ConnectionLost(self._name, f"{asked}: {error.description}") from error
        except OSError as error:
            self._step = _Step.LOST
            raise ConnectionLost(self._name, f"{asked}: {error}") from error
        except UnicodeDecodeError as error:
            self._step = _Step.UNSURE
            raise ProtocolError(self._name, f"{asked}: answered {error.object!r}") from error
        except BaseException:
            # an interrupt between command and answer: the answer may still come
            self._step = _Step.UNSURE
            raise
