"""Measurement Computing USB-1208HS-4AO: one waveform out, one in, at up to 1 MS/s.

Wiring: AO0 drives the circuit, CH0 (differential) reads it, AO1 goes to the trigger input TRIG.
One output scan plays many rows on AO0, with a gap of 0 V after each in which the circuit rings
down; AO1 rises at the first sample of each row, and every rising edge lets the input take one
row's samples (retriggered scan). So input and output cannot slip, however long the waveform.

Outputs +-10 V, 12 bits; input +-10 V, 13 bits. The outputs keep their last voltage when a scan is
stopped: the safe state is 0 V on both, played.
"""

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from drivers.abort import Abort
from drivers.circuits.mcc_board import LOST, TIMED_OUT, BoardError, DaqBoard, Side
from drivers.errors import (
    ConnectionLost,
    DriverError,
    InstrumentRefused,
    InstrumentTimeout,
    ProtocolError,
    refuse,
)
from drivers.instrument import Closing, check_identity
from drivers.limits import Narrowing, slew
from drivers.spec import Array, ArraySpec

T = TypeVar("T")

SLICE_S = 0.5  # of a wait for a scan: for so long an abort is not noticed
TRIGGER_V = 5.0
_SAFE_SAMPLES = 16
_OVERSHOOT_V = 0.05  # a calibrated reading may lie so far beyond the range's end


