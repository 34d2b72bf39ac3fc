"""VISA instruments over TCP sockets, fast and safe.

pyvisa-py 0.8 moves a `TCPIP::...::SOCKET` at a small part of what the wire can carry: it leaves
Nagle's algorithm on, ends a read at every 0x0A and receives 4 kB at a time. It takes a closed port
for an open one and a closed connection for a silent instrument, and its writes know no timeout.
`SocketAdapter` cures the sessions that it opens, and no others, by `drivers.wires.visa_session`.

With another version of pyvisa-py, another VISA library (`@ivi`) or another kind of resource the
stock session is kept, and blocks are read by their exact length: as correct, but slower, and a
closed connection may look like an instrument that does not answer.
"""

import os
import re
import select
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyvisa
from pymeasure.adapters import VISAAdapter
from pyvisa.constants import StatusCode
from pyvisa.errors import VisaIOError

from drivers.errors import ConnectionLost
from drivers.wires.blocks import read_head

if TYPE_CHECKING:
    from drivers.wires.visa_session import ExactSession

LONGEST_CALL_S = 2.0
"""No call on a wire waits longer, so that a safe state is never further away than that."""
_CURED = re.compile(r"0\.8\.\d+\Z")  # the versions of pyvisa-py that ExactSession was tried with


class SocketAdapter(VISAAdapter):  # type: ignore[misc]  # PyMeasure is untyped
    """A VISA adapter that moves blocks fast and can be opened again after the connection was lost.

    `fast` says whether the session has been cured.
    """

    def __init__(
        self, address: str, timeout_s: float, terminator: str, *, visa_library: str = "@py"
    ) -> None:
        """Connect; each wire call waits at most timeout_s, above 0, at most 2 s.

        Raises ValueError for another timeout, ConnectionLost if nobody answers.
        """
        if not 0 < timeout_s <= LONGEST_CALL_S:
            raise ValueError(
                f"{address}: timeout_s {timeout_s:g} is outside (0, {LONGEST_CALL_S:g}] s"
            )
        super(VISAAdapter, self).__init__()  # VISAAdapter's own would open the session itself
        self.connection: Any = None
        self.resource_name = address
        self._end = terminator.encode()
        self._options: dict[str, Any] = {
            "timeout": round(timeout_s * 1000),
            "open_timeout": round(timeout_s * 1000),
            "read_termination": terminator,
            "write_termination": terminator,
        }
        self._session: ExactSession | None = None
        self._line: socket.socket | None = None
        self.manager: Any = pyvisa.ResourceManager(visa_library)
        self._open()

    @property
    def fast(self) -> bool:
        """Say whether blocks go straight between socket and array."""
        return self._session is not None

    def reopen(self) -> None:
        """Close and connect again; raises ConnectionLost."""
        self._session = self._line = None
        self.connection.close()
        self._open()

    def unread(self) -> bool:
        """Say whether bytes have arrived that nobody has read, or the peer has closed.

        Never so for sessions of another kind than a socket of pyvisa-py.
        """
        if self._session is not None:
            return self._session.unread()
        if self._line is None:
            return False
        stock = self.manager.visalib.sessions[self.connection.session]
        return bool(stock._pending_buffer) or _arrived(self._line)

    def read_head(self) -> bytes:
        """Return the header of a data block, or the first two bytes of what is none."""
        if self._session is not None:
            return self._session.take_head()
        return read_head(self.connection)

    def read_into(self, whole: memoryview) -> None:
        """Fill `whole` with the bytes that come next."""
        if self._session is not None:
            self._session.take_into(whole, len(whole))
            return
        # with a termination character set, each 0x0A in the data would end a read
        ends, self.connection.read_termination = self.connection.read_termination, None
        try:
            whole[:] = self.connection.read_bytes(len(whole))
        finally:
            self.connection.read_termination = ends

    def read_over(self, whole: memoryview, at_least: int) -> int:
        """Fill `whole` with `at_least` bytes; return how many have come, at least that.

        More than that tells that more has been sent, and is of no other use.
        """
        if self._session is not None:
            return self._session.take_into(whole, at_least)
        self.read_into(whole[:at_least])
        return at_least + self.unread()

    def write_parts(self, *parts: bytes | memoryview) -> None:
        """Send `parts` as one message; no terminator is added."""
        if self._session is not None:
            self._session.send(parts)
        elif self._line is not None:
            _send_in_time(self._line, b"".join(parts), self.connection.timeout / 1000)
        else:
            self.connection.write_raw(b"".join(parts))

    def _write(self, command: str, **kwargs: Any) -> None:
        line = command.encode("ascii") + self._end
        if self._session is not None:
            self._session.send((line,))
        else:
            self.write_parts(line)

    def _write_bytes(self, content: bytes, **kwargs: Any) -> None:
        self.write_parts(content)

    def _read(self, **kwargs: Any) -> str:
        if self._session is None:
            line: str = super()._read(**kwargs)
            return line
        return self._session.take_line(self._end[-1:]).removesuffix(self._end).decode("ascii")

    def _read_bytes(self, count: int, break_on_termchar: bool = False, **kwargs: Any) -> bytes:
        if self._session is None or (count < 0) is not break_on_termchar:
            received: bytes = super()._read_bytes(count, break_on_termchar, **kwargs)
            return received
        if count < 0:
            return self._session.take_line(self._end[-1:])
        return self._session.take(count)

    def _open(self) -> None:
        try:
            self.connection = self.manager.open_resource(self.resource_name, **self._options)
            sessions = getattr(self.manager.visalib, "sessions", {})
            session = sessions.get(self.connection.session)
            self._line = _connected(session)
            self._session = _cured(session)
        except Exception as error:  # pyvisa-py raises a bare one where nobody answers in time
            if self.connection is not None:
                self.connection.close()
            raise ConnectionLost(self.resource_name, f"cannot be opened: {error}") from error


def _arrived(line: socket.socket) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([line], [], [], 0)[0])
    arrivals = select.poll()  # unlike select, it takes any number of open files
    arrivals.register(line, select.POLLIN)
    return bool(arrivals.poll(0))


def _send_in_time(line: socket.socket, message: bytes, timeout_s: float) -> None:
    """Send on the socket of a stock session, whose own way to send knows no timeout."""
    line.settimeout(timeout_s)
    try:
        line.sendall(message)
    except TimeoutError as error:
        raise VisaIOError(StatusCode.error_timeout) from error
    finally:
        line.settimeout(None)


def _connected(session: object) -> socket.socket | None:
    """Return the socket of a session that has one, made ready.

    Raises OSError if it did not connect, which pyvisa-py takes for an open one.
    """
    line = getattr(session, "interface", None)
    if not isinstance(line, socket.socket) or not hasattr(session, "_pending_buffer"):
        return None
    refused = line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if refused:
        raise OSError(refused, os.strerror(refused))
    line.getpeername()
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _cured(session: object) -> "ExactSession | None":
    """Return the session as one that is fast and safe, or None where there is no cure for it."""
    if not _CURED.match(version("pyvisa-py")) or not hasattr(select, "poll"):
        return None
    from pyvisa_py.tcpip import TCPIPSocketSession

    from drivers.wires.visa_session import ExactSession

    return ExactSession.take_over(session) if type(session) is TCPIPSocketSession else None
