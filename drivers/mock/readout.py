"""What stands between a plant and the firmware that reads it: row keys, and faults of a reading.

The keys of many rows may be announced at once, as it is done over sockets; the plant hears each
one when its row is read.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from drivers.mock.faults import FaultOrder, OrderQueue, PlantFault
from drivers.row_key import RowKey
from drivers.spec import Array


class Keyed(Protocol):
    """A plant that hears the key of its next row."""

    def announce(self, key: RowKey) -> None:
        """Use `key` for the noise and drift of the next row."""
        ...


class Readout:
    """Readings of one plant; not for several threads at once.

    full_scale: what the detector reads when it is saturated, in the reading's unit.
    """

    def __init__(self, plant: Keyed, full_scale: float) -> None:
        self.faults = OrderQueue()
        self._plant = plant
        self._full_scale = full_scale
        self._keys: deque[RowKey] = deque()
        self._last: Array | None = None

    def announce_rows(self, keys: Sequence[RowKey]) -> None:
        """Give the next rows these keys, in order; keys that were not used are forgotten."""
        self._keys.clear()
        self._keys.extend(keys)

    def watched(self, read: Callable[[Array], Array], rows_of: Callable[[Array], int]) -> "Read":
        """Return `read` with keys and faults; rows_of(argument) says how many rows it reads."""

        def watch(argument: Array) -> Array:
            if self._keys:
                self._announce(rows_of(argument))
            reading = read(argument)
            if self.faults:
                reading = self._spoil(reading)
            self._last = reading
            return reading

        return watch

    def _announce(self, rows: int) -> None:
        for _ in range(min(rows, len(self._keys))):
            self._plant.announce(self._keys.popleft())

    def _spoil(self, reading: Array) -> Array:
        order = self.faults.take()
        match order:
            case FaultOrder(fault=PlantFault.STUCK):
                same = self._last is not None and self._last.shape == reading.shape
                return self._last if same and self._last is not None else reading
            case FaultOrder(fault=PlantFault.SATURATION):
                return np.full_like(reading, self._full_scale)
            case FaultOrder(fault=PlantFault.DEAD_PIXEL, pixel=pixel):
                reading = reading.copy()
                reading[..., pixel : pixel + 1] = 0.0
                return reading
            case FaultOrder(fault=PlantFault.DRIFT_BURST, burst=burst):
                return reading * (1 - burst)
        return reading


Read = Callable[[Array], Array]


def one_row(_wavelengths_m: Array) -> int:
    """Return 1: a spectrum is one row."""
    return 1
