"""What every update rule is, and what rules share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lab.models import PhysicalNetwork


@dataclass(frozen=True)
class Sums:
    """Of some samples of a training step: loss, range penalty, and how many were right.

    Where a rule looks at several networks around the trained one, these are means over them.
    """

    loss: float
    penalty: float
    correct: float


Loss = Callable[[PhysicalNetwork, Tensor], tuple[Tensor, Sums]]
"""Mean loss to be minimised over some samples (their numbers), with the sums for the metric."""


@dataclass(frozen=True)
class Objective:
    """The loss of a training run, a `Loss`: cross-entropy plus the weighted range penalty.

    features (samples, n), 0..1; labels (samples,), 0 to classes - 1; penalty: its weight.
    """

    features: Tensor
    labels: Tensor
    classes: int
    penalty: float

    def __call__(self, network: PhysicalNetwork, batch: Tensor) -> tuple[Tensor, Sums]:
        """Return the mean loss over some samples, measuring each once."""
        logits = network(self.features[batch])
        return self.of(logits, network.penalty, batch)

    def of(self, logits: Tensor, penalty: Tensor, batch: Tensor) -> tuple[Tensor, Sums]:
        """Return the mean loss for the samples' logits (samples, classes) and their penalty."""
        labels = self.labels[batch]
        loss = nn.functional.cross_entropy(logits, labels)
        return loss + self.penalty * penalty, Sums(
            loss=float(loss.detach()) * len(batch),
            penalty=float(penalty.detach()) * len(batch),
            correct=int((logits.argmax(1) == labels).sum()),
        )


class Rule(Protocol):
    """Turn a batch into gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Return what later steps depend on; see `lab.stateful`."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from there."""
        ...

    def step(self, batch: Tensor) -> list[Sums]:
        """Put the gradient for a batch (samples,) into the parameters' .grad, which is None.

        Returns the sums of the batch's samples, in one or several parts.
        """
        ...


def trained(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained, in the network's order."""
    return [p for p in network.parameters() if p.requires_grad]


@contextmanager
def moved(parameters: Sequence[nn.Parameter], by: Sequence[Tensor]) -> Iterator[None]:
    """Add `by` to the parameters; afterwards they are as before bit for bit, whatever happens."""
    before = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for p, step in zip(parameters, by, strict=True):
                p.add_(step)
        yield
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)


def size(parameter: Tensor, least: float = 0.1) -> float:
    """Return the root mean square of a parameter tensor, at least `least`: some start at zero."""
    return max(least, float(parameter.detach().square().mean().sqrt()))


def mean(sums: Sequence[Sums]) -> Sums:
    """Return the mean over several networks that saw the same samples."""
    return Sums(
        *(sum(getattr(s, n) for s in sums) / len(sums) for n in ("loss", "penalty", "correct"))
    )
