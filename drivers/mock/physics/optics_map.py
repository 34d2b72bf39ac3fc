"""The noise-free map of the simulated optics, and its hand-written adjoint.

Commanded relative field r per pixel (real, -0.5 to 1) -> DAC -> per-pixel gain, offset, ripple and
efficiency curve -> pixel cross-talk -> laser envelope, spectral phase and pulse energy -> E(z) ->
second harmonic S(Omega) = (E * E)(Omega) times the phase-matching sinc -> |S|^2 through the
spectrometer's line -> depletion -> soft saturation of the detector. Numbers: `optics_table`; a
declared drift: `optics_drift`. The second harmonic of a shaped pulse as an auto-convolution:
Wright et al., Nature 601, 549 (2022), and any text on nonlinear optics.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.mock.physics.optics_drift import DeclaredDrift
from drivers.mock.physics.optics_table import (
    CENTRE_THZ,
    FIELD_LOW,
    GAP_1,
    HALF_WIDTH_THZ,
    PIXELS,
    SPEED_OF_LIGHT_M_S,
    TEXTBOOK,
    UNIT_W,
)
from drivers.spec import Array

Complex = NDArray[np.complex128]

_FFT = 200  # the auto-convolution of 100 pixels has 199 points
_SUMS = 2 * PIXELS - 1
_PIXEL = np.arange(PIXELS)
_Z = (_PIXEL - (PIXELS - 1) / 2) / (PIXELS / 2)
_OMEGA = (np.arange(_SUMS) - (PIXELS - 1)) / (PIXELS / 2)
_MONITOR_M = np.linspace(773.365e-9, 776.635e-9, 101)[1::2]  # averaged for the depletion
_PHASE_ROUNDING = 1e-5  # rad


@dataclass(frozen=True)
class _Specimen:
    """The random numbers that make one device differ from the next, (pixels,) each."""

    gain: Array
    offset: Array
    envelope: Array
    phase: Array


def _draw_specimen(device_seed: int) -> _Specimen:
    rng = np.random.Generator(np.random.Philox(key=np.array([device_seed, 0], dtype=np.uint64)))
    return _Specimen(*rng.standard_normal((4, PIXELS)))


class OpticalMap:
    """One specimen of the optical bench without noise: `forward` and its `vjp`."""

    def __init__(
        self, *, device_seed: int = 0, gap: float = 1.0, drift: DeclaredDrift | None = None
    ) -> None:
        """Draw the specimen `device_seed`; `gap` 0..3.

        drift: beside the table's own; rows of a time at which it leaves no light raise ValueError.
        """
        if not 0 <= gap <= 3:
            raise ValueError(f"gap {gap} must be in [0, 3]")
        self.gap = gap
        self._drift = drift if drift is not None and drift.per_hour else None
        device = _draw_specimen(device_seed)
        self._gain = 1 + gap * GAP_1.gain_spread * device.gain
        self._offset = gap * GAP_1.offset_spread * device.offset
        self._crosstalk = _crosstalk_matrix(gap * GAP_1.crosstalk_sigma_px)
        self._laser = _laser_field(gap, device)
        self._soft = TEXTBOOK.soft_saturation + gap * GAP_1.soft_saturation
        self._depletion = (TEXTBOOK.depletion + gap * GAP_1.depletion) / TEXTBOOK.depletion_scale
        self._sigma = TEXTBOOK.line_sigma + gap * GAP_1.line_sigma
        self._axes: dict[bytes, Array] = {}
        self._responsivity = 1.0
        self._responsivity = self._set_responsivity()
        self._monitor = self._line_matrix(omega(_MONITOR_M)).mean(axis=0)

    def forward(self, field: Array, time_s: Array, wavelengths_m: Array) -> Array:
        """Return noise-free spectra (rows, points), W, before the ADC.

        field (rows, pixels) commanded relative field, -0.5..1; time_s (rows,) for the drift.
        """
        return self.intensity(field, time_s, wavelengths_m) * UNIT_W

    def vjp(self, field: Array, time_s: Array, wavelengths_m: Array, g: Array) -> Array:
        """Return d(sum(g * forward))/d field, (rows, pixels), for g (rows, points) per W.

        The DAC's rounding counts as the identity.
        """
        w, v, t, laser = self._shape(field, time_s)
        e = laser * self._mix(t)
        matching = self._phase_matching(time_s)
        s = _autoconvolve(e) * matching
        power = np.abs(s) ** 2
        raw = self._read(power, time_s, wavelengths_m)
        depletion = 1 + self._depletion * (power @ self._monitor)[:, None]
        depleted = raw / depletion
        g_depleted = g * UNIT_W / np.cosh(self._soft * depleted) ** 2
        g_raw = g_depleted / depletion
        g_depletion = -(g_depleted * depleted / depletion).sum(axis=1, keepdims=True)
        g_power = self._read_adjoint(g_raw, time_s, wavelengths_m)
        g_power = g_power + g_depletion * self._depletion * self._monitor
        g_sums = 2 * g_power * np.conj(s) * matching  # d = Re(g_sums . d autoconvolution)
        g_e = 2 * _correlate(g_sums, e)
        g_t = np.real(g_e * laser) @ self._crosstalk
        return g_t * self._shape_slope(w, v)

    def intensity(
        self,
        field: Array | Complex,
        time_s: Array,
        wavelengths_m: Array,
        shot: float | Array = 1.0,
    ) -> Array:
        """Return noise-free intensities (rows, points) in table units.

        Or (rows, 1, points) for field (rows, 1, pixels), time_s and shot (rows, 1): every row is
        then a product of its own, which sums in an order that does not depend on other rows.
        """
        _, _, t, laser = self._shape(field, time_s, shot)
        s = _autoconvolve(laser * self._mix(t)) * self._phase_matching(time_s)
        power = s.real**2 + s.imag**2
        raw = self._read(power, time_s, wavelengths_m)
        depletion = 1 + self._depletion * (power @ self._monitor)[..., None]
        return np.asarray(np.tanh(self._soft * raw / depletion) / self._soft)

    def _shape(
        self, field: Array | Complex, time_s: Array, shot: float | Array = 1.0
    ) -> tuple[Array, Array, Array | Complex, Complex]:
        """Return drive w, rippled drive v, pixel field t and laser field; (rows, pixels)."""
        real, twist = _fold_phase(field)
        u = (real - FIELD_LOW) / (1 - FIELD_LOW)
        step = self.gap * GAP_1.dac_step
        if step:
            u = np.rint(u / step) * step
        w = u * self._gain + self._offset
        v = w + self.gap * GAP_1.ripple * np.sin(2 * np.pi * w)
        blend = self.gap * GAP_1.efficiency_curve
        curve = v + blend * ((1 - np.cos(np.pi * v)) / 2 - v)
        t = FIELD_LOW + (1 - FIELD_LOW) * curve
        drift = self.gap * GAP_1.drift_amplitude * np.sin(3 * _drift_phase(time_s))
        laser: Complex = self._laser * (shot + drift)[..., None]
        if self._drift is not None:
            laser = laser * self._drift.on_laser(time_s, np.asarray(_Z, dtype=np.float64))
        return w, v, t if twist is None else t * twist, laser

    def _mix(self, t: Array | Complex) -> NDArray[Any]:
        """Let neighbouring pixels (rows, pixels) cross-talk."""
        if np.iscomplexobj(t):  # twice a real product: a complex one would convert the matrix
            mixed: Complex = t.real @ self._crosstalk.T + 1j * (t.imag @ self._crosstalk.T)
            return mixed
        return np.asarray(t @ self._crosstalk.T)

    def _shape_slope(self, w: Array, v: Array) -> Array:
        """Return dt/d field at the shaper's inner values w and v."""
        blend = self.gap * GAP_1.efficiency_curve
        curve = 1 + blend * (np.pi * np.sin(np.pi * v) / 2 - 1)
        ripple = 1 + self.gap * GAP_1.ripple * 2 * np.pi * np.cos(2 * np.pi * w)
        return np.asarray(curve * ripple * self._gain)

    def _phase_matching(self, time_s: Array) -> Array:
        """Return the phase-matching factor (rows, sums) at the drift state of each row."""
        drift = 2 / 100 * GAP_1.drift_shift_px * np.sin(_drift_phase(time_s))
        centre = self.gap * (GAP_1.phase_matching_shift + drift)
        # 1e-20 keeps 0 / 0 out where a detuning vanishes
        s = np.pi * self.gap * GAP_1.phase_matching * (_OMEGA - centre[..., None]) + 1e-20
        return np.asarray(np.sin(s) / s)

    def _read(self, power: Array, time_s: Array, wavelengths_m: Array) -> Array:
        """Return what the spectrometer makes of powers (rows, sums): (rows, points)."""
        lines = self._line_matrix(omega(wavelengths_m))
        if self._drift is None:
            return np.asarray(power @ lines.T)
        weights = self._drift.on_axis(time_s, _OMEGA, self._sigma)
        return np.asarray(self._responsivity * ((power * weights) @ lines.T) / (weights @ lines.T))

    def _read_adjoint(self, g: Array, time_s: Array, wavelengths_m: Array) -> Array:
        """Return the adjoint of `_read`, (rows, sums), of g (rows, points)."""
        lines = self._line_matrix(omega(wavelengths_m))
        if self._drift is None:
            return np.asarray(g @ lines)
        weights = self._drift.on_axis(time_s, _OMEGA, self._sigma)
        return np.asarray((self._responsivity * g / (weights @ lines.T)) @ lines * weights)

    def _line_matrix(self, omega: Array) -> Array:
        """Return the spectrometer's response (points, sums), responsivity included; cached."""
        key = omega.tobytes()
        if key not in self._axes:
            line = np.exp(-((omega[:, None] - _OMEGA) ** 2) / (2 * self._sigma**2))
            self._axes[key] = self._responsivity * line / line.sum(axis=1, keepdims=True)
        return self._axes[key]

    def _set_responsivity(self) -> float:
        """Choose the detector's sensitivity as an operator would, so that bright rows fit.

        The 99.5 % quantile of the spectra's means over uniformly random rows is 0.5, before
        depletion and saturation.
        """
        rng = np.random.Generator(np.random.Philox(key=2022))
        field = FIELD_LOW + (1 - FIELD_LOW) * rng.random((1000, PIXELS))
        _, _, t, laser = self._shape(field, np.zeros(1000))
        s = _autoconvolve(laser * self._mix(t)) * self._phase_matching(np.zeros(1))
        raw = np.abs(s) ** 2 @ self._line_matrix(omega(_MONITOR_M)).T
        self._axes.clear()
        return float(0.5 / np.quantile(raw.mean(axis=1), 0.995))


