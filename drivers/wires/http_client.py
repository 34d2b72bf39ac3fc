"""An HTTP client whose exchanges end in time, however slowly the instrument trickles.

httpx's own timeouts are of each call to the system: an instrument that sends a byte now and then
holds an exchange for as long as it likes.
"""

import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx


def timely_client(base_url: str, timeout_s: float) -> httpx.Client:
    """Return a client for one instrument: an exchange, connecting included, lasts `timeout_s`.

    Proxies of the environment are not used: instruments stand in the lab's own network.
    """
    transport = _TimelyTransport(timeout_s)
    return httpx.Client(base_url=base_url, timeout=timeout_s, trust_env=False, transport=transport)


class _Deadline(threading.local):
    """When the exchange of this thread must be done, monotonic seconds."""

    at_s = 0.0

    def left_s(self, error: type[Exception]) -> float:
        """Return what is left, s; raise `error` if nothing is."""
        left_s = self.at_s - time.monotonic()
        if left_s <= 0:
            raise error("the exchange lasts too long")
        return left_s


class _TimelyTransport(httpx.HTTPTransport):
    def __init__(self, timeout_s: float) -> None:
        super().__init__(trust_env=False)
        self._timeout_s = timeout_s
        self._deadline = _Deadline()
        self._pool.close()
        self._pool = httpcore.ConnectionPool(  # httpx passes no backend on to it
            ssl_context=ssl.create_default_context(), network_backend=_Backend(self._deadline)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._deadline.at_s = time.monotonic() + self._timeout_s
        return super().handle_request(request)


class _Backend(httpcore.SyncBackend):
    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._deadline)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left_s(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        line = self._inner.get_extra_info("socket")
        line.settimeout(self._deadline.left_s(httpcore.WriteTimeout))
        try:
            line.sendall(buffer)  # in this time as a whole
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left_s = self._deadline.left_s(httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
