"""A speaker, a plate and a microphone on a data acquisition board instead of a sound interface.

    AO0 -> amplifier -> speaker -> plate -> microphone -> preamplifier -> CH0
    AO1 -> TRIG

The board takes its first input sample of a row at the edge that it plays with the row's first
output sample: there is no latency to look for, no reference, and no row out of sync.
"""

from types import TracebackType
from typing import Self

import numpy as np

from drivers.errors import LimitError
from drivers.instrument import CircuitDAQ, Recording
from drivers.mcc import MccUsb1208HS
from drivers.mcc_board import DaqBoard
from drivers.spec import Array, ArraySpec

Limits = tuple[float, float]


class DaqPlate:
    """A plate behind a board's volts; `drive` and `response` (samples,) are of full scale.

    A response beyond full scale is returned as it is, up to the end of the board's own range.
    """

    drive: ArraySpec
    response: ArraySpec

    def __init__(
        self,
        daq: CircuitDAQ,
        *,
        name: str = "plate",
        drive_full_scale_v: float = 1.0,
        response_full_scale_v: float = 1.0,
        drive: Limits | None = None,
    ) -> None:
        """Take the board's driver (closed by `close`), and the volts that full scale stands for.

        drive (full scale) narrows the limits. Raises LimitError for volts that are beyond the
        board's range, ValueError for limits wider than full scale.
        """
        self.name = name
        self.rows_per_shot = daq.rows_at_once
        self.silence_samples = daq.gap_samples
        self._daq = daq
        self._drive_v = _checked(name, "drive_full_scale_v", drive_full_scale_v, daq.drive)
        self._response_v = _checked(
            name, "response_full_scale_v", response_full_scale_v, daq.response
        )
        shape = daq.drive.shape
        full = ArraySpec("drive", "full scale", shape, -1.0, 1.0)
        self.drive = full.narrowed(*(drive or ()))
        self.response = ArraySpec("response", "full scale", shape, -1.0, 1.0)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- SpeakerPlate -----------------------------------------------------------------------

    def play_and_record(self, drive: Array) -> Recording:
        """Play rows (rows, samples), at most `rows_per_shot`, and return what was heard of each.

        Raises LimitError before anything is played; otherwise what the board's driver does.
        """
        drive = self.drive.check(drive, instrument=self.name)
        if drive.ndim != 2 or not 1 <= len(drive) <= self.rows_per_shot:
            raise LimitError(
                self.name,
                self.drive.name,
                f"shape {drive.shape} is not 1 to {self.rows_per_shot} rows of {self.drive.shape}",
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
    drive: Limits | None = None,
) -> DaqPlate:
    """Return the driver of a plate on a USB-1208HS-4AO; what raises: both constructors.

    The board's driver gets the same limits in volts, so that it refuses more than full scale too.
    """
    low, high = drive or (-1.0, 1.0)
    daq = MccUsb1208HS(
        board,
        name=name,
        samples=samples,
        gap_samples=gap_samples,
        rate_hz=rate_hz,
        buffer_samples=buffer_samples,
        timeout_s=timeout_s,
        expect_idn=expect_idn,
    )
    plate = DaqPlate(
        daq,
        name=name,
        drive_full_scale_v=drive_full_scale_v,
        response_full_scale_v=response_full_scale_v,
        drive=drive,
    )
    daq.drive = daq.drive.narrowed(low * drive_full_scale_v, high * drive_full_scale_v)
    return plate


def _checked(name: str, quantity: str, volts: float, board: ArraySpec) -> float:
    if not 0 < volts <= min(-board.low, board.high):
        raise LimitError(
            name,
            quantity,
            f"{volts:g} V is outside (0, {min(-board.low, board.high):g}] {board.unit}",
        )
    return volts