class MccUsb1208HS(Closing):
    """A circuit's voltage in, its voltage out, row by row.

    The hardware's limits; the bench file may set narrower ones for `drive`: `low`, `high` or
    `peak`, V; `slew`, V per sample.
    """

    FULL_SCALE_V = 10.0
    GREATEST_SLEW_V = 20.0  # per sample: from one end of the range to the other
    FASTEST_HZ = 1e6
    MOST_SAMPLES = 2**24  # of one waveform: 17 s at the full rate

    def __init__(
        self,
        board: DaqBoard,
        *,
        name: str = "daq",
        samples: int = 208,
        gap_samples: int = 792,
        rate_hz: float = FASTEST_HZ,
        buffer_samples: int = 2**17,
        timeout_s: float = 2.0,
        expect_idn: str | None = None,
        drive: Narrowing | None = None,
    ) -> None:
        """Take the board (closed by `close`); no I/O.

        A row is `samples` of drive and `gap_samples` of 0 V; a waveform at most `buffer_samples`.
        timeout_s is waited beyond a waveform's own length; expect_idn is a regular expression that
        the identity must contain; drive (V) narrows the limits. Raises LimitError, or ValueError
        for limits that are wider than the board's.
        """
        self.name = name
        self.gap_samples = gap_samples
        _check_waveform(name, samples, gap_samples, rate_hz, buffer_samples)
        self.rows_at_once = buffer_samples // (samples + gap_samples)
        shape = (samples,)
        full = self.FULL_SCALE_V
        of_a_row = (slew(self.GREATEST_SLEW_V, "V"),)
        declared = ArraySpec("drive", "V", shape, -full, full, row_limits=of_a_row)
        self._drive = declared.limited(drive)
        if not self._drive.low <= 0 <= self._drive.high:
            raise ValueError(f"drive: {drive} V leaves out 0 V, which is played between rows")
        self._response = ArraySpec("response", "V", shape, -full, full)
        self._board = board
        self._rate_hz = rate_hz
        self._timeout_s = timeout_s
        self._expect_idn = expect_idn
        self._lost = self._closed = False
        self._abort = Abort(name)
        self._using = threading.RLock()
        # one waveform, (rows, samples + gap, channels); only the drives change
        self._waveform = np.zeros((self.rows_at_once, samples + gap_samples, 2))
        self._waveform[:, : samples // 2, 1] = TRIGGER_V

    @property
    def drive(self) -> ArraySpec:
        """Get what `acquire` accepts, (samples,) V."""
        return self._drive

    @property
    def response(self) -> ArraySpec:
        """Get what it returns, (samples,) V."""
        return self._response

    # --- Instrument -------------------------------------------------------------------------

    def identify(self) -> str:
        """Return the board's product name and unique id."""
        identity = self._call("identity", lambda: self._board.identity)
        if re.fullmatch(r"[\w-]+ \w+", identity) is None:
            raise ProtocolError(self.name, f"identity: unusable answer {identity!r}")
        return identity

    def start(self) -> None:
        """Reconnect if need be, check who answers, play 0 V, and take one row to test the trigger.

        Raises IdentityError, InstrumentTimeout if no trigger comes, or what the board does.
        """
        self._abort.clear()
        if self._lost:
            self._call("reopen", self._board.reopen)
            self._lost = False
        identity = self.identify()
        check_identity(self.name, identity, self._expect_idn)
        self.shutdown()
        self.acquire(np.zeros((1, *self._drive.shape)))

    def shutdown(self) -> None:
        """Stop both scans and bring both outputs to 0 V; idempotent.

        Waits for another thread's waveform: `abort` first ends that soon.
        """
        with self._using:
            if self._closed:
                return
            try:
                self._call("scan_stop", self._board.scan_stop, Side.INPUT)
            finally:  # it drives nothing: whatever ails it must not keep the outputs on
                self._call("scan_stop", self._board.scan_stop, Side.OUTPUT)
                self._call("a_out_scan", self._board.a_out_scan, np.zeros((_SAFE_SAMPLES, 2)), 1e6)
                self._wait(Side.OUTPUT, _SAFE_SAMPLES, abortable=False)

    def abort(self) -> None:
        """End the waveform that is played, at 0 V, and refuse others until `start`; any thread."""
        self._abort.request()

    def close(self) -> None:
        """Bring the outputs to 0 V and release the board; idempotent."""
        with self._using:
            try:
                self.shutdown()
            finally:
                self._closed = True
                self._board.close()

    # --- CircuitDAQ ---------------------------------------------------------------------------

    def acquire(self, drive_v: Array) -> Array:
        """Play rows (rows, samples), V, and return the response (rows, samples), V.

        Cut into as many waveforms as need be, `rows_at_once` rows each. All rows are checked
        first. Raises LimitError before anything is played; otherwise InstrumentTimeout,
        InstrumentRefused, ConnectionLost, ProtocolError or Aborted, the outputs then being at 0 V
        if the board can be reached.
        """
        drive_v = self._drive.check(drive_v, instrument=self.name)
        if drive_v.ndim != 2:
            message = f"shape {drive_v.shape} is not (rows, {self._drive.shape[0]})"
            refuse(self.name, "drive", message)
        response = np.empty(drive_v.shape)
        for first in range(0, len(drive_v), len(self._waveform)):
            rows = slice(first, first + len(self._waveform))
            with self._using:  # no waveform behind another thread's `shutdown`
                try:
                    response[rows] = self._play(drive_v[rows])
                except BaseException:  # an interrupt, too, must not leave it playing
                    with suppress(DriverError):  # the first error is the one to tell
                        self.shutdown()
                    raise
        return response

    def _play(self, drive_v: Array) -> Array:
        """Play one waveform and return its rows."""
        self._abort.check("acquire")
        rows, samples = drive_v.shape
        waveform = self._waveform[:rows]
        waveform[:, :samples, 0] = drive_v
        count = rows * samples
        self._call("set_trigger", self._board.set_trigger, samples)
        buffer = self._call("a_in_scan", self._board.a_in_scan, 0, count, self._rate_hz)
        length = rows * waveform.shape[1]
        played = waveform.reshape(length, 2)
        self._call("a_out_scan", self._board.a_out_scan, played, self._rate_hz)
        self._wait(Side.OUTPUT, length)
        self._wait(Side.INPUT, length)
        return self._checked(buffer, count).reshape(rows, samples)

    def _wait(self, side: Side, samples: int, *, abortable: bool = True) -> None:
        """Wait for a scan in slices, between which an abort is noticed."""
        left_s = samples / self._rate_hz + self._timeout_s
        while not self._ends_within(side, min(left_s, SLICE_S), last=left_s <= SLICE_S):
            left_s -= SLICE_S
            if abortable:
                self._abort.check(f"{side} scan")

    def _ends_within(self, side: Side, seconds: float, *, last: bool) -> bool:
        """Say whether a scan ends in time; the last time, raise InstrumentTimeout if not."""
        try:
            self._call(f"{side} scan", self._board.scan_wait, side, seconds)
        except InstrumentTimeout:
            if last:
                raise
            return False
        return True

    def _checked(self, buffer: Array, count: int) -> Array:
        status = self._call("scan_status", self._board.scan_status, Side.INPUT)
        if status.running or status.samples != count or len(buffer) != count:
            message = f"input scan: {status.samples} of {count} samples are there"
            raise ProtocolError(self.name, message)
        full = self.FULL_SCALE_V
        if not (np.abs(buffer) <= full + _OVERSHOOT_V).all():
            message = f"input scan: values that are not finite or beyond +-{full:g} V"
            raise ProtocolError(self.name, message)
        return np.clip(buffer, -full, full)

    def _call(self, asked: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call the board; its errors become this driver's."""
        if self._closed:
            raise ConnectionLost(self.name, f"{asked}: the driver is closed")
        try:
            return function(*arguments)
        except BoardError as error:
            if error.code in LOST:
                self._lost = True
                raise ConnectionLost(self.name, f"{asked}: {error}") from error
            if error.code == TIMED_OUT:
                message = f"{asked}: {error} (is AO1 wired to TRIG?)"
                raise InstrumentTimeout(self.name, message) from error
            raise InstrumentRefused(self.name, f"{asked}: {error}") from error


def _check_waveform(
    name: str, samples: int, gap_samples: int, rate_hz: float, buffer_samples: int
) -> None:
    if not 0 < rate_hz <= MccUsb1208HS.FASTEST_HZ:
        refuse(name, "rate", f"{rate_hz:g} is outside (0, {MccUsb1208HS.FASTEST_HZ:g}] Hz")
    if samples < 2 or gap_samples < 1:
        message = f"{samples} and {gap_samples} are below 2 and 1 samples"
        refuse(name, "samples, gap", message)
    row = samples + gap_samples
    if not row <= buffer_samples <= MccUsb1208HS.MOST_SAMPLES:
        message = f"{buffer_samples} is outside [{row}, {MccUsb1208HS.MOST_SAMPLES}] samples"
        refuse(name, "buffer", message)
