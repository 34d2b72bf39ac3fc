"""The simulated plate: amplifier, speaker, titanium plate, air, microphone.

A row, in order: commanded drive u (samples,), -1 to 1 -> DAC -> amplifier's soft clip -> force on
the modes of a thin plate (Kirchhoff's: q'' + 2 zeta w q' + w^2 q = b f, each mode solved exactly
over a sample), all of which stiffen a little with the sum of their squares -> what the microphone
hears of them -> delay of the air, a fraction of a sample -> microphone's curve -> noise -> ADC.
Numbers: `plate_table`; the recursion and its adjoint: `plate_kernel`.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drivers.mock.physics.keyed_noise import KeyedNoise
from drivers.mock.physics.plate_table import (
    FULL_SCALE,
    GAP_1,
    HIGHEST,
    LOWEST,
    MODES,
    NOISE_1,
    STIFFENING_AT_MOST,
    TEXTBOOK,
)
from drivers.row_key import RowKey
from drivers.spec import Array

_NUMBERS = 2  # keeps this physics' random numbers apart from another's
_OWN_STREAM = 2**63  # noise stream of rows that nobody gave a key
_OWN_ROW_TIME_S = 0.1


@dataclass(frozen=True)
class _Specimen:
    """The modes of one device, (modes,) each; w in rad a sample, decay per rad turned."""

    w: Array
    decay: Array
    driven: Array
    heard: Array


def _draw_specimen(device_seed: int, gap: float) -> _Specimen:
    philox = np.random.Philox(
        key=np.array([device_seed, 0], dtype=np.uint64),
        counter=np.array([0, 0, _NUMBERS, 0], dtype=np.uint64),
    )
    rng = np.random.Generator(philox)
    driven, heard = rng.standard_normal((2, MODES))
    detuned, damped = rng.uniform(-1, 1, MODES), rng.uniform(0, 1, MODES)
    number = np.arange(MODES)
    cycles = LOWEST * (HIGHEST / LOWEST) ** (number / (MODES - 1))
    return _Specimen(
        w=2 * np.pi * cycles * (1 + gap * GAP_1.frequency * detuned),
        decay=(1 + gap * GAP_1.damping * damped) / (2 * TEXTBOOK.quality),
        driven=1 + gap * GAP_1.driving * driven,
        heard=(-1.0) ** number * (1 + gap * GAP_1.hearing * heard),
    )


class OscillatingPlate:
    """One specimen of the plate; forward and hand-written vjp, and noisy rows."""

    def __init__(
        self, *, device_seed: int = 0, gap: float = 1.0, noise: float = 1.0, seed: int = 0
    ) -> None:
        """Draw the specimen `device_seed`; `gap` 0..3, `noise` >= 0, `seed` of the noise."""
        if not 0 <= gap <= 3 or not noise >= 0:
            raise ValueError(f"gap {gap} must be in [0, 3] and noise {noise} at least 0")
        self.gap = gap
        self.noise = noise
        self._noise = KeyedNoise(seed, _NUMBERS)
        self._device = _draw_specimen(device_seed, gap)
        # imported late: the compiler takes half a second that benches without a plate need not wait
        self._kernel: Any = importlib.import_module("drivers.mock.physics.plate_kernel")
        self._amplifier = TEXTBOOK.amplifier + gap * GAP_1.amplifier
        self._offset = gap * GAP_1.amplifier_offset
        self._stiffening = gap * GAP_1.stiffening
        self._even = gap * GAP_1.microphone_even
        self._gain = 1.0
        self._gain = self._set_gain()
        self._keys: list[RowKey] = []
        self._own_rows = 0

    # --- what the instrument sees -------------------------------------------------------------

    def announce(self, key: RowKey) -> None:
        """Give one of the next rows its noise stream, index and simulated time, in order."""
        self._keys.append(key)

    def play(self, drive: Array) -> Array:
        """Play rows (rows, samples), -1 to 1, each from rest; return what the microphone sends.

        (rows, samples) of full scale, with each row's drift, noise and ADC. The keys are those
        announced last: an earlier one belongs to a call that failed before it got here.
        """
        keys = self._keys[-len(drive) :]
        self._keys.clear()
        while len(keys) < len(drive):
            keys.append(RowKey(_OWN_STREAM, self._own_rows, self._own_rows * _OWN_ROW_TIME_S))
            self._own_rows += 1
        return self.measure(drive, keys)

    def measure(self, drive: Array, keys: Sequence[RowKey]) -> Array:
        """Return rows as `play` does, one key a row."""
        clean = self.forward(drive, np.array([key.time_s for key in keys]))
        normal = self._noise.rows(keys, 1 + drive.shape[1])
        gain = 1 + self.noise * NOISE_1.gain * normal[:, :1]
        heard = clean * gain + self.noise * NOISE_1.room / FULL_SCALE * normal[:, 1:]
        step = self.gap * GAP_1.adc_step
        if step:
            heard = np.rint(heard / step) * step
        return np.clip(heard, -1.0, 1.0)

    # --- the noise-free map and its adjoint ---------------------------------------------------

    def forward(self, drive: Array, time_s: Array) -> Array:
        """Return noise-free rows (rows, samples) of full scale, before the ADC.

        drive (rows, samples), -1 to 1; time_s (rows,) for the drift.
        """
        z = self._feel(drive, time_s)
        return self._hear(self._delay(z, time_s)) / FULL_SCALE

    def vjp(self, drive: Array, time_s: Array, g: Array) -> Array:
        """Return d(sum(g * forward)) / d drive, (rows, samples), for g (rows, samples).

        The DAC's rounding counts as the identity.
        """
        u = self._convert(drive)
        force, modes = self._force(u), self._modes(time_s)
        z = self._delay(self._kernel.respond(force, *modes), time_s)
        g_z = g / FULL_SCALE * self._hearing_slope(z)
        share = self._delay_samples(time_s)
        g_z[:, :-1] = g_z[:, :-1] * (1 - share) + g_z[:, 1:] * share
        g_z[:, -1:] *= 1 - share
        g_force: Array = self._kernel.pull_back(force, g_z, *modes)
        return g_force * self._force_slope(u)

    def _feel(self, drive: Array, time_s: Array) -> Array:
        force = self._force(self._convert(drive))
        z: Array = self._kernel.respond(force, *self._modes(time_s))
        return z

    def _convert(self, drive: Array) -> Array:
        step = self.gap * GAP_1.dac_step
        return np.rint(drive / step) * step if step else drive

    def _force(self, u: Array) -> Array:
        """Return the speaker's force; silence is no force."""
        a = self._amplifier
        return np.asarray(np.tanh(a * (u + self._offset)) - np.tanh(a * self._offset))

    def _force_slope(self, u: Array) -> Array:
        a = self._amplifier
        return np.asarray(a / np.cosh(a * (u + self._offset)) ** 2)

    def _modes(self, time_s: Array) -> tuple[Any, ...]:
        """Return the kernel's arguments after the force, at the drift state of each row."""
        phase = _drift_phase(time_s)
        d = self._device
        w = d.w * (1 + self.gap * GAP_1.drift_frequency * np.sin(phase))[:, None]
        decay = np.exp(-w * d.decay)
        gain = self._gain * (1 + self.gap * GAP_1.drift_gain * np.sin(1.7 * phase))
        heard = gain[:, None] * d.heard
        turn = (decay * np.cos(w), decay * np.sin(w))
        return (w, *turn, d.driven, heard, self._stiffening, STIFFENING_AT_MOST)

    def _delay(self, z: Array, time_s: Array) -> Array:
        """Delay rows (rows, samples) by a fraction of a sample; linear between samples."""
        share = self._delay_samples(time_s)
        late = z * (1 - share)
        late[:, 1:] += share * z[:, :-1]
        return late

    def _delay_samples(self, time_s: Array) -> Array:
        """Return the delay of each row, (rows, 1), 0 to 1 sample."""
        drift = 1 + np.sin(_drift_phase(time_s) + 1)
        return np.asarray(self.gap * GAP_1.delay * drift)[:, None]

    def _hear(self, z: Array) -> Array:
        soft = TEXTBOOK.microphone
        return np.asarray(np.tanh(soft * z) / soft + self._even * z**2 / (1 + z**2))

    def _hearing_slope(self, z: Array) -> Array:
        soft = TEXTBOOK.microphone
        return np.asarray(1 / np.cosh(soft * z) ** 2 + self._even * 2 * z / (1 + z**2) ** 2)

    def _set_gain(self) -> float:
        """Choose the microphone's gain as an operator would: standard deviation 0.5.

        Over 200 rows of 196 evenly distributed samples, before the microphone's curve.
        """
        rng = np.random.Generator(np.random.Philox(key=2022))
        drive = rng.uniform(-1, 1, (200, 196))
        return float(0.5 / self._feel(drive, np.zeros(len(drive))).std())


def _drift_phase(time_s: Array) -> Array:
    return 2 * np.pi * time_s / GAP_1.drift_period_s
