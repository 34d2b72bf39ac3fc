"""Many rows of the optical rig at once, without the wire: same firmware, same plant, same numbers.

For training that needs millions of rows, where a row's HTTP request, its text of a thousand lines
and its sweep would cost twenty times what the physics does.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from drivers.mock.firmware.waveshaper import transmission
from drivers.mock.firmware.yokogawa import AQ6370Firmware
from drivers.row_key import RowKey
from drivers.spec import Array


@runtime_checkable
class LightOfRows(Protocol):
    """A plant that measures many rows at once, each as it would alone."""

    def shape_rows(
        self, frequencies_thz: Array, transmission: NDArray[np.complex128]
    ) -> NDArray[np.complex128]:
        """Return pixel fields (rows, pixels) of transmissions (rows, lines) on one grid."""
        ...

    def measure_rows(
        self,
        fields: NDArray[np.complex128],
        keys: Sequence[RowKey],
        wavelengths_m: Array,
        dark: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Return spectra (rows, points), W; rows that are dark (rows,) get no light."""
        ...


class OpticalRows:
    """Shaper, plant and spectrometer of one rig; any thread may measure.

    Faults that are armed for the instruments do not strike here, their counters do not count, and
    the shaper keeps the profile that it has.
    """

    def __init__(self, plant: LightOfRows, spectrometer: AQ6370Firmware) -> None:
        self._plant = plant
        self._spectrometer = spectrometer

    def measure(
        self,
        frequencies_thz: Array,
        attenuation_db: Array,
        phase_rad: Array,
        keys: Sequence[RowKey],
    ) -> Array:
        """Return the traces (rows, points), W, of profiles, as the spectrometer sends them.

        frequencies_thz (lines,); attenuation_db and phase_rad (rows, parts), dB and rad as the
        shaper reads them, each for one of `parts` equally long parts of the lines. Raises
        ValueError while the spectrometer is not set up.
        """
        if not self._spectrometer.sends_watts:
            raise ValueError("the spectrometer is not set to REAL,32 and LINEAR: start it first")
        light = transmission(attenuation_db, phase_rad)
        dark = np.logical_not(light.any(axis=1))
        lines = np.repeat(light, len(frequencies_thz) // light.shape[1], axis=1)
        fields = self._plant.shape_rows(frequencies_thz, lines)
        spectra = self._plant.measure_rows(fields, keys, self._spectrometer.axis(), dark)
        return spectra.astype("<f4").astype(np.float64)
