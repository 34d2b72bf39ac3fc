"""What a simulated Red Pitaya holds, its generators and recordings, and how it reads parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivers.mock.firmware.scpi import Arguments, ScpiError
from drivers.spec import Array

LENGTH = 16_384
CLOCK_HZ = 125e6
CODES = 8192
DECIMATIONS = frozenset([1, 2, 4, 8, *range(16, 65_537)])

Codes = NDArray[np.int16]


def own_error(code: int, text: str) -> ScpiError:
    """Return an error of the instrument's own: 9500 and the number of its library."""
    return ScpiError(9500 + code, text)


@dataclass
class Generator:
    """One output: its settings after a reset, and its table."""

    shape: str = "SINE"
    frequency: float = 1000.0
    amplitude: float = 0.8
    offset: float = 0.0
    mode: str = "CONTINUOUS"
    cycles: int = 1
    repetitions: int = 1
    on: bool = False
    table: Array = field(default_factory=lambda: np.zeros(LENGTH))

    def samples(self, decimation: int) -> Array:
        """Return what the output plays from the trigger on, (LENGTH,) V, at the inputs' rate."""
        once = self.mode == "BURST" and self.cycles == self.repetitions == 1
        if not (self.on and once and self.shape == "ARBITRARY"):
            return np.zeros(LENGTH)
        per_sample = self.frequency * LENGTH * decimation / CLOCK_HZ
        # a tick of the clock more or less does not matter to the sample that it falls into
        where = np.floor(np.arange(LENGTH) * per_sample + 1e-3).astype(np.int64)
        codes = np.minimum(np.rint(self.table * CODES), CODES - 1)
        volts = codes / CODES * self.amplitude + self.offset
        return np.where(where < LENGTH, volts[np.minimum(where, LENGTH - 1)], 0.0)


@dataclass
class Acquisition:
    """The inputs' settings after a reset, and the last recording."""

    decimation: int = 1
    averaging: str = "ON"
    delay: int = 0
    source: str = "DISABLED"
    armed: bool = False
    triggered: bool = False
    full_at: float = 0.0
    gains: dict[int, str] = field(default_factory=lambda: {1: "LV", 2: "LV"})
    codes: dict[int, Codes] = field(
        default_factory=lambda: {i: np.zeros(LENGTH, dtype=np.int16) for i in (1, 2)}
    )


def delayed(played: Array, samples: int) -> Array:
    """Return what is recorded of a signal that begins at a place of the recording, (LENGTH,)."""
    return np.concatenate([np.zeros(samples), played])[:LENGTH]


def converted(volts: Array) -> Codes:
    """Return the ADC's codes, -8192 to 8191."""
    return np.clip(np.rint(volts * CODES), -CODES, CODES - 1).astype(np.int16)


def keep(arguments: Arguments, name: str, value: str) -> None:
    """Keep a setting for this connection."""
    arguments.connection.settings[name] = value


def word(arguments: Arguments, words: Sequence[str]) -> str:
    """Return the only parameter, in capitals; raise -224 unless it is one of `words`."""
    return one_of(arguments.single(), words)


def one_of(text: str, words: Sequence[str]) -> str:
    """Return a parameter in capitals; raise -224 unless it is one of `words`."""
    if text.upper() not in words:
        raise ScpiError(-224, "Illegal parameter value")
    return text.upper()


def two(arguments: Arguments) -> tuple[str, str]:
    """Return the two parameters; raise -109 or -108 if there are fewer or more."""
    if len(arguments) < 2:
        raise ScpiError(-109, "Missing parameter")
    if len(arguments) > 2:
        raise ScpiError(-108, "Parameter not allowed")
    return arguments[0], arguments[1]


def decimation(arguments: Arguments) -> int:
    """Return the only parameter; raise an error unless it divides the clock."""
    value = arguments.integer(0, 2**31 - 1)
    if value not in DECIMATIONS:
        raise own_error(6, "Value out of range.")
    return value


def number(text: str) -> float:
    """Return a parameter as a number; raise -104 if it is none."""
    return float(numbers([text])[0])


def numbers(texts: list[str]) -> Array:
    """Return parameters as numbers (parameters,); raise -104 if one is none."""
    try:
        return np.fromiter(map(float, texts), dtype=np.float64, count=len(texts))
    except ValueError as error:
        raise ScpiError(-104, "Data type error") from error
