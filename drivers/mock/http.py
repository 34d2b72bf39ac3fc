"""The in-memory end of an HTTP wire: an httpx transport in front of simulated firmware."""

import httpx

from drivers.mock.faults import AnswerLate, ConnectionDropped
from drivers.mock.rig import HttpFirmware


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
        return httpx.Response(status, headers={"content-type": kind}, content=body)
