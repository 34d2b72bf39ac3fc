"""The declaration of one array that goes into or comes out of an instrument."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivers.errors import LimitError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ArraySpec:
    """Name, unit, shape, dtype and range of one array; the only place where they are stated.

    `low` and `high` are inclusive and in `unit`. Normalised values are 0 at `low` and 1 at `high`.
    """

    name: str
    unit: str
    shape: tuple[int, ...]
    low: float
    high: float
    dtype: str = "float64"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.name}: empty range [{self.low}, {self.high}] {self.unit}")

    def check(self, values: ArrayLike, *, instrument: str) -> Array:
        """Return `values` as a contiguous array of shape (*batch, *shape), or refuse it.

        Raises LimitError that names instrument, quantity, value, limit and unit if a value is
        not a number, not finite, out of [low, high], or if the trailing shape differs.
        """
        array = self._as_array(values, instrument)
        inside = (array >= self.low) & (array <= self.high)
        if not inside.all():
            where = tuple(int(i) for i in np.argwhere(~inside)[0])
            raise LimitError(
                instrument,
                self.name,
                f"{array[where]:.6g} {self.unit} at index {list(where)} is outside "
                f"[{self.low:g}, {self.high:g}] {self.unit}",
            )
        return array

    def _as_array(self, values: ArrayLike, instrument: str) -> Array:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise LimitError(instrument, self.name, f"not a regular array ({error})") from error
        if array.dtype.kind not in "fiu":
            raise LimitError(
                instrument, self.name, f"dtype {array.dtype} is not a real number ({self.dtype})"
            )
        array = np.ascontiguousarray(array, dtype=np.float64)
        depth = len(self.shape)
        if array.ndim < depth or array.shape[array.ndim - depth :] != self.shape:
            raise LimitError(
                instrument, self.name, f"shape {array.shape} does not end in {self.shape}"
            )
        return array

    def narrowed(self, low: float | None = None, high: float | None = None) -> "ArraySpec":
        """Return this spec with a tighter range; raise ValueError if it would be wider."""
        low = self.low if low is None else low
        high = self.high if high is None else high
        if low < self.low or high > self.high:
            raise ValueError(
                f"{self.name}: [{low:g}, {high:g}] {self.unit} is wider than the instrument's "
                f"[{self.low:g}, {self.high:g}] {self.unit}"
            )
        return replace(self, low=low, high=high)

    def to_physical(self, normalised: Array) -> Array:
        """Map 0..1 to low..high, in `unit`; the exact ends map exactly."""
        return self.low * (1.0 - normalised) + self.high * normalised

    def to_normalised(self, physical: Array) -> Array:
        """Map low..high (in `unit`) to 0..1."""
        return (physical - self.low) / (self.high - self.low)
