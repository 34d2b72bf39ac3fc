"""A SCPI command interpreter and its byte-stream sessions, free of any transport.

Short and long headers, optional nodes, `;` chaining with relative headers, the common commands,
the status registers and the error queue, after SCPI-1999 volume 1 and IEEE 488.2.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from drivers.mock.faults import GARBAGE, ConnectionDropped, Fault, FaultQueue

Handler = Callable[[list[str]], str | bytes | None]

TERMINATOR = b"\r\n"
_QUEUE_LENGTH = 20
_HEADER = re.compile(r"\*?[A-Z][A-Z0-9_:]*\??\Z")
_NODE = re.compile(r"(\[)?:?([A-Za-z0-9]+)\]?")
_REPLY_FAULTS = frozenset({Fault.TIMEOUT, Fault.GARBAGE, Fault.TRUNCATE})
_COMMAND_FAULTS = frozenset({Fault.DROP, Fault.REFUSE, Fault.IDENTITY})
_EVENT_BIT = {1: 32, 2: 16, 3: 8, 4: 4}  # hundreds of the error number -> bit of *ESR?


class ScpiError(Exception):
    """An entry of the error queue: its number and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f'{code},"{text}"')
        self.code = code


def spellings(header: str) -> Iterator[str]:
    """Yield every accepted form of a header such as `:INITiate[:IMMediate]`, in capitals."""
    query = "?" if header.endswith("?") else ""
    forms = [""]
    for optional, node in _NODE.findall(header.rstrip("?")):
        short = "".join(c for c in node if not c.islower())
        longer = [f"{f}:{n}" for f in forms for n in {short, node.upper()}]
        forms = longer + (forms if optional else [])
    return (form[1:] + query for form in forms)


class ScpiDevice:
    """The instrument behind all its connections: commands, status registers, error queue."""

    def __init__(self, identity: str, commands: Mapping[str, Handler]) -> None:
        """Take the answer to `*IDN?` and the handlers by header, as the manual prints it."""
        self.identity = identity
        self.faults = FaultQueue()
        self._errors: deque[ScpiError] = deque()
        self._event_status = 0
        self._event_enable = 0
        self._common: dict[str, Handler] = {
            "*IDN?": lambda _: self.identity,
            "*OPC?": lambda _: "1",
            "*CLS": lambda _: self._clear(),
            "*ESR?": lambda _: self._read_event_status(),
            "*ESE": self._set_event_enable,
            "*ESE?": lambda _: str(self._event_enable),
            "*STB?": lambda _: str(self._status_byte()),
            ":SYSTem:ERRor[:NEXT]?": lambda _: self._next_error(),
        }
        self._handlers = dict[str, Handler]()
        for header, handler in {**self._common, **commands}.items():
            names = [header] if header.startswith("*") else spellings(header)
            self._handlers.update(dict.fromkeys(names, handler))

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next message that contains the text `on`.

        Faults of an answer wait for a message that has one.
        """
        self.faults.arm(fault, on or ("*IDN?" if fault is Fault.IDENTITY else ""))

    def execute(self, message: bytes) -> bytes:
        """Carry out one message without its terminator; return the answer, also without."""
        fault = self.faults.take(message, _COMMAND_FAULTS)
        if fault is Fault.DROP:
            raise ConnectionDropped
        if fault is Fault.IDENTITY:
            return b"OTHER,OSA 1,0,0"
        if fault is Fault.REFUSE:
            self.report(ScpiError(-200, "Execution error"))
            return b""
        replies: list[bytes] = []
        level = ""
        for part in filter(None, map(str.strip, message.decode("latin-1").split(";"))):
            header, _, rest = part.partition(" ")
            header = header.upper()
            if not header.startswith("*"):
                header = header[1:] if header.startswith(":") else level + header
                level = header[: header.rfind(":") + 1]
            try:
                reply = self._call(header, rest)
            except ScpiError as error:
                self.report(error)
                continue
            if reply is not None:
                replies.append(reply if isinstance(reply, bytes) else reply.encode("ascii"))
        return b";".join(replies)

    def _call(self, header: str, rest: str) -> str | bytes | None:
        handler = self._handlers.get(header)
        if handler is None:
            known = _HEADER.match(header)
            raise ScpiError(-113, "Undefined header") if known else ScpiError(-102, "Syntax error")
        return handler([a.strip() for a in rest.split(",")] if rest.strip() else [])

    def report(self, error: ScpiError) -> None:
        """Put an error into the queue, and its class into the event status register."""
        self._event_status |= _EVENT_BIT.get(-error.code // 100, 8)
        if len(self._errors) < _QUEUE_LENGTH:
            self._errors.append(error)
        else:
            self._errors[-1] = ScpiError(-350, "Queue overflow")

    def _next_error(self) -> str:
        return str(self._errors.popleft()) if self._errors else '0,"No error"'

    def _clear(self) -> None:
        self._errors.clear()
        self._event_status = 0

    def _read_event_status(self) -> str:
        status, self._event_status = self._event_status, 0
        return str(status)

    def _set_event_enable(self, arguments: list[str]) -> None:
        if len(arguments) != 1:
            raise ScpiError(-109, "Missing parameter")
        if not arguments[0].isdigit():
            raise ScpiError(-104, "Data type error")
        if int(arguments[0]) > 255:
            raise ScpiError(-222, "Data out of range")
        self._event_enable = int(arguments[0])

    def _status_byte(self) -> int:
        return 4 * bool(self._errors) + 32 * bool(self._event_status & self._event_enable)


class ScpiSession:
    """One connection, with its own input buffer and, over Ethernet, its own login.

    Login: `OPEN "user"` -> `AUTHENTICATE CRAM-MD5.`, then any password -> `READY`; `CLOSE` ends
    it. Whatever comes before the login is not answered.
    """

    def __init__(self, device: ScpiDevice, *, login: bool, user: str = "anonymous") -> None:
        """Open a connection to `device`; `login` says whether it asks for `user`."""
        self._device = device
        self._user = user
        self._stage = "closed" if login else "open"
        self._input = b""
        self._late = b""
        self._dropped = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the host; return the bytes that go back, terminated by CRLF."""
        if self._dropped:
            raise ConnectionDropped
        *messages, self._input = (self._input + data).split(b"\n")
        return b"".join(self._exchange(m.rstrip(b"\r")) for m in messages)

    def close(self) -> None:
        """End the connection; idempotent."""
        self._dropped = True

    def _exchange(self, message: bytes) -> bytes:
        try:
            reply = self._reply(message)
        except ConnectionDropped:
            self._dropped = True
            raise
        if not reply:
            return b""
        fault = self._device.faults.take(message, _REPLY_FAULTS)
        if fault is Fault.GARBAGE:
            reply = GARBAGE
        if fault is Fault.TRUNCATE:
            return self._deliver(reply[: len(reply) // 2])
        if fault is Fault.TIMEOUT:
            self._late += reply + TERMINATOR
            return b""
        return self._deliver(reply + TERMINATOR)

    def _deliver(self, reply: bytes) -> bytes:
        late, self._late = self._late, b""
        return late + reply

    def _reply(self, message: bytes) -> bytes:
        if self._stage == "open":
            if message.strip().upper() == b"CLOSE":
                self._stage = "closed"
                return b""
            return self._device.execute(message)
        if self._stage == "password":
            self._stage = "open"
            return b"READY"
        if message == b'OPEN "%s"' % self._user.encode():
            self._stage = "password"
            return b"AUTHENTICATE CRAM-MD5."
        return b""
