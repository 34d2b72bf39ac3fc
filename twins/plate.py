"""The structured twin of the oscillating plate: Hammerstein-Wiener, a filter between two curves.

Amplifier's curve -> causal finite impulse response -> microphone's curve. Unfitted, it is the
textbook: a symmetric soft clip on either side of a linear plate whose modes ring as metal alone
lets them. A fit corrects either curve by a polynomial of fifth order and takes the impulse response
from least squares. What the textbook has no word for (modes that stiffen with the plate's swing,
drift, noise, converters) the twin cannot express.

Units: samples at 48 kHz; signals so that evenly distributed random drives give a microphone's
signal of standard deviation 0.5, of which full scale is 1.5.
"""

import math

import torch
from torch import Tensor, nn

from twins.base import DigitalTwin
from twins.linear_systems import convolution, least_squares_response, polynomial

_MODES = 20
_LOWEST, _HIGHEST = 0.004, 0.25  # cycles a sample
_QUALITY = 8.0
_AMPLIFIER = 0.8
_MICROPHONE = 0.8
_FULL_SCALE = 1.5
# How the bench's operator sets the microphone's gain for the textbook plate: standard deviation
# 0.5 over 200 rows of evenly distributed drives. A test compares the two.
_GAIN = 0.29542145188609353
_ORDER = 5


def textbook_response(samples: int) -> Tensor:
    """Return the impulse response of the linear plate, (samples,), double precision.

    Every mode is driven alike; the opposite corner hears them with alternating sign. A mode that is
    kicked by w turns by w and decays by exp(-w / (2 quality)) a sample.
    """
    number = torch.arange(_MODES, dtype=torch.float64)
    w = 2 * math.pi * _LOWEST * (_HIGHEST / _LOWEST) ** (number / (_MODES - 1))
    turned = w[:, None] * torch.arange(1, samples + 1, dtype=torch.float64)
    ringing = w[:, None] * torch.exp(-turned / (2 * _QUALITY)) * torch.cos(turned)
    return _GAIN * ((-1) ** number @ ringing)


class PlateTwin(DigitalTwin):
    """A linear plate between two curves: x, theta, y are (rows, samples) each.

    x and theta are normalised series (0 is -1, 1 is 1 of full scale), added and clamped to full
    scale; y is what the microphone sends, 0 to 1 for -1 to 1 of full scale.
    """

    kind = "plate-structured"

    def __init__(self, samples: int = 196) -> None:
        super().__init__(samples, samples, samples)
        self.encoding = nn.Parameter(torch.tensor([2.0, 2.0, -2.0]))
        self.amplifier = nn.Parameter(torch.zeros(_ORDER + 1))
        self.response = nn.Parameter(textbook_response(samples))
        self.microphone = nn.Parameter(torch.zeros(_ORDER + 1))
        self.float()

    def fit_groups(self, rate: float) -> list[dict[str, object]]:
        """Learn the impulse response slowly: least squares has already found it."""
        others = [p for name, p in self.named_parameters() if name != "response"]
        return [{"params": [self.response], "lr": 0.1 * rate}, {"params": others, "lr": rate}]

    @torch.no_grad()
    def prepare(self, x: Tensor, theta: Tensor, y: Tensor) -> None:
        """Take the impulse response from least squares over all rows, at the curves as they are."""
        force = self._force(x, theta).double()
        heard = ((2 * y - 1) * _FULL_SCALE).double()
        self.response.copy_(least_squares_response(force, heard))

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Predict y (rows, samples), normalised."""
        z = self._force(x, theta) @ convolution(self.response)
        soft = torch.tanh(_MICROPHONE * z) / _MICROPHONE
        heard = soft + polynomial(self.microphone, torch.tanh(z / 2))  # bounded: it extrapolates
        return (heard / _FULL_SCALE + 1) / 2

    def _force(self, x: Tensor, theta: Tensor) -> Tensor:
        u = (self.encoding[0] * x + self.encoding[1] * theta + self.encoding[2]).clamp(-1, 1)
        return torch.tanh(_AMPLIFIER * u) + polynomial(self.amplifier, u)
