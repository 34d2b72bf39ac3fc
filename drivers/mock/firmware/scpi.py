"""A SCPI command interpreter and its byte-stream sessions, free of any transport.

The common commands, status registers and error queue after SCPI-1999 and IEEE 488.2; the grammar
is `scpi_parser`'s and `scpi_headers`'. Status and settings belong to the instrument or to each
connection, as the real instrument has it.
"""

from collections.abc import Callable, Iterable, Mapping

from drivers.mock.faults import GARBAGE, ConnectionDropped, Fault, FaultQueue
from drivers.mock.firmware.scpi_headers import HeaderTable
from drivers.mock.firmware.scpi_parser import MessageBuffer, Unit, parse
from drivers.mock.firmware.scpi_status import ScpiError, Status

__all__ = ["Arguments", "Handler", "ScpiDevice", "ScpiError", "ScpiSession", "block"]

TERMINATOR = b"\r\n"
_REPLY_FAULTS = frozenset({Fault.TIMEOUT, Fault.GARBAGE, Fault.TRUNCATE})
_COMMAND_FAULTS = frozenset({Fault.DROP, Fault.REFUSE, Fault.IDENTITY})


class Connection:
    """What an instrument keeps per connection: its status, and settings by name."""

    def __init__(self, status: Status) -> None:
        self.status = status
        self.settings = dict[str, str]()


class Arguments(list[str]):
    """The parameters of one command as text (a block's content in Latin-1), and its context.

    suffixes: the numbers in the header, 1 where they were left out.
    """

    def __init__(
        self, parameters: Iterable[str], suffixes: tuple[int, ...], connection: Connection
    ) -> None:
        super().__init__(parameters)
        self.suffixes = suffixes
        self.connection = connection

    def single(self) -> str:
        """Return the only parameter; raise -109 or -108 if there is none or more than one."""
        if not self:
            raise ScpiError(-109, "Missing parameter")
        if len(self) > 1:
            raise ScpiError(-108, "Parameter not allowed")
        return self[0]

    def integer(self, low: int, high: int) -> int:
        """Return the only parameter as a number; raise -104 or -222 if it is none or outside."""
        text = self.single()
        digits = text.removeprefix("-" if text.startswith("-") else "+")
        if not (digits.isascii() and digits.isdecimal()):
            raise ScpiError(-104, "Data type error")
        value = int(text) if len(digits) < 10 else high + 1
        if not low <= value <= high:
            raise ScpiError(-222, "Data out of range")
        return value


Handler = Callable[[Arguments], str | bytes | None]


def block(data: bytes) -> bytes:
    """Return an IEEE 488.2 definite-length block."""
    length = str(len(data)).encode()
    return b"#%d%s%s" % (len(length), length, data)


