"""Has a device changed? Two means of repeated measurements, and how surprising their distance is.

The outputs of one row often scatter together (a laser's pulse energy moves them all), so that as
many outputs are not as many independent numbers. The squared distance of two means of vectors with
covariance S has the mean c tr(S); with Pearson's three moments (Imhof, Biometrika 48, 419, 1961) it
is distributed about as c (tr(S) + sqrt(tr(S^2) / h) (chi2(h) - h)), h = tr(S^2)^3 / tr(S^3)^2. The
traces come from few vectors without bias, as means over pairs and triples of different ones. What
is left is an F of h degrees of freedom, which the transformation of Wilson and Hilferty makes a
standard normal number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drivers.spec import Array


@dataclass(frozen=True)
class Change:
    """How far apart two means are.

    relative: the root mean square of the difference beyond what scatter explains, over that of the
    first mean; None where the first is 0. sigma: how surprising it is, as a normal number's
    distance in standard deviations, negative where the means are nearer than scatter lets expect;
    None where nothing scatters. An unchanged device gives more than 3 in at most 1 % of the cases.
    """

    relative: float | None
    sigma: float | None


@dataclass(frozen=True)
class Scatter:
    """How repeated vectors scatter.

    variance: sum over the values of the variance of one vector. degrees: repetitions that tell it,
    less the means taken. common: share of it that few independent numbers, `dimensions`, stand
    for; a standard error is added, for a share that is taken too small raises false alarms.
    """

    variance: float
    degrees: int
    common: float
    dimensions: float


def scatter(groups: Sequence[Array]) -> Scatter:
    """Return the scatter of vectors (repetitions, values) around the mean of their group.

    Raises ValueError with fewer than 3 repetitions beyond the groups' number.
    """
    vectors = np.concatenate([_contrasts(group) for group in groups])
    n, most = vectors.shape
    if n < 3:
        raise ValueError(
            f"{n + len(groups)} repetitions in {len(groups)} groups: 3 more are needed"
        )
    gram = vectors @ vectors.T
    variance = float(np.trace(gram)) / n
    if variance == 0:
        return Scatter(0.0, n, 1.0, 1.0)
    pairs = gram / variance
    np.fill_diagonal(pairs, 0.0)
    second = float((pairs**2).sum()) / (n * (n - 1))
    second = float(np.clip(second, 1 / most, 1))
    third = float(np.trace(pairs @ pairs @ pairs)) / (n * (n - 1) * (n - 2))
    third = float(np.clip(third, second**2, second**1.5))
    dimensions = second**3 / third**2
    common = math.sqrt(second * dimensions) * (1 + math.sqrt(2 / n))
    return Scatter(variance, n, min(1.0, common), dimensions)


def _contrasts(group: Array) -> Array:
    """Return independent vectors (repetitions - 1, values) that scatter alike, around 0."""
    count = np.arange(1, len(group))[:, None]
    before = np.cumsum(group, axis=0)[:-1] / count
    found: Array = (group[1:] - before) * np.sqrt(count / (count + 1))
    return found


def change(before: Array, after: Array, of: Scatter, variance: float) -> Change:
    """Compare two means (values,); variance: what scatter lets expect of their squared distance.

    of: how what was averaged scatters.
    """
    distance = float(np.square(after - before).sum())
    size = float(np.square(before).sum())
    relative = math.sqrt(max(0.0, distance - variance) / size) if size > 0 else None
    if variance == 0:
        return Change(relative, 0.0 if distance == 0 else None)
    ratio = 1 + (distance / variance - 1) / of.common
    degrees = of.dimensions * of.degrees
    return Change(relative, _normal(max(0.0, ratio), of.dimensions, degrees))


def _normal(ratio: float, first: float, second: float) -> float:
    """Return the standard normal number that is as rare as an F of these degrees of freedom."""
    a, b = 2 / (9 * first), 2 / (9 * second)
    root = math.cbrt(ratio)
    return (root * (1 - b) - (1 - a)) / math.sqrt(b * root**2 + a)
