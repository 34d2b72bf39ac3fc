"""Tend a trained network: a short physics-aware fine-tuning on a device that has changed.

The network keeps what it has learned; a few steps follow the device, while the twin is refitted
to the rows that these steps measure. `fine_tune` measures in every step. `tend` gets more out of
few rows: one measurement rematches every channel (`lab.rematch`) and serves several steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lab.models import PhysicalNetwork
from lab.pat import PhysicalLayer
from lab.refit import OnlineRefit
from lab.rematch import rematch, remember
from twins.fitting import MeasuredRows


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


@dataclass(frozen=True)
class TendSettings:
    """How to tend with one measurement: Adam, `updates` steps on its samples, at constant rates.

    refits: updates of the twin before the steps; ridge: see `lab.rematch.rematch`; the others as
    in `TuneSettings`.
    """

    updates: int = 10
    refits: int = 20
    ridge: float = 1e-3
    rate_theta: float = 0.002
    rate_digital: float = 0.003
    penalty: float = 5.0


def tuner(network: Tended, settings: TuneSettings | TendSettings) -> torch.optim.Adam:
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


class Corrected(nn.Module):
    """A twin plus what it missed on measured rows: exact there, the twin's gradient around."""

    def __init__(self, twin: nn.Module, rows: MeasuredRows) -> None:
        """Keep the residual y - twin(x, theta) of each row, (rows, y_size)."""
        super().__init__()
        self._twin = (twin,)  # in a tuple: a part of nobody's parameters
        with torch.no_grad():
            self._missed: Tensor = rows.y - twin(rows.x, rows.theta)

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Predict the same rows, in the same order, at an x and theta near the measured ones."""
        predicted: Tensor = self._twin[0](x, theta) + self._missed
        return predicted


def tend(
    network: PhysicalNetwork,
    refit: OnlineRefit,
    features: Tensor,
    labels: Tensor,
    wanted: list[Tensor],
    optimiser: torch.optim.Optimizer,
    settings: TendSettings,
) -> list[Tensor]:
    """Rematch and fine-tune in place on one measurement of these samples; return what it gives now.

    features (rows, n), labels (rows,), wanted as from `remember` for these samples. Each layer is
    measured once, with `refit.measure`, while the stages are rematched; the twin catches up; then
    `settings.updates` steps of physics-aware training share that measurement: the first has the
    measured values and the twin's gradient, the later ones the values that the twin, corrected by
    what it missed in each row, expects after the steps before. What is returned is expected so,
    too, not measured: hand it in as `wanted` next time. The layers are left measuring with what
    they had before, differentiated by the refit's twin. Raises what `rematch` raises.
    """
    before = [layer.physics for layer in network.layers]
    measured: list[MeasuredRows] = []

    def record(x: Tensor, theta: Tensor) -> Tensor:
        y = refit.measure(x, theta)
        measured.append(MeasuredRows(x.clone(), theta.clone(), y.clone()))
        return y

    try:
        network.set_measure(record)
        rematch(network, features, wanted, ridge=settings.ridge)
        refit.catch_up(settings.refits)
        for layer, (_, twin), rows in zip(network.layers, before, measured, strict=True):
            corrected = Corrected(twin, rows)
            layer.set_physics(corrected, corrected)
        for _ in range(settings.updates):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(features), labels)
            (loss + settings.penalty * network.penalty).backward()
            optimiser.step()
        return remember(network, features)
    finally:
        for layer, (measure, twin) in zip(network.layers, before, strict=True):
            layer.set_physics(measure, twin)