class ScpiDevice:
    """The instrument behind all its connections: identity, commands, faults, and its status."""

    def __init__(
        self,
        identity: str,
        commands: Mapping[str, Handler],
        *,
        errors_at_most: int = 20,
        status_per_connection: bool = False,
        stranger: str = "OTHER,OSA 1,0,0",
    ) -> None:
        """Take the answer to `*IDN?` and the handlers by header, as the manual prints it.

        errors_at_most: the length of the error queue, of which there is one, or one per connection;
        stranger: who answers where the fault says that it is another instrument.
        """
        self.identity = identity
        self.faults = FaultQueue()
        self._stranger = stranger
        self._errors_at_most = errors_at_most
        self._status = None if status_per_connection else Status(errors_at_most)
        self._handlers = HeaderTable[Handler]({**self._common(), **commands})

    def _common(self) -> dict[str, Handler]:
        return {
            "*IDN?": lambda _: self.identity,
            "*OPC": lambda a: a.connection.status.complete(),
            "*OPC?": lambda _: "1",
            "*WAI": lambda _: None,
            "*TST?": lambda _: "0",
            "*RST": lambda _: None,
            "*CLS": lambda a: a.connection.status.clear(),
            "*ESR?": lambda a: a.connection.status.read_events(),
            "*ESE": _enable_events,
            "*ESE?": lambda a: str(a.connection.status.event_enable),
            "*SRE": _enable_service,
            "*SRE?": lambda a: str(a.connection.status.service_enable),
            "*STB?": lambda a: a.connection.status.read_byte(),
            ":SYSTem:ERRor[:NEXT]?": lambda a: a.connection.status.next_error(),
            ":SYSTem:ERRor:COUNt?": lambda a: a.connection.status.count_errors(),
        }

    def open_connection(self) -> Connection:
        """Return the state of one more connection."""
        return Connection(self._status or Status(self._errors_at_most))

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next message that contains the text `on`.

        Faults of an answer wait for a message that has one.
        """
        self.faults.arm(fault, on or ("*IDN?" if fault is Fault.IDENTITY else ""))

    def execute(self, message: bytes, connection: Connection) -> bytes:
        """Carry out one message without its terminator; return the answer, also without."""
        fault = self.faults.take(message, _COMMAND_FAULTS)
        if fault is Fault.DROP:
            raise ConnectionDropped
        if fault is Fault.IDENTITY:
            return self._stranger.encode("ascii")
        if fault is Fault.REFUSE:
            connection.status.report(ScpiError(-200, "Execution error"))
            return b""
        replies: list[bytes] = []
        for unit in parse(message):
            try:
                reply = self._call(unit, connection)
            except ScpiError as error:
                connection.status.report(error)
                continue
            if reply is not None:
                # latin-1: a parameter that is asked for again comes back as it was sent
                replies.append(reply if isinstance(reply, bytes) else reply.encode("latin-1"))
        return b";".join(replies)

    def _call(self, unit: Unit, connection: Connection) -> str | bytes | None:
        if unit.error is not None:
            connection.status.report(unit.error)  # not raised: the unit may come again
            return None
        found = self._handlers.find(unit.header)
        if found is None:
            raise ScpiError(-113, "Undefined header")
        handler, suffixes = found
        return handler(Arguments(unit.parameters, suffixes, connection))


def _enable_events(arguments: Arguments) -> None:
    arguments.connection.status.event_enable = arguments.integer(0, 255)


def _enable_service(arguments: Arguments) -> None:
    arguments.connection.status.service_enable = arguments.integer(0, 255)


class ScpiSession:
    """One connection, with its own input buffer, settings and, over Ethernet, its own login.

    Login: `OPEN "user"` -> `AUTHENTICATE CRAM-MD5.`, then any password -> `READY`; `CLOSE` ends
    it. Whatever comes before the login is not answered.
    """

    def __init__(
        self,
        device: ScpiDevice,
        *,
        login: bool,
        user: str = "anonymous",
        terminator: bytes = b"\n",
        reply_terminator: bytes = TERMINATOR,
    ) -> None:
        """Open a connection to `device`; `login` says whether it asks for `user`.

        terminator: what ends a message; a line feed may have a carriage return before it.
        reply_terminator: what ends an answer.
        """
        self._device = device
        self._user = user
        self._stage = "closed" if login else "open"
        self._connection = device.open_connection()
        self._input = MessageBuffer(terminator, self._report_overrun)
        self._end = reply_terminator
        self._late = b""
        self._dropped = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the host; return the bytes that go back, answers with their terminator.

        Raises ConnectionDropped, and nothing else, whatever the bytes.
        """
        if self._dropped:
            raise ConnectionDropped
        return b"".join(map(self._exchange, self._input.feed(data)))

    def close(self) -> None:
        """End the connection; idempotent."""
        self._dropped = True

    def _report_overrun(self) -> None:
        self._connection.status.report(ScpiError(-363, "Input buffer overrun"))

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
            self._late += reply + self._end
            return b""
        return self._deliver(reply + self._end)

    def _deliver(self, reply: bytes) -> bytes:
        late, self._late = self._late, b""
        return late + reply

    def _reply(self, message: bytes) -> bytes:
        if self._stage == "open":
            if message.strip().upper() == b"CLOSE":
                self._stage = "closed"
                return b""
            return self._device.execute(message, self._connection)
        if self._stage == "password":
            self._stage = "open"
            return b"READY"
        if message == b'OPEN "%s"' % self._user.encode():
            self._stage = "password"
            return b"AUTHENTICATE CRAM-MD5."
        return b""
