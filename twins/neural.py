"""The data-driven twin for any system: a linear map plus a small perceptron."""

import math

import torch
from torch import Tensor, nn

from twins.base import DigitalTwin


class NeuralTwin(DigitalTwin):
    """y = W u + MLP(u) with u = (x, theta); x (rows, x_size), theta (rows, theta_size).

    The outputs are standardised by the fit's data (`prepare`), so that dim and bright systems
    train alike. Two hidden layers of GELU units.
    """

    kind = "neural"

    def __init__(
        self, x_size: int, theta_size: int, y_size: int, *, hidden: int = 400, seed: int = 0
    ) -> None:
        """Draw the initial weights from a generator of their own, seeded by `seed`."""
        super().__init__(x_size, theta_size, y_size)
        inputs = x_size + theta_size
        self.linear = nn.Linear(inputs, y_size)
        self.perceptron = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, y_size),
        )
        self.register_buffer("mean", torch.zeros(y_size))
        self.register_buffer("scale", torch.ones(()))

        generator = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def prepare(self, x: Tensor, theta: Tensor, y: Tensor) -> None:
        """Take the outputs' mean and overall standard deviation from the data."""
        self.mean: Tensor
        self.scale: Tensor
        self.mean.copy_(y.mean(0))
        self.scale.copy_((y - y.mean(0)).square().mean().sqrt().clamp_min(1e-6))

    def fit_groups(self, rate: float) -> list[dict[str, object]]:
        """Learn at a fifth of the base rate: perceptrons want smaller steps than calibrations."""
        return [{"params": list(self.parameters()), "lr": rate / 5}]

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Predict y (rows, y_size), normalised."""
        u = torch.cat((x, theta), dim=-1) * 2 - 1
        y: Tensor = self.linear(u) + self.perceptron(u)
        return y * self.scale + self.mean
