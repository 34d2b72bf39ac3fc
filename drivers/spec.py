"""The declaration of one array that goes into or comes out of an instrument."""

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivers.errors import refuse
from drivers.limits import Narrowing, RowLimit, as_table

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ArraySpec:
    """Name, unit, shape, dtype and range of one array; the only place where they are stated.

    `low` and `high` are inclusive and in `unit`. Normalised values are 0 at `low` and 1 at `high`.
    dtype: what is sent; decimals: how many are sent, None for all. row_limits: what else a row must
    keep to, see `drivers.limits`.
    """

    name: str
    unit: str
    shape: tuple[int, ...]
    low: float
    high: float
    dtype: str = "float64"
    decimals: int | None = None
    row_limits: tuple[RowLimit, ...] = ()

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.name}: empty range [{self.low}, {self.high}] {self.unit}")

    @property
    def limits_rows(self) -> bool:
        """Say whether more than the range of the values is limited."""
        return any(limit.is_narrower for limit in self.row_limits)

    def check(self, values: ArrayLike, *, instrument: str, first_row: int = 0) -> Array:
        """Return `values` as a new contiguous array of shape (*batch, *shape), or refuse them.

        The array is the caller's alone: what is checked is what is sent, whatever becomes of
        `values` meanwhile. It is rounded to `dtype`, and never out of the range by that.

        Raises LimitError, logged, that names instrument, quantity, value, index, limit and unit if
        a value is not a number, not finite, out of [low, high], or if the trailing shape differs,
        or if a row exceeds one of `row_limits`. first_row: the number of the first row, for the
        message.
        """
        array = self._as_array(values, instrument)
        # false for what is not a number, too
        if array.size and not (array.min() >= self.low and array.max() <= self.high):
            inside = (array >= self.low) & (array <= self.high)
            index = np.argwhere(~inside)[0].tolist()
            value = self._told(float(array[tuple(index)]))
            index[:1] = [i + first_row for i in index[:1]]
            refuse(
                instrument,
                self.name,
                f"{value} {self.unit} at index {index} is outside "
                f"[{self.low:g}, {self.high:g}] {self.unit}",
            )
        if self.dtype != "float64":
            array = self._as_sent(array)
        for limit in self.row_limits:
            if limit.is_narrower:
                self._check_rows(limit, array, instrument, first_row)
        return array

    def _check_rows(self, limit: RowLimit, array: Array, instrument: str, first_row: int) -> None:
        found = limit.first_beyond(array)
        if found is not None:
            where, figure = found
            of = f" of row {where[0] + first_row}" if where else ""
            refuse(
                instrument,
                self.name,
                f"{limit.name} {_distinct(figure, limit.most)} {limit.unit}".rstrip()
                + f"{of} is above the limit of {limit.most:g} {limit.unit}".rstrip(),
            )

    def _told(self, value: float) -> str:
        """Return a refused value, with as many digits as show that it is outside."""
        return _distinct(value, self.high if value > self.high else self.low)

    def _as_array(self, values: ArrayLike, instrument: str) -> Array:
        if isinstance(values, np.ma.MaskedArray):
            refuse(instrument, self.name, "a masked array: what would be sent where it is masked?")
        try:
            array = np.asarray(values)
        except ValueError as error:
            refuse(instrument, self.name, f"not a regular array ({error})")
        if array.dtype.kind not in "fiu":
            refuse(
                instrument, self.name, f"dtype {array.dtype} is not a real number ({self.dtype})"
            )
        if array.dtype.itemsize > 8:  # what float64 cannot hold becomes infinite: out of range
            with np.errstate(over="ignore"):
                array = array.astype(np.float64)
        array = np.array(array, dtype=np.float64, order="C")
        depth = len(self.shape)
        if array.ndim < depth or array.shape[array.ndim - depth :] != self.shape:
            refuse(instrument, self.name, f"shape {array.shape} does not end in {self.shape}")
        return array

    def _as_sent(self, array: Array) -> Array:
        """Round to `dtype`, at the ends of the range to the nearest value inside."""
        sent: Array = array.astype(self.dtype).astype(np.float64)
        return np.clip(sent, self._inside(self.low, np.inf), self._inside(self.high, -np.inf))

    def _inside(self, end: float, inwards: float) -> float:
        """Return the value of `dtype` nearest to an end of the range that is not beyond it."""
        rounded = np.array(end, dtype=self.dtype)
        beyond = end - float(rounded)  # compared as float64: numpy would round the end as well
        if beyond * inwards > 0:
            rounded = np.nextafter(rounded, np.array(inwards, dtype=self.dtype))
        return float(rounded)

    def limited(self, narrowing: Narrowing | None) -> "ArraySpec":
        """Return this spec with the limits of a bench file: a pair, or a table.

        Its keys: low, high, those of `row_limits`, and peak where the range is symmetric. Raises
        ValueError for a wider limit, an unknown key, or what is no finite number.
        """
        table = as_table(self.name, narrowing)
        spec = self
        if "peak" in table and self.low == -self.high:
            peak = table.pop("peak")
            spec = spec.narrowed(-peak, peak)
        if "low" in table or "high" in table:
            spec = spec.narrowed(table.pop("low", spec.low), table.pop("high", spec.high))
        rows = tuple(
            limit.narrowed(self.name, table.pop(limit.name)) if limit.name in table else limit
            for limit in self.row_limits
        )
        if table:
            raise ValueError(
                f"{self.name}: no limit '{next(iter(table))}' "
                f"(there are: {', '.join(self._keys())})"
            )
        return replace(spec, row_limits=rows)

    def _keys(self) -> list[str]:
        peak = ["peak"] if self.low == -self.high else []
        return ["low", "high", *peak, *(limit.name for limit in self.row_limits)]

    def narrowed(self, low: float | None = None, high: float | None = None) -> "ArraySpec":
        """Return this spec with a tighter range; raise ValueError if it would be wider.

        Where values are sent with few decimals the ends move inwards to the next value that can be
        sent, so that no value is rounded across them.
        """
        low = self.low if low is None else low
        high = self.high if high is None else high
        if low < self.low or high > self.high:
            raise ValueError(
                f"{self.name}: [{low:g}, {high:g}] {self.unit} is wider than the instrument's "
                f"[{self.low:g}, {self.high:g}] {self.unit}"
            )
        if self.decimals is not None:
            low, high = (
                end if end == own else _rounded(end, self.decimals, way)
                for end, own, way in (
                    (low, self.low, ROUND_CEILING),
                    (high, self.high, ROUND_FLOOR),
                )
            )
        return replace(self, low=low, high=high)

    def to_physical(self, normalised: Array) -> Array:
        """Map 0..1 to low..high, in `unit`; never out of them, and the exact ends exactly."""
        physical = self.low * (1.0 - normalised) + self.high * normalised
        if self.low * self.high > 0:  # of ends on one side of 0 the sum may be rounded across one
            inside = (normalised >= 0) & (normalised <= 1)
            physical = np.where(inside, np.clip(physical, self.low, self.high), physical)
        return physical

    def to_normalised(self, physical: Array) -> Array:
        """Map low..high (in `unit`) to 0..1."""
        return (physical - self.low) / (self.high - self.low)


def _rounded(end: float, decimals: int, way: str) -> float:
    return float(Decimal(repr(float(end))).quantize(Decimal(1).scaleb(-decimals), way))


def _distinct(value: float, limit: float) -> str:
    """Return a value with six digits, or with all if it could not be told from the limit."""
    short = f"{value:.6g}"
    return repr(value) if short == f"{limit:.6g}" else short
