"""The physical transformation y = f_p(x, theta), made of instruments that are wired together."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drivers.instrument import Instrument
from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec


@dataclass(frozen=True)
class SystemDescription:
    """What a caller must know of a system: its three arrays and the real time of one row.

    `row_time_s` is the declared time that one row takes in the lab (settling plus sweep),
    whether or not a simulated bench honours it.
    """

    name: str
    x: ArraySpec
    theta: ArraySpec
    y: ArraySpec
    row_time_s: float


@dataclass(frozen=True)
class Rows:
    """Measured rows: y (rows, *y.shape) in the unit of the y spec; saturated (rows,) flags.

    Fewer rows than asked for means that `stop` asked to end early.
    """

    y: Array
    saturated: NDArray[np.bool_]


def never() -> bool:
    """Keep going: the default of every `stop`."""
    return False


class PhysicalSystem(ABC):
    """One physical system; blocking, used by one thread at a time, physical units."""

    description: SystemDescription
    instruments: tuple[Instrument, ...]

    def __init__(self, announce: Callable[[RowKey], None] | None = None) -> None:
        """Take `announce`, which tells simulated physics the next row's key (None: real rig)."""
        self._announce = announce

    def transform(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey] | None = None,
        stop: Callable[[], bool] = never,
    ) -> Rows:
        """Measure rows of x (rows, *x.shape) and theta (rows, *theta.shape), physical units.

        All rows are checked before the first byte is sent; `stop` is asked between rows.
        Raises LimitError for values out of range, DriverError when an instrument fails.
        """
        x, theta = self.check(x, theta)
        if keys is not None and len(keys) != len(x):
            raise ValueError(f"{self.description.name}: {len(x)} rows but {len(keys)} row keys")
        outputs: list[Array] = []
        flags: list[bool] = []
        for i in range(len(x)):
            if stop():
                break
            if self._announce is not None and keys is not None:
                self._announce(keys[i])
            y, saturated = self._measure_row(x[i], theta[i])
            outputs.append(y)
            flags.append(saturated)
        shape = (len(outputs), *self.description.y.shape)
        return Rows(np.array(outputs).reshape(shape), np.array(flags, dtype=bool))

    def check(self, x: Array, theta: Array) -> tuple[Array, Array]:
        """Return checked arrays of shape (rows, ...), or raise LimitError; nothing is sent."""
        d = self.description
        x = d.x.check(x, instrument=d.name)
        theta = d.theta.check(theta, instrument=d.name)
        if x.ndim != len(d.x.shape) + 1 or theta.ndim != len(d.theta.shape) + 1:
            raise ValueError(
                f"{d.name}: x {x.shape} and theta {theta.shape} must be (rows, ...) arrays"
            )
        if len(x) != len(theta):
            raise ValueError(f"{d.name}: {len(x)} rows of x but {len(theta)} rows of theta")
        return x, theta

    def narrow(self, limits: Mapping[str, tuple[float, float]]) -> None:
        """Tighten the ranges of x or theta; raise ValueError for a wider or an unknown one."""
        for name, (low, high) in limits.items():
            if name not in ("x", "theta"):
                raise ValueError(f"limits.{name}: only x and theta have limits to narrow")
            d = self.description
            if name == "x":
                self.description = replace(d, x=d.x.narrowed(low, high))
            else:
                self.description = replace(d, theta=d.theta.narrowed(low, high))

    @abstractmethod
    def _measure_row(self, x: Array, theta: Array) -> tuple[Array, bool]:
        """Write, trigger and read one row; return y and whether it saturated."""

    def identify(self) -> dict[str, str]:
        """Return each instrument's own identity by its bench-file name."""
        return {i.name: i.identify() for i in self.instruments}

    def start(self) -> None:
        """Identify every instrument and bring it, settings applied, to its safe state."""
        for instrument in self.instruments:
            instrument.start()

    def shutdown(self) -> None:
        """Bring every instrument to its safe state, each even if another one fails."""
        errors: list[Exception] = []
        for instrument in self.instruments:
            try:
                instrument.shutdown()
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup(f"{self.description.name}: safe state not confirmed", errors)
