"""Rows for drivers and systems, good and bad, and the guises that arrays come in."""

from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Rows = np.ndarray[Any, np.dtype[np.float64]]


def good_series(rng: Rng, rows: int, samples: int, peak: float) -> Rows:
    """Return quiet rows; in some of them single values go up to the peak and not beyond."""
    drive = rng.uniform(-0.15, 0.15, (rows, samples)) * peak
    at = rng.integers(1, samples - 1, rows)
    some = np.flatnonzero(rng.random(rows) < 0.3)
    for shift, height in ((-1, 0.5), (0, 1.0), (1, 0.5)):  # in steps, for the sake of the slew
        drive[some, at[some] + shift] = height * peak * (1 - 2 * (some % 2))
    drive[rng.random(drive.shape) < 0.01] = rng.choice([0.0, -0.0, 5e-324, -5e-324])
    return drive


def good_values(rng: Rng, shape: tuple[int, int], low: float, high: float) -> Rows:
    """Return values of the whole range, both ends included."""
    values = rng.uniform(low, high, shape)
    ends = rng.random(shape) < 0.01
    values[ends] = rng.choice([low, high], size=int(ends.sum()))
    return values


def beyond(rng: Rng, low: float, high: float) -> float:
    """Return one value that is outside [low, high], often by as little as there is."""
    span = high - low
    choice: float = rng.choice(
        [
            np.nextafter(high, np.inf),
            np.nextafter(low, -np.inf),
            high + 5.5e-5,  # with four decimals written a digit further
            low - 5.5e-5,
            high + 4e-5,  # with four decimals perhaps written as the limit itself
            low - 4e-5,
            high + span * rng.random(),
            low - span * rng.random(),
            1e308,
            -1e308,
            np.inf,
            -np.inf,
            np.nan,
        ]
    )
    return float(choice)


def spoil(rng: Rng, values: Rows, low: float, high: float) -> Rows:
    """Return rows in which one row, some or all have a value outside [low, high]."""
    spoilt = values.copy()
    rows = len(spoilt)
    share = rng.choice([0.0, 0.5, 1.0, 1.0])
    which = rng.random(rows) < share
    which[rng.integers(rows)] = True
    for row in np.flatnonzero(which):
        spoilt[row, rng.integers(spoilt.shape[1])] = beyond(rng, low, high)
    return spoilt


class Stranger(np.ndarray):  # type: ignore[type-arg]
    """A subclass that says of every comparison what one would like to hear."""

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(i) for i in inputs]
        result = getattr(function, method)(*plain, **options)
        return np.zeros_like(result) if function in (np.less, np.greater) else result

    def min(self, *_: Any, **__: Any) -> float:
        return 0.0

    max = min


def _strided(values: Rows) -> Any:
    wide = np.full((*values.shape[:-1], 2 * values.shape[-1]), np.nan)
    wide[..., ::2] = values
    return wide[..., ::2]


# What may be handed to a driver instead of an array; all mean the same numbers.
GUISES: tuple[Callable[[Rows], Any], ...] = (
    lambda v: v,
    lambda v: v.astype(">f8"),
    lambda v: v.astype(np.float32),
    np.asfortranarray,
    _strided,
    lambda v: v[::-1][::-1],
    lambda v: v.view(Stranger),
    lambda v: memoryview(np.ascontiguousarray(v)),
    lambda v: v.tolist(),
    lambda v: v.astype(np.longdouble),
    lambda v: list(v),
)


def no_array(rng: Rng, values: Rows) -> Any:
    """Return what is to be refused whatever its values: a wrong dtype, length or shape."""
    kinds: list[Callable[[Rows], Any]] = [
        lambda v: v > 0,
        lambda v: v.astype(object),
        lambda v: v.astype(complex),
        lambda v: v.astype(str),
        lambda v: np.ma.masked_array(v, v > 0),
        lambda v: v[:, :-1],
        lambda v: np.concatenate([v, v], axis=1),
        lambda v: v[None, None],
        lambda v: v[0, 0],
        lambda v: [list(v[0]), list(v[0][:-1])],
        lambda v: None,
        lambda v: np.zeros(v.shape, "m8[s]"),
    ]
    return kinds[rng.integers(len(kinds))](np.nan_to_num(values, posinf=0.0, neginf=0.0))


def in_guise(rng: Rng, values: Rows) -> Any:
    """Return the same numbers in some guise (float32 rounds them)."""
    with np.errstate(over="ignore"):
        return GUISES[rng.integers(len(GUISES))](values)
