"""Amplitude and phase by a phase-only display: one blazed grating per column, its first order.

A column of a display in the plane where colours are apart shows a sawtooth along the other axis, of
`period` rows; a slit lets its first diffracted order pass. The depth of the sawtooth sets the
amplitude of that order, its shift sets the phase (Frumker & Silberberg, "Phase and amplitude pulse
shaping with two-dimensional phase-only spatial light modulators", J. Opt. Soc. Am. B 24, 2940
(2007)). With depth M (1: a full turn per period) and shift psi, row k of a period P shows

    phi_k = M w_k + beta,    w_k = 2 pi k / P + psi, wrapped to [-pi, pi)

and what leaves in the first order, c = sum_k exp(i (phi_k - 2 pi k / P)) / P, is a sum over a comb
of equal steps, for whole rows exactly

    c = exp(i psi) exp(i (beta - (1 - M) (delta - pi / P))) a(M),    delta = pi + min_k w_k
    a(M) = sin(pi (1 - M)) / (P sin(pi (1 - M) / P))        (P -> infinity: sinc, as in the paper)

a rises from 0 at M = 0 to 1 at M = 1, so it has an inverse (a table here). delta is what a shift
that is no whole number of rows leaves over: beta = (1 - M) (delta - pi / P), at most pi / P, takes
it back, and then c = exp(i psi) a(M) for every psi. The amplitude counts from what a full blaze of
this period gives.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.spec import Array

Levels = NDArray[Any]  # uint8 or uint16

_TABLE = 20_001  # amplitudes are then right to 1e-8


def order_amplitude(depth: Array, period: int) -> Array:
    """Return the amplitude of the first order, 0 to 1, for depths of 0 to 1 turns; any shape."""
    missing = math.pi * (1 - depth)
    safe = np.where(missing == 0, 1.0, missing)
    amplitude = np.sin(safe) / (period * np.sin(safe / period))
    return np.where(missing == 0, 1.0, np.where(depth == 0, 0.0, amplitude))


class Grating:
    """Gratings of one period, in rows; 3 or more, since two rows are symmetric."""

    def __init__(self, period: int) -> None:
        """Prepare the inverse of a(M)."""
        self.period = period
        self._depths = np.linspace(0.0, 1.0, _TABLE)
        self._amplitudes = order_amplitude(self._depths, period)

    def phases(self, amplitude: Array, phase_rad: Array) -> Array:
        """Return the phases of one period, (period, lines), rad, for fields (lines,).

        amplitude 0 to 1 (0: flat, nothing in the first order), phase_rad any.
        """
        depth = np.interp(amplitude, self._amplitudes, self._depths)
        rows = 2 * math.pi * np.arange(self.period)[:, None] / self.period
        wrapped = np.mod(rows + phase_rad + math.pi, 2 * math.pi)  # w + pi
        rest = wrapped.min(axis=0) - math.pi / self.period
        phases: Array = depth * (wrapped - math.pi) + (1 - depth) * rest
        return np.where(amplitude == 0, 0.0, phases)


def levels_of(phases: Array, levels_per_turn: int, bits: int) -> Levels:
    """Return the grey levels that show phases, of any shape, rad.

    A higher level is less phase, as slmsuite has it: level = -phase, rounded, within one turn.
    """
    levels = np.mod(-np.rint(phases * (levels_per_turn / (2 * math.pi))), levels_per_turn)
    return levels.astype(level_type(bits))


def level_type(bits: int) -> type[np.uint8] | type[np.uint16]:
    """Return the type of the grey levels of a display, as slmsuite has it."""
    return np.uint8 if bits <= 8 else np.uint16
