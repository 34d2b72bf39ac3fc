"""The in-memory end of a byte stream that is no VISA wire, in front of simulated firmware."""

import time
from collections.abc import Callable

from drivers.mock.faults import ConnectionDropped, OrderQueue, WireFault
from drivers.mock.rig import Session


class SessionWire:
    """A `drivers.spectrometers.ocean_link.ByteWire` to a session of firmware.

    A missing answer is known at once here, so the deadline is not waited for.
    """

    def __init__(self, session: Session, wire: OrderQueue | None = None) -> None:
        """Connect to a session of firmware; wire: the faults armed for the way there."""
        self._session = session
        self._wire = wire
        self._received = b""
        self._stalled = False
        self._ready = 0.0

    def send(self, data: bytes) -> None:
        """Send all of `data`; raises ConnectionError."""
        order = self._wire.take(data) if self._wire else None
        if order is not None:
            self._stalled |= order.fault is WireFault.STALL
            self._ready = time.monotonic() + order.delay_s
        if self._stalled:
            return  # as long as the line takes it, the host does not notice
        try:
            self._received += self._session.receive(data)
        except ConnectionDropped as dropped:
            raise ConnectionError("connection reset by peer") from dropped
        if held_back_s := getattr(self._session, "held_back_s", 0.0):
            time.sleep(held_back_s)

    def receive(self, count: int, deadline: float, check: Callable[[], None]) -> bytes:
        """Return exactly `count` bytes; TimeoutError where they are not sent by the deadline."""
        check()
        if len(self._received) < count or self._ready > deadline:
            raise TimeoutError(f"{count} bytes did not come in time")
        time.sleep(max(0.0, self._ready - time.monotonic()))
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._session.close()
