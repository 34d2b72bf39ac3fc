"""What the Ocean driver needs of a connection, and the network end of one; imports no seabreeze."""

import socket
import time
from collections.abc import Callable
from typing import Protocol

from drivers.spec import Array

Check = Callable[[], None]
"""Raises when the operation is to end; asked at least every tenth of a second."""

LONGEST_CALL_S = 2.0
_SLICE_S = 0.1  # of a wait, so that an abort is heard


class BadAnswer(Exception):
    """The instrument sent what its protocol does not allow."""


class Refusal(Exception):
    """The instrument understood and said no; its error number and text."""


class ByteWire(Protocol):
    """A connected byte stream; raises OSError, of which TimeoutError and ConnectionError."""

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    def receive(self, count: int, deadline: float, check: Check) -> bytes:
        """Return exactly `count` bytes; TimeoutError at `deadline` (`time.monotonic`)."""
        ...

    def close(self) -> None:
        """Close the connection; idempotent."""
        ...


class TcpWire:
    """A byte stream over TCP that sees a closed peer at once and heeds its deadline."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        """Connect; raises OSError. No single call waits longer than `timeout_s`, at most 2 s."""
        self._longest_s = min(timeout_s, LONGEST_CALL_S)
        self._socket = socket.create_connection((host, port), timeout=self._longest_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send all of `data`; raises OSError."""
        self._socket.settimeout(self._longest_s)
        self._socket.sendall(data)

    def receive(self, count: int, deadline: float, check: Check) -> bytes:
        """Return exactly `count` bytes; TimeoutError at `deadline`, ConnectionError if closed."""
        data = bytearray(count)
        view = memoryview(data)
        while view:
            check()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"{count - len(view)} of {count} bytes came in time")
            self._socket.settimeout(min(left_s, _SLICE_S))
            try:
                received = self._socket.recv_into(view)
            except TimeoutError:
                continue
            if received == 0:
                raise ConnectionError("the instrument closed the connection")
            view = view[received:]
        return bytes(data)

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._socket.close()


class OceanLink(Protocol):
    """One spectrometer behind seabreeze; raises OSError, BadAnswer or Refusal.

    has_lamp: whether it may have an output for a lamp, known before it is opened.
    """

    has_lamp: bool

    def open(self, model: str, check: Check) -> None:
        """Connect anew; `check` is asked while an answer is waited for."""
        ...

    def close(self) -> None:
        """Release the connection; idempotent."""
        ...

    def identity(self) -> str:
        """Ask who answers: maker, model, serial number."""
        ...

    def integration_limits_us(self) -> tuple[int, int]:
        """Return the shortest and the longest integration time, us."""
        ...

    def full_scale_counts(self) -> float:
        """Return what a saturated pixel reads."""
        ...

    def wavelengths_nm(self) -> Array:
        """Ask for the wavelength of each pixel, (pixels,), nm."""
        ...

    def free_run(self) -> None:
        """Let each request start its own integration, and switch a lamp off where there is one."""
        ...

    def set_integration_time(self, time_us: int) -> None:
        """Set the integration time, us."""
        ...

    def intensities(self) -> Array:
        """Take one spectrum, (pixels,) counts."""
        ...

    def lamp_off(self) -> None:
        """Switch off lamp and strobe outputs where the instrument has any."""
        ...
