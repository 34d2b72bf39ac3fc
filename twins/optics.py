"""The structured twin of the optical bench: textbook second-harmonic optics, learned calibration.

Unfitted, it is the textbook: a linear shaper, no cross-talk, a Gaussian laser spectrum with the
nominal chirp, an ideally thin crystal, a Gaussian spectrometer line, weak
depletion and a soft detector. Every one of these is a parameter that a fit can move; what the
textbook has no word for (drift, noise, the DAC) the twin cannot express.

Units: frequencies in half widths of the shaped band (0.5 THz) from the laser's centre
(193.4145 THz), intensities so that an undepleted random row peaks at about 0.5; the detector's
full scale is 1.6.
"""

import math

import torch
from torch import Tensor, nn

from twins.base import DigitalTwin, interleave

_PIXELS = 100
_SUMS = 2 * _PIXELS - 1
_CENTRE_THZ = 193.4145
_HALF_WIDTH_THZ = 0.5
_FULL_SCALE = 1.6
# Nominal signal per unit of |S|^2, from the textbook model below without depletion and saturation:
# over 1000 rows of uniformly random fields in -0.5..1, the 99.5 % quantile of the spectra's means
# is 0.5. That is how the bench's own detector is set; a test compares the two.
_RESPONSIVITY = 0.023480120041150562
_FIELD_LOW = -0.5
_SPEED_OF_LIGHT_M_S = 299_792_458.0
_DEPLETION_SCALE = 0.2


def detector_detunings() -> Tensor:
    """Return Omega (50,) of the wavelengths 773.365..776.635 nm that the bench reads."""
    wavelengths_m = torch.linspace(773.365e-9, 776.635e-9, 101, dtype=torch.float64)[1::2]
    frequencies_thz = _SPEED_OF_LIGHT_M_S / wavelengths_m * 1e-12
    return (frequencies_thz - 2 * _CENTRE_THZ) / _HALF_WIDTH_THZ


class OpticsTwin(DigitalTwin):
    """Second-harmonic optics with learned calibration: x, theta, y are (rows, 50) each.

    x and theta are normalised relative field amplitudes (0 is -0.5, 1 is 1) on the even and odd
    pixels; y is the spectrometer's power over full scale.
    """

    kind = "optics-structured"

    def __init__(self) -> None:
        super().__init__(_PIXELS // 2, _PIXELS // 2, 50)
        z = (torch.arange(_PIXELS, dtype=torch.float64) - (_PIXELS - 1) / 2) / (_PIXELS / 2)
        sums = (torch.arange(_SUMS, dtype=torch.float64) - (_PIXELS - 1)) / (_PIXELS / 2)
        chirp = 0.8 * math.pi / 2
        curve = torch.tensor([_FIELD_LOW, 1 - _FIELD_LOW, 0.0, 0.0])
        self.curve = nn.Parameter(curve[:, None].repeat(1, _PIXELS))
        self.crosstalk = nn.Parameter(torch.zeros(2))
        self.envelope = nn.Parameter(torch.exp(-(z**2) / 0.81).float())
        self.phase = nn.Parameter((chirp * (z**2 + 0.5 * z**3)).float())
        self.matching = nn.Parameter(torch.ones(_SUMS))
        line = torch.exp(-((detector_detunings()[:, None] - sums) ** 2) / (2 * 0.02**2))
        self.line = nn.Parameter((line / line.sum(1, keepdim=True)).float())
        self.log_gain = nn.Parameter(torch.tensor(math.log(_RESPONSIVITY)))
        self.depletion = nn.Parameter(torch.tensor(0.1))
        self.softness = nn.Parameter(torch.tensor(1 / 3))

    def fit_groups(self, rate: float) -> list[dict[str, object]]:
        """Learn the 50 x 199 line matrix at 0.4 of the base rate: it has the most to overfit."""
        others = [p for name, p in self.named_parameters() if name != "line"]
        return [{"params": [self.line], "lr": 0.4 * rate}, {"params": others, "lr": rate}]

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Predict normalised spectra (rows, 50)."""
        u = interleave(x, theta)
        t = self.curve[0] + u * (self.curve[1] + u * (self.curve[2] + u * self.curve[3]))
        left, right = self.crosstalk[0], self.crosstalk[1]
        t = (
            t
            + left * (nn.functional.pad(t[:, :-1], (1, 0)) - t)
            + right * (nn.functional.pad(t[:, 1:], (0, 1)) - t)
        )
        e = torch.complex(
            t * (self.envelope * torch.cos(self.phase)),
            t * (self.envelope * torch.sin(self.phase)),
        )
        s = torch.fft.ifft(torch.fft.fft(e, n=2 * _PIXELS) ** 2)[:, :_SUMS]
        power = (s.real**2 + s.imag**2) * self.matching**2
        raw = nn.functional.linear(power, self.line) * self.log_gain.exp()
        depleted = raw / (1 + self.depletion * raw.mean(1, keepdim=True) / _DEPLETION_SCALE)
        return torch.tanh(self.softness * depleted) / (self.softness * _FULL_SCALE)