def is_real(field: Array | Complex) -> NDArray[np.bool_]:
    """Say where a field is real but for the wire's rounding of pi to 3.1416."""
    return np.asarray(np.abs(field.imag) <= _PHASE_ROUNDING * np.abs(field))


def _fold_phase(field: Array | Complex) -> tuple[Array, Complex | None]:
    """Split a field into a signed real amplitude and the remaining phase factor (|phase|<=pi/2).

    No phase factor where the whole field is real.
    """
    if not np.iscomplexobj(field):
        return np.asarray(field, dtype=np.float64), None
    amplitude = np.copysign(np.abs(field), field.real)
    if is_real(field).all():
        return amplitude, None
    return amplitude, np.divide(field, amplitude, out=np.ones_like(field), where=amplitude != 0)


def _laser_field(gap: float, device: _Specimen) -> Complex:
    """Return the laser's complex field at each pixel, (pixels,)."""
    envelope = np.exp(-((_Z - gap * GAP_1.envelope_shift) ** 2) / TEXTBOOK.envelope_width)
    ripple = GAP_1.envelope_ripple * np.cos(2 * np.pi * _PIXEL / 17.3 + 1) * np.cos(0.71 * _PIXEL)
    envelope *= 1 + gap * (ripple + GAP_1.envelope_spread * device.envelope)
    phase = (TEXTBOOK.chirp2_rad * _Z**2 + TEXTBOOK.chirp3_rad * _Z**3) * (1 + gap * GAP_1.chirp)
    phase += gap * GAP_1.phase_spread_rad * device.phase
    return np.asarray(envelope * np.exp(1j * phase))


