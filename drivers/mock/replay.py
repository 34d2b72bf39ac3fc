"""A recorded session as a simulated instrument: it answers what was answered then.

It checks that the host sends what was sent then; the first difference is an error, and so is
whatever comes after it. Passwords were not recorded: any one will do. Nothing is waited for, and
what a driver decides by the clock (a sweep that never ends) may therefore go another way.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from drivers.audio_port import CHANNELS, Frames, PortError, Shot
from drivers.errors import ConnectionLost, ReplayError
from drivers.mcc_board import BoardError, ScanStatus, Side
from drivers.mock.faults import AnswerLate, ConnectionDropped
from drivers.recording import load_recording
from drivers.slm_display import DisplayError
from drivers.slm_grating import Levels
from drivers.spec import Array
from drivers.tap import LOST, TIMED_OUT, UNREAD, Event, shortened
from drivers.tap_calls import (
    FRAMES,
    VOLTS,
    exchange_asked,
    input_asked,
    output_asked,
    show_asked,
    trigger_asked,
)

_PORT_ERRORS = {kind.__name__: kind for kind in PortError.__subclasses__()}

_DISPLAY_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (ConnectionError, TimeoutError, DisplayError)
}


class Replay:
    """One instrument's part of a recording, gone through once from its beginning."""

    def __init__(self, address: str) -> None:
        """Read `<file>#<instrument>`; the instrument may be left out where it is the only one.

        Raises ValueError for a file that is no whole recording or has no such instrument.
        """
        file, _, wanted = address.partition("#")
        sessions = load_recording(Path(file))
        if wanted not in sessions and (wanted or len(sessions) != 1):
            raise ValueError(
                f"{file}: no instrument '{wanted}' (there are: {', '.join(sessions) or 'none'}; "
                "write replay://FILE#INSTRUMENT)"
            )
        self.name = wanted or next(iter(sessions))
        self._file = file
        self._events = sessions[self.name]
        self._position = 0
        self._exchanges = 0
        self._difference: ReplayError | None = None

    def peek(self, came: str) -> Event:
        """Return the event that comes next; raise ReplayError if there is none, or was before.

        came: what the host does, for the message.
        """
        if self._difference is not None:
            raise self._difference
        if self._position == len(self._events):
            count = f"{self._exchanges} exchanges"
            raise self._differs(f"the recording ends after {count}, but {came} came")
        return self._events[self._position][1]

    def opened(self) -> None:
        """Take the next event, which must be a connection."""
        self._take_checked("a new connection", self.peek("a new connection").what == "opened")
        if self._upcoming("failed"):
            raise ConnectionLost(self.name, self._next().data.decode())

    def sent(self, head: str, data: bytes = b"") -> list[Event]:
        """Check one whole request, and return the events up to the next one."""
        came = str(Event("sent", head, data))
        expected = self.peek(came)
        same = expected.what == "sent" and expected.head == head
        if same and expected.data != data:
            came += f", which differs from byte {_first_difference(expected.data, data)} on,"
        self._take_checked(came, same and expected.data == data)
        self._exchanges += 1
        return self.answers()

    def answers(self) -> list[Event]:
        """Take what came back before the next request."""
        found = []
        while self._upcoming("received", "failed"):
            found.append(self._next())
        return found

    def arrives_early(self) -> bytes:
        """Take the bytes that are read next out of their place: they had arrived before."""
        for i in range(self._position, len(self._events)):
            line, event = self._events[i]
            if event.what == "opened":
                break
            if event.what == "received" and event.data:
                self._events[i] = line, replace(event, data=b"")
                return event.data
        return b"?"  # nobody read them

    def taken(self, came: bytes, same: bool) -> None:
        """Take the next event, which was `same` as what came, or raise ReplayError."""
        self._take_checked(shortened(came), same)
        self._exchanges += 1

    def _upcoming(self, *whats: str) -> bool:
        left = self._position < len(self._events)
        return left and self._events[self._position][1].what in whats

    def _next(self) -> Event:
        self._position += 1
        return self._events[self._position - 1][1]

    def _take_checked(self, came: str, same: bool) -> None:
        line, expected = self._events[self._position]
        if not same:
            known = str(expected) if expected.what == "sent" else f"({expected.what}) {expected}"
            where = f"exchange {self._exchanges + 1}, line {line}"
            raise self._differs(f"{where}: expected {known.rstrip()}, but {came} came")
        self._next()

    def _differs(self, how: str) -> ReplayError:
        self._difference = ReplayError(self.name, f"replay of {self._file}: {how}")
        return self._difference


class ReplayedStream:
    """A byte stream or an HTTP instrument from a recording: firmware of either kind."""

    def __init__(self, address: str) -> None:
        """Load the recording; see `Replay`."""
        self._replay = Replay(address)
        self._open = False

    # --- byte streams -------------------------------------------------------------------------

    def connect(self) -> "ReplayedSession":
        """Open one more connection."""
        self._replay.opened()
        return ReplayedSession(self._replay)

    # --- HTTP ---------------------------------------------------------------------------------

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        """Answer one request as it was answered then; raises AnswerLate or ConnectionDropped."""
        if not self._open:
            self._replay.opened()
            self._open = True
        for answer in self._replay.sent(f"{method} {path}", body):
            _raise_failure(answer)
            status, _, kind = answer.head.partition(" ")
            return int(status), kind, answer.data
        raise AnswerLate


