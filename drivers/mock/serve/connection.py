"""One client's TCP connection to a simulated instrument, and what its wire does to it."""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from typing import cast

from drivers.mock.faults import FaultOrder, OrderQueue, WireFault

_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # linger for 0 s
_STALLED = "stalled"
_DELAYED = "delayed"
_FULL = "full"


class Connection(asyncio.Protocol):
    """Keeps its place in `connections` while it is open; reads while nothing holds it back.

    wire: the faults of the wire, shared by all connections to one instrument.
    """

    def __init__(self, wire: OrderQueue, connections: "set[Connection]") -> None:
        self._wire = wire
        self._connections = connections
        self._held_by: set[str] = set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._connections.discard(self)

    def abort(self) -> None:
        """Reset the connection: what was not sent is lost, and the client hears of it at once."""
        line = self._transport.get_extra_info("socket")
        with suppress(OSError):  # the client may have been quicker
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def pause_writing(self) -> None:
        """Read nothing more from a client that does not take its answers."""
        self._hold(_FULL)

    def resume_writing(self) -> None:
        """Go on."""
        self._release(_FULL)

    def stall(self) -> None:
        """Neither read nor answer any more."""
        self._hold(_STALLED)

    def meet(self, request: bytes) -> FaultOrder | None:
        """Return the fault that the wire has for this request; a stall is begun here."""
        order = self._wire.take(request) if self._wire else None
        if order is not None and order.fault is WireFault.STALL:
            self.stall()
        return order

    def send(self, answer: bytes, wait_s: float, *, last: bool = False) -> None:
        """Send an answer after `wait_s`; nothing is read meanwhile. last: close then."""
        if wait_s:
            self._hold(_DELAYED)
            asyncio.get_running_loop().call_later(wait_s, self._send_late, answer, last)
            return
        if answer:
            self._transport.write(answer)
        if last:
            self._transport.close()

    def _send_late(self, answer: bytes, last: bool) -> None:
        if not self._transport.is_closing():
            self.send(answer, 0.0, last=last)
            self._release(_DELAYED)

    def _hold(self, why: str) -> None:
        self._held_by.add(why)
        self._transport.pause_reading()

    def _release(self, why: str) -> None:
        self._held_by.discard(why)
        if not self._held_by:
            self._transport.resume_reading()


def delay_s(order: FaultOrder | None) -> float:
    """Return for how long an answer is held back by the fault that its request met."""
    return order.delay_s if order is not None and order.fault is WireFault.DELAY else 0.0
