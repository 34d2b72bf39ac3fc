"""The simulated circuit: DAC, driven resonator with two diodes and a transistor, ADC.

A row, in order: commanded drive u (-1 to 1 for -10 to 10 V) -> DAC -> settling output amplifier
-> series resonator with two diodes across its capacitor (`circuit_kernels`) -> transistor's
collector -> amplifier -> trigger jitter and noise -> ADC. Numbers: `circuit_table`.

Every row starts at rest: the data acquisition leaves a gap between rows in which the circuit rings
down. A gap too short for that would not show here; the system refuses it.
"""

from collections import deque

import numpy as np

from drivers.mock.physics.circuit_table import (
    CONDUCTANCE_MOST,
    DRIFT_1,
    DRIVE_FULL_V,
    FACTORS_1,
    GAP_1,
    NOISE_1,
    OUTPUT_SD,
    RESPONSE_FULL,
    RESPONSE_UNIT_V,
    SUBSTEPS,
    TEXTBOOK,
    TOLERANCES_1,
)
from drivers.mock.physics.keyed_noise import KeyedNoise
from drivers.row_key import RowKey
from drivers.spec import Array

_NOISE = 1  # counter word that keeps a row's noise apart from the specimen's numbers
_OWN_STREAM = 2**63  # noise stream of rows that nobody gave a key
_OWN_ROW_TIME_S = 1e-3


