"""The declared drift of the simulated optics: a straight line in time, beside its slow wobble.

From `from_s` on, a share `per_hour` of each range goes in an hour: the pulse's energy falls, the
spectrometer's wavelength axis moves, chirp is added. The ranges and their reasons:
`optics_table.DriftRanges`. A function of a row's simulated time alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.mock.physics.optics_table import (
    CENTRE_THZ,
    DRIFT_RANGES,
    HALF_WIDTH_THZ,
    SPEED_OF_LIGHT_M_S,
)
from drivers.spec import Array

# Omega for a wavelength shift of 1 m at the band's centre; at its ends 0.4 % more or less
_OMEGA_PER_M = -((2 * CENTRE_THZ) ** 2) / (SPEED_OF_LIGHT_M_S * 1e-12) / HALF_WIDTH_THZ


@dataclass(frozen=True)
class DeclaredDrift:
    """How fast the bench drifts, in shares of the ranges per hour, and from when on, s."""

    per_hour: float = 0.0
    from_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no drift: either value negative or not finite."""
        if not (0 <= self.per_hour < np.inf and 0 <= self.from_s < np.inf):
            raise ValueError(
                f"drift of {self.per_hour} of the range per hour from {self.from_s} s on: "
                "both must be finite and at least 0"
            )

    def share(self, time_s: Array) -> Array:
        """Return the share of the ranges that is gone at each row's time (rows,), 0 to below 1.

        Raises ValueError where nothing of the pulse would be left.
        """
        gone = self.per_hour * np.maximum(time_s - self.from_s, 0.0) / 3600
        if (gone >= 1).any():
            end_s = self.from_s + 3600 / self.per_hour
            raise ValueError(
                f"a row at {np.max(time_s):g} s of simulated time, but a drift of {self.per_hour:g}"
                f" of the range per hour from {self.from_s:g} s on leaves light until {end_s:g} s"
            )
        return np.asarray(gone)

    def on_laser(self, time_s: Array, z: Array) -> NDArray[np.complex128]:
        """Return what the laser's field is multiplied by, (rows, pixels), at positions z."""
        gone = self.share(time_s)[..., None]
        phase = gone * DRIFT_RANGES.chirp_rad * z**2
        return np.asarray(np.sqrt(1 - gone * DRIFT_RANGES.energy) * np.exp(1j * phase))

    def on_axis(self, time_s: Array, omega: Array, sigma: float) -> Array:
        """Return weights (rows, sums) that move Gaussian lines of `sigma` along omega (sums,).

        exp(-(w + d - o)^2 / 2s^2) is exp(-(w - o)^2 / 2s^2) exp(d o / s^2) times what does not
        depend on o, and so drops out where lines are normalised: one row of weights moves all.
        """
        moved = self.share(time_s) * DRIFT_RANGES.axis_m * _OMEGA_PER_M
        return np.exp(moved[..., None] * omega / sigma**2)