class ReplayedSession:
    """One connection of a recorded byte stream; however the host cuts what it sends."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._input = b""

    def receive(self, data: bytes) -> bytes:
        """Compare what comes and return what came back then; may raise ConnectionDropped."""
        self._input += data
        sent_back = b""
        while self._input:
            length = self._expected_length()
            if length > len(self._input):
                break
            self._replay.taken(self._input, length > 0)
            self._input = self._input[length:]
            sent_back += self._bytes_of(self._replay.answers())
        return sent_back

    def _bytes_of(self, answers: list[Event]) -> bytes:
        """Return the bytes of an answer; what did not come in time is not among them."""
        for answer in answers:
            if answer.head != TIMED_OUT:
                _raise_failure(answer)
        received = [answer for answer in answers if answer.what == "received"]
        data = b"".join(answer.data for answer in received)
        more = bool(received) and received[-1].head == UNREAD
        return data + self._replay.arrives_early() if more else data

    def _expected_length(self) -> int:
        """Return how many bytes make up the next request; 0 if it is another one."""
        expected = self._replay.peek(shortened(self._input))
        if expected.what != "sent":
            return 0
        if expected.secret:
            return self._input.find(b"\n") + 1 or len(self._input) + 1
        length = len(expected.data)
        return length if expected.data[: len(self._input)] == self._input[:length] else 0

    def close(self) -> None:
        """End the connection; idempotent."""


class ReplayedBoard:
    """A board from a recording; a `DaqBoard`."""

    def __init__(self, address: str) -> None:
        """Load the recording; see `Replay`."""
        self._replay = Replay(address)
        self._replay.opened()
        self._buffer: Array = np.zeros(0)

    @property
    def identity(self) -> str:
        """Get the identity that was told then."""
        return self._call("identity")[0].data.decode()

    def set_trigger(self, samples: int) -> None:
        """Compare the call."""
        self._call(trigger_asked(samples))

    def a_in_scan(self, channel: int, samples: int, rate_hz: float) -> Array:
        """Compare the call; return a buffer that is filled when it was then."""
        self._call(input_asked(channel, samples, rate_hz))
        self._buffer = np.zeros(samples)
        return self._buffer

    def a_out_scan(self, volts: Array, rate_hz: float) -> None:
        """Compare the call and all samples."""
        self._call(*output_asked(volts, rate_hz))

    def scan_wait(self, side: Side, timeout_s: float) -> None:
        """Compare the call, and fill the buffer."""
        self._call(f"scan_wait {side}")

    def scan_status(self, side: Side) -> ScanStatus:
        """Return the state that was told then."""
        state, _, samples = self._call(f"scan_status {side}")[0].head.partition(" ")
        return ScanStatus(state == "running", int(samples))

    def scan_stop(self, side: Side) -> None:
        """Compare the call."""
        self._call(f"scan_stop {side}")

    def reopen(self) -> None:
        """Compare the call."""
        self._call("reopen")

    def close(self) -> None:
        """Do nothing; idempotent."""

    def _call(self, asked: str, data: bytes = b"") -> list[Event]:
        answers = self._replay.sent(asked, data)
        for answer in answers:
            if answer.what == "failed":
                raise BoardError(int(answer.head), answer.data.decode())
            if answer.head == "buffer":
                self._buffer[:] = np.frombuffer(answer.data, VOLTS)
        return answers


class ReplayedPort:
    """A sound interface from a recording; a `DuplexPort`."""

    def __init__(self, address: str) -> None:
        """Load the recording; see `Replay`."""
        self._replay = Replay(address)
        self._replay.opened()

    def describe(self) -> str:
        """Return the name that was told then."""
        return self._call("describe")[0].data.decode()

    def start(self) -> None:
        """Compare the call."""
        self._call("start")

    def exchange(self, frames: Frames) -> Shot:
        """Compare all frames, and return those that were recorded then."""
        (answer,) = self._call(*exchange_asked(frames))
        recorded = np.frombuffer(answer.data, FRAMES).reshape(-1, CHANNELS)
        return Shot(recorded, tuple(answer.head.split(", ")) if answer.head else ())

    def abort(self) -> None:
        """Do nothing: what was aborted then is aborted again."""

    def stop(self) -> None:
        """Compare the call."""
        self._call("stop")

    def close(self) -> None:
        """Do nothing; idempotent."""

    def _call(self, asked: str, data: bytes = b"") -> list[Event]:
        answers = self._replay.sent(asked, data)
        for answer in answers:
            if answer.what == "failed":
                raise _PORT_ERRORS[answer.head](answer.data.decode())
        return answers


class ReplayedDisplay:
    """A phase display from a recording; a `PhaseDisplay`."""

    def __init__(self, address: str) -> None:
        """Load the recording; see `Replay`."""
        self._replay = Replay(address)
        self.shape = (0, 0)
        self.bits = 0

    def open(self) -> None:
        """Compare the call, and take shape and depth from what was told then."""
        self._replay.opened()
        for answer in self._replay.answers():
            rows, columns, self.bits = map(int, answer.head.split())
            self.shape = rows, columns

    def close(self) -> None:
        """Do nothing; idempotent."""

    def identity(self) -> str:
        """Return what was told then."""
        return self._call("identity")

    def show(self, levels: Levels) -> None:
        """Compare all grey levels."""
        self._call(*show_asked(levels))

    def _call(self, asked: str, data: bytes = b"") -> str:
        told = ""
        for answer in self._replay.sent(asked, data):
            if answer.what == "failed":
                raise _DISPLAY_ERRORS.get(answer.head, OSError)(answer.data.decode())
            told = answer.data.decode()
        return told


def _first_difference(one: bytes, other: bytes) -> int:
    """Return the index at which two unequal byte strings part."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _raise_failure(answer: Event) -> None:
    """Raise what shows a recorded failure as the transport would."""
    if answer.what == "failed":
        raise ConnectionDropped if answer.head == LOST else AnswerLate
