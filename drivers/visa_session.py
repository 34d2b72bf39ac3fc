"""A pyvisa-py session that carries whole messages over a TCP socket, within its timeout.

Only `drivers.visa_socket` imports it, where pyvisa-py has the version that it was written against:
it takes over what that version's own session keeps to itself.
"""

import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from pyvisa.constants import ResourceAttribute, StatusCode
from pyvisa.errors import VisaIOError
from pyvisa_py.tcpip import TCPIPSocketSession

_AHEAD = 8192  # bytes: a header and a short block arrive by one call to the system
_Wanted = TypeVar("_Wanted")
_Got = TypeVar("_Got", bytes, int)


class ExactSession(TCPIPSocketSession):  # type: ignore[misc]  # pyvisa-py is untyped
    """Send at once and whole, receive exactly what is asked, and see at once that the peer is gone.

    Each call of `send`, `take_line`, `take` and `take_into` lasts no longer than the VISA timeout,
    however slowly the peer trickles, and raises VisaIOError: error_timeout or
    error_connection_lost. What had arrived when a call timed out is kept. `read` and `write` are
    what pyvisa itself calls.
    """

    interface: socket.socket
    timeout: float
    _pending_buffer: bytearray
    _arrivals: select.poll

    @classmethod
    def take_over(cls, session: TCPIPSocketSession) -> "ExactSession":
        """Turn a stock session that has just been opened into this class, and return it."""
        session.__class__ = cls
        taken: ExactSession = session
        taken._arrivals = select.poll()
        taken._arrivals.register(taken.interface, select.POLLIN)
        return taken

    def unread(self) -> bool:
        """Say whether anything has arrived, or the peer has closed; does not wait."""
        return bool(self._pending_buffer) or bool(self._arrivals.poll(0))

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send the parts, of single bytes each, as one message without joining them."""
        deadline = time.monotonic() + self.timeout
        try:
            self.interface.settimeout(self.timeout)
            sent = self.interface.sendmsg(parts)
            for part in parts:
                if sent < len(part):
                    self.interface.settimeout(_left(deadline))
                    self.interface.sendall(memoryview(part)[sent:])
                sent = max(sent - len(part), 0)
        except OSError as error:
            raise _as_visa(error) from error

    def take_line(self, end: bytes) -> bytes:
        """Return what arrives up to and with `end`, one byte."""
        deadline = time.monotonic() + self.timeout
        here = self._pending_buffer
        looked_at = 0
        while (at := here.find(end, looked_at)) < 0:
            looked_at = len(here)
            here += self._receive(deadline)
        return self._first(at + 1)

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        deadline = time.monotonic() + self.timeout
        while len(self._pending_buffer) < count:
            self._pending_buffer += self._receive(deadline)
        return self._first(count)

    def take_into(self, whole: memoryview) -> None:
        """Fill `whole`, straight from the socket but for what is here already."""
        deadline = time.monotonic() + self.timeout
        here = self._first(min(len(whole), len(self._pending_buffer)))
        whole[: len(here)] = here
        missing = whole[len(here) :]
        try:
            while missing:
                missing = missing[self._wait_for(self.interface.recv_into, missing, deadline) :]
        except VisaIOError:
            self._pending_buffer += whole[: len(whole) - len(missing)]
            raise

    def read(self, count: int) -> tuple[bytes, StatusCode]:
        """Return at most `count` bytes, up to the termination character if one is set; viRead."""
        end = b""
        if self.get_attribute(ResourceAttribute.termchar_enabled)[0]:
            end = bytes([self.get_attribute(ResourceAttribute.termchar)[0]])
        deadline = time.monotonic() + self.timeout
        here = self._pending_buffer
        try:
            while True:
                at = here.find(end, 0, count) if end else -1
                if at >= 0:
                    return self._first(at + 1), StatusCode.success_termination_character_read
                if len(here) >= count:
                    return self._first(count), StatusCode.success_max_count_read
                here += self._receive(deadline)
        except VisaIOError as error:
            return b"", StatusCode(error.error_code)

    def write(self, data: bytes) -> tuple[int, StatusCode]:
        """Send `data`; viWrite."""
        try:
            self.send([data])
        except VisaIOError as error:
            return 0, StatusCode(error.error_code)
        return len(data), StatusCode.success

    def clear(self) -> StatusCode:
        """Discard what has arrived; viClear. The stock one never ends once the peer has closed."""
        deadline = time.monotonic() + self.timeout
        self._pending_buffer.clear()
        try:
            while self._arrivals.poll(0):
                self._receive(deadline)
        except VisaIOError as error:
            return StatusCode(error.error_code)
        return StatusCode.success

    def _first(self, count: int) -> bytes:
        first = bytes(self._pending_buffer[:count])
        del self._pending_buffer[:count]
        return first

    def _receive(self, deadline: float) -> bytes:
        return self._wait_for(self.interface.recv, _AHEAD, deadline)

    def _wait_for(
        self, receive: Callable[[_Wanted], _Got], wanted: _Wanted, deadline: float
    ) -> _Got:
        try:
            self.interface.settimeout(_left(deadline))
            got = receive(wanted)
        except OSError as error:
            raise _as_visa(error) from error
        if not got:
            raise VisaIOError(StatusCode.error_connection_lost)
        return got


def _left(deadline: float) -> float:
    """Return the time left, s; a timeout of 0 would mean not to wait, and say so differently."""
    return max(deadline - time.monotonic(), 1e-6)


def _as_visa(error: OSError) -> VisaIOError:
    timed_out = isinstance(error, TimeoutError) and error.errno is None
    code = StatusCode.error_timeout if timed_out else StatusCode.error_connection_lost
    return VisaIOError(code)
