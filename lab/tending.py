"""Tend a trained network: a short physics-aware fine-tuning on a device that has changed.

The network keeps what it has learned; a few steps follow the device, while the twin is refitted
to the rows that these steps measure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lab.pat import PhysicalLayer
from lab.refit import OnlineRefit


class Tended(Protocol):
    """A module of features (rows, n) -> logits (rows, classes) with the range penalty of a call."""

    @property
    def penalty(self) -> Tensor:
        """Get the summed range penalty of the last forward."""
        ...

    def __call__(self, features: Tensor) -> Tensor:
        """Measure."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return what is trained."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """Return all parts."""
        ...


@dataclass(frozen=True)
class TuneSettings:
    """How to fine-tune: Adam, `steps` batches of `batch` samples, at constant rates.

    rate_theta, rate_digital: of the physical layers' theta and of everything else; penalty: weight
    of leaving the physical range.
    """

    steps: int = 12
    batch: int = 32
    rate_theta: float = 0.003
    rate_digital: float = 0.005
    penalty: float = 5.0


def tuner(network: Tended, settings: TuneSettings) -> torch.optim.Adam:
    """Return the optimiser; kept from one fine-tuning to the next, it remembers the gradients."""
    layers = [m for m in network.modules() if isinstance(m, PhysicalLayer)]
    theta = [layer.theta for layer in layers if layer.theta is not None]
    physical = {id(p) for p in theta}
    others = [p for p in network.parameters() if id(p) not in physical]
    return torch.optim.Adam(
        [
            {"params": theta, "lr": settings.rate_theta},
            {"params": others, "lr": settings.rate_digital},
        ]
    )


def fine_tune(
    network: Tended,
    refit: OnlineRefit,
    features: Tensor,
    labels: Tensor,
    optimiser: torch.optim.Optimizer,
    settings: TuneSettings,
    *,
    generator: torch.Generator,
) -> list[float]:
    """Train `settings.steps` steps in place and return their losses (cross-entropy).

    features (rows, n) and labels (rows,) of training samples; the network's layers measure with
    `refit.measure` and differentiate by its twin. Batches run through random orders of the samples.
    Raises ValueError without samples, and what measuring raises.
    """
    if len(features) == 0 or len(features) != len(labels):
        raise ValueError(f"{len(features)} samples and {len(labels)} labels to fine-tune on")
    losses = []
    batches = _batches(len(features), settings.batch, generator)
    for _ in range(settings.steps):
        batch = next(batches)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(features[batch]), labels[batch])
        (loss + settings.penalty * network.penalty).backward()
        optimiser.step()
        refit.step()
        losses.append(float(loss.detach()))
    return losses


def _batches(samples: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield row numbers of batches, all of `size` where there are so many samples, without end."""
    while True:
        order = torch.randperm(samples, generator=generator)
        whole = samples - samples % size if samples >= size else samples
        yield from order[:whole].split(size)
