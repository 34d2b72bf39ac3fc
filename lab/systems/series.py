"""How a system that plays one series takes x and theta: added, and clamped to full scale.

x and theta are series of -1 to 1 of full scale. Element-wise rescaling of a series is digital (the
network's); the system adds theta as its offset. The clamp is part of the encoding, like the
blocking of dark lines in optics: twins and gradients know it.
"""

import numpy as np

from drivers.spec import Array, ArraySpec
from lab.systems.base import SystemDescription


def series_spec(name: str, samples: int) -> ArraySpec:
    """Return the declaration of x or theta."""
    return ArraySpec(name, "full scale", (samples,), -1.0, 1.0)


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
