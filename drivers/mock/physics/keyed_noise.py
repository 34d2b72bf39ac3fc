"""Random numbers that depend on a seed and a row's key alone, for rows of many numbers at once."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from drivers.row_key import RowKey
from drivers.spec import Array


class KeyedNoise:
    """A counter-based generator (Philox), set to the place of each row; any thread may draw.

    seed: of the bench; plant: a number that keeps one physics' numbers apart from another's.
    """

    def __init__(self, seed: int, plant: int) -> None:
        self._seed = seed
        self._plant = plant
        self._philox: Any = np.random.Philox(0)
        self._generator = np.random.Generator(self._philox)
        # plain integers, for setting them is quicker than setting arrays
        state: Any = self._philox.state
        self._state: dict[str, Any] = {**state, "buffer": state["buffer"].tolist(), "state": {}}
        self._turn = threading.Lock()

    def normal(self, key: RowKey, count: int) -> Array:
        """Return `count` unit-normal numbers of this row; a longer draw begins with a shorter."""
        return self.rows([key], count).ravel()

    def rows(self, keys: Sequence[RowKey], count: int) -> Array:
        """Return `count` unit-normal numbers of each row, (rows, count)."""
        normal = np.empty((len(keys), count))
        with self._turn:
            for row, key in zip(normal, keys, strict=True):
                self._go_to(key)
                self._generator.standard_normal(out=row)
        return normal

    def _go_to(self, key: RowKey) -> None:
        # the state of a new Philox, for a third of the time that a new one takes
        self._state["state"] = {
            "key": (self._seed, key.stream),
            "counter": (0, key.index, self._plant, 0),
        }
        self._philox.state = self._state
