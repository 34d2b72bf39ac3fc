"""The in-memory end of an HTTP wire: an httpx client in front of simulated firmware."""

from typing import Any

import httpx

from drivers.mock.faults import AnswerLate, ConnectionDropped
from drivers.mock.rig import HttpFirmware


class FirmwareClient(httpx.Client):
    """A client that hands every request to firmware and shows its faults as the network would.

    It passes by httpx's redirects, cookies and authentication, which no instrument uses: on every
    request they would cost a twelfth of a row.
    """

    def __init__(self, firmware: HttpFirmware, *, timeout_s: float) -> None:
        """Connect to `firmware`."""
        self._firmware_end = FirmwareTransport(firmware)
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

    def __init__(self, firmware: HttpFirmware) -> None:
        """Connect to `firmware`."""
        self._firmware = firmware

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the firmware's answer; raises httpx.ReadTimeout or httpx.ReadError."""
        try:
            status, kind, body = self._firmware.handle(
                request.method, request.url.path, request.read()
            )
        except AnswerLate as late:
            raise httpx.ReadTimeout("timed out", request=request) from late
        except ConnectionDropped as dropped:
            raise httpx.ReadError("connection reset by peer", request=request) from dropped
        headers = {"content-type": kind}
        return httpx.Response(status, headers=headers, content=body, request=request)
