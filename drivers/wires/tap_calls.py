"""Listen to boards, sound interfaces and displays: their calls, and the arrays in and out."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from drivers.circuits.mcc_board import BoardError, DaqBoard, ScanStatus, Side
from drivers.plates.audio_port import DuplexPort, Frames, PortError, Shot
from drivers.shapers.slm_display import DisplayError, PhaseDisplay
from drivers.shapers.slm_grating import Levels
from drivers.spec import Array
from drivers.wires.tap import Event, Tap

T = TypeVar("T")

VOLTS = np.dtype("<f8")
FRAMES = np.dtype("<f4")


class TappedBoard:
    """A board with a tap; a `DaqBoard`."""

    def __init__(self, inner: DaqBoard, tap: Tap) -> None:
        """Listen to `inner`, which has just been opened."""
        self._inner = inner
        self._tap = tap
        self._buffer: Array | None = None
        tap(Event("opened"))

    @property
    def identity(self) -> str:
        """Get the board's product name and unique id."""
        identity = self._call("identity", lambda: self._inner.identity)
        self._tap(Event("received", data=identity.encode()))
        return identity

    def set_trigger(self, samples: int) -> None:
        """Let each rising edge at the trigger input take `samples` input samples."""
        self._call(trigger_asked(samples), lambda: self._inner.set_trigger(samples))

    def a_in_scan(self, channel: int, samples: int, rate_hz: float) -> Array:
        """Arm the input; return the buffer to be filled, V."""
        asked = input_asked(channel, samples, rate_hz)
        buffer = self._call(asked, lambda: self._inner.a_in_scan(channel, samples, rate_hz))
        self._buffer = buffer
        return buffer

    def a_out_scan(self, volts: Array, rate_hz: float) -> None:
        """Start to play `volts` (samples, channels)."""
        asked, data = output_asked(volts, rate_hz)
        self._call(asked, lambda: self._inner.a_out_scan(volts, rate_hz), data)

    def scan_wait(self, side: Side, timeout_s: float) -> None:
        """Return when the scan is done."""
        self._call(f"scan_wait {side}", lambda: self._inner.scan_wait(side, timeout_s))
        if side is Side.INPUT:
            self._tell_buffer()

    def scan_status(self, side: Side) -> ScanStatus:
        """Return how far the scan is."""
        status = self._call(f"scan_status {side}", lambda: self._inner.scan_status(side))
        state = "running" if status.running else "idle"
        self._tap(Event("received", f"{state} {status.samples}"))
        if side is Side.INPUT and not status.running:
            self._tell_buffer()
        return status

    def scan_stop(self, side: Side) -> None:
        """Stop the scan if there is one."""
        self._call(f"scan_stop {side}", lambda: self._inner.scan_stop(side))

    def reopen(self) -> None:
        """Connect again after the connection was lost."""
        self._call("reopen", self._inner.reopen)

    def close(self) -> None:
        """Release the board; idempotent."""
        self._inner.close()

    def _tell_buffer(self) -> None:
        """Tell the input's samples, once they are all there."""
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._tap(Event("received", "buffer", buffer.astype(VOLTS).tobytes()))

    def _call(self, asked: str, call: Callable[[], T], data: bytes = b"") -> T:
        self._tap(Event("sent", asked, data))
        try:
            return call()
        except BoardError as error:
            self._tap(Event("failed", str(error.code), error.text.encode()))
            raise


def trigger_asked(samples: int) -> str:
    """Return how `set_trigger` is told."""
    return f"set_trigger {samples}"


def input_asked(channel: int, samples: int, rate_hz: float) -> str:
    """Return how `a_in_scan` is told."""
    return f"a_in_scan channel {channel}, {samples} samples at {rate_hz:g} Hz"


def output_asked(volts: Array, rate_hz: float) -> tuple[str, bytes]:
    """Return how `a_out_scan` is told, and its samples."""
    samples, channels = volts.shape
    asked = f"a_out_scan {samples} samples, {channels} channels at {rate_hz:g} Hz"
    return asked, volts.astype(VOLTS).tobytes()


class TappedPort:
    """A sound interface with a tap; a `DuplexPort`."""

    def __init__(self, inner: DuplexPort, tap: Tap) -> None:
        """Listen to `inner`."""
        self._inner = inner
        self._tap = tap
        tap(Event("opened"))

    def describe(self) -> str:
        """Return the interface's own name and its sample rate."""
        name = self._call("describe", self._inner.describe)
        self._tap(Event("received", data=name.encode()))
        return name

    def start(self) -> None:
        """Let the stream run, silent; idempotent."""
        self._call("start", self._inner.start)

    def exchange(self, frames: Frames) -> Shot:
        """Play (frames, 2), and record as many frames."""
        asked, data = exchange_asked(frames)
        shot = self._call(asked, lambda: self._inner.exchange(frames), data)
        recorded = shot.recorded.astype(FRAMES).tobytes()
        self._tap(Event("received", ", ".join(shot.flags), recorded))
        return shot

    def abort(self) -> None:
        """Let an exchange that runs raise PortAborted; from any thread, hence not told."""
        self._inner.abort()

    def stop(self) -> None:
        """Fade to silence and stop the stream; idempotent."""
        self._call("stop", self._inner.stop)

    def close(self) -> None:
        """Stop, and give the interface back; idempotent."""
        self._inner.close()

    def _call(self, asked: str, call: Callable[[], T], data: bytes = b"") -> T:
        self._tap(Event("sent", asked, data))
        try:
            return call()
        except PortError as error:
            self._tap(Event("failed", type(error).__name__, str(error).encode()))
            raise


def exchange_asked(frames: Frames) -> tuple[str, bytes]:
    """Return how `exchange` is told, and its frames."""
    return f"exchange {len(frames)} frames", frames.astype(FRAMES).tobytes()


class TappedDisplay:
    """A phase display with a tap; a `PhaseDisplay`."""

    def __init__(self, inner: PhaseDisplay, tap: Tap) -> None:
        """Listen to `inner`, which is not connected yet."""
        self._inner = inner
        self._tap = tap

    def open(self) -> None:
        """Connect anew."""
        self._tap(Event("opened"))
        self._told(self._inner.open)
        rows, columns = self._inner.shape
        self._tap(Event("received", f"{rows} {columns} {self._inner.bits}"))

    def close(self) -> None:
        """Release the connection; idempotent."""
        self._inner.close()

    def identity(self) -> str:
        """Return what kind of display answers, and its name."""
        self._tap(Event("sent", "identity"))
        identity = self._told(self._inner.identity)
        self._tap(Event("received", data=identity.encode()))
        return identity

    @property
    def shape(self) -> tuple[int, int]:
        """Get rows and columns; told when it is opened."""
        return self._inner.shape

    @property
    def bits(self) -> int:
        """Get the depth of a pixel, bits; told when it is opened."""
        return self._inner.bits

    def show(self, levels: Levels) -> None:
        """Display grey levels (rows, columns)."""
        self._tap(Event("sent", *show_asked(levels)))
        self._told(lambda: self._inner.show(levels))

    def _told(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (OSError, DisplayError) as error:
            self._tap(Event("failed", type(error).__name__, str(error).encode()))
            raise


def show_asked(levels: Levels) -> tuple[str, bytes]:
    """Return how `show` is told, and its levels."""
    rows, columns = levels.shape
    little = levels.astype(levels.dtype.newbyteorder("<"))
    return f"show {rows} x {columns} of {levels.dtype.itemsize} bytes", little.tobytes()
