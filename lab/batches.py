"""In which order a training sees its samples."""

from typing import Any

import torch
from torch import Tensor


class Batches:
    """Give batches of the samples, in a new order each epoch.

    given: batches so far; an_epoch: of one epoch, whose last batch may be smaller.
    """

    def __init__(self, rows: Tensor, size: int, seed: int) -> None:
        """Give `rows` (samples,), their numbers, `size` at a time; orders follow from the seed."""
        self._rows, self._size = rows, size
        self._generator = torch.Generator().manual_seed(seed)
        self._before = self._generator.get_state()  # of the generator, before the present epoch
        self._epoch: tuple[Tensor, ...] = ()
        self.an_epoch = -(-len(rows) // size)
        self.given = 0

    def next(self) -> Tensor:
        """Return the numbers of the next batch's samples."""
        place = self.given % self.an_epoch
        if place == 0:
            self._before = self._generator.get_state()
            self._draw()
        self.given += 1
        return self._epoch[place]

    def _draw(self) -> None:
        order = self._rows[torch.randperm(len(self._rows), generator=self._generator)]
        self._epoch = order.split(self._size)

    def state_dict(self) -> dict[str, Any]:
        """Return how far the samples have been seen; see `lab.stateful`."""
        within = self.given % self.an_epoch
        state = self._before if within else self._generator.get_state()
        return {"given": self.given, "generator": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches given then."""
        self.given = state["given"]
        self._before = state["generator"]
        self._generator.set_state(self._before)
        if self.given % self.an_epoch:
            self._draw()
