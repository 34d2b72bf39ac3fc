"""A plate driven by a speaker and heard by a microphone, on one duplex sound interface.

    output 1 -> amplifier -> speaker -> plate -> microphone -> input 1
    output 2 -> cable -> input 2

Many rows go out in one waveform, with silence between them in which the plate comes to rest. A
reference goes along with every row through the cable; where it is found in the recording tells
when the row was heard, whatever the latency of the interface. Where it cannot be found whole,
samples were lost, and the row is out of sync. Shots in which the interface reports an under- or
overflow are repeated.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from drivers.abort import Abort
from drivers.errors import (
    Aborted,
    ConnectionLost,
    DriverError,
    InstrumentRefused,
    InstrumentTimeout,
    ProtocolError,
    refuse,
)
from drivers.instrument import Closing, Recording, check_identity
from drivers.limits import Narrowing, duty, rms, slew
from drivers.plates.alignment import HEARD, IN_SYNC, Aligner, make_reference
from drivers.plates.audio_port import (
    CHANNELS,
    SAMPLE_RATE_HZ,
    DuplexPort,
    Frames,
    PortAborted,
    PortError,
    PortLost,
    PortRefused,
    PortTimeout,
)
from drivers.spec import Array, ArraySpec

T = TypeVar("T")

_ERRORS: dict[type[PortError], type[DriverError]] = {
    PortLost: ConnectionLost,
    PortTimeout: InstrumentTimeout,
    PortRefused: InstrumentRefused,
    PortAborted: Aborted,
}


class AudioPlate(Closing):
    """A speaker, a plate and a microphone; `drive` and `response` (samples,) are of full scale.

    The hardware's limits; the bench file may set narrower ones for `drive`: `low`, `high` or
    `peak`, full scale; `rms` of a row's samples, full scale; `slew`, full scale per sample; `duty`,
    the share of a row, silence included, that is driven.
    """

    FULL_SCALE = 1.0
    GREATEST_RMS = 1.0
    GREATEST_SLEW = 2.0  # per sample: from one end of the range to the other

    def __init__(
        self,
        interface: DuplexPort,
        *,
        name: str = "plate",
        samples: int = 196,
        row_frames: int = 4800,
        rows_per_shot: int = 100,
        longest_latency_frames: int = 4096,
        attempts: int = 3,
        expect_idn: str | None = None,
        drive: Narrowing | None = None,
    ) -> None:
        """Take the interface (closed by `close`) and the fixed part of every waveform; no I/O.

        A row is `samples` of drive, and silence up to `row_frames` (48 a ms), which the latency
        must not outlast; rows_per_shot rows fit into one waveform; attempts: shots until
        one is free of under- and overflows; expect_idn is a regular expression that the identity
        must contain; drive narrows the limits. Raises LimitError, or ValueError for wider limits
        and for a range without the 0 of the silence.
        """
        self.name = name
        self.rows_per_shot = rows_per_shot
        self.frame_rate_hz = float(SAMPLE_RATE_HZ)
        self.longest_latency_frames = longest_latency_frames
        self.silence_samples = row_frames - samples
        _check_waveform(name, samples, row_frames, rows_per_shot, longest_latency_frames, attempts)
        full, unit, shape = self.FULL_SCALE, "full scale", (samples,)
        of_a_row = rms(self.GREATEST_RMS, unit), slew(self.GREATEST_SLEW, unit), duty(row_frames)
        declared = ArraySpec("drive", unit, shape, -full, full, "float32", row_limits=of_a_row)
        self._drive = declared.limited(drive)
        if not self._drive.low <= 0 <= self._drive.high:
            raise ValueError(f"drive: {drive} leaves out 0, the silence between rows")
        self._response = ArraySpec("response", unit, shape, -full, full)
        self._port = interface
        self._row_frames = row_frames
        self._attempts = attempts
        self._expect_idn = expect_idn
        reference = make_reference(samples)
        self._aligner = Aligner(reference, row_frames, longest_latency_frames)
        # kept between shots: the silence need not be written again
        self._waveform = np.zeros((rows_per_shot, row_frames, CHANNELS), dtype=np.float32)
        self._waveform[:, :samples, 1] = reference
        self._closed = False
        self._abort = Abort(name)

    @property
    def drive(self) -> ArraySpec:
        """Get what `play_and_record` accepts, (samples,) of full scale."""
        return self._drive

    @property
    def response(self) -> ArraySpec:
        """Get what it returns, (samples,) of full scale."""
        return self._response

    # --- Instrument -------------------------------------------------------------------------

    def identify(self) -> str:
        """Return the interface's name and its sample rate."""
        return self._ask("identify", self._port.describe)

    def start(self) -> None:
        """Check who answers, let the stream run and find its latency with a silent row.

        Raises IdentityError, ProtocolError if the reference is not heard, or what the wire does.
        """
        self._abort.clear()
        identity = self.identify()
        check_identity(self.name, identity, self._expect_idn)
        self._ask("start", self._port.start)
        self._shoot(np.zeros((1, *self._drive.shape)))

    def shutdown(self) -> None:
        """Fade to silence and stop the stream; idempotent."""
        if not self._closed:
            self._ask("stop", self._port.stop)

    def abort(self) -> None:
        """Fade out the shot that is played, and refuse others until `start`; any thread."""
        self._abort.request()
        self._port.abort()

    def close(self) -> None:
        """Fall silent and give the interface back; idempotent."""
        if self._closed:
            return
        try:
            self.shutdown()
        finally:
            self._closed = True
            self._translate("close", self._port.close)

    # --- SpeakerPlate -----------------------------------------------------------------------

    def play_and_record(self, drive: Array) -> Recording:
        """Play rows (rows, samples), at most `rows_per_shot`, and return what was heard of each.

        Raises LimitError before anything is played, ProtocolError if the reference is not heard
        at all, InstrumentRefused if every attempt had an under- or overflow, Aborted.
        """
        drive = self._drive.check(drive, instrument=self.name)
        most = len(self._waveform)
        if drive.ndim != 2 or not 1 <= len(drive) <= most:
            message = f"shape {drive.shape} is not 1 to {most} rows of {self._drive.shape}"
            refuse(self.name, "drive", message)
        return self._shoot(drive)

    @property
    def loopback_delay_frames(self) -> int:
        """Get the delay from output to input at the last row that was found, frames."""
        return self._aligner.lag

    def _shoot(self, drive: Array) -> Recording:
        rows, samples = drive.shape
        self._waveform[:rows, :samples, 0] = drive
        frames = self._waveform[:rows].reshape(-1, CHANNELS)
        recorded = self._exchange(frames)
        lags, peaks = self._aligner.align(recorded[:, 1], rows)
        if peaks.max() < HEARD:
            raise ProtocolError(
                self.name,
                f"the reference is not heard (correlation {peaks.max():.2f}): is output 2 wired "
                "to input 2?",
            )
        first = np.arange(rows) * self._row_frames + lags
        where = first[:, None] + np.arange(samples)
        return Recording(recorded[where, 0].astype(np.float64), peaks >= IN_SYNC)

    def _exchange(self, frames: Frames) -> Frames:
        """Play until nothing ran under or over."""
        for _ in range(self._attempts):
            self._abort.check("play and record")
            shot = self._ask("play and record", lambda: self._port.exchange(frames))
            if shot.recorded.shape != frames.shape:
                raise ProtocolError(
                    self.name, f"recorded {len(shot.recorded)} frames of {len(frames)}"
                )
            if not shot.flags:
                return shot.recorded
        raise InstrumentRefused(
            self.name, f"{', '.join(shot.flags)} in {self._attempts} shots one after the other"
        )

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        if self._closed:
            raise ConnectionLost(self.name, f"{what}: the interface was closed")
        return self._translate(what, call)

    def _translate(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except PortError as error:
            raise _ERRORS[type(error)](self.name, f"{what}: {error}") from error


def _check_waveform(
    name: str, samples: int, row_frames: int, rows: int, latency_frames: int, attempts: int
) -> None:
    for quantity, value in (("samples", samples), ("rows_per_shot", rows), ("attempts", attempts)):
        if value < 1:
            refuse(name, quantity, f"{value} is less than 1")
    if not 0 <= latency_frames <= row_frames - samples:
        refuse(
            name,
            "longest_latency_frames",
            f"{latency_frames} is not in the silence of a row: 0 to "
            f"{row_frames} - {samples} frames",
        )
