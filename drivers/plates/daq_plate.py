"""A speaker, a plate and a microphone on a data acquisition board instead of a sound interface.

    AO0 -> amplifier -> speaker -> plate -> microphone -> preamplifier -> CH0
    AO1 -> TRIG

The board takes its first input sample of a row at the edge that it plays with the row's first
output sample: there is no latency to look for, no reference, and no row out of sync.
"""

import numpy as np

from drivers.circuits.mcc import MccUsb1208HS
from drivers.circuits.mcc_board import DaqBoard
from drivers.errors import refuse
from drivers.instrument import CircuitDAQ, Closing, Recording
from drivers.limits import Narrowing, duty, rms, slew
from drivers.spec import Array, ArraySpec


class DaqPlate(Closing):
    """A plate behind a board's volts; `drive` and `response` (samples,) are of full scale.

    A response beyond full scale is returned as it is, up to the end of the board's own range. The
    bench may also limit what `AudioPlate` limits: rms, slew and duty.
    """

    FULL_SCALE = 1.0

    def __init__(
        self,
        daq: CircuitDAQ,
        *,
        name: str = "plate",
        drive_full_scale_v: float = 1.0,
        response_full_scale_v: float = 1.0,
        drive: Narrowing | None = None,
    ) -> None:
        """Take the board's driver (closed by `close`), and the volts that full scale stands for.

        drive (full scale) narrows the limits. Raises LimitError for volts that are beyond the
        board's range, ValueError for limits wider than full scale.
        """
        self.name = name
        self.rows_per_shot = daq.rows_at_once
        self.silence_samples = daq.gap_samples
        self._daq = daq
        shape = daq.drive.shape
        self._drive = drive_limits(shape[0], daq.gap_samples, drive)
        _check_volts(name, "drive_full_scale_v", drive_full_scale_v, self._drive, daq.drive)
        self._drive_v = drive_full_scale_v
        self._response = ArraySpec(
            "response", "full scale", shape, -self.FULL_SCALE, self.FULL_SCALE
        )
        _check_volts(
            name, "response_full_scale_v", response_full_scale_v, self._response, daq.response
        )
        self._response_v = response_full_scale_v

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
        """Return the board's product name and unique id."""
        return self._daq.identify()

    def start(self) -> None:
        """Check who answers, play 0 V, and take one silent row."""
        self._daq.start()

    def shutdown(self) -> None:
        """Bring both outputs to 0 V; idempotent."""
        self._daq.shutdown()

    def abort(self) -> None:
        """End the shot that is played, at 0 V, and refuse others until `start`; any thread."""
        self._daq.abort()

    def close(self) -> None:
        """Bring the outputs to 0 V and release the board; idempotent."""
        self._daq.close()

    # --- SpeakerPlate -----------------------------------------------------------------------

    def play_and_record(self, drive: Array) -> Recording:
        """Play rows (rows, samples), at most `rows_per_shot`, and return what was heard of each.

        Raises LimitError before anything is played; otherwise what the board's driver does.
        """
        drive = self._drive.check(drive, instrument=self.name)
        if drive.ndim != 2 or not 1 <= len(drive) <= self.rows_per_shot:
            refuse(
                self.name,
                self._drive.name,
                f"shape {drive.shape} is not 1 to {self.rows_per_shot} rows of {self._drive.shape}",
            )
        response = self._daq.acquire(drive * self._drive_v) / self._response_v
        return Recording(response, np.ones(len(drive), dtype=bool))


def open_daq_plate(
    board: DaqBoard,
    *,
    name: str = "plate",
    samples: int = 196,
    gap_samples: int = 4604,
    rate_hz: float = 48_000.0,
    buffer_samples: int = 480_000,
    drive_full_scale_v: float = 1.0,
    response_full_scale_v: float = 1.0,
    timeout_s: float = 2.0,
    expect_idn: str | None = None,
    drive: Narrowing | None = None,
) -> DaqPlate:
    """Return the driver of a plate on a USB-1208HS-4AO; what raises: both constructors.

    The board's driver gets the same limits in volts, so that it refuses more than full scale too.
    """
    ends = drive_limits(samples, gap_samples, drive)
    volts = drive_full_scale_v
    full_v = MccUsb1208HS.FULL_SCALE_V
    board_v = ArraySpec("drive", "V", (samples,), -full_v, full_v)
    _check_volts(name, "drive_full_scale_v", volts, ends, board_v)
    daq = MccUsb1208HS(
        board,
        name=name,
        samples=samples,
        gap_samples=gap_samples,
        rate_hz=rate_hz,
        buffer_samples=buffer_samples,
        timeout_s=timeout_s,
        expect_idn=expect_idn,
        drive=(ends.low * volts, ends.high * volts),
    )
    return DaqPlate(
        daq,
        name=name,
        drive_full_scale_v=drive_full_scale_v,
        response_full_scale_v=response_full_scale_v,
        drive=drive,
    )


def drive_limits(samples: int, gap_samples: int, drive: Narrowing | None) -> ArraySpec:
    """Return the drive of rows of so many samples and silence, (samples,) of full scale."""
    full, unit = DaqPlate.FULL_SCALE, "full scale"
    of_a_row = rms(full, unit), slew(2 * full, unit), duty(samples + gap_samples)
    return ArraySpec("drive", unit, (samples,), -full, full, row_limits=of_a_row).limited(drive)


def _check_volts(
    name: str, quantity: str, volts: float, share: ArraySpec, board_v: ArraySpec
) -> None:
    """Raise LimitError unless `share` of full scale, at so many volts, is what the board takes."""
    inside = board_v.low <= share.low * volts <= share.high * volts <= board_v.high
    if not (inside and volts > 0):
        most_v = min(-board_v.low, board_v.high)
        refuse(name, quantity, f"{volts:g} V is outside (0, {most_v:g}] V")
