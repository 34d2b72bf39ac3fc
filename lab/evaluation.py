"""What a network gets right, and what it shows while it is tested."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.controls import ClampCount
from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork
from lab.pat import Measure
from twins.base import DigitalTwin
from twins.fitting import MeasuredRows, twin_error

_SAMPLES_AT_ONCE = 100
_AGES = 10  # parts of a test that is spread over simulated time


@torch.no_grad()
def predict(network: PhysicalNetwork, features: Tensor) -> Tensor:
    """Return the class numbers (samples,) that the network takes its samples for."""
    parts = [network(part).argmax(1) for part in features.split(_SAMPLES_AT_ONCE)]
    return torch.cat(parts)


def accuracy(network: PhysicalNetwork, features: Tensor, labels: Tensor) -> float:
    """Return the share of samples that the network gets right, 0 to 1."""
    return share(predict(network, features), labels)


def share(predicted: Tensor, labels: Tensor) -> float:
    """Return the share of right predictions, 0 to 1."""
    return float((predicted == labels).double().mean())


def spread_accuracy(
    network: PhysicalNetwork,
    device: DeviceMeasure,
    features: Tensor,
    labels: Tensor,
    *,
    span_s: float,
) -> float:
    """Return the accuracy over samples that are measured at ten ages, evenly over `span_s`."""
    start_s, parts = device.time_s, []
    for i, part in enumerate(features.split(math.ceil(len(features) / _AGES))):
        device.wait(max(0.0, start_s + i * span_s / _AGES - device.time_s))
        parts.append(predict(network, part))
    return share(torch.cat(parts), labels)


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> list[list[int]]:
    """Return [i][j]: samples of class i taken for class j."""
    table = np.zeros((classes, classes), dtype=int)
    np.add.at(table, (labels.numpy(), predicted.numpy()), 1)
    return table.tolist()


@dataclass(frozen=True)
class Shown:
    """What the first samples of a test show; `spectrum` as in `TrainResult`."""

    clamped_fraction: float | None
    twin_error: float | None
    spectrum: dict[str, list[float]]


class Witness:
    """Look on while a device measures, and compare what its twin predicts; itself a `Measure`."""

    def __init__(self, device: DeviceMeasure, twin: DigitalTwin) -> None:
        self._device = device
        self._twin = twin
        self._zero = device.description.zero
        self._clamps = ClampCount(device.description)
        self._seen: list[MeasuredRows] = []

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        """Measure; see `lab.pat.Measure`."""
        y = self._device(x, theta)
        self._clamps.add(x, theta)
        self._seen.append(MeasuredRows(x, theta, y))
        return y

    @torch.no_grad()
    def look(self, network: PhysicalNetwork, features: Tensor, then: Measure) -> Shown:
        """Let the network measure some samples through this, and `then` something else."""
        network.set_measure(self)
        network(features)
        network.set_measure(then)
        return self.shown()

    @torch.no_grad()
    def shown(self) -> Shown:
        """Return what all that was measured through this shows."""
        last = self._seen[-1]
        predicted = self._twin(last.x[:1], last.theta[:1])
        return Shown(
            clamped_fraction=self._clamps.fraction,
            twin_error=twin_error(self._twin, _joined(self._seen), zero=self._zero).normalised,
            spectrum={"measured": last.y[0].tolist(), "twin": predicted[0].tolist()},
        )


def _joined(parts: list[MeasuredRows]) -> MeasuredRows:
    return MeasuredRows(*(torch.cat([getattr(p, n) for p in parts]) for n in ("x", "theta", "y")))
