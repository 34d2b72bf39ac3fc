"""The oscillating plate in numbers: the textbook model, and its departures at gap 1.

One table, not to be changed to move an accuracy.
Source: the project's design study of an oscillating plate (its device "B"): 20 modes, log-spaced
from 0.004 to 0.25 cycles a sample within 10 %, quality factors 3 to 8, modal cubic 0.02, a soft
clip on either side, noise of 2 % and 1 %, 12-bit converters, drift of gain 2 % and frequencies
0.2 %. Its magnitudes follow what a driven plate shows: mode frequencies off by 0.2-1 % and damping
by 20-50 % with mounting and temperature, 30-50 dB of room noise, a latency off by up to a sample.

Signals are in units in which the commanded drive is -1 to 1 and the microphone's signal has a
standard deviation of 0.5 for evenly distributed random drives. `N` marks a unit-normal, `U` an
evenly distributed number, drawn once per device and mode.
"""

from dataclasses import dataclass

SAMPLE_RATE_HZ = 48_000.0
MODES = 20
LOWEST, HIGHEST = 0.004, 0.25  # cycles a sample: 192 Hz (the voice coil's mode) to 12 kHz
FULL_SCALE = 1.5  # of the microphone's converter, in the table's units
REST_SAMPLES = 4_000
"""A silence this long (83 ms) lets the plate come to rest, as far as the microphone can tell."""


@dataclass(frozen=True)
class Textbook:
    """The nominal plate: what gap 0 is, and what the unfitted twin assumes.

    A linear plate whose modes lose energy in the metal alone, driven at one corner and heard at
    the opposite one (every mode as loud, with alternating sign); a symmetric amplifier that clips
    softly, and a microphone that does.
    """

    quality: float = 8.0  # every mode decays by exp(-w / (2 quality)) a sample
    amplifier: float = 0.8  # force = tanh(0.8 u)
    microphone: float = 0.8  # y = tanh(0.8 z) / 0.8


@dataclass(frozen=True)
class Departures:
    """What the device at gap 1 adds to the textbook; every entry is multiplied by the gap."""

    frequency: float = 0.1  # f (1 + 0.1 U), U in [-1, 1]
    damping: float = 5 / 3  # w / (2 quality) (1 + 5/3 U), U in [0, 1]: qualities 3 to 8
    driving: float = 0.5  # 1 + 0.5 N: how well the speaker drives a mode
    hearing: float = 0.5  # 1 + 0.5 N: how well the microphone hears it
    stiffening: float = 0.02  # of every mode, times the sum of all modes' squares
    amplifier: float = 0.1
    amplifier_offset: float = 0.1  # force = tanh(a (u + 0.1)) - tanh(0.1 a)
    microphone_even: float = 0.1  # y += 0.1 z^2 / (1 + z^2)
    delay: float = 0.15  # samples: 0.15 (1 + sin(w + 1))
    dac_step: float = 2 / 4095  # of u in [-1, 1]
    adc_step: float = 2 / 4095  # of full scale -1 to 1
    drift_frequency: float = 0.002  # all frequencies (1 + 0.002 sin w)
    drift_gain: float = 0.02  # 1 + 0.02 sin 1.7 w
    drift_period_s: float = 1e4  # w = 2 pi t / period: 100,000 rows of 0.1 s (not scaled)


@dataclass(frozen=True)
class Noise:
    """Random errors of each row; every entry is multiplied by the noise factor."""

    room: float = 0.02  # per sample: 4 % of the signal's standard deviation
    gain: float = 0.01  # 1 + 0.01 N per row


STIFFENING_AT_MOST = 0.5
"""Share of a mode's stiffness at which stiffening saturates; keeps every gap stable."""

TEXTBOOK = Textbook()
GAP_1 = Departures()
NOISE_1 = Noise()
