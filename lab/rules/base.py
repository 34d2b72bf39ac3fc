"""What every update rule is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lab.models import PhysicalNetwork


@dataclass(frozen=True)
class Sums:
    """Of some samples of a training step: loss, range penalty, and how many were right."""

    loss: float
    penalty: float
    correct: int


Loss = Callable[[PhysicalNetwork, Tensor], tuple[Tensor, Sums]]
"""Mean loss to be minimised over some samples (their numbers), with the sums for the metric."""


class Rule(Protocol):
    """Turn a batch into gradients."""

    def step(self, batch: Tensor) -> list[Sums]:
        """Put the gradient for a batch (samples,) into the parameters' .grad, which is None.

        Returns the sums of the batch's samples, in one or several parts.
        """
        ...
