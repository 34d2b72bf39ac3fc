"""Red Pitaya STEMlab 125-14: one waveform out, one in, over SCPI (TCP port 5000).

Wiring: OUT1 drives the circuit, IN1 hears it, and a cable joins OUT2 to IN2. A shot plays a table
of 16,384 samples that holds many rows, each with a gap of 0 V in which the circuit rings down, and
records as many; generator and recorder run on one clock at the same rate. OUT2 marks the rows, so
that the first row is found in every recording, and a test at `start` that the last one is as well.

Outputs and inputs +-1 V (jumpers at LV), 14 bits. An amplifier behind OUT1 and a probe before IN1
are declared by their factors; `drive` and `response` are then the voltages at the circuit.

Commands as in the vendor's documentation and firmware source, OS 2.00 or newer. Traps met there:
table data are ASCII only and longer ones overrun the instrument's buffer; format and units are
lost with `ACQ:RST` and per connection; volts in binary are wrong in one revision, so raw codes are
read and scaled here.
"""

import time
from contextlib import suppress
from typing import Any

import numpy as np
from pymeasure.adapters import Adapter

from drivers.abort import Abort
from drivers.circuits.redpitaya_board import CLOCK_HZ, RedPitayaBoard
from drivers.circuits.redpitaya_row import (
    before_rounding,
    check_factors,
    check_row,
    decimation_for,
    volts,
)
from drivers.circuits.redpitaya_table import (
    CODES,
    LEAD,
    LENGTH,
    SEARCHED,
    Codes,
    RowTable,
    first_mark,
    mark_edges,
    steps,
    table_text,
)
from drivers.errors import (
    DriverError,
    InstrumentRefused,
    InstrumentTimeout,
    ProtocolError,
    refuse,
)
from drivers.instrument import check_identity
from drivers.limits import Narrowing, slew
from drivers.spec import Array, ArraySpec

_POLL_INTERVAL_S = 0.001
_IN1, _IN2 = "ACQ:SOUR1:DATA?", f"ACQ:SOUR2:DATA:OLD:N? {SEARCHED}"


