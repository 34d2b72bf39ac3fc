"""Limits of a row beyond the range of its values: RMS, slew, duty, transmitted power.

Two layers: a driver declares what its hardware takes (`RowLimit.greatest`), the bench file may ask
for less (`RowLimit.most`) and never for more. Whoever adds an instrument lists the limits of its
kind in the quantity's `ArraySpec`, which checks whole arrays before the first byte is sent:

    ArraySpec("drive", "V", (samples,), -10.0, 10.0, row_limits=(slew(20.0, "V"),)).limited(bench)

A limit that is not narrower than the hardware's cannot be exceeded and costs nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Narrowing = tuple[float, float] | Mapping[str, float]
"""What a bench file says of one quantity: (low, high), or a table of low, high, rms, slew, ..."""

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class RowLimit:
    """The greatest value that one figure of a row may have.

    name: the bench file's key; unit: of the figure; greatest: what the hardware takes, which no row
    within the quantity's range exceeds; most: the limit in force, above 0; figure: (..., samples)
    -> (...).
    """

    name: str
    unit: str
    greatest: float
    most: float
    figure: Callable[[_Array], _Array] = field(compare=False)

    def narrowed(self, quantity: str, most: float) -> "RowLimit":
        """Return a tighter limit; raise ValueError for a wider or an impossible one."""
        if not 0 < most <= self.greatest:
            raise ValueError(
                f"{quantity}: a {self.name} limit of {in_unit(most, self.unit)} is outside "
                f"(0, {in_unit(self.greatest, self.unit)}], what the instrument takes"
            )
        return replace(self, most=float(most))

    @property
    def is_narrower(self) -> bool:
        """Say whether the bench asks for less than the hardware takes: else nothing is checked."""
        return self.most < self.greatest

    def first_beyond(self, rows: _Array) -> tuple[tuple[int, ...], float] | None:
        """Return index and figure of the first row of `rows` (..., samples) beyond the limit."""
        figures = np.asarray(self.figure(rows))
        if not figures.size or figures.max() <= self.most:  # false for what is not a number
            return None
        where = tuple(int(i) for i in np.argwhere(~(figures <= self.most))[0])
        return where, float(figures[where])


def rms(greatest: float, unit: str) -> RowLimit:
    """Limit the root mean square of a row's samples: what heats a coil."""
    return RowLimit("rms", unit, greatest, greatest, _rms)


def slew(greatest: float, unit: str) -> RowLimit:
    """Limit the step from one sample to the next; a row begins and ends at 0."""
    return RowLimit("slew", f"{unit}/sample", greatest, greatest, _slew)


def duty(samples_of_a_row: int) -> RowLimit:
    """Limit the share of a row, its silence included, in which the drive is not 0.

    Since it holds for every row it holds for every shot, whatever rows are in it.
    """
    return RowLimit("duty", "", 1.0, 1.0, partial(_duty, samples_of_a_row))


def transmission(rounding_db: float) -> RowLimit:
    """Limit the mean share of power that lines of given attenuation, dB, let through.

    rounding_db: how far an attenuation may move when it is written; counted as light.
    """
    return RowLimit("transmission", "", 1.0, 1.0, partial(_transmission, rounding_db))


def _rms(rows: _Array) -> _Array:
    return np.asarray(np.sqrt(np.mean(np.square(rows), axis=-1)))


def _slew(rows: _Array) -> _Array:
    steps = np.abs(np.diff(rows, axis=-1)).max(axis=-1, initial=0.0)
    return np.asarray(np.maximum(steps, np.abs(rows[..., [0, -1]]).max(axis=-1)))


def _duty(samples_of_a_row: int, rows: _Array) -> _Array:
    return np.asarray(np.count_nonzero(rows, axis=-1) / samples_of_a_row)


def _transmission(rounding_db: float, attenuation_db: _Array) -> _Array:
    return np.asarray(np.mean(10.0 ** ((rounding_db - attenuation_db) / 10), axis=-1))


def as_table(quantity: str, narrowing: Narrowing | None) -> dict[str, float]:
    """Return a bench file's limits of a quantity by key; raise ValueError for what is no number."""
    if narrowing is None:
        return {}
    if isinstance(narrowing, Mapping):
        table = dict(narrowing)
    else:
        low, high = narrowing
        table = {"low": low, "high": high}
    for key, value in table.items():
        if not _is_number(value):
            raise ValueError(f"{quantity}: {key} = {value!r} is not a finite number")
    return table


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def in_unit(value: float, unit: str) -> str:
    """Return a value with its unit; a share has none."""
    return f"{value:g} {unit}".rstrip()
