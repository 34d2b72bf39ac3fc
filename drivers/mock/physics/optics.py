"""The simulated optics as its instruments see it: placing of pixels, noise, ADC.

The noise-free physics stands in `optics_map`; after it come the detector's noise and its ADC.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from drivers.mock.physics.keyed_noise import KeyedNoise
from drivers.mock.physics.optics_drift import DeclaredDrift
from drivers.mock.physics.optics_map import Complex, OpticalMap, is_real
from drivers.mock.physics.optics_table import (
    CENTRE_THZ,
    FULL_SCALE_W,
    GAP_1,
    HALF_WIDTH_THZ,
    LINES_PER_PIXEL,
    NOISE_1,
    PIXELS,
    UNIT_W,
)
from drivers.row_key import RowKey
from drivers.spec import Array

_Placing = tuple[NDArray[np.bool_], NDArray[np.intp]] | None

_NOISE = 1  # counter word that keeps a row's noise apart from the specimen's numbers
_OWN_STREAM = 2**63  # noise stream of rows that nobody gave a key
_OWN_ROW_TIME_S = 0.75


class OpticalPlant(OpticalMap):
    """One specimen of the optical bench as its shaper and its spectrometer see it."""

    def __init__(
        self,
        *,
        device_seed: int = 0,
        gap: float = 1.0,
        noise: float = 1.0,
        seed: int = 0,
        drift: DeclaredDrift | None = None,
    ) -> None:
        """Draw the specimen `device_seed`; `gap` 0..3, `noise` >= 0, `seed` of the noise.

        drift: beside the table's own; rows of a time at which it leaves no light raise ValueError.
        """
        if not noise >= 0:
            raise ValueError(f"noise {noise} must be at least 0")
        super().__init__(device_seed=device_seed, gap=gap, drift=drift)
        self.noise = noise
        self._noise = KeyedNoise(seed, _NOISE)
        self._dark = True
        self._field: Complex = np.zeros(PIXELS, dtype=np.complex128)
        self._grid: Array | None = None
        self._placing: _Placing
        self._key: RowKey | None = None
        self._own_rows = 0

    def announce(self, key: RowKey) -> None:
        """Give the next spectrum its noise stream, index and simulated time."""
        self._key = key

    def set_transmission(self, frequencies_thz: Array, transmission: Complex) -> None:
        """Let the shaper set its complex field transmission (lines,) on its frequency grid.

        Pixels that the grid does not cover, and single pixels set to zero, are commanded dark: what
        they let through is subject to the shaper's departures. All lines at zero is the
        instrument's block, which is really dark.
        """
        if frequencies_thz is not self._grid:  # the shaper passes the same object while it stays
            self._grid = frequencies_thz
            self._placing = _place(frequencies_thz)
        self._field = _pixel_fields(self._placing, transmission)
        self._dark = not transmission.any()

    def spectrum(self, wavelengths_m: Array) -> Array:
        """Measure one spectrum, (points,), W, with this row's drift, noise and ADC."""
        key = self._next_key()
        return self.measure(None if self._dark else self._field, key, wavelengths_m)

    def _next_key(self) -> RowKey:
        key, self._key = self._key, None
        if key is None:
            key = RowKey(_OWN_STREAM, self._own_rows, self._own_rows * _OWN_ROW_TIME_S)
            self._own_rows += 1
        return key

    def measure(self, field: Array | Complex | None, key: RowKey, wavelengths_m: Array) -> Array:
        """Return the spectrum of one row, (points,), W, for pixel fields (pixels,), None: dark."""
        normal = self._noise.normal(key, 1 + len(wavelengths_m))
        clean = np.zeros(len(wavelengths_m))
        if field is not None:
            shot = 1 + self.noise * NOISE_1.amplitude * normal[:1]
            time_s = np.array([key.time_s])
            clean = self.intensity(field[None], time_s, wavelengths_m, shot).ravel()
        return self._detect(clean, normal[1:])

    def measure_rows(
        self,
        fields: Array | Complex,
        keys: Sequence[RowKey],
        wavelengths_m: Array,
        dark: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Return the spectra (rows, points), W, of pixel fields (rows, pixels), one key a row.

        dark (rows,): these rows get no light at all. Each row is what it is alone, bit for bit:
        the same products of one row are formed, one after another.
        """
        normal = self._noise.rows(keys, 1 + len(wavelengths_m))
        shot = 1 + self.noise * NOISE_1.amplitude * normal[:, 0]
        time_s = np.array([key.time_s for key in keys])
        clean = np.zeros((len(keys), len(wavelengths_m)))
        lit = np.ones(len(keys), dtype=bool) if dark is None else ~dark
        for rows, part in _straight_and_twisted(fields, lit):
            row = np.s_[rows, None]  # a stack of single rows
            stack = self.intensity(part[:, None], time_s[row], wavelengths_m, shot[row])
            clean[rows] = stack[:, 0]
        return self._detect(clean, normal[:, 1:])

    def shape_rows(self, frequencies_thz: Array, transmission: Complex) -> Array | Complex:
        """Return pixel fields (rows, pixels) of transmissions (rows, lines) on one grid."""
        return _pixel_fields(_place(frequencies_thz), transmission)

    def _detect(self, clean: Array, normal: Array) -> Array:
        """Return what the detector makes of intensities, with its noise and ADC; W."""
        sd = np.sqrt(NOISE_1.read**2 + NOISE_1.shot**2 * clean + NOISE_1.relative**2 * clean**2)
        return self._digitise(clean + self.noise * sd * normal)

    def _digitise(self, intensity: Array) -> Array:
        full = FULL_SCALE_W / UNIT_W
        step = self.gap * GAP_1.adc_step * full
        if step:
            intensity = np.rint(intensity / step) * step
        return np.clip(intensity, 0.0, full) * UNIT_W


def _place(frequencies_thz: Array) -> _Placing:
    """Return which lines of a grid (lines,) meet pixels, and where; None: each one, in order."""
    first = CENTRE_THZ - HALF_WIDTH_THZ
    position = np.rint((frequencies_thz - first) * 1000 - 0.5).astype(int)
    inside = (position >= 0) & (position < PIXELS * LINES_PER_PIXEL)
    if inside.all() and np.array_equal(position, np.arange(PIXELS * LINES_PER_PIXEL)):
        return None
    return inside, position[inside]


def _pixel_fields(placing: _Placing, transmission: Complex) -> Complex:
    """Return the mean transmission of each pixel (..., pixels) for lines (..., lines)."""
    rows, lines = transmission.shape[:-1], transmission
    if placing is not None:
        inside, position = placing
        lines = np.zeros((*rows, PIXELS * LINES_PER_PIXEL), dtype=np.complex128)
        lines[..., position] = transmission[..., inside]
    mean: Complex = lines.reshape(*rows, PIXELS, LINES_PER_PIXEL).mean(axis=-1)
    return mean


def _straight_and_twisted(
    fields: Array | Complex, lit: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.intp], Array | Complex]]:
    """Part rows (rows, pixels) that are lit into those of real fields and those of complex ones."""
    straight = lit & is_real(fields).all(axis=-1)
    for part in (straight, lit & ~straight):
        rows = np.flatnonzero(part)
        if len(rows):
            yield rows, fields[rows]
