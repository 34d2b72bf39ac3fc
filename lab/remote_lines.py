"""HTTP connections of several threads to one service, whose requests any thread can break off.

Not `httpx`, as in `lab.calls`: what waits for rows has to be ended at once and from another thread,
and the service hears of that by the end of the connection.
"""

import selectors
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from lab.errors import ConfigError

_CONNECT_S = 5.0
# A host without power sends nothing, not even an end: it is given up after 10 s + 3 * 5 s.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}


class LineLost(Exception):
    """No answer: the service cannot be reached, or the connection ended before its answer."""


class BrokenOff(Exception):
    """The request was broken off from this side."""


class Call:
    """One caller's requests, which `break_off` ends from any thread, the coming ones too."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._broken = threading.Event()
        self._wire: socket.socket | None = None

    def break_off(self) -> None:
        """End the connection of the request under way; do not wait for it."""
        with self._changing:
            self._broken.set()
            if self._wire is not None:
                _end(self._wire)

    @property
    def is_broken(self) -> bool:
        """Say whether it was broken off."""
        return self._broken.is_set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it is broken off."""
        self._broken.wait(seconds)

    @contextmanager
    def on(self, wire: socket.socket) -> Iterator[None]:
        """Let `break_off` end this connection meanwhile; raise BrokenOff if it is too late."""
        with self._changing:
            if self._broken.is_set():
                raise BrokenOff
            self._wire = wire
        try:
            yield
        finally:
            with self._changing:
                self._wire = None


class RemoteLines:
    """Connections to the service at `url`: each request has one for itself; idle ones are kept."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Send `headers` with each request. Raises ConfigError for an address that is none."""
        self._headers = dict(headers)
        self._idle: deque[HTTPConnection] = deque()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"'{url}' is not the address of a service: http://HOST:PORT")
        self._path = parts.path.rstrip("/")
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._port = parts.hostname, parts.port

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def request(
        self,
        call: Call,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Return status and content of the answer; no redirect is followed.

        Raises LineLost, or BrokenOff once `call` was broken off.
        """
        line = self._line(call)
        with _closed_if_it_fails(line, call), call.on(line.sock):
            line.request(method, self._path + path, body, {**self._headers, **(headers or {})})
            response = line.getresponse()
            content = response.read()
        self._idle.append(line)
        return response.status, content

    def _line(self, call: Call) -> Any:
        """Return a connection that is open as far as one can see from here."""
        while self._idle:
            try:
                line = self._idle.pop()
            except IndexError:  # another thread has taken the last one
                break
            if line.sock is not None and not _has_ended(line.sock):
                return line
            line.close()
        line = self._kind(self._host, self._port, timeout=_CONNECT_S)
        with _closed_if_it_fails(line, call):
            line.connect()
            _keep_alive(line.sock)
        return line


@contextmanager
def _closed_if_it_fails(line: HTTPConnection, call: Call) -> Iterator[None]:
    """Close the connection if the block fails, which ends the request over there, too."""
    try:
        yield
    except Exception as error:
        line.close()
        if call.is_broken:
            raise BrokenOff from error
        if isinstance(error, OSError | HTTPException):
            raise LineLost(str(error) or type(error).__name__) from error
        raise
    except BaseException:
        line.close()
        raise


def _keep_alive(wire: socket.socket) -> None:
    wire.settimeout(None)  # rows take the time that they take
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _has_ended(wire: socket.socket) -> bool:
    """Say whether an idle connection has been ended from over there: then it can be read."""
    with selectors.DefaultSelector() as selector:
        selector.register(wire, selectors.EVENT_READ)
        return bool(selector.select(0))


def _end(wire: socket.socket) -> None:
    """End a connection that another thread may be reading from, which then reads its end."""
    try:
        wire.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended already