def _crosstalk_matrix(sigma_px: float) -> Array:
    """Return the pixel cross-talk (to, from), rows normalised; the identity for sigma 0."""
    if sigma_px == 0:
        return np.eye(PIXELS)
    kernel = np.exp(-((_PIXEL[:, None] - _PIXEL) ** 2) / (2 * sigma_px**2))
    return np.asarray(kernel / kernel.sum(axis=1, keepdims=True))


def _autoconvolve(e: Complex) -> Complex:
    """Return sum_a e_a e_(j-a), (rows, sums), of fields (rows, pixels)."""
    return np.fft.ifft(np.fft.fft(e, _FFT) ** 2)[..., :_SUMS]


def _correlate(g: Complex, e: Complex) -> Complex:
    """Return sum_j g_j e_(j-a), (rows, pixels): the adjoint (transposed) of a convolution by e."""
    spectrum = np.fft.fft(g[:, ::-1], 2 * _FFT) * np.fft.fft(e, 2 * _FFT)
    return np.fft.ifft(spectrum)[:, _SUMS - PIXELS : _SUMS][:, ::-1]


def _drift_phase(time_s: Array) -> Array:
    return 2 * np.pi * time_s / GAP_1.drift_period_s


def omega(wavelengths_m: Array) -> Array:
    """Return second-harmonic detunings in half widths for wavelengths in m."""
    return (SPEED_OF_LIGHT_M_S / wavelengths_m * 1e-12 - 2 * CENTRE_THZ) / HALF_WIDTH_THZ
