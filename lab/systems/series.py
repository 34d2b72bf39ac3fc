"""Systems that play one series: they take x and theta added, and clamped to full scale.

x and theta are series of -1 to 1 of full scale. Element-wise rescaling of a series is digital (the
network's); the system adds theta as its offset. The clamp is part of the encoding, like the
blocking of dark lines in optics: twins and gradients know it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from drivers.instrument import Instrument
from drivers.spec import Array, ArraySpec
from lab.systems.base import Announce, PhysicalSystem, SystemDescription

REFERENCE_PERIODS = 8  # in a row: 2 kHz on the plate, 38 kHz on the circuit, as they are shipped


class SeriesInstrument(Instrument, Protocol):
    """An instrument that plays series and records what comes back."""

    @property
    def drive(self) -> ArraySpec:
        """Get what may be played, (samples,)."""
        ...

    @property
    def response(self) -> ArraySpec:
        """Get what is recorded of it, (samples,)."""
        ...


class SeriesSystem(PhysicalSystem):
    """What drives one instrument with series; a subclass plays rows (`_measure_batch`)."""

    def __init__(
        self,
        instrument: SeriesInstrument,
        *,
        name: str,
        full_scale: float,
        row_time_s: float,
        announce: Announce | None,
    ) -> None:
        """Take the instrument and the drive, in its unit, that 1 stands for."""
        super().__init__(announce)
        self.instruments = (instrument,)
        self._drive = instrument.drive
        self._instrument_name = instrument.name
        self._full_scale = full_scale
        samples = instrument.drive.shape[0]
        self.description = SystemDescription(
            name=name,
            x=ArraySpec("x", "full scale", (samples,), -1.0, 1.0),
            theta=ArraySpec("theta", "full scale", (samples,), -1.0, 1.0),
            y=replace(instrument.response, name="y"),
            row_time_s=row_time_s,
            drives="series",
        )

    def reference_row(self) -> tuple[Array, Array]:
        """Return a tone of half the full scale as x and silence as theta, (1, samples) each."""
        x, theta = self.dark_row()
        phase = np.linspace(0, 2 * np.pi * REFERENCE_PERIODS, x.shape[1], endpoint=False)
        limits = self.description.x
        return np.clip(0.5 * np.sin(phase)[None], limits.low, limits.high), theta

    def narrow(self, limits: Mapping[str, tuple[float, float]]) -> None:
        """Tighten x or theta; raise ValueError if what remains allowed may not be played."""
        super().narrow(limits)
        low, high = (self._full_scale * end for end in played_range(self.description))
        drive = self._drive
        if low < drive.low or high > drive.high:
            raise ValueError(
                f"x and theta need a drive of {low:.4g} to {high:.4g} {drive.unit}, the limits of "
                f"{self.instruments[0].name} are {drive.low:g} to {drive.high:g} {drive.unit}: "
                "narrow x and theta too"
            )

    def _check_drives(self, x: Array, theta: Array) -> None:
        if self._drive.limits_rows:
            drive = self._full_scale * encode(x, theta)
            self._drive.check(drive, instrument=self._instrument_name)


def encode(x: Array, theta: Array) -> Array:
    """Return the series that is played, of x's shape, -1 to 1 of full scale."""
    return np.clip(x + theta, -1.0, 1.0)


def encode_slope(x: Array, theta: Array) -> Array:
    """Return d encode/dx, which is d encode/dtheta: 1 within full scale, 0 where it is clamped."""
    return (np.abs(x + theta) <= 1.0).astype(np.float64)


def played_range(description: SystemDescription) -> tuple[float, float]:
    """Return the least and greatest value that the ranges of x and theta let be played."""
    x, theta = description.x, description.theta
    low, high = encode(np.array([x.low, x.high]), np.array([theta.low, theta.high]))
    return float(low), float(high)
