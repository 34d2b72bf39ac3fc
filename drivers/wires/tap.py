"""Listen on the wire between a driver and its instrument: for recordings and for dry runs.

A tap stands in front of a wire and tells of every event on it; the wire is of the same type as
before, so drivers do not notice. Where nobody listens there is no tap, and it costs nothing.
Boards and sound interfaces have no bytes on a wire that Python could see: their calls are told
instead (`drivers.wires.tap_calls`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import httpx
from pymeasure.adapters import Adapter
from pyvisa.constants import StatusCode
from pyvisa.errors import VisaIOError

from drivers.errors import ConnectionLost
from drivers.spectrometers.ocean_link import ByteWire

T = TypeVar("T")

What = Literal["opened", "sent", "received", "failed"]
LOST = "lost"
TIMED_OUT = "timeout"
UNREAD = "unread"  # bytes had arrived that nobody had read: those of the next event
_SHOWN = 72  # characters of a payload
_TEXT = re.compile(rb"[\x20-\x7e\r\n\t]*")
_START_OF_TEXT = re.compile(rb"[\x20-\x7e]*")


@dataclass(frozen=True)
class Event:
    """One event on a wire: bytes sent or received, a connection opened, an exchange failed.

    head: what was asked, where it is not part of the bytes (a request's method and path, a call
    and its arguments), the kind of an answer, or of a failure. secret: `data` was a password and
    has been left out.
    """

    what: What
    head: str = ""
    data: bytes = b""
    secret: bool = False

    def __str__(self) -> str:
        """Return it on one line, a long payload shortened, with its length."""
        if self.secret:
            return "(a password, not shown)"
        return " ".join(part for part in (self.head, shortened(self.data)) if part)


Tap = Callable[[Event], None]
"""Hears the events of one wire in order, from the thread that uses it."""


class TappedRigs(dict[str, T]):
    """The simulated rigs by name, and the tap on the wire that is opened with them."""

    def __init__(self, rigs: Mapping[str, T], tap: Tap) -> None:
        super().__init__(rigs)
        self.tap = tap


def tap_of(rigs: Mapping[str, Any]) -> Tap | None:
    """Return who listens to a wire that is opened with these rigs; None: nobody."""
    return rigs.tap if isinstance(rigs, TappedRigs) else None


def is_text(data: bytes) -> bool:
    """Say whether the bytes are printable ASCII with line ends and tabs."""
    return _TEXT.fullmatch(data) is not None


def shortened(data: bytes) -> str:
    """Return bytes on one line, as far as they are text; with their number if that is not all."""
    start = _START_OF_TEXT.match(data)
    text = data.rstrip(b"\r\n") if is_text(data) or start is None else start[0]
    shown = text[:_SHOWN].decode("ascii")
    for sign, name in (("\r", "\\r"), ("\n", "\\n"), ("\t", "\\t")):
        shown = shown.replace(sign, name)
    whole = is_text(data) and len(text) <= _SHOWN
    return shown if whole else f"{shown}... ({len(data)} bytes)".removeprefix("... ")


class TappedAdapter(Adapter):  # type: ignore[misc]  # PyMeasure is untyped
    """A VISA wire with a tap: every byte, terminators included.

    What follows the AQ6370's `AUTHENTICATE` is a password, and not told.
    """

    def __init__(self, inner: Adapter, tap: Tap, terminator: str) -> None:
        """Listen to `inner`, which has just been opened and is closed with this one."""
        super().__init__()
        self.connection = inner
        self._tap = tap
        self._terminator = terminator.encode()
        self._secret = False
        tap(Event("opened"))

    def reopen(self) -> None:
        """Open a fresh connection; raises ConnectionLost."""
        self._secret = False
        self._tap(Event("opened"))
        try:
            self.connection.reopen()
        except ConnectionLost as error:
            self._tap(Event("failed", LOST, str(error).encode()))
            raise

    # what our own adapters offer beyond PyMeasure's

    def unread(self) -> bool:
        """Say whether bytes have arrived that nobody has read."""
        more: bool = self.connection.unread()
        if more:
            self._tap(Event("received", UNREAD))
        return more

    def read_head(self) -> bytes:
        """Return the header of a data block, or the first two bytes of what is none."""
        head: bytes = self._told(self.connection.read_head)
        self._tap(Event("received", data=head))
        return head

    def read_into(self, whole: memoryview) -> None:
        """Fill `whole` with the bytes that come next."""
        self._told(lambda: self.connection.read_into(whole))
        self._tap(Event("received", data=bytes(whole)))

    def write_parts(self, *parts: bytes | memoryview) -> None:
        """Send `parts` as one message; no terminator is added."""
        self._write_bytes(b"".join(parts))

    # PyMeasure's

    def _write(self, command: str, **kwargs: Any) -> None:
        self._write_bytes(command.encode("ascii") + self._terminator)

    def _write_bytes(self, content: bytes, **kwargs: Any) -> None:
        secret, self._secret = self._secret, False
        self._tap(Event("sent", data=b"" if secret else bytes(content), secret=secret))
        self._told(lambda: self.connection.write_bytes(content, **kwargs))

    def _read(self, **kwargs: Any) -> str:
        line = self._read_bytes(-1, break_on_termchar=True)
        return line.removesuffix(self._terminator).decode("ascii")

    def _read_bytes(self, count: int, break_on_termchar: bool = False, **kwargs: Any) -> bytes:
        data: bytes = self._told(
            lambda: self.connection.read_bytes(count, break_on_termchar, **kwargs)
        )
        self._secret = b"AUTHENTICATE" in data
        self._tap(Event("received", data=data))
        return data

    def _told(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except VisaIOError as error:
            how = TIMED_OUT if error.error_code == StatusCode.error_timeout else LOST
            self._tap(Event("failed", how, str(error.description).encode()))
            raise
        except OSError as error:
            self._tap(Event("failed", LOST, str(error).encode()))
            raise

    def flush_read_buffer(self) -> None:
        """Discard what has been received."""
        self.connection.flush_read_buffer()


class TappedWire:
    """A byte stream with a tap; a `drivers.spectrometers.ocean_link.ByteWire`."""

    def __init__(self, connect: Callable[[], ByteWire], tap: Tap) -> None:
        """Connect, and listen; raises OSError."""
        self._tap = tap
        tap(Event("opened"))
        self._inner = self._told(connect)

    def send(self, data: bytes) -> None:
        """Send all of `data`; raises OSError."""
        self._tap(Event("sent", data=data))
        self._told(lambda: self._inner.send(data))

    def receive(self, count: int, deadline: float, check: Callable[[], None]) -> bytes:
        """Return exactly `count` bytes; raises OSError, of which TimeoutError."""
        data = self._told(lambda: self._inner.receive(count, deadline, check))
        self._tap(Event("received", data=data))
        return data

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._inner.close()

    def _told(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except OSError as error:
            how = TIMED_OUT if isinstance(error, TimeoutError) else LOST
            self._tap(Event("failed", how, str(error).encode()))
            raise


class TappedClient(httpx.Client):
    """An HTTP wire with a tap: method, path and body; status, content type and body.

    Headers are left out: they are the client library's, and those that matter may be secret.
    """

    def __init__(self, inner: httpx.Client, tap: Tap) -> None:
        """Listen to `inner`, which is closed with this one."""
        super().__init__(base_url=inner.base_url, timeout=inner.timeout, trust_env=False)
        self._inner = inner
        self._tap = tap
        tap(Event("opened"))

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Exchange one request; raises what httpx does."""
        path = request.url.raw_path.decode("ascii")
        self._tap(Event("sent", f"{request.method} {path}", request.read()))
        try:
            response = self._inner.send(request, **options)
        except httpx.TimeoutException as error:
            self._tap(Event("failed", TIMED_OUT, str(error).encode()))
            raise
        except httpx.HTTPError as error:
            self._tap(Event("failed", LOST, str(error).encode()))
            raise
        kind = f"{response.status_code} {response.headers.get('content-type', '')}"
        self._tap(Event("received", kind, response.read()))
        return response

    def close(self) -> None:
        """Close both clients; idempotent."""
        self._inner.close()
        super().close()
