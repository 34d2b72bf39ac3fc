"""The plate's modes in time, compiled: the recursion and its adjoint.

Every mode n has a displacement q and a velocity p (in units of q). A sample kicks and turns it:

    s = k / sqrt(1 + (k / most)^2),  k = stiffening * sum of q^2 over all modes
    p <- p + w (b f - s q)
    (q, p) <- decay * turn by w (q, p)
    z = sum of c p

f: the force (rows, samples); w (rows, modes) angular frequency, rad a sample; cosine and sine
(rows, modes) of the turn, times the decay; b (modes,) and c (rows, modes): how modes
are driven and heard.
Rows start at rest and do not see each other.
"""

import numpy as np

from drivers.mock.physics.compiled import compiled
from drivers.spec import Array


@compiled(fastmath=True)
def respond(
    force: Array,
    w: Array,
    cosine: Array,
    sine: Array,
    b: Array,
    c: Array,
    stiffening: float,
    most: float,
) -> Array:
    """Return z (rows, samples), what the microphone's place feels."""
    rows, samples = force.shape
    modes = len(b)
    z = np.empty((rows, samples))
    q, p = np.empty(modes), np.empty(modes)
    for r in range(rows):
        q[:] = 0.0
        p[:] = 0.0
        for t in range(samples):
            squares = 0.0
            for n in range(modes):
                squares += q[n] * q[n]
            k = stiffening * squares
            s = k / np.sqrt(1.0 + (k / most) ** 2)
            heard = 0.0
            for n in range(modes):
                kicked = p[n] + w[r, n] * (b[n] * force[r, t] - s * q[n])
                p[n] = cosine[r, n] * kicked - sine[r, n] * q[n]
                q[n] = cosine[r, n] * q[n] + sine[r, n] * kicked
                heard += c[r, n] * p[n]
            z[r, t] = heard
    return z


@compiled(fastmath=True)
def pull_back(
    force: Array,
    g: Array,
    w: Array,
    cosine: Array,
    sine: Array,
    b: Array,
    c: Array,
    stiffening: float,
    most: float,
) -> Array:
    """Return d(sum(g * z)) / d force, (rows, samples), for g (rows, samples)."""
    rows, samples = force.shape
    modes = len(b)
    g_force = np.empty((rows, samples))
    before = np.empty((samples, modes))  # q as each sample finds it
    q, p = np.empty(modes), np.empty(modes)
    g_q, g_p = np.empty(modes), np.empty(modes)
    for r in range(rows):
        q[:] = 0.0
        p[:] = 0.0
        for t in range(samples):
            squares = 0.0
            for n in range(modes):
                before[t, n] = q[n]
                squares += q[n] * q[n]
            k = stiffening * squares
            s = k / np.sqrt(1.0 + (k / most) ** 2)
            for n in range(modes):
                kicked = p[n] + w[r, n] * (b[n] * force[r, t] - s * q[n])
                p[n] = cosine[r, n] * kicked - sine[r, n] * q[n]
                q[n] = cosine[r, n] * q[n] + sine[r, n] * kicked
        g_q[:] = 0.0
        g_p[:] = 0.0
        for t in range(samples - 1, -1, -1):
            squares = 0.0
            for n in range(modes):
                squares += before[t, n] * before[t, n]
            k = stiffening * squares
            root = np.sqrt(1.0 + (k / most) ** 2)
            s = k / root
            at_force = 0.0
            at_s = 0.0
            for n in range(modes):
                heard = g_p[n] + c[r, n] * g[r, t]
                at_kicked = sine[r, n] * g_q[n] + cosine[r, n] * heard
                g_q[n] = cosine[r, n] * g_q[n] - sine[r, n] * heard - w[r, n] * s * at_kicked
                g_p[n] = at_kicked
                at_force += w[r, n] * b[n] * at_kicked
                at_s -= w[r, n] * before[t, n] * at_kicked
            g_force[r, t] = at_force
            at_square = at_s * stiffening / root**3
            for n in range(modes):
                g_q[n] += 2.0 * before[t, n] * at_square
    return g_force
