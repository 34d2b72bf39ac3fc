"""Random numbers that depend on a seed and a row's key alone, for rows of many numbers at once."""

import numpy as np

from drivers.row_key import RowKey
from drivers.spec import Array


class KeyedNoise:
    """A counter-based generator (Philox), set to the place of each row; used by one thread.

    seed: of the bench; plant: a number that keeps one physics' numbers apart from another's.
    """

    def __init__(self, seed: int, plant: int) -> None:
        self._seed = seed
        self._plant = plant
        self._philox = np.random.Philox(0)
        self._generator = np.random.Generator(self._philox)
        self._state = self._philox.state  # a new Philox a row would take three times as long

    def normal(self, key: RowKey, count: int) -> Array:
        """Return `count` unit-normal numbers of this row; a longer draw begins with a shorter."""
        state = self._state
        state["state"]["key"] = np.array([self._seed, key.stream], dtype=np.uint64)
        state["state"]["counter"] = np.array([0, key.index, self._plant, 0], dtype=np.uint64)
        self._philox.state = state
        return self._generator.standard_normal(count)
