"""The far end of a Red Pitaya STEMlab 125-14: the part of its command set that a shot needs.

Commands, answers and defaults after the vendor's documentation and the SCPI server's source. Where
OUT2 is wired to IN2, as the driver asks, its marks tell the plant where rows are; a table without
marks is one row. Other waveforms than ARBITRARY in a burst of one are played as 0 V.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.mock.faults import Fault
from drivers.mock.firmware.bounds import Bounds
from drivers.mock.firmware.mcc import DrivenCircuit
from drivers.mock.firmware.redpitaya_pins import PINS, pin_commands
from drivers.mock.firmware.redpitaya_state import (
    CLOCK_HZ,
    CODES,
    LENGTH,
    Acquisition,
    Generator,
    converted,
    decimation,
    delayed,
    keep,
    number,
    numbers,
    own_error,
    word,
)
from drivers.mock.firmware.scpi import Arguments, Handler, ScpiDevice, ScpiError, ScpiSession, block
from drivers.spec import Array

IDENTITY = "REDPITAYA,INSTR2025,,01-21"
ERRORS_AT_MOST = 16
_MARK = CODES // 4
_SHAPES = ("SINE", "SQUARE", "TRIANGLE", "SAWU", "SAWD", "DC", "PWM", "ARBITRARY", "DC_NEG")
_SOURCES = ("DISABLED", "NOW", *(f"{s}_{e}" for s in ("CH1", "CH2", "EXT") for e in ("PE", "NE")))
_GENERATED = ("AWG_PE", "AWG_NE")
_ON_OFF = ("OFF", "ON")


class RedPitayaFirmware:
    """One simulated board in front of a circuit.

    out_of_limits: values that arrived beyond what the outputs can play or beyond a table's end, or
    that OUT1 would play outside `bounds` (V at the circuit: full scale, for tests narrower), and
    rows beyond one of the figures in `bounds`. tables: how many arrived. pins: the levels at the
    digital connector.
    """

    def __init__(
        self,
        plant: DrivenCircuit,
        *,
        amplifier_gain: float = 10.0,
        probe_attenuation: float = 10.0,
        honour_times: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Power up before `plant`, an amplifier behind OUT1 and a probe before IN1.

        honour_times: a recording takes as long as it would, on `clock`.
        """
        self._plant = plant
        self._gain = amplifier_gain
        self._attenuation = probe_attenuation
        self._honour_times = honour_times
        self._clock = clock
        self._generators = {1: Generator(), 2: Generator()}
        self._acquisition = Acquisition()
        self.pins = dict.fromkeys(PINS, 0)
        self.bounds = self._full_scale = Bounds(-amplifier_gain, amplifier_gain)
        self.out_of_limits = 0
        self.tables = 0
        self._device = ScpiDevice(
            IDENTITY,
            self._commands(),
            errors_at_most=ERRORS_AT_MOST,
            status_per_connection=True,
            stranger="OTHER,BOARD,1,0",
        )

    @property
    def outputs_on(self) -> tuple[bool, bool]:
        """Say which outputs are on."""
        return self._generators[1].on, self._generators[2].on

    @property
    def safe(self) -> bool:
        """Whether both outputs are off."""
        return not any(self.outputs_on)

    def connect(self) -> ScpiSession:
        """Open one more connection."""
        return ScpiSession(self._device, login=False, terminator=b"\r\n")

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next message that contains the text `on`."""
        self._device.inject(fault, on)

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self._device.faults.clear()

    # --- commands -----------------------------------------------------------------------------

    def _commands(self) -> dict[str, Handler]:
        return {
            "GEN:RST": lambda _: self._reset_generators(),
            "OUTPUT:STATE": self._switch_both,
            "OUTPUT#:STATE": lambda a: self._set(a, "on", word(a, _ON_OFF) == "ON"),
            "OUTPUT#:STATE?": lambda a: _ON_OFF[self._generator(a).on],
            "SOUR:TRig:INT": lambda _: self._fire((1, 2)),
            "SOUR#:TRig:INT": lambda a: self._fire((self._channel(a),)),
            "SOUR#:TRAC:DATA:DATA": self._load_table,
            "SOUR#:FUNC": lambda a: self._set(a, "shape", word(a, _SHAPES)),
            "SOUR#:FUNC?": lambda a: self._generator(a).shape,
            "SOUR#:BURS:STAT": lambda a: self._set(a, "mode", word(a, ("CONTINUOUS", "BURST"))),
            "SOUR#:BURS:STAT?": lambda a: self._generator(a).mode,
            "SOUR#:FREQ:FIX": self._set_frequency,
            "SOUR#:FREQ:FIX?": lambda a: f"{self._generator(a).frequency:g}",
            "SOUR#:VOLT": lambda a: self._set_level(a, "amplitude", "offset"),
            "SOUR#:VOLT?": lambda a: f"{self._generator(a).amplitude:g}",
            "SOUR#:VOLT:OFFS": lambda a: self._set_level(a, "offset", "amplitude"),
            "SOUR#:VOLT:OFFS?": lambda a: f"{self._generator(a).offset:g}",
            "SOUR#:BURS:NCYC": lambda a: self._set(a, "cycles", a.integer(1, 65_536)),
            "SOUR#:BURS:NCYC?": lambda a: str(self._generator(a).cycles),
            "SOUR#:BURS:NOR": lambda a: self._set(a, "repetitions", a.integer(1, 65_536)),
            "SOUR#:BURS:NOR?": lambda a: str(self._generator(a).repetitions),
            "SYSTem:BRD:Name?": lambda _: '"STEMlab 125-14"',
            **self._acquisition_commands(),
            **pin_commands(self.pins),
        }

    def _acquisition_commands(self) -> dict[str, Handler]:
        def put(name: str, value: Any) -> None:
            setattr(self._acquisition, name, value)

        return {
            "ACQ:RST": self._reset_acquisition,
            "ACQ:START": lambda _: self._arm(),
            "ACQ:STOP": lambda _: self._stop(),
            "ACQ:TRig": self._choose_source,
            "ACQ:TRig:STAT?": lambda _: "WAIT" if self._acquisition.armed else "TD",
            "ACQ:TRig:FILL?": lambda _: str(int(self._is_full())),
            "ACQ:TRig:DLY": lambda a: put("delay", a.integer(-LENGTH // 2, LENGTH // 2)),
            "ACQ:TRig:DLY?": lambda _: str(self._acquisition.delay),
            "ACQ:DEC[:Factor]": lambda a: put("decimation", decimation(a)),
            "ACQ:DEC[:Factor]?": lambda _: str(self._acquisition.decimation),
            "ACQ:SRATe?": lambda _: f"{CLOCK_HZ / self._acquisition.decimation:9.0f} Hz",
            "ACQ:AVG": lambda a: put("averaging", word(a, _ON_OFF)),
            "ACQ:AVG?": lambda _: self._acquisition.averaging,
            "ACQ:BUF:SIZE?": lambda _: str(LENGTH),
            "ACQ:SOUR#:GAIN": self._set_gain,
            "ACQ:SOUR#:GAIN?": lambda a: self._acquisition.gains[self._channel(a)],
            "ACQ:SOUR#:DATA?": lambda a: self._send(a, LENGTH),
            "ACQ:SOUR#:DATA:Old:N?": lambda a: self._send(a, a.integer(1, LENGTH)),
            "ACQ:DATA:Units": lambda a: keep(a, "units", word(a, ("RAW", "VOLTS"))),
            "ACQ:DATA:Units?": lambda a: a.connection.settings.get("units", "VOLTS"),
            "ACQ:DATA:FORMAT": lambda a: keep(a, "format", word(a, ("BIN", "ASCII"))),
            "ACQ:DATA:FORMAT?": lambda a: a.connection.settings.get("format", "ASCII"),
        }

    # --- the generator ------------------------------------------------------------------------

    def _channel(self, arguments: Arguments) -> int:
        (channel,) = arguments.suffixes
        if channel not in (1, 2):
            raise own_error(0, "Invalid channel number")
        return channel

    def _generator(self, arguments: Arguments) -> Generator:
        return self._generators[self._channel(arguments)]

    def _set(self, arguments: Arguments, name: str, value: Any) -> None:
        setattr(self._generator(arguments), name, value)

    def _set_frequency(self, arguments: Arguments) -> None:
        value = number(arguments.single())
        if not 0 <= value <= CLOCK_HZ / 2:
            raise own_error(6, "Value out of range.")
        self._set(arguments, "frequency", float(np.float32(value)))

    def _set_level(self, arguments: Arguments, name: str, other: str) -> None:
        """Set amplitude or offset: together they must not exceed 1 V."""
        generator = self._generator(arguments)
        value = number(arguments.single())
        if not abs(value) + abs(getattr(generator, other)) <= 1 + 1e-6:
            self.out_of_limits += 1
            raise own_error(6, "Value out of range.")
        setattr(generator, name, value)

    def _switch_both(self, arguments: Arguments) -> None:
        on = word(arguments, _ON_OFF) == "ON"
        for generator in self._generators.values():
            generator.on = on

    def _reset_generators(self) -> None:
        self._generators = {1: Generator(), 2: Generator()}
        self._plant.forget()

    def _load_table(self, arguments: Arguments) -> None:
        """Take a table; the real board writes past its buffer where this one refuses."""
        generator = self._generator(arguments)
        if not arguments:
            raise ScpiError(-109, "Missing parameter")
        table = numbers(arguments)
        self.tables += 1
        bad = ~(np.abs(table) <= 1)
        self.out_of_limits += int(bad.sum()) + max(0, len(table) - LENGTH)
        if len(table) > LENGTH:
            raise own_error(6, "Value out of range.")
        table = np.clip(np.nan_to_num(table), -1, 1)
        if self.bounds is not self._full_scale and generator is self._generators[1]:
            self.out_of_limits += self.bounds.outside(np.rint(table * CODES) / CODES * self._gain)
        generator.table = np.concatenate([table, np.zeros(LENGTH - len(table))])

    # --- the shot -----------------------------------------------------------------------------

    def _arm(self) -> None:
        self._acquisition.armed = True
        self._acquisition.triggered = False

    def _stop(self) -> None:
        self._acquisition.armed = False
        self._plant.forget()

    def _reset_acquisition(self, arguments: Arguments) -> None:
        self._stop()
        self._acquisition = Acquisition()
        arguments.connection.settings.update(units="VOLTS", format="ASCII")

    def _choose_source(self, arguments: Arguments) -> None:
        self._acquisition.source = word(arguments, (*_SOURCES, *_GENERATED))
        if self._acquisition.source == "NOW" and self._acquisition.armed:
            self._record(np.zeros(LENGTH), np.zeros(LENGTH))

    def _fire(self, channels: tuple[int, ...]) -> None:
        """Play the outputs, and record if that is the trigger waited for."""
        acquisition = self._acquisition
        played = [
            self._generators[i].samples(acquisition.decimation)
            if i in channels
            else np.zeros(LENGTH)
            for i in (1, 2)
        ]
        if acquisition.armed and acquisition.source in _GENERATED:
            self._record(*played)

    def _record(self, driven_v: Array, marked_v: Array) -> None:
        """Fill the recordings of both inputs with what OUT1 and OUT2 play."""
        acquisition = self._acquisition
        acquisition.armed = False
        acquisition.triggered = True
        acquisition.full_at = self._clock() + LENGTH * acquisition.decimation / CLOCK_HZ
        before = LENGTH // 2 - acquisition.delay  # the trigger's place in the recording
        marks = converted(delayed(marked_v, before))
        heard_v = self._respond(delayed(driven_v, before) * self._gain, marks > _MARK)
        acquisition.codes = {1: converted(heard_v / self._attenuation), 2: marks}

    def _respond(self, drive_v: Array, marked: NDArray[np.bool_]) -> Array:
        """Return the circuit's answer (LENGTH,) V, row by row where rows are marked."""
        ends = np.diff(marked.astype(np.int8), prepend=0, append=0)
        first, last = np.flatnonzero(ends == 1), np.flatnonzero(ends == -1)
        if not len(first) or len(set(last - first)) != 1:
            whole: Array = self._plant.respond(drive_v[None])[0]
            return whole
        where = first[:, None] + np.arange(last[0] - first[0])
        self.out_of_limits += self.bounds.rows_outside(drive_v[where])
        heard_v: Array = np.zeros(LENGTH)
        heard_v[where] = self._plant.respond(drive_v[where])
        return heard_v

    def _is_full(self) -> bool:
        late = self._honour_times and self._clock() < self._acquisition.full_at
        return self._acquisition.triggered and not late

    def _set_gain(self, arguments: Arguments) -> None:
        self._acquisition.gains[self._channel(arguments)] = word(arguments, ("LV", "HV"))

    def _send(self, arguments: Arguments, samples: int) -> str | bytes:
        """Return the oldest samples of an input as this connection wants them."""
        codes = self._acquisition.codes[self._channel(arguments)][:samples]
        settings = arguments.connection.settings
        raw = settings.get("units") == "RAW"
        if settings.get("format") == "BIN":
            return block((codes.astype(">i2") if raw else (codes / CODES).astype(">f4")).tobytes())
        words = map(str, codes) if raw else (f"{code / CODES:f}" for code in codes)
        return "{" + ",".join(words) + "}"
