"""The in-memory end of an HTTP wire: an httpx client in front of simulated firmware."""

import time
from typing import Any

import httpx

from drivers.mock.faults import AnswerLate, ConnectionDropped, FaultOrder, OrderQueue, WireFault
from drivers.mock.rig import HttpFirmware


class FirmwareClient(httpx.Client):
    """A client that hands every request to firmware and shows its faults as the network would.

    It passes by httpx's redirects, cookies and authentication, which no instrument uses: on every
    request they would cost a twelfth of a row.
    """

    def __init__(
        self, firmware: HttpFirmware, *, timeout_s: float, wire: OrderQueue | None = None
    ) -> None:
        """Connect to `firmware`; wire: the faults armed for the way there."""
        self._firmware_end = FirmwareTransport(firmware, timeout_s, wire)
        super().__init__(
            base_url="http://simulated", transport=self._firmware_end, timeout=timeout_s
        )

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Return the firmware's answer; raises httpx.ReadTimeout or httpx.ReadError."""
        if self.is_closed:
            raise RuntimeError("the client has been closed")
        return self._firmware_end.handle_request(request)


class FirmwareTransport(httpx.BaseTransport):
    """Carry requests to firmware and show its faults as the network would."""

    def __init__(
        self, firmware: HttpFirmware, timeout_s: float = 5.0, wire: OrderQueue | None = None
    ) -> None:
        """Connect to `firmware`; wire: the faults armed for the way there."""
        self._firmware = firmware
        self._timeout_s = timeout_s
        self._wire = wire

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the firmware's answer; raises httpx.ReadTimeout or httpx.ReadError."""
        try:
            order = self._meet(request) if self._wire else None
            status, kind, body = self._firmware.handle(
                request.method, request.url.path, request.read()
            )
            if order is not None:
                self._wait(order)
        except AnswerLate as late:
            raise httpx.ReadTimeout("timed out", request=request) from late
        except ConnectionDropped as dropped:
            raise httpx.ReadError("connection reset by peer", request=request) from dropped
        headers = {"content-type": kind}
        return httpx.Response(status, headers=headers, content=body, request=request)

    def _meet(self, request: httpx.Request) -> FaultOrder | None:
        """Return the fault that the wire has for this request; a stall is what it does here."""
        order = None
        if self._wire is not None:
            target = request.url.raw_path
            order = self._wire.take(b"%s %s %s" % (request.method.encode(), target, request.read()))
        if order is not None and order.fault is WireFault.STALL:
            raise AnswerLate
        return order

    def _wait(self, order: FaultOrder) -> None:
        if order.delay_s > self._timeout_s:  # known at once here, so it is not waited for
            raise AnswerLate
        time.sleep(order.delay_s)
