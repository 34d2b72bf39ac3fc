"""Backpropagation through whatever differentiates the layers, in micro-batches."""

from torch import Tensor

from lab.models import PhysicalNetwork
from lab.pipeline import Pipeline
from lab.rules.base import Loss, Sums
from lab.stateful import Stateless


class Backpropagation(Stateless):
    """The gradient of the loss; see `lab.pipeline`."""

    def __init__(self, pipeline: Pipeline[PhysicalNetwork], loss: Loss) -> None:
        self._pipeline = pipeline
        self._loss = loss

    def step(self, batch: Tensor) -> list[Sums]:
        """Put the gradient into .grad; measures the batch once."""
        return self._pipeline.step(batch, self._loss)
