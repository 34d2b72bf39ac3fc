"""The nonlinear circuit in numbers: the textbook model, and its departures at gap 1.

One table, not to be changed to move an accuracy.
Source: the project's design study of a driven resonator with two diodes and a transistor. Its
"mild" circuit is the textbook here, its "strong" one the device at gap 1, with the study's
converters, drift and noise. The study's list of what such a bench departs by gives the kinds of
the rest (component tolerance 1-10 %, slow output amplifier, Early effect, trigger jitter); the
sizes within it are ours: modest ones, settled before any training.

Units: time in samples of 1 us; voltages and currents relative (a drive of 1 is 10 V at the output,
a response of 3 is 10 V at the input). `N` marks a unit-normal number drawn once per device.
"""

from dataclasses import dataclass

SUBSTEPS = 4  # of the integration, per sample
DRIVE_FULL_V = 10.0  # drive 1
RESPONSE_UNIT_V = 10.0 / 3.0  # response 1
RESPONSE_FULL = 3.0
OUTPUT_SD = 0.5  # of the response to uniformly random drives, as the amplifier is set
KNEE = 0.5  # current at which the transistor opens
KNEE_SLOPE = 5.0
CONDUCTANCE_MOST = 20.0  # a steeper diode needs more steps a sample; only gaps near 3 come there


@dataclass(frozen=True)
class Textbook:
    """The circuit as drawn: what gap 0 is, and what the unfitted twin assumes."""

    resonance: float = 0.3  # rad per sample: 48 kHz
    quality: float = 15.0
    drive: float = 1.6
    conductance: float = 1.2  # of the forward diode, above its threshold
    width: float = 0.2  # of both diodes' thresholds
    threshold: float = 0.3
    reverse_threshold: float = 0.75
    collector: float = 0.6


@dataclass(frozen=True)
class Factors:
    """Device over textbook at gap 1; at gap g the factor is this to the power of g."""

    quality: float = 10.0 / 15.0
    conductance: float = 3.0 / 1.2
    width: float = 0.12 / 0.2
    collector: float = 1.5 / 0.6


@dataclass(frozen=True)
class Tolerances:
    """Spread of the specimens: each value is multiplied by exp(gap * tolerance * N)."""

    resonance: float = 0.02
    quality: float = 0.05
    conductance: float = 0.1
    threshold: float = 0.03
    reverse_threshold: float = 0.03


@dataclass(frozen=True)
class Departures:
    """What the device at gap 1 adds to the textbook; every entry is multiplied by the gap."""

    settling: float = 0.2  # time constant of the output amplifier, samples
    early: float = 0.1  # collector current times 1 + 0.1 v
    dac_step: float = 2.0 / 4096  # of the drive: 12 bits
    adc_step: float = 6.0 / 4096  # of the response: 12 bits
    drift: float = 0.01  # d, below
    drift_period_s: float = 1000.0  # a million rows of 1 ms (not scaled)


@dataclass(frozen=True)
class Drift:
    """By which multiple of d sin(rate * phase + offset) a value changes; one period a phase."""

    resonance: tuple[float, float, float] = (0.5, 1.0, 0.0)
    drive: tuple[float, float, float] = (0.5, 1.7, 0.0)
    conductance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    threshold: tuple[float, float, float] = (-1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Noise:
    """Random errors; every entry is multiplied by the noise factor."""

    row: float = 0.005  # response times 1 + 0.005 N
    sample: float = 0.01  # of the response, every sample
    jitter: float = 0.02  # of the trigger: sd, samples (20 ns)


TEXTBOOK = Textbook()
FACTORS_1 = Factors()
TOLERANCES_1 = Tolerances()
GAP_1 = Departures()
DRIFT_1 = Drift()
NOISE_1 = Noise()
