"""The second-harmonic-generation bench: pulse shaper, nonlinear crystal, spectrometer.

y = f_p(x, theta): x and theta are relative field amplitudes on the even and odd of 100 spectral
pixels of a 1550 nm pulse; y is the power of its second harmonic at 50 wavelengths around 775 nm.

Encoding: a field t in [-0.5, 1] is written as attenuation min(-20 log10 |t|, 60) dB and phase
0 or pi on the ten 1 GHz lines of its pixel. 60 dB is the shaper's block value, so that t = 0 is
written as "no light"; the shaper blocks everything above 40 dB (|t| < 0.01).
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from drivers.instrument import PulseShaper, Spectrometer
from drivers.spec import Array, ArraySpec
from lab.systems.base import Announce, PhysicalSystem, SystemDescription

PIXELS = 100
LINES_PER_PIXEL = 10
BLOCK_DB = 60.0
FIELD_LOW, FIELD_HIGH = -0.5, 1.0
_USED_POINTS = slice(1, 101, 2)  # of the spectrometer's 101, its least: every second one is read
_OUTPUTS = 50
_ROWS_AT_ONCE = 64  # what is checked of more rows does not fit into the cache


class OpticsSystem(PhysicalSystem):
    """Second-harmonic generation by a shaped pulse; one row is one profile and one sweep."""

    shaper: PulseShaper
    spectrometer: Spectrometer

    def __init__(
        self,
        *,
        name: str,
        shaper: PulseShaper,
        spectrometer: Spectrometer,
        row_time_s: float,
        announce: Announce | None = None,
    ) -> None:
        """Join the instruments; raise ValueError if their arrays do not fit the encoding."""
        super().__init__(announce)
        lines, points = shaper.attenuation.shape[0], spectrometer.power.shape[0]
        if lines != PIXELS * LINES_PER_PIXEL:
            needed = PIXELS * LINES_PER_PIXEL
            raise ValueError(f"{name}: the shaper has {lines} lines, {needed} needed")
        if points != 2 * _OUTPUTS + 1:
            raise ValueError(f"{name}: the spectrometer reads {points} points, 101 needed")
        self.shaper = shaper
        self.spectrometer = spectrometer
        self.instruments = (shaper, spectrometer)
        self.dark_first = (shaper,)
        half = PIXELS // 2
        power = spectrometer.power
        self.description = SystemDescription(
            name=name,
            x=ArraySpec("x", "relative field", (half,), FIELD_LOW, FIELD_HIGH),
            theta=ArraySpec("theta", "relative field", (half,), FIELD_LOW, FIELD_HIGH),
            y=ArraySpec("y", "W", (_OUTPUTS,), power.low, power.high),
            row_time_s=row_time_s,
        )

    def narrow(self, limits: Mapping[str, tuple[float, float]]) -> None:
        """Tighten x or theta; raise ValueError if the shaper cannot write what remains allowed."""
        super().narrow(limits)
        d = self.description
        ends = np.array([d.x.low, d.x.high, d.theta.low, d.theta.high])
        darkest = 0.0 if min(d.x.low, d.theta.low) < 0 else float(ends.min())
        attenuation_db, phase_rad = encode(np.array([darkest, np.abs(ends).max(), ends.min()]))
        for values, spec in (
            (attenuation_db, self.shaper.attenuation),
            (phase_rad, self.shaper.phase),
        ):
            if values.min() < spec.low or values.max() > spec.high:
                raise ValueError(
                    f"x and theta need a shaper {spec.name} of {values.min():.4g} to "
                    f"{values.max():.4g} {spec.unit}, its limits are {spec.low:g} to "
                    f"{spec.high:g} {spec.unit}: narrow x and theta too"
                )

    def reference_row(self) -> tuple[Array, Array]:
        """Return the brightest x and theta, (1, 50) each: the full field on every pixel."""
        d = self.description
        x, theta = (np.full((1, *s.shape), s.high) for s in (d.x, d.theta))
        return x, theta

    @property
    def wavelengths_m(self) -> Array:
        """Get the wavelengths of y, (50,), m."""
        return used_points(self.spectrometer.wavelengths_m)

    def _check_drives(self, x: Array, theta: Array) -> None:
        spec = self.shaper.attenuation
        if not spec.limits_rows:
            return
        for first in range(0, len(x), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            attenuation_db, _ = encode(pixel_fields(x[rows], theta[rows]))
            spec.check(attenuation_db, instrument=self.shaper.name, first_row=first)

    def _measure_row(self, x: Array, theta: Array) -> tuple[Array, bool]:
        attenuation_db, phase_rad = encode(pixel_fields(x, theta))
        self.shaper.load(attenuation_db, phase_rad)
        spectrum = self.spectrometer.measure()
        y = used_points(spectrum)
        return y, bool((y >= self.description.y.high).any())


def pixel_fields(x: Array, theta: Array) -> Array:
    """Interleave x (..., 50) on the even and theta (..., 50) on the odd pixels: (..., 100)."""
    return np.stack((x, theta), axis=-1).reshape(*x.shape[:-1], PIXELS)


def encode(field: Array) -> tuple[Array, Array]:
    """Return attenuation in dB and phase in rad, (..., 1000) each, for pixel fields (..., 100)."""
    attenuation_db, phase_rad = encode_pixels(field)
    lines = partial(np.repeat, repeats=LINES_PER_PIXEL, axis=-1)
    return lines(attenuation_db), lines(phase_rad)


def encode_pixels(field: Array) -> tuple[Array, Array]:
    """Return attenuation in dB and phase in rad of pixels, each of the field's shape."""
    with np.errstate(divide="ignore"):
        attenuation_db = np.minimum(-20 * np.log10(np.abs(field)), BLOCK_DB)
    attenuation_db = np.maximum(attenuation_db, 0.0)  # -0.0 of |t| = 1
    phase_rad = np.where(field < 0, np.pi, 0.0)
    return attenuation_db, phase_rad


def used_points(spectrum: Array) -> Array:
    """Return the points that y has, (..., 50), of the spectrometer's (..., 101)."""
    return spectrum[..., _USED_POINTS]
