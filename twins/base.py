"""What every digital twin is: a module from normalised (x, theta) to normalised y."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FitSettings:
    """How to fit: Adam with a cosine-annealed rate, `steps` batches of `batch` rows.

    floor: see `twins.fitting.weighted_error`.
    """

    steps: int = 1000
    batch: int = 128
    rate: float = 5e-3
    floor: float = 1.0


class DigitalTwin(nn.Module, ABC):
    """A differentiable model f_m of one physical system; batched, any dtype and device.

    Arrays are normalised: 0 and 1 are the ends of the declared ranges. x (rows, x_size),
    theta (rows, theta_size) -> y (rows, y_size).
    """

    kind: str

    def __init__(self, x_size: int, theta_size: int, y_size: int) -> None:
        super().__init__()
        self.x_size = x_size
        self.theta_size = theta_size
        self.y_size = y_size

    @abstractmethod
    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Predict y (rows, y_size) for x (rows, x_size) and theta (rows, theta_size)."""

    def fit_groups(self, rate: float) -> list[dict[str, object]]:
        """Return the optimiser's parameter groups for a fit at the base learning `rate`."""
        return [{"params": list(self.parameters()), "lr": rate}]

    def fit_settings(self) -> FitSettings:
        """Return how a fit of this kind of twin goes unless somebody says otherwise."""
        return FitSettings()

    def prepare(self, x: Tensor, theta: Tensor, y: Tensor) -> None:
        """Set what follows from data without a fit (means, scales); rows as in `forward`."""

    def digest(self) -> str:
        """Return the sha256 of all parameters and buffers: the twin's identity in records."""
        sha = hashlib.sha256(self.kind.encode())
        for name, value in sorted(self.state_dict().items()):
            sha.update(name.encode())
            sha.update(value.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()


def frozen(twin: DigitalTwin) -> DigitalTwin:
    """Return the twin with every parameter frozen and in evaluation mode (same object)."""
    twin.eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


def interleave(x: Tensor, theta: Tensor) -> Tensor:
    """Merge data (rows, n) and parameters (rows, n) into channels (rows, 2n), data on the even."""
    return torch.stack((x, theta), dim=-1).flatten(-2)