class RedPitayaDAQ(RedPitayaBoard):
    """A circuit's voltage in, its voltage out, row by row.

    The hardware's limits, before the amplifier; the bench file may set narrower ones for `drive`
    at the circuit: `low`, `high` or `peak`, V; `slew`, V per sample.
    """

    FULL_SCALE_V = 1.0
    GREATEST_SLEW_V = 2.0  # per sample: from one end of the range to the other

    longest_latency_frames = SEARCHED - LEAD - 1

    def __init__(
        self,
        adapter: Adapter | str | int,
        name: str = "Red Pitaya",
        *,
        samples: int = 208,
        gap_samples: int = 792,
        rate_hz: float = 1e6,
        amplifier_gain: float = 1.0,
        probe_attenuation: float = 1.0,
        timeout_s: float = 2.0,
        expect_idn: str | None = None,
        drive: Narrowing | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the connection and the settings that `start` will apply; no I/O here.

        A row is `samples` of drive and `gap_samples` of 0 V, at most 16,320 together; rate_hz is
        125 MHz over 1, 2, 4, 8 or an integer of 16 to 65,536. amplifier_gain is what stands behind
        OUT1, probe_attenuation before IN1, as V at the circuit per V here, both above 0; timeout_s
        is waited beyond a shot's own length; expect_idn is a regular expression that the answer to
        `*IDN?` must contain; drive (V) narrows the limits. Other keyword arguments reach the
        adapter when `adapter` is an address. Raises LimitError, or ValueError for limits that are
        wider than the instrument's; TypeError for keyword arguments that nobody would hear of.
        """
        super().__init__(adapter, name, **kwargs)
        check_row(name, samples, gap_samples)
        check_factors(name, amplifier_gain, probe_attenuation)
        decimation = decimation_for(name, rate_hz)
        self.gap_samples = gap_samples
        self._table = RowTable(samples, gap_samples)
        self.rows_at_once = self._table.rows_at_once
        self._full_drive_v = self.FULL_SCALE_V * amplifier_gain
        of_a_row = (slew(self.GREATEST_SLEW_V * amplifier_gain, "V"),)
        declared = volts("drive", samples, self._full_drive_v, of_a_row).limited(drive)
        self._drive = before_rounding(declared, self._full_drive_v / CODES)
        if not self._drive.low <= 0 <= self._drive.high:
            raise ValueError(f"drive: {drive} V leaves out 0 V, which is played between rows")
        self._response = volts("response", samples, self.FULL_SCALE_V * probe_attenuation)
        self.frame_rate_hz = CLOCK_HZ / decimation
        self.loopback_delay_frames = 0
        self._shot_s = LENGTH / self.frame_rate_hz
        self._timeout_s = timeout_s
        self._expect_idn = expect_idn
        self._marked_rows = 0
        self._ready = False
        self._abort = Abort(name)
        self._settings = self._list_settings(decimation)

    def _list_settings(self, decimation: int) -> list[tuple[Any, str, Any]]:
        """Return object, property and value of each setting, in the order of sending."""
        acquisition = [
            (self, "decimation", decimation),
            (self, "average_skipped_samples", True),
            (self, "acq_trigger_delay_samples", LENGTH // 2),  # nothing from before the trigger
            (self, "acq_units", "RAW"),
            *((channel, "gain", "LV") for channel in self.ain.values()),
        ]
        output = {
            "shape": "ARBITRARY",
            "frequency": CLOCK_HZ / (decimation * LENGTH),
            "offset": 0.0,
            "amplitude": self.FULL_SCALE_V,
            "burst_mode": "BURST",
            "burst_cycles": 1,
            "burst_repetitions": 1,
        }
        return acquisition + [(o, *item) for o in self.aout.values() for item in output.items()]

    @property
    def drive(self) -> ArraySpec:
        """Get what `acquire` accepts, (samples,) V."""
        return self._drive

    @property
    def response(self) -> ArraySpec:
        """Get what it returns, (samples,) V; an end of its range means a saturated input."""
        return self._response

    # --- Instrument ---------------------------------------------------------------------------

    def start(self) -> None:
        """Reconnect if need be, check who answers, outputs off, apply and verify settings, test.

        The test plays rows of 0 V and hears the marks of all of them where they belong. Raises
        IdentityError, InstrumentRefused if a setting was not taken, ProtocolError if the marks are
        not heard or not in step, or what the wire does. The outputs are off afterwards.
        """
        self._abort.clear()
        with self._link.transaction():
            self._start()

    def _start(self) -> None:
        self._ready = False
        self._link.recover()
        check_identity(self.name, self.identify(), self._expect_idn)
        self._enter_safe_state()
        self.write("ACQ:RST")
        self.acq_format = "BIN"
        for owner, setting, value in self._settings:
            setattr(owner, setting, value)
        self._refuse_queued_errors("settings")
        for owner, setting, value in self._settings:
            self._verify(owner, setting, value)
        try:
            self._test()
        finally:
            with suppress(DriverError):  # the first error is the one to tell
                self._enter_safe_outputs()
        self._check_outputs_off()
        self._ready = True

    def abort(self) -> None:
        """Let a running shot, and any after it, end with Aborted until `start`; thread-safe."""
        self._abort.request()

    def _enter_safe_state(self) -> None:
        """Forget the waveforms, too: only `start` allows another shot."""
        self._ready = False
        self._marked_rows = 0
        super()._enter_safe_state()

    # --- CircuitDAQ ---------------------------------------------------------------------------

    def acquire(self, drive_v: Array) -> Array:
        """Play rows (rows, samples), V, and return the response (rows, samples), V.

        Cut into as many shots as need be, `rows_at_once` rows each. All rows are checked first.
        Raises LimitError before anything is sent; otherwise InstrumentTimeout, InstrumentRefused,
        ConnectionLost, ProtocolError or Aborted, the instrument then being in its safe state if it
        can be reached and to be started again. The outputs are off afterwards in any case.
        """
        drive_v = self._drive.check(drive_v, instrument=self.name)
        if drive_v.ndim != 2:
            message = f"shape {drive_v.shape} is not (rows, {self._drive.shape[0]})"
            refuse(self.name, "drive", message)
        with self._link.transaction():  # no output on behind another thread's `shutdown`
            self._abort.check("shot")
            if not self._ready:  # a generator after its reset would play a sine
                raise InstrumentRefused(self.name, "shot: it is in its safe state; start it first")
            return self._shoot_all(drive_v)

    def _shoot_all(self, drive_v: Array) -> Array:
        """Play as many tables of rows as need be, and turn the outputs off in any case."""
        response = np.empty(drive_v.shape)
        try:
            for first in range(0, len(drive_v), self.rows_at_once):
                rows = slice(first, first + self.rows_at_once)
                response[rows] = self._shoot(drive_v[rows])
        except BaseException:  # an interrupt, too, must not leave the outputs on
            with suppress(DriverError):  # the first error is the one to tell
                self._enter_safe_state()
            raise
        self._enter_safe_outputs()
        return response

    def _shoot(self, drive_v: Array) -> Array:
        """Play one table of rows and return what IN1 heard of them, V."""
        self._play(drive_v)
        codes = self._read_codes(_IN1, LENGTH)
        self._refuse_queued_errors("shot")
        rows = self._table.cut(codes, self._locate_first_row(), len(drive_v))
        scaled = rows * (self._response.high / CODES)
        # the top code is all that the converter can say of full scale and above
        return np.where(rows == CODES - 1, self._response.high, scaled)

    def _play(self, drive_v: Array) -> None:
        """Upload, arm, trigger, and wait until the recording is whole."""
        self._abort.check("shot")
        if self._marked_rows != len(drive_v):
            self._upload(2, self._table.marks(len(drive_v)))
            self._marked_rows = len(drive_v)
        low, high = (end / self._full_drive_v for end in (self._drive.low, self._drive.high))
        self._upload(1, self._table.lay_out(steps(drive_v / self._full_drive_v, low, high)))
        self.write("ACQ:START")
        self.write("ACQ:TRIG AWG_PE")
        self.write("OUTPUT:STATE ON")
        self.write("SOUR:TRIG:INT")
        deadline = time.monotonic() + self._shot_s + self._timeout_s
        self._poll("ACQ:TRIG:STAT?", "WAIT", "TD", deadline)
        self._poll("ACQ:TRIG:FILL?", "0", "1", deadline)

    def _upload(self, output: int, table: Codes) -> None:
        if table.shape != (LENGTH,):  # the instrument's buffer would overrun
            refuse(self.name, "table", f"{len(table)} samples are not {LENGTH}")
        self.write(f"SOUR{output}:TRAC:DATA:DATA {table_text(table)}")

    def _poll(self, query: str, pending: str, done: str, deadline: float) -> None:
        """Ask until the answer is `done`."""
        while (answer := self._link.ask(query)) != done:
            if answer != pending:
                raise self._link.distrust(query, f"answered {answer!r}")
            if time.monotonic() >= deadline:
                message = f"{query}: still {answer} after {self._shot_s + self._timeout_s:g} s"
                raise InstrumentTimeout(self.name, message)
            self._abort.wait("shot", _POLL_INTERVAL_S)

    def _read_codes(self, query: str, samples: int) -> Codes:
        """Return codes of a recording (samples,), -8192 to 8191."""
        data = self._link.ask_block(query, 2 * samples)
        codes = np.frombuffer(data, dtype=">i2").astype(np.int16)
        if (np.abs(codes.astype(np.int32)) > CODES).any():
            raise ProtocolError(self.name, f"{query}: codes beyond 14 bits (byte order, units?)")
        return codes

    def _locate_first_row(self) -> int:
        """Return where the first row begins in the recording just made."""
        first = first_mark(self._read_codes(_IN2, SEARCHED))
        if first is None:
            message = "no mark of the first row is heard: is OUT2 wired to IN2?"
            raise ProtocolError(self.name, f"shot: {message}")
        self.loopback_delay_frames = first - LEAD
        return first

    def _test(self) -> None:
        """Play rows of 0 V and check that every mark is heard in step."""
        rows = self.rows_at_once
        self._play(np.zeros((rows, self._table.samples)))
        edges = mark_edges(self._read_codes("ACQ:SOUR2:DATA?", LENGTH))
        self._refuse_queued_errors("test shot")
        if len(edges) != rows or edges[0] >= SEARCHED:
            message = f"{len(edges)} marks of {rows} rows are heard: is OUT2 wired to IN2?"
            raise ProtocolError(self.name, f"test shot: {message}")
        self.loopback_delay_frames = int(edges[0]) - LEAD
        slip = int(edges[-1] - edges[0]) - (rows - 1) * self._table.row
        if abs(slip) > 1:
            message = f"the last row is recorded {slip} samples off: are both rates the same?"
            raise ProtocolError(self.name, f"test shot: {message}")
