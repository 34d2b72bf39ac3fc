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

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from pymeasure.adapters import Adapter
from pymeasure.instruments import Channel, Instrument, SCPIMixin
from pymeasure.instruments.validators import strict_discrete_set, strict_range

from drivers.abort import Abort
from drivers.errors import (
    DriverError,
    InstrumentRefused,
    InstrumentTimeout,
    ProtocolError,
    refuse,
)
from drivers.instrument import check_identity
from drivers.limits import Narrowing, RowLimit, slew
from drivers.redpitaya_table import (
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
from drivers.scpi import ScpiLink
from drivers.spec import Array, ArraySpec

CLOCK_HZ = 125e6
DECIMATIONS = (1, 2, 4, 8, *range(16, 65_537))
TERMINATOR = "\r\n"
_POLL_INTERVAL_S = 0.001
_ERRORS_AT_MOST = 30
_NO_ERROR = re.compile(r"\+?0,")
_PIN = re.compile(r"DIO(?:\d|10)_[PN]")
_IN1, _IN2 = "ACQ:SOUR1:DATA?", f"ACQ:SOUR2:DATA:OLD:N? {SEARCHED}"


class Output(Channel):  # type: ignore[misc]  # PyMeasure is untyped
    """One output of the generator."""

    shape = Channel.control(
        "SOUR{ch}:FUNC?",
        "SOUR{ch}:FUNC %s",
        """Control the waveform (str 'SINE' or 'ARBITRARY').""",
        validator=strict_discrete_set,
        values=["SINE", "ARBITRARY"],
        cast=str,
    )

    frequency = Channel.control(
        "SOUR{ch}:FREQ:FIX?",
        "SOUR{ch}:FREQ:FIX %.9g",
        """Control how often per second the whole table is played (float, up to 50e6 Hz).""",
        validator=strict_range,
        values=[1e-6, 50e6],
    )

    offset = Channel.control(
        "SOUR{ch}:VOLT:OFFS?",
        "SOUR{ch}:VOLT:OFFS %.6g",
        """Control the offset (float from -1 to 1 V).""",
        validator=strict_range,
        values=[-1, 1],
    )

    amplitude = Channel.control(
        "SOUR{ch}:VOLT?",
        "SOUR{ch}:VOLT %.6g",
        """Control the voltage that a table's 1 stands for (float from 0 to 1 V).""",
        validator=strict_range,
        values=[0, 1],
    )

    burst_mode = Channel.control(
        "SOUR{ch}:BURS:STAT?",
        "SOUR{ch}:BURS:STAT %s",
        """Control whether the table is repeated (str 'CONTINUOUS' or 'BURST').""",
        validator=strict_discrete_set,
        values=["CONTINUOUS", "BURST"],
        cast=str,
    )

    burst_cycles = Channel.control(
        "SOUR{ch}:BURS:NCYC?",
        "SOUR{ch}:BURS:NCYC %d",
        """Control how many tables a burst has (int from 1 to 65536).""",
        validator=strict_range,
        values=[1, 65_536],
        cast=int,
    )

    burst_repetitions = Channel.control(
        "SOUR{ch}:BURS:NOR?",
        "SOUR{ch}:BURS:NOR %d",
        """Control how many bursts follow a trigger (int from 1 to 65536).""",
        validator=strict_range,
        values=[1, 65_536],
        cast=int,
    )

    output_enabled = Channel.control(
        "OUTPUT{ch}:STATE?",
        "OUTPUT{ch}:STATE %s",
        """Control whether the output is on (bool).""",
        validator=strict_discrete_set,
        values={True: "ON", False: "OFF"},
        map_values=True,
    )


class Input(Channel):  # type: ignore[misc]  # PyMeasure is untyped
    """One fast analog input."""

    gain = Channel.control(
        "ACQ:SOUR{ch}:GAIN?",
        "ACQ:SOUR{ch}:GAIN %s",
        """Control which way the input's jumpers are set (str 'LV', +-1 V, or 'HV', +-20 V).""",
        validator=strict_discrete_set,
        values=["LV", "HV"],
        cast=str,
    )


class RedPitayaDAQ(SCPIMixin, Instrument):  # type: ignore[misc]  # PyMeasure is untyped
    """A circuit's voltage in, its voltage out, row by row.

    The hardware's limits, before the amplifier; the bench file may set narrower ones for `drive`
    at the circuit: `low`, `high` or `peak`, V; `slew`, V per sample.
    """

    FULL_SCALE_V = 1.0
    GREATEST_SLEW_V = 2.0  # per sample: from one end of the range to the other

    longest_latency_frames = SEARCHED - LEAD - 1

    aout = Instrument.MultiChannelCreator(Output, (1, 2), prefix="aout")
    ain = Instrument.MultiChannelCreator(Input, (1, 2), prefix="ain")

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
        if kwargs and not isinstance(adapter, str | int):
            raise TypeError(f"{name}: unknown settings {', '.join(kwargs)}")
        ends = {"read_termination": TERMINATOR, "write_termination": TERMINATOR}
        super().__init__(adapter, name, tcpip=ends, **kwargs)
        _check_row(name, samples, gap_samples)
        _check_factors(name, amplifier_gain, probe_attenuation)
        decimation = _decimation(name, rate_hz)
        self.gap_samples = gap_samples
        self._table = RowTable(samples, gap_samples)
        self.rows_at_once = self._table.rows_at_once
        self._full_drive_v = self.FULL_SCALE_V * amplifier_gain
        of_a_row = (slew(self.GREATEST_SLEW_V * amplifier_gain, "V"),)
        declared = _spec("drive", samples, self._full_drive_v, of_a_row).limited(drive)
        self._drive = _before_rounding(declared, self._full_drive_v / CODES)
        if not self._drive.low <= 0 <= self._drive.high:
            raise ValueError(f"drive: {drive} V leaves out 0 V, which is played between rows")
        self._response = _spec("response", samples, self.FULL_SCALE_V * probe_attenuation)
        self.frame_rate_hz = CLOCK_HZ / decimation
        self.loopback_delay_frames = 0
        self._shot_s = LENGTH / self.frame_rate_hz
        self._timeout_s = timeout_s
        self._expect_idn = expect_idn
        self._marked_rows = 0
        self._ready = False
        self._abort = Abort(name)
        self._link = ScpiLink(self.adapter, name, None, "", TERMINATOR)
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

    # --- settings -----------------------------------------------------------------------------

    decimation = Instrument.control(
        "ACQ:DEC:F?",
        "ACQ:DEC:F %d",
        """Control by how much the inputs' 125 MHz are divided (int: 1, 2, 4, 8, 16 to 65536).""",
        validator=strict_discrete_set,
        values=DECIMATIONS,
        cast=int,
    )

    average_skipped_samples = Instrument.control(
        "ACQ:AVG?",
        "ACQ:AVG %s",
        """Control whether a sample is the mean of what decimation leaves out (bool).""",
        validator=strict_discrete_set,
        values={True: "ON", False: "OFF"},
        map_values=True,
    )

    acq_trigger_delay_samples = Instrument.control(
        "ACQ:TRIG:DLY?",
        "ACQ:TRIG:DLY %d",
        """Control how many samples after the trigger the recording's middle is (int, +-8192).""",
        validator=strict_range,
        values=[-LENGTH // 2, LENGTH // 2],
        cast=int,
    )

    acq_units = Instrument.control(
        "ACQ:DATA:UNITS?",
        "ACQ:DATA:UNITS %s",
        """Control the unit of recordings (str 'RAW' or 'VOLTS').""",
        validator=strict_discrete_set,
        values=["RAW", "VOLTS"],
        cast=str,
    )

    acq_format = Instrument.setting(
        "ACQ:DATA:FORMAT %s",
        """Set the format of recordings (str 'BIN' or 'ASCII').""",
        validator=strict_discrete_set,
        values=["BIN", "ASCII"],
    )

    # --- the wire: PyMeasure's own properties go through here as well -------------------------

    def write(self, command: str, **kwargs: Any) -> None:
        """Send one command; raises a DriverError if the instrument cannot be reached."""
        self._link.write(command)

    def read(self, **kwargs: Any) -> str:
        """Return one answer without its terminator; raises a DriverError if there is none."""
        return self._link.read()

    def ask(self, command: str, query_delay: float | None = None) -> str:
        """Send a query and return its answer; raises a DriverError if there is none."""
        return self._link.ask(command)

    # --- Instrument ---------------------------------------------------------------------------

    def identify(self) -> str:
        """Return maker, model, serial number and version, as the instrument says."""
        return self._link.ask("*IDN?")

    def start(self) -> None:
        """Reconnect if need be, check who answers, outputs off, apply and verify settings, test.

        The test plays rows of 0 V and hears the marks of all of them where they belong. Raises
        IdentityError, InstrumentRefused if a setting was not taken, ProtocolError if the marks are
        not heard or not in step, or what the wire does. The outputs are off afterwards.
        """
        self._abort.clear()
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

    def shutdown(self) -> None:
        """Turn both outputs off and reset the generator; idempotent."""
        if not self._link.closed:
            self._link.recover()
            self._enter_safe_state()
            self._check_outputs_off()
            self._refuse_queued_errors("safe state")
        super().shutdown()

    def close(self) -> None:
        """Shut down and release the connection; idempotent."""
        try:
            self.shutdown()
        finally:
            self._link.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def digital_input(self, pin: str) -> bool:
        """Return the level of a digital pin, `DIO0_P` to `DIO10_N`, that is an input.

        Raises LimitError for another name, InstrumentRefused for a pin that is an output, whose
        level says nothing of the outside.
        """
        if _PIN.fullmatch(pin) is None:
            refuse(self.name, "pin", f"{pin!r} is not DIO0_P to DIO10_P or DIO0_N...")
        query = f"DIG:PIN:DIR? {pin}"
        direction = self._link.ask(query)
        if direction not in ("IN", "OUT"):
            raise self._link.distrust(query, f"answered {direction!r}")
        if direction == "OUT":
            raise InstrumentRefused(self.name, f"{pin} is set as an output")
        query = f"DIG:PIN? {pin}"
        level = self._link.ask(query)
        if level not in ("0", "1"):
            raise self._link.distrust(query, f"answered {level!r}")
        return level == "1"

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
        self._abort.check("shot")
        if not self._ready:  # a generator after its reset would play a sine
            raise InstrumentRefused(self.name, "shot: it is in its safe state; start it first")
        response = np.empty(drive_v.shape)
        try:
            for first in range(0, len(drive_v), self.rows_at_once):
                rows = slice(first, first + self.rows_at_once)
                response[rows] = self._shoot(drive_v[rows])
        except DriverError:
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

    # --- states and errors --------------------------------------------------------------------

    def _enter_safe_outputs(self) -> None:
        self.write("OUTPUT:STATE OFF")

    def _enter_safe_state(self) -> None:
        """Forget old errors, turn both outputs off, reset the generator, stop the recording."""
        self._ready = False
        self._marked_rows = 0
        self.write("*CLS")
        self._enter_safe_outputs()
        self.write("GEN:RST")
        self.write("ACQ:STOP")

    def _check_outputs_off(self) -> None:
        for number, channel in self.aout.items():
            with self._understood(f"OUTPUT{number}:STATE?"):
                if channel.output_enabled:
                    raise InstrumentRefused(self.name, f"OUTPUT{number}: is still on")

    def _refuse_queued_errors(self, asked: str) -> None:
        """Empty the error queue; raise InstrumentRefused if there was anything in it."""
        errors: list[str] = []
        while len(errors) < _ERRORS_AT_MOST:
            entry = self._link.ask("SYST:ERR:NEXT?")
            if _NO_ERROR.match(entry):
                break
            errors.append(entry)
        if errors:
            raise InstrumentRefused(self.name, f"{asked}: {'; '.join(errors)}")

    def _verify(self, owner: Any, setting: str, value: Any) -> None:
        named = setting if owner is self else f"{type(owner).__name__.lower()} {owner.id} {setting}"
        with self._understood(named):
            actual = getattr(owner, setting)
            tolerance = 1e-5 * value if isinstance(value, float) else 0  # six digits come back
            same = abs(actual - value) <= tolerance if tolerance else actual == value
        if not same:
            raise InstrumentRefused(self.name, f"{named}: set to {value!r} but is {actual!r}")

    @contextmanager
    def _understood(self, asked: str) -> Iterator[None]:
        """Turn PyMeasure's failures to read an answer into ProtocolError."""
        try:
            yield
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise self._link.distrust(asked, f"unexpected answer ({error})") from error


def _spec(
    name: str, samples: int, full_v: float, row_limits: tuple[RowLimit, ...] = ()
) -> ArraySpec:
    return ArraySpec(name, "V", (samples,), -full_v, full_v, row_limits=row_limits)


def _before_rounding(spec: ArraySpec, step_v: float) -> ArraySpec:
    """Return a spec whose rows keep to its limits after they are rounded to the DAC's steps.

    Each end of a jump may move by half a step. Raises ValueError for a limit of less than a step.
    """
    limits = [
        limit.narrowed(spec.name, limit.most - step_v) if limit.is_narrower else limit
        for limit in spec.row_limits
    ]
    return replace(spec, row_limits=tuple(limits))


def _decimation(name: str, rate_hz: float) -> int:
    """Return the divider for a rate, or raise LimitError."""
    decimation = round(CLOCK_HZ / rate_hz) if rate_hz > 0 else 0
    if decimation not in DECIMATIONS or abs(CLOCK_HZ / decimation / rate_hz - 1) > 1e-9:
        message = f"{rate_hz:g} Hz is not 125 MHz over 1, 2, 4, 8 or an integer of 16 to 65536"
        refuse(name, "rate", message)
    return decimation


def _check_row(name: str, samples: int, gap_samples: int) -> None:
    if samples < 2 or gap_samples < 1:
        message = f"{samples} and {gap_samples} are below 2 and 1 samples"
        refuse(name, "samples, gap", message)
    if samples + gap_samples > LENGTH - SEARCHED:
        message = f"{samples} + {gap_samples} samples are more than {LENGTH - SEARCHED} of a table"
        refuse(name, "samples, gap", message)


def _check_factors(name: str, amplifier_gain: float, probe_attenuation: float) -> None:
    for quantity, value in (("amplifier_gain", amplifier_gain), ("probe", probe_attenuation)):
        if not 0 < value < np.inf:
            refuse(name, quantity, f"{value!r} is not above 0")
