"""The cosine between a known direction and a gradient seen through noisy probes, with its interval.

Measured are s, the gradient t's component along the known unit direction u, and its components
along K orthonormal directions drawn at random from the d dimensions orthogonal to u. Only the
remainder r = |t - (t.u) u| has to be guessed from these few:

    r^2 = d/K sum_k (s_k^2 - noise variance),    cosine = s / sqrt(s^2 + r^2).

So a cosine near 1 is known well however roughly r is: its error is cos sin^2 dr/r, where random
directions of the whole space would leave cos dr/r. Without noise sum_k s_k^2 / r^2 is distributed
as Beta(K/2, (d - K)/2): its relative variance, 2 (d - K) / (K (d + 2)), is that of K independent
normal directions, 2/K, times about 1 - K/d, for orthogonal directions see nothing twice.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.spec import Array

_DRAWS = 4000
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Components:
    """What the probes say, in loss per unit of parameter.

    along: s, the mean of the probes along u; along_variance: of s, by noise.
    across: (K,), the components along the orthonormal directions; across_variance: of each.
    dimensions: d, how many directions are orthogonal to u, at least K.
    freedom: degrees of freedom of the noise's estimate, inf where the variances are exact.
    """

    along: float
    along_variance: float
    across: Array
    across_variance: float
    dimensions: int
    freedom: float

    @property
    def norm(self) -> float:
        """Get the estimate of |t|."""
        return math.hypot(self.along, math.sqrt(self._remainder_squared()))

    @property
    def cosine(self) -> float:
        """Get the estimate of the cosine, -1 to 1; 0 where nothing but zeros was measured."""
        return self.along / self.norm if self.norm else 0.0

    def _remainder_squared(self) -> float:
        """Return the estimate of r^2, 0 where the noise alone explains the probes."""
        mean = float(np.mean(self.across**2)) - self.across_variance
        return self.dimensions * max(0.0, mean)


def cosine_interval(seen: Components) -> tuple[float, float]:
    """Return the ends of the 95 % interval of the cosine; (-1, 1) where nothing is known.

    A fiducial interval by 4000 draws, always the same ones: s from its normal law, r by inverting
    the distribution of sum_k s_k^2 (Beta for the choice of directions, noise on top) at a uniform
    number, both with a noise variance from its chi-square law; the ends are quantiles of the drawn
    cosines. A draw in which the noise explains the probes has r = 0. Raises ValueError for fewer
    than two directions across.
    """
    if len(seen.across) < 2:
        raise ValueError(f"{len(seen.across)} probes across the gradient, at least 2 are needed")
    rng = np.random.default_rng(0)
    noise = np.ones(_DRAWS)
    if np.isfinite(seen.freedom):
        noise = np.sqrt(seen.freedom / rng.chisquare(seen.freedom, _DRAWS))
    s = seen.along + math.sqrt(seen.along_variance) * noise * rng.standard_normal(_DRAWS)
    r = _draw_remainders(seen, noise, rng)
    norm = np.hypot(s, r)
    cosines = np.divide(s, norm, out=np.zeros(_DRAWS), where=norm > 0)
    if not norm.any():
        return -1.0, 1.0
    low, high = np.quantile(cosines, _TAILS)
    return float(low), float(high)


def _draw_remainders(seen: Components, noise: Array, rng: np.random.Generator) -> Array:
    """Return draws of r: where P(sum_k s_k^2 <= measured | r), falling in r, meets a uniform.

    With beta the share of r^2 that K directions catch, sum_k s_k^2 is
    (r sqrt(beta) + sd z)^2 + sd^2 chi^2_(K-1): at most what was measured while r is between two
    roots, `first` and `last`, so that every draw of (beta, z, chi^2) serves all r.
    """
    count, draws = len(seen.across), len(noise)
    caught = _draw_caught(count, seen.dimensions, draws, rng)
    sd = math.sqrt(seen.across_variance) * noise
    left = float(np.sum(seen.across**2)) - sd**2 * rng.chisquare(count - 1, draws)
    possible = left >= 0
    root = np.sqrt(left, where=possible, out=np.zeros(draws))
    shift = sd * rng.standard_normal(draws)
    first = np.sort(((-root - shift) / caught)[possible])
    last = np.sort(((root - shift) / caught)[possible])
    candidates: NDArray[np.float64] = np.concatenate([[0.0], last[last > 0]])
    inside = np.searchsorted(first, candidates, "right") - np.searchsorted(last, candidates, "left")
    falling = np.minimum.accumulate(inside / draws)
    at = np.searchsorted(-falling, -rng.random(draws), "left")
    return candidates[np.minimum(at, len(candidates) - 1)]


def _draw_caught(count: int, dimensions: int, draws: int, rng: np.random.Generator) -> Array:
    """Return draws of the square root of the share of r^2 that lies in `count` directions."""
    if count >= dimensions:
        return np.ones(draws)
    return np.sqrt(rng.beta(count / 2, (dimensions - count) / 2, draws))
