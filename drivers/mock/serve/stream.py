"""Firmware on a byte stream, behind a TCP connection."""

import asyncio

from drivers.mock.faults import ConnectionDropped, OrderQueue, WireFault
from drivers.mock.rig import Session, StreamFirmware
from drivers.mock.serve.connection import Connection, delay_s


class StreamConnection(Connection):
    """One TCP connection with a session of its own."""

    _session: Session

    def __init__(
        self, firmware: StreamFirmware, wire: OrderQueue, connections: set[Connection]
    ) -> None:
        super().__init__(wire, connections)
        self._firmware = firmware

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open a session."""
        super().connection_made(transport)
        self._session = self._firmware.connect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the session."""
        super().connection_lost(exc)
        self._session.close()

    def data_received(self, data: bytes) -> None:
        """Hand the bytes to the firmware and its answer back."""
        order = self.meet(data)
        if order is not None and order.fault is WireFault.STALL:
            return
        try:
            answer = self._session.receive(data)
        except ConnectionDropped:
            self.abort()
            return
        self.send(answer, getattr(self._session, "held_back_s", 0.0) + delay_s(order))