class CircuitPlant:
    """One specimen of the circuit; forward and hand-written vjp, and noisy rows."""

    def __init__(
        self, *, device_seed: int = 0, gap: float = 1.0, noise: float = 1.0, seed: int = 0
    ) -> None:
        """Draw the specimen `device_seed`; `gap` 0..3, `noise` >= 0, `seed` of the noise."""
        if not 0 <= gap <= 3 or not noise >= 0:
            raise ValueError(f"gap {gap} must be in [0, 3] and noise {noise} at least 0")
        # compiled code takes half a second to import: only who simulates a circuit pays it
        from drivers.mock.physics import circuit_kernels

        self._kernels = circuit_kernels
        self.gap = gap
        self.noise = noise
        self._values = _specimen(device_seed, gap)
        self._noise = KeyedNoise(seed, _NOISE)
        self._keys: deque[RowKey] = deque()
        self._own_rows = 0
        self._offset, self._gain = 0.0, 1.0
        self._offset, self._gain = self._set_amplifier()

    # --- what the instrument sees -------------------------------------------------------------

    def announce(self, key: RowKey) -> None:
        """Give a coming row its noise stream, index and simulated time; first come, first used."""
        self._keys.append(key)

    def forget(self) -> None:
        """Drop the keys of rows that will not be played: their call was given up."""
        self._keys.clear()

    def respond(self, drive_v: Array) -> Array:
        """Play drives (rows, samples), V, and return what the ADC reads, (rows, samples), V."""
        return self.measure(drive_v, [self._next_key() for _ in drive_v])

    def _next_key(self) -> RowKey:
        if self._keys:
            return self._keys.popleft()
        self._own_rows += 1
        return RowKey(_OWN_STREAM, self._own_rows - 1, (self._own_rows - 1) * _OWN_ROW_TIME_S)

    def measure(self, drive_v: Array, keys: list[RowKey]) -> Array:
        """Return noisy, digitised rows (rows, samples), V, of drives (rows, samples), V."""
        y = self._response(drive_v, np.array([key.time_s for key in keys]))
        if self.noise:
            y = self._disturb(y, keys)
        step = self.gap * GAP_1.adc_step
        if step:
            y = np.rint(y / step) * step
        return np.clip(y, -RESPONSE_FULL, RESPONSE_FULL) * RESPONSE_UNIT_V

    def _disturb(self, y: Array, keys: list[RowKey]) -> Array:
        normal = self.noise * self._noise.rows(keys, 2 + y.shape[1])
        late = NOISE_1.jitter * normal[:, :1] * np.gradient(y, axis=1)
        return (y - late) * (1 + NOISE_1.row * normal[:, 1:2]) + NOISE_1.sample * normal[:, 2:]

    # --- the noise-free map and its adjoint ---------------------------------------------------

    def forward(self, drive_v: Array, time_s: Array) -> Array:
        """Return noise-free rows (rows, samples), V, before the ADC.

        drive_v (rows, samples), -10..10 V; time_s (rows,) for the drift.
        """
        return self._response(drive_v, time_s) * RESPONSE_UNIT_V

    def vjp(self, drive_v: Array, time_s: Array, g: Array) -> Array:
        """Return d(sum(g * forward))/d drive_v, (rows, samples), for g (rows, samples) per V.

        The DAC's rounding counts as the identity.
        """
        kernels = self._kernels
        scaled = np.ascontiguousarray(g, dtype=np.float64) * (self._gain * RESPONSE_UNIT_V)
        u, parameters = self._convert(drive_v), self._parameters(time_s)
        by_u: Array = kernels.pull_back(u, parameters, scaled, kernels.SOFTPLUS)
        return by_u / DRIVE_FULL_V

    def _response(self, drive_v: Array, time_s: Array) -> Array:
        """Return noise-free rows (rows, samples) in the table's unit."""
        kernels = self._kernels
        y: Array = kernels.play(self._convert(drive_v), self._parameters(time_s), kernels.SOFTPLUS)
        return (y - self._offset) * self._gain

    def _convert(self, drive_v: Array) -> Array:
        """Return the DAC's output (rows, samples), relative, for commanded voltages."""
        u = np.ascontiguousarray(drive_v, dtype=np.float64) / DRIVE_FULL_V
        step = self.gap * GAP_1.dac_step
        return np.rint(u / step) * step if step else u

    def _parameters(self, time_s: Array) -> Array:
        """Return the kernel's parameters (rows, 10) at the drift state of each row."""
        phase = 2 * np.pi * np.asarray(time_s) / GAP_1.drift_period_s
        values = dict(self._values)
        for name, (share, rate, offset) in vars(DRIFT_1).items():
            swing = self.gap * GAP_1.drift * share * np.sin(rate * phase + offset)
            values[name] = values[name] * (1 + swing)
        return np.stack([np.broadcast_to(v, phase.shape) for v in values.values()], axis=1)

    def _set_amplifier(self) -> tuple[float, float]:
        """Choose offset and gain as an operator would: mean 0, sd 0.5 over random drives."""
        rng = np.random.Generator(np.random.Philox(key=2022))
        drive_v = DRIVE_FULL_V * rng.uniform(-1, 1, (200, 208))
        y = self._response(drive_v, np.zeros(200))
        return float(y.mean()), float(OUTPUT_SD / y.std())


def _specimen(device_seed: int, gap: float) -> dict[str, float]:
    """Return the values of one device in the order of the kernel's columns."""
    rng = np.random.Generator(np.random.Philox(key=np.array([device_seed, 0], dtype=np.uint64)))
    values = dict(vars(TEXTBOOK))
    for name, factor in vars(FACTORS_1).items():
        values[name] *= factor**gap
    for name, tolerance in vars(TOLERANCES_1).items():
        values[name] *= float(np.exp(gap * tolerance * rng.standard_normal()))
    values["conductance"] = min(values["conductance"], CONDUCTANCE_MOST)
    settling = gap * GAP_1.settling
    return {
        "resonance": values["resonance"],
        "loss": 1 / values["quality"],
        "drive": values["drive"],
        "conductance": values["conductance"],
        "width": values["width"],
        "threshold": values["threshold"],
        "reverse_threshold": values["reverse_threshold"],
        "collector": values["collector"],
        "early": gap * GAP_1.early,
        "lag": 1 - float(np.exp(-1 / (SUBSTEPS * settling))) if settling else 1.0,
    }
