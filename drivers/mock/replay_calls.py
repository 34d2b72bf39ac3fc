"""Recorded sessions of what has no bytes on a wire: boards, sound interfaces, displays."""

import numpy as np

from drivers.circuits.mcc_board import BoardError, ScanStatus, Side
from drivers.mock.replay import Replay
from drivers.plates.audio_port import CHANNELS, Frames, PortError, Shot
from drivers.shapers.slm_display import DisplayError
from drivers.shapers.slm_grating import Levels
from drivers.spec import Array
from drivers.wires.tap import Event
from drivers.wires.tap_calls import (
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
