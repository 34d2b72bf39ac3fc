"""What the far end of a wire holds against whoever drives it: values that should not have arrived.

Written apart from `drivers.limits`, so that a mistake there is not made here too.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_OWN_ROUNDING = 1e-9  # relative: of the sums here, which may be rounded otherwise than the driver's


@dataclass(frozen=True)
class Bounds:
    """What may arrive: values of low to high, and of rows at most so much of each figure.

    The hardware's by default; tests set what the bench file says. rms: of a row's samples; slew:
    from sample to sample, from 0 and back; driven: samples of a row that are not 0.
    """

    low: float
    high: float
    rms: float = math.inf
    slew: float = math.inf
    driven: float = math.inf

    def outside(self, values: NDArray[np.floating]) -> int:
        """Return how many values, of any shape, are outside or not a number."""
        if not values.size:
            return 0
        # in float64: numpy would round the bounds to the values' own precision
        if float(values.min()) >= self.low and float(values.max()) <= self.high:
            return 0
        exact = values.astype(np.float64)
        return values.size - int(np.count_nonzero((exact >= self.low) & (exact <= self.high)))

    def rows_outside(self, rows: NDArray[np.floating]) -> int:
        """Return how many figures of rows (rows, samples) are too large or not a number."""
        found = 0
        if self.rms < math.inf:
            mean = np.einsum("ij,ij->i", rows, rows, dtype=np.float64) / rows.shape[1]
            found += _beyond(mean, self.rms**2)
        if self.slew < math.inf:
            ended = np.pad(rows.astype(np.float64), ((0, 0), (1, 1)))
            found += _beyond(np.abs(ended[:, 1:] - ended[:, :-1]).max(axis=1), self.slew)
        if self.driven < math.inf:
            found += _beyond((rows != 0).sum(axis=1), self.driven)
        return found


def _beyond(figures: NDArray[np.floating], most: float) -> int:
    return len(figures) - int(np.count_nonzero(figures <= most * (1 + _OWN_ROUNDING)))
