"""The optical bench in numbers: the textbook model, and its departures at gap 1.

One table, not to be changed to move an accuracy; `docs/simulated-bench.md` tells how the detector's
scale, which is not in it, was settled.
Source: the project's design study of a second-harmonic-generation bench (its device "A"), whose
magnitudes follow what is published of such rigs: pulse-to-pulse noise 0.5-1 % rms, pulse-energy
drift 1-3 % an hour, pixel cross-talk of a few per cent, residual chirp 0.5-2 rad, envelope errors
of 3-10 %, axis shifts of 0.2-1 pixel, saturation at 12-16 bit full scale.

Spectral positions are in units of the half width of the shaped band (0.5 THz): pixel centres lie at
z = -0.99 ... 0.99 around the laser's centre, second-harmonic frequencies at Omega = -1.98 ... 1.98
around twice that. `N` marks a unit-normal number drawn once per device, per pixel.
"""

from dataclasses import dataclass

SPEED_OF_LIGHT_M_S = 299_792_458.0
PIXELS = 100
LINES_PER_PIXEL = 10
CENTRE_THZ = 193.4145  # 1550.0 nm
HALF_WIDTH_THZ = 0.5
FIELD_LOW = -0.5  # relative field amplitude at u = 0; u = 1 is amplitude 1
FULL_SCALE_W = 1.6e-6
UNIT_W = 1e-6  # one unit of the table's intensities


@dataclass(frozen=True)
class Textbook:
    """The nominal bench: what gap 0 is, and what the unfitted twin assumes.

    A Gaussian spectrum with the chirp an operator would estimate (80 % of the device's at gap 1),
    a linear shaper, an ideally thin crystal, a detector in its almost linear range.
    """

    envelope_width: float = 0.81  # exp(-z^2 / 0.81)
    chirp2_rad: float = 0.8 * 1.5707963267948966  # times z^2
    chirp3_rad: float = 0.4 * 1.5707963267948966  # times z^3
    line_sigma: float = 0.02  # spectrometer line, in Omega
    depletion: float = 0.1  # I / (1 + 0.1 mean(I) / 0.2)
    depletion_scale: float = 0.2
    soft_saturation: float = 1 / 3  # tanh(s I) / s


@dataclass(frozen=True)
class Departures:
    """What the device at gap 1 adds to the textbook; every entry is multiplied by the gap."""

    dac_step: float = 1 / 255  # of u
    gain_spread: float = 0.06  # v = u (1 + 0.06 N) + 0.03 N
    offset_spread: float = 0.03
    ripple: float = 0.05  # v += 0.05 sin(2 pi v)
    efficiency_curve: float = 1.0  # from v to (1 - cos(pi v)) / 2
    crosstalk_sigma_px: float = 0.4
    envelope_shift: float = 0.06
    envelope_ripple: float = 0.15  # x cos(2 pi k / 17.3 + 1) cos(0.71 k)
    envelope_spread: float = 0.045
    chirp: float = 0.25  # relative to the textbook's chirps
    phase_spread_rad: float = 0.15
    phase_matching: float = 0.6  # sinc(0.6 (Omega - c)); the textbook's crystal is thin
    phase_matching_shift: float = 0.08  # c, in Omega
    line_sigma: float = 0.01
    depletion: float = 0.2
    soft_saturation: float = 1 / 1.6 - 1 / 3
    adc_step: float = 1 / 4095  # of full scale
    drift_amplitude: float = 0.02  # field amplitude 1 + 0.02 sin(3 w)
    drift_shift_px: float = 0.3  # phase matching moves by 2 / 100 * 0.3 sin(w)
    drift_period_s: float = 1.5e5  # w = 2 pi t / period: 200,000 rows of 0.75 s (not scaled)


@dataclass(frozen=True)
class Noise:
    """Random errors of each row; every entry is multiplied by the noise factor."""

    amplitude: float = 0.01  # field amplitude 1 + 0.01 N per shot
    read: float = 0.002  # sd = sqrt(0.002^2 + 0.004^2 I + (0.005 I)^2)
    shot: float = 0.004
    relative: float = 0.005


@dataclass(frozen=True)
class DriftRanges:
    """What a declared drift (`RigConfig.drift_per_hour`) takes a share of; not scaled by the gap.

    Each is what a lab would watch; axis and chirp by the upper end of what the source reports:
    energy: the pulse's energy itself, what a power meter reads, which falls to nothing (the source:
        1-3 % an hour); the field goes with its root, the second harmonic with its square;
    axis_m: the spectrometer's wavelength axis, by one pixel of those that are read, two points of
        its sweep: 65.4 pm, about the width of its line (the source: shifts of 0.2-1 pixel);
    chirp_rad: quadratic spectral phase at the band's edge (the source: residual chirp 0.5-2 rad).
    """

    energy: float = 1.0
    axis_m: float = 65.4e-12
    chirp_rad: float = 2.0


TEXTBOOK = Textbook()
GAP_1 = Departures()
DRIFT_RANGES = DriftRanges()
NOISE_1 = Noise()
