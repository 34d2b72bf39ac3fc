"""What every driver offers, whatever its product family.

Drivers are blocking, synchronous and speak physical units. They refuse what is out of limits
before a byte is sent, and never clip.
"""

import re
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from drivers.errors import IdentityError
from drivers.spec import Array, ArraySpec


def check_identity(name: str, identity: str, expected: str | None) -> None:
    """Raise IdentityError unless the regular expression `expected` is found (None: any will do)."""
    if expected is not None and re.search(expected, identity) is None:
        raise IdentityError(name, f"'{identity}' answers, not /{expected}/")


class Closing:
    """What `with` does to a driver: it is closed in the end."""

    def close(self) -> None:
        """Shut down and release the connection; idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Instrument(Protocol):
    """One device behind one driver; whoever opens it closes it (`with`)."""

    name: str

    def identify(self) -> str:
        """Return the device's own description of itself (maker, model, serial, version)."""
        ...

    def start(self) -> None:
        """Bring the device from any state to its safe state with all settings applied."""
        ...

    def shutdown(self) -> None:
        """Bring the device to its safe state; idempotent."""
        ...

    def abort(self) -> None:
        """Let a long operation (sweep, settling, shot) end now with Aborted; from any thread.

        So do all that follow it, but for `shutdown`, until the next `start`.
        """
        ...

    def close(self) -> None:
        """Shut down and release the connection; idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class PulseShaper(Instrument, Protocol):
    """A programmable optical filter: attenuation and phase on a fixed grid of lines."""

    @property
    def attenuation(self) -> ArraySpec:
        """Get what `load` accepts, (lines,) dB."""
        ...

    @property
    def phase(self) -> ArraySpec:
        """Get what `load` accepts, (lines,) rad."""
        ...

    def load(self, attenuation_db: Array, phase_rad: Array) -> None:
        """Program every line, each (lines,), dB and rad; return when the filter has settled."""
        ...


class Spectrometer(Instrument, Protocol):
    """A spectrum analyser that returns power over a fixed wavelength axis."""

    power: ArraySpec

    @property
    def wavelengths_m(self) -> Array:
        """Get the wavelength axis, (points,), m."""
        ...

    def measure(self) -> Array:
        """Take one spectrum, (points,), W."""
        ...


@dataclass(frozen=True)
class Recording:
    """What was heard of each row: response (rows, samples), full scale; in_sync (rows,).

    in_sync: the row was found whole in the recording. Where it was not, its response means nothing.
    """

    response: Array
    in_sync: NDArray[np.bool_]


class SpeakerPlate(Instrument, Protocol):
    """A plate that a speaker drives and a microphone hears; series of a fixed length."""

    @property
    def drive(self) -> ArraySpec:
        """Get what may be played, (samples,)."""
        ...

    @property
    def response(self) -> ArraySpec:
        """Get what is recorded of it, (samples,)."""
        ...

    rows_per_shot: int
    silence_samples: int

    def play_and_record(self, drive: Array) -> Recording:
        """Play rows (rows, samples) of `drive`, at most `rows_per_shot`, each from rest."""
        ...


@runtime_checkable
class Adjusting(Protocol):
    """An instrument that has to adjust itself now and then, which no pass should wait for."""

    def adjust_if_due(self) -> None:
        """Adjust what is due, if it is; may take a minute."""
        ...


@runtime_checkable
class LoopbackDelay(Protocol):
    """An instrument that hears its own output on a reference channel."""

    frame_rate_hz: float
    longest_latency_frames: int

    @property
    def loopback_delay_frames(self) -> int:
        """Get the delay from output to input at the last row that was found, frames."""
        ...


class CircuitDAQ(Instrument, Protocol):
    """A circuit's input and output voltage: many rows in one waveform, a gap after each."""

    @property
    def drive(self) -> ArraySpec:
        """Get what may be played, (samples,)."""
        ...

    @property
    def response(self) -> ArraySpec:
        """Get what is recorded of it, (samples,)."""
        ...

    gap_samples: int
    rows_at_once: int

    def acquire(self, drive_v: Array) -> Array:
        """Play rows (rows, samples), V, and return the response to each, (rows, samples), V."""
        ...
