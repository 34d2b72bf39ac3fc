"""A data-driven twin of systems that answer a series by a series: parallel branches of filters.

    y = u + sum over b of  q_b(3 tanh(F_b p_b(u) / 3))

u: the played series; p_b, q_b: polynomials of fifth order, sample by sample; F_b: a causal finite
impulse response (parallel Hammerstein-Wiener branches; M. Schoukens, K. Tiels, "Identification of
block-oriented nonlinear systems starting from linear approximations: a survey", Automatica 85, 272,
2017). The first branch starts as the best linear response (least squares), the others near nothing.
It knows no equation of any device; hence a diode that rings with its circuit is only imitated.
"""

import torch
from torch import Tensor, nn

from twins.base import DigitalTwin, FitSettings
from twins.linear_systems import convolution, least_squares_response, polynomial

_BRANCHES = 3
_ORDER = 5
_BOUND = 3.0
_START = 0.01


class FilterTwin(DigitalTwin):
    """Branches of filters between polynomials: x, theta, y are (rows, samples) each.

    x and theta are normalised series (0 is -1, 1 is 1 of full scale), added and clamped to full
    scale; y is the response, normalised; inside it is in units of its deviation in the fit's rows.
    """

    kind = "filters"

    def __init__(self, samples: int, *, seed: int = 0) -> None:
        """Draw the small filters of all branches but the first by `seed`."""
        super().__init__(samples, samples, samples)
        g = torch.Generator().manual_seed(seed)
        powers = torch.zeros(_BRANCHES, _ORDER + 1)
        powers[:, 1] = 1.0
        self.before = nn.Parameter(powers.clone())
        self.after = nn.Parameter(powers.clone())
        self.response = nn.Parameter(_START * torch.randn(_BRANCHES, samples, generator=g))
        self.direct = nn.Parameter(torch.zeros(()))
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def fit_settings(self) -> FitSettings:
        """Take longer than a calibration does: there are hundreds of taps to find."""
        return FitSettings(steps=2400, batch=256)

    @torch.no_grad()
    def prepare(self, x: Tensor, theta: Tensor, y: Tensor) -> None:
        """Take mean and deviation of y, and the first branch's response by least squares."""
        self.mean.copy_(y.mean())
        self.scale.copy_((y - self.mean).std())
        u, z = _played(x, theta).double(), ((y - self.mean) / self.scale).double()
        self.response[0].copy_(least_squares_response(u, z))

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Predict y (rows, samples), normalised."""
        u = _played(x, theta)
        z = self.direct * u
        for before, response, after in zip(self.before, self.response, self.after, strict=True):
            filtered = polynomial(before, u) @ convolution(response)
            z = z + polynomial(after, _BOUND * torch.tanh(filtered / _BOUND))
        return self.mean + self.scale * z


def _played(x: Tensor, theta: Tensor) -> Tensor:
    return (2 * (x + theta) - 2).clamp(-1, 1)
