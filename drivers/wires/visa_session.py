"""A pyvisa-py session that carries whole messages over a TCP socket, within its timeout.

Only `visa_socket` imports it, where pyvisa-py has the version that it was written against:
it takes over what that version's own session keeps to itself.
"""

import math
import select
import socket
import struct
import time
from collections.abc import Sequence

from pyvisa.constants import ResourceAttribute, StatusCode
from pyvisa.errors import VisaIOError
from pyvisa_py.tcpip import TCPIPSocketSession

from drivers.wires.blocks import length_digits

_AHEAD = 8192  # bytes: a header and a short block arrive by one call to the system


class ExactSession(TCPIPSocketSession):  # type: ignore[misc]  # pyvisa-py is untyped
    """Send at once and whole, receive exactly what is asked, and see at once that the peer is gone.

    Each call of `send`, `take_line`, `take` and `take_into` lasts no longer than the VISA timeout,
    however slowly the peer trickles, and raises VisaIOError: error_timeout or
    error_connection_lost. What had arrived when a call timed out is kept. `read` and `write` are
    what pyvisa itself calls.

    The socket blocks, and the system ends a call that lasts too long (SO_RCVTIMEO, SO_SNDTIMEO):
    with Python's own timeouts each call is two, and large blocks go in many small pieces.
    """

    interface: socket.socket
    timeout: float | None
    _pending_buffer: bytearray
    _arrivals: select.poll
    _limit_s: float

    @classmethod
    def take_over(cls, session: TCPIPSocketSession) -> "ExactSession":
        """Turn a stock session that has just been opened into this class, and return it."""
        session.__class__ = cls
        taken: ExactSession = session
        taken._arrivals = select.poll()
        taken._arrivals.register(taken.interface, select.POLLIN)
        taken._limit_s = 0.0
        return taken

    def unread(self) -> bool:
        """Say whether anything has arrived, or the peer has closed; does not wait."""
        return bool(self._pending_buffer) or bool(self._arrivals.poll(0))

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send the parts, of single bytes each, as one message without joining them."""
        deadline = self._begin()
        try:
            if len(parts) == 1:
                sent = self.interface.send(parts[0])
                whole = len(parts[0])
            else:
                sent = self.interface.sendmsg(parts)
                whole = sum(map(len, parts))
            if sent < whole:
                self._send_rest(parts, sent, deadline)
        except OSError as error:
            raise _as_visa(error) from error

    def take_line(self, end: bytes) -> bytes:
        """Return what arrives up to and with `end`, one byte."""
        here = self._pending_buffer
        deadline = self._begin()
        if not here:
            got = self._receive()
            if got.find(end) == len(got) - 1:  # one whole line, as nearly always
                return got
            here += got
        looked_at = 0
        while (at := here.find(end, looked_at)) < 0:
            looked_at = len(here)
            self._go_on(deadline)
            here += self._receive()
        return self._first(at + 1)

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        here = self._pending_buffer
        if len(here) < count:
            deadline = self._begin()
            here += self._receive()
            while len(here) < count:
                self._go_on(deadline)
                here += self._receive()
        return self._first(count)

    def take_head(self) -> bytes:
        """Return the header of a data block, or the first two bytes of what is none."""
        here = self._pending_buffer
        deadline = self._begin()
        while True:
            if len(here) >= 2:
                length = 2 + length_digits(here[:2])
                if len(here) >= length:
                    return self._first(length)
                self._go_on(deadline)
            here += self._receive()

    def take_into(self, whole: memoryview, at_least: int) -> int:
        """Fill `whole` with `at_least` bytes, and more if they are there; return how many came.

        They go straight from the socket to where they stay, but for what had been received before.
        """
        here = self._pending_buffer
        count = min(len(whole), len(here))
        with memoryview(here) as view:
            whole[:count] = view[:count]
        del here[:count]
        if count >= at_least:
            return count
        deadline = self._begin()
        try:
            count += self._receive_into(whole[count:])
            while count < at_least:
                self._go_on(deadline)
                count += self._receive_into(whole[count:])
        except VisaIOError:
            here += whole[:count]
            raise
        return count

    def read(self, count: int) -> tuple[bytes, StatusCode]:
        """Return at most `count` bytes, up to the termination character if one is set; viRead."""
        end = b""
        if self.get_attribute(ResourceAttribute.termchar_enabled)[0]:
            end = bytes([self.get_attribute(ResourceAttribute.termchar)[0]])
        here = self._pending_buffer
        try:
            deadline = self._begin()
            while True:
                at = here.find(end, 0, count) if end else -1
                if at >= 0:
                    return self._first(at + 1), StatusCode.success_termination_character_read
                if len(here) >= count:
                    return self._first(count), StatusCode.success_max_count_read
                here += self._receive()
                self._go_on(deadline)
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
        self._pending_buffer.clear()
        try:
            deadline = self._begin()
            while self._arrivals.poll(0):
                self._receive()
                self._go_on(deadline)
        except VisaIOError as error:
            return StatusCode(error.error_code)
        return StatusCode.success

    def _first(self, count: int) -> bytes:
        first = bytes(self._pending_buffer[:count])
        del self._pending_buffer[:count]
        return first

    def _send_rest(self, parts: Sequence[bytes | memoryview], sent: int, deadline: float) -> None:
        for part in parts:
            while sent < len(part):
                self._go_on(deadline)
                sent += self.interface.send(memoryview(part)[sent:])
            sent -= len(part)

    def _receive(self) -> bytes:
        try:
            got = self.interface.recv(_AHEAD)
        except OSError as error:
            raise _as_visa(error) from error
        if not got:
            raise VisaIOError(StatusCode.error_connection_lost)
        return got

    def _receive_into(self, missing: memoryview) -> int:
        try:
            got = self.interface.recv_into(missing)
        except OSError as error:
            raise _as_visa(error) from error
        if not got:
            raise VisaIOError(StatusCode.error_connection_lost)
        return got

    def _begin(self) -> float:
        """Allow one call to the system the whole timeout; return when all of them must be done."""
        if self._limit_s != self.timeout:
            self._limit(math.inf if self.timeout is None else self.timeout)
        return time.monotonic() + self._limit_s

    def _go_on(self, deadline: float) -> None:
        """Allow the next call to the system no more than what is left."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise VisaIOError(StatusCode.error_timeout)
        self._limit(left)

    def _limit(self, seconds: float) -> None:
        """Let each call to the system end after so long, infinity: never."""
        micro = 0  # which means never there
        if seconds < math.inf:
            micro = max(round(1e6 * seconds), 1000)
        span = struct.pack("@ll", *divmod(micro, 1_000_000))
        self.interface.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
        self.interface.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
        self._limit_s = seconds


def _as_visa(error: OSError) -> VisaIOError:
    timed_out = isinstance(error, BlockingIOError)  # what a limit of the system looks like
    code = StatusCode.error_timeout if timed_out else StatusCode.error_connection_lost
    return VisaIOError(code)
