"""The circuit's equations, compiled: a loop over samples is slow in Python, and cannot be avoided.

One row is stepped at a time, so that its result does not depend on the rows beside it.

    s += lag (u - s)                    output amplifier of the DAC
    i += h (drive s - i / Q - v)        inductor; h = resonance / SUBSTEPS
    v += h (i - d(v) + d(0))            capacitor, with the diodes across it
    y  = v + 0.2 collector softplus(5 (i - 0.5)) (1 + early v)

d(v) = conductance width softplus((v - threshold) / width)
       - width softplus((-v - reverse_threshold) / width)
"""

import numpy as np

from drivers.mock.physics.circuit_table import KNEE, KNEE_SLOPE, SUBSTEPS
from drivers.mock.physics.compiled import compiled
from drivers.spec import Array

# Columns of the parameters, (rows, 10)
RESONANCE, LOSS, DRIVE, CONDUCTANCE, WIDTH, THRESHOLD, REVERSE, COLLECTOR, EARLY, LAG = range(10)

_END = 32.0  # beyond which softplus(z) is z or 0 to 1e-14
_PER_UNIT = 32


def _tabulate_softplus() -> Array:
    """Return the cubics (cells, 4) through softplus and its slope; off by 3e-10 at most.

    A quarter of the time of exp and log; the first cell, left of -_END, is zero.
    """
    z = np.linspace(-_END, _END, round(2 * _END) * _PER_UNIT + 1)
    f, m = np.logaddexp(0, z), 1 / (1 + np.exp(-z)) / _PER_UNIT
    f0, f1, m0, m1 = f[:-1], f[1:], m[:-1], m[1:]
    cells = np.stack([f0, m0, 3 * (f1 - f0) - 2 * m0 - m1, 2 * (f0 - f1) + m0 + m1], axis=1)
    return np.concatenate([np.zeros((1, 4)), cells])


SOFTPLUS = _tabulate_softplus()


@compiled(inline="always")
def _softplus(z: float, table: Array) -> float:
    if z >= _END:
        return z
    x = max((z + _END) * _PER_UNIT, -1.0) + 1.0
    j = int(x)
    t = x - j
    return table[j, 0] + t * (table[j, 1] + t * (table[j, 2] + t * table[j, 3]))


@compiled(inline="always")
def _slope(z: float, table: Array) -> float:
    if z >= _END:
        return 1.0
    x = max((z + _END) * _PER_UNIT, -1.0) + 1.0
    j = int(x)
    t = x - j
    return (table[j, 1] + t * (2 * table[j, 2] + t * 3 * table[j, 3])) * _PER_UNIT


@compiled(nogil=True)
def play(u: Array, parameters: Array, table: Array) -> Array:
    """Return the response (rows, samples) to drives u (rows, samples), each row from rest."""
    rows, samples = u.shape
    y = np.empty((rows, samples))
    for r in range(rows):
        w, loss, drive, g, width, on, reverse, collector, early, lag = parameters[r]
        h = w / SUBSTEPS
        narrow = 1 / width
        forward = g * width
        at_rest = forward * _softplus(-on * narrow, table)
        at_rest -= width * _softplus(-reverse * narrow, table)
        s = 0.0
        i = 0.0
        v = 0.0
        for k in range(samples):
            for _ in range(SUBSTEPS):
                s += lag * (u[r, k] - s)
                i += h * (drive * s - i * loss - v)
                diodes = forward * _softplus((v - on) * narrow, table)
                diodes -= width * _softplus((-v - reverse) * narrow, table)
                v += h * (i - diodes + at_rest)
            branch = 0.2 * collector * _softplus(KNEE_SLOPE * (i - KNEE), table)
            y[r, k] = v + branch * (1 + early * v)
    return y


@compiled(nogil=True)
def pull_back(u: Array, parameters: Array, g_y: Array, table: Array) -> Array:
    """Return d(sum(g_y * play))/du, (rows, samples), for g_y (rows, samples)."""
    rows, samples = u.shape
    g_u = np.zeros((rows, samples))
    steps = samples * SUBSTEPS
    before_v = np.empty(steps)  # v before each step; i at the end of each sample
    end_i = np.empty(samples)
    end_v = np.empty(samples)
    for r in range(rows):
        w, loss, drive, g, width, on, reverse, collector, early, lag = parameters[r]
        h = w / SUBSTEPS
        narrow = 1 / width
        forward = g * width
        at_rest = forward * _softplus(-on * narrow, table)
        at_rest -= width * _softplus(-reverse * narrow, table)
        s = 0.0
        i = 0.0
        v = 0.0
        for k in range(samples):
            for m in range(SUBSTEPS):
                before_v[k * SUBSTEPS + m] = v
                s += lag * (u[r, k] - s)
                i += h * (drive * s - i * loss - v)
                diodes = forward * _softplus((v - on) * narrow, table)
                diodes -= width * _softplus((-v - reverse) * narrow, table)
                v += h * (i - diodes + at_rest)
            end_i[k] = i
            end_v[k] = v
        g_s = 0.0
        g_i = 0.0
        g_v = 0.0
        for k in range(samples - 1, -1, -1):
            knee = KNEE_SLOPE * (end_i[k] - KNEE)
            branch = 0.2 * collector * _softplus(knee, table)
            g_v += g_y[r, k] * (1 + branch * early)
            opening = 0.2 * collector * KNEE_SLOPE * _slope(knee, table)
            g_i += g_y[r, k] * opening * (1 + early * end_v[k])
            for m in range(SUBSTEPS - 1, -1, -1):
                v = before_v[k * SUBSTEPS + m]
                slope = g * _slope((v - on) * narrow, table)
                slope += _slope((-v - reverse) * narrow, table)
                g_i += h * g_v
                g_v *= 1 - h * slope
                g_s += h * drive * g_i
                g_v -= h * g_i
                g_i *= 1 - h * loss
                g_u[r, k] += lag * g_s
                g_s *= 1 - lag
    return g_u
