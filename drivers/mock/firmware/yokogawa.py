"""The far end of a Yokogawa AQ6370: the part of its command set that a sweep needs.

Commands and answers after the AQ6370 series' remote control manual as far as public clients show
them. Trace data are W in linear and dBm in logarithmic level scale, blocks little-endian.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drivers.mock.faults import Fault
from drivers.mock.firmware.scpi import Arguments, Handler, ScpiDevice, ScpiError, ScpiSession, block
from drivers.spec import Array

IDENTITY = "YOKOGAWA,AQ6370D,91X000001,02.01"
ZERO_TIME_S = 30.0
"""What an offset adjustment takes, about (IM AQ6370C-17EN, "Setting the timeout time")."""
_FLOOR_DBM = -210.0
_OUT_OF_RANGE = -222
_NUMBER = re.compile(r"([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?) *(NM|M)?\Z", re.IGNORECASE)


@dataclass(frozen=True)
class NumberSetting:
    """A numeric setting: header, value after power-up, and what it accepts."""

    header: str
    default: float
    low: float
    high: float
    integer: bool = False

    def parse(self, arguments: Arguments) -> float:
        """Return the number sent, in m where it is a wavelength, or raise the SCPI error."""
        match = _NUMBER.match(arguments.single())
        if match is None:
            raise ScpiError(-104, "Data type error")
        unit = (match[2] or "").upper()
        value = float(match[1]) * (1e-9 if unit == "NM" else 1.0)
        if not self.low <= value <= self.high:
            raise ScpiError(_OUT_OF_RANGE, "Data out of range")
        return round(value) if self.integer else value

    def answer(self, value: float) -> str:
        """Return the text that the query of this setting answers."""
        return str(int(value)) if self.integer else f"{value:+.8E}"


@dataclass(frozen=True)
class ChoiceSetting:
    """A setting that is one of several words, also accepted by number; answers the number."""

    header: str
    words: tuple[str, ...]
    default: float = 0
    answers_word: bool = False

    def parse(self, arguments: Arguments) -> float:
        """Return the number of the word that was sent, or raise the SCPI error."""
        sent = ",".join(arguments).upper()
        if not sent:
            raise ScpiError(-109, "Missing parameter")
        for i, word in enumerate(self.words):
            short = "".join(c for c in word if not c.islower())
            if sent in (word.upper(), short, str(i)):
                return i
        raise ScpiError(-224, "Illegal parameter value")

    def answer(self, value: float) -> str:
        """Return the text that the query of this setting answers."""
        return self.words[int(value)].upper() if self.answers_word else str(int(value))


Setting = NumberSetting | ChoiceSetting

START = NumberSetting(":SENSe:WAVelength:STARt", 600e-9, 50e-9, 1700e-9)
STOP = NumberSetting(":SENSe:WAVelength:STOP", 1700e-9, 600e-9, 2250e-9)
POINTS = NumberSetting(":SENSe:SWEep:POINts", 1001, 101, 50_001, integer=True)
FORMAT = ChoiceSetting(":FORMat[:DATA]", ("ASCii", "REAL,32", "REAL,64"), answers_word=True)
SPACING = ChoiceSetting(":DISPlay[:WINDow]:TRACe:Y1[:SCALe]:SPACing", ("LOGarithmic", "LINear"))
ZERO = ChoiceSetting(":CALibration:ZERO[:AUTO]", ("OFF", "ON"), 1)
DECLARED: dict[Setting, tuple[float, float]] = {
    START: (600e-9, 1700e-9),
    STOP: (600e-9, 1700e-9),
    POINTS: (101, 50_001),
}
"""What the driver declares as its hardware limits, m and points, where the analyser takes more."""
MODES = ("", "SINGle", "REPeat", "AUTO", "SEGMent")
SETTINGS: tuple[Setting, ...] = (
    START,
    STOP,
    POINTS,
    FORMAT,
    SPACING,
    ChoiceSetting(":SENSe:SWEep:POINts:AUTO", ("OFF", "ON"), 1),
    NumberSetting(":SENSe:BANDwidth[:RESolution]", 1e-9, 0.02e-9, 2e-9),
    ChoiceSetting(":SENSe:SENSe", ("NHLD", "NAUT", "MID", "HIGH1", "HIGH2", "HIGH3", "NORMal")),
    ChoiceSetting(":INITiate:SMODe", MODES, 3),
    ZERO,
    ChoiceSetting(":TRACe:ACTive", ("TRA", "TRB", "TRC"), answers_word=True),
    ChoiceSetting(":TRACe:ATTRibute[:TRA]", ("WRITe", "FIX", "MAX", "MIN", "RAVG", "CALC")),
)


class AQ6370Firmware:
    """One simulated AQ6370D in front of the plant.

    Counts its sweeps and its offset adjustments in `sweeps` and `zeros`, and in `out_of_limits` the
    numbers that arrived outside what the driver declares (`DECLARED`).
    """

    def __init__(
        self,
        spectrum: Callable[[Array], Array],
        *,
        sweep_time_s: float = 0.0,
        zero_time_s: float = 0.0,
        identity: str = IDENTITY,
        login: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Power up; `spectrum(wavelengths_m)` is the light's side, W.

        sweep_time_s, zero_time_s: what a sweep, and an offset adjustment, takes on `clock`. A sweep
        that is asked for meanwhile begins after the adjustment.
        login: ask for a user as the Ethernet port does (GPIB does not).
        """
        self._spectrum = spectrum
        self._sweep_time_s = sweep_time_s
        self._zero_time_s = zero_time_s
        self._clock = clock
        self._login = login
        self._values: dict[Setting, float] = {}
        self._axis: Array | None = None
        self._device = ScpiDevice(identity, self._commands())
        self.sweeps = 0
        self.zeros = 0
        self.out_of_limits = 0
        self._reset()

    def connect(self) -> ScpiSession:
        """Open one more connection."""
        return ScpiSession(self._device, login=self._login)

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next message that contains the text `on`."""
        self._device.inject(fault, on)

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self._device.faults.clear()

    @property
    def safe(self) -> bool:
        """Whether neither sweep nor zero runs; the analyser emits nothing."""
        return self._done() and not self._is_zeroing()

    def _commands(self) -> dict[str, Handler]:
        commands: dict[str, Handler] = {
            "*RST": lambda _: self._reset(),
            ":ABORt": lambda _: self._abort(),
            ":INITiate[:IMMediate]": lambda _: self._sweep(),
            ":STATus:OPERation:CONDition?": lambda _: str(int(self._done())),
            ":CALibration:ZERO[:AUTO]:STATus?": lambda _: str(
                int(self._clock() < self._zero_until)
            ),
            ":TRACe[:DATA]:SNUMber?": lambda _: str(len(self._trace)),
            ":TRACe[:DATA]:X?": lambda a: self._send_trace(a, lambda: self._trace_axis),
            ":TRACe[:DATA]:Y?": lambda a: self._send_trace(a, self._level),
        }
        for setting in SETTINGS:
            commands |= self._accessors(setting)
        return commands

    def _accessors(self, setting: Setting) -> dict[str, Handler]:
        def change(arguments: Arguments) -> None:
            if setting is ZERO and [a.upper() for a in arguments] == ["ONCE"]:
                self._zero()
                return
            try:
                value = setting.parse(arguments)
            except ScpiError as error:
                self.out_of_limits += error.code == _OUT_OF_RANGE
                raise
            low, high = DECLARED.get(setting, (value, value))
            self.out_of_limits += not low <= value <= high
            self._values[setting] = value
            self._axis = None

        def query(_: list[str]) -> str:
            return setting.answer(self._values[setting])

        aliases = {setting.header, setting.header.replace("BANDwidth", "BWIDth")}
        return {h + q: f for h in aliases for q, f in (("", change), ("?", query))}

    def _reset(self) -> None:
        self._values = {setting: setting.default for setting in SETTINGS}
        self._axis = None
        self._trace_axis = self._trace = np.zeros(0)
        self._abort()

    def _abort(self) -> None:
        self._pending: tuple[Array, Array] | None = None
        self._done_at = self._zero_until = 0.0

    def _is_zeroing(self) -> bool:
        return self._clock() < self._zero_until

    def _zero(self) -> None:
        self._zero_until = self._clock() + self._zero_time_s
        self.zeros += 1

    def axis(self) -> Array:
        """Return the wavelengths of a sweep as it is set now, (points,), m."""
        axis = self._axis
        if axis is None:  # else the same object, so that the plant may cache
            points = int(self._values[POINTS])
            axis = self._axis = np.linspace(self._values[START], self._values[STOP], points)
        return axis

    @property
    def sends_watts(self) -> bool:
        """Say whether traces are sent in single precision (REAL,32) and in W (LINEAR)."""
        return self._values[FORMAT] == 1 and self._values[SPACING] == 1

    def _sweep(self) -> None:
        axis = self.axis()
        self._pending = axis, self._spectrum(axis)
        self._done_at = max(self._clock(), self._zero_until) + self._sweep_time_s
        self.sweeps += 1

    def _done(self) -> bool:
        if self._pending is None:
            return True
        if self._done_at and self._clock() < self._done_at:
            return False
        (self._trace_axis, self._trace), self._pending = self._pending, None
        return True

    def _level(self) -> Array:
        if self._values[SPACING]:
            return self._trace
        with np.errstate(divide="ignore", invalid="ignore"):
            dbm = 10 * np.log10(np.maximum(self._trace, 0.0) / 1e-3)
        return np.asarray(np.maximum(dbm, _FLOOR_DBM))

    def _send_trace(self, arguments: Arguments, read: Callable[[], Array]) -> str | bytes:
        if arguments.single().upper() != "TRA":
            raise ScpiError(-224, "Illegal parameter value")
        self._done()  # a sweep may have ended since
        values = read()
        if self._values[FORMAT] == 0:
            return ",".join(f"{v:+.8E}" for v in values)
        return block(values.astype("<f4" if self._values[FORMAT] == 1 else "<f8").tobytes())
