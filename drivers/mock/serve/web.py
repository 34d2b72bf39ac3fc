"""Whatever answers HTTP requests, behind a TCP connection that is kept alive."""

from collections.abc import Callable
from http.client import responses

import h11

from drivers.mock.faults import AnswerLate, ConnectionDropped, OrderQueue, WireFault
from drivers.mock.serve.connection import Connection, delay_s

Handle = Callable[[str, str, bytes], tuple[int, str, bytes]]
"""Answers method, path and body with status, content type and body; see `HttpFirmware`."""

BODY_BYTES = 4 * 2**20  # a profile of the whole band is 129 kB


class HttpConnection(Connection):
    """One TCP connection that carries requests one after the other."""

    def __init__(self, handle: Handle, wire: OrderQueue, connections: set[Connection]) -> None:
        super().__init__(wire, connections)
        self._handle = handle
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = bytearray()

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are complete."""
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        """Close after the last answer."""

    def _advance(self) -> None:
        try:
            while not self._held_by and self._take(self._http.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, str(error))

    def _release(self, why: str) -> None:
        super()._release(why)
        self._advance()  # what came in with the request before

    def _take(self, event: object) -> bool:
        """Take one event; return whether there may be another one now."""
        match event:
            case h11.Request(method=b"CONNECT"):
                self._refuse(405, "this is no proxy")
                return False
            case h11.Request():
                self._request, self._body = event, bytearray()
                if self._http.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    self._transport.write(self._http.send(go_on) or b"")
            case h11.Data(data=data):
                self._body += data
                if len(self._body) > BODY_BYTES:
                    self._refuse(413, f"more than {BODY_BYTES} bytes")
                    return False
            case h11.EndOfMessage() if self._request is not None:
                return self._answer(self._request)
            case _:  # more data needed, or closed
                return False
        return True

    def _answer(self, request: h11.Request) -> bool:
        method = request.method.decode("ascii")
        path = request.target.partition(b"?")[0].decode("ascii")
        body = bytes(self._body)
        order = self.meet(b"%s %s %s" % (request.method, request.target, body))
        if order is not None and order.fault is WireFault.STALL:
            return False
        try:
            status, kind, content = self._handle(method, path, body)
        except ConnectionDropped:
            self.abort()
            return False
        except AnswerLate:
            self.stall()
            return False
        answer = self._response(status, kind, content if method != "HEAD" else b"")
        last = self._http.our_state is h11.MUST_CLOSE
        self.send(answer, delay_s(order), last=last)
        if not last:
            self._http.start_next_cycle()
        return not last

    def _response(self, status: int, kind: str, content: bytes) -> bytes:
        head = h11.Response(
            status_code=status,
            reason=responses.get(status, ""),
            headers=[("content-type", kind), ("content-length", str(len(content)))],
        )
        parts = (head, h11.Data(data=content), h11.EndOfMessage())
        return b"".join(self._http.send(part) or b"" for part in parts)

    def _refuse(self, status: int, reason: str) -> None:
        """Say what is wrong with a request, where that can still be said, and close."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.send(self._response(status, "text/plain", reason.encode()), 0.0)
        self._transport.close()
