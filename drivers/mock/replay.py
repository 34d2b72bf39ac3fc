"""A recorded session as a simulated instrument: it answers what was answered then.

It checks that the host sends what was sent then; the first difference is an error, and so is
whatever comes after it. Passwords were not recorded: any one will do. Nothing is waited for, and
what a driver decides by the clock (a sweep that never ends) may therefore go another way.
"""

from dataclasses import replace
from pathlib import Path

from drivers.errors import ConnectionLost, ReplayError
from drivers.mock.faults import AnswerLate, ConnectionDropped
from drivers.wires.recording import load_recording
from drivers.wires.tap import LOST, TIMED_OUT, UNREAD, Event, shortened


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


def _first_difference(one: bytes, other: bytes) -> int:
    """Return the index at which two unequal byte strings part."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _raise_failure(answer: Event) -> None:
    """Raise what shows a recorded failure as the transport would."""
    if answer.what == "failed":
        raise ConnectionDropped if answer.head == LOST else AnswerLate
