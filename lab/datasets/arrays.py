"""A user's own arrays: what is asked of them, and the data set that they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.datasets.base import Dataset, Indices
from lab.errors import DataError

ARRAY_NAMES = ("features", "labels", "groups", "test")  # of an npz archive
MOST_VALUES = 10_000_000  # rows times features
_ROWS_A_CLASS = 2  # of the training rows


@dataclass(frozen=True, eq=False)
class Arrays:
    """What a user's file holds; shapes and kinds are checked by `build_dataset`.

    features: (rows, d) numbers; columns: their names, where the file gives some. labels: (rows,)
    whole numbers or strings. groups: (rows,) the same, who produced the row, or None. test:
    (rows,) bool, the rows to be held out, or None.
    """

    features: NDArray[Any]
    labels: NDArray[Any]
    groups: NDArray[Any] | None = None
    test: NDArray[Any] | None = None
    columns: Sequence[str] | None = None


def build_dataset(arrays: Arrays, name: str, where: str) -> Dataset:
    """Return the data set of a user's arrays; `where` names the file in errors and in `source`.

    Features become float64. A column that leaves 0..1 is mapped onto it by its minimum and
    maximum over all rows, test rows included: a scale of the apparatus, not a fit; `source` says
    of how many columns. Classes are sorted, by value where all are whole numbers. Groups are
    numbered in the same order.

    Raises DataError that says where, row and column counted from 1, and why.
    """
    features = _features(arrays, where)
    rows = len(features)
    labels, classes = _codes(_column(arrays.labels, "labels", rows, where))
    test_idx = None if arrays.test is None else _test_rows(arrays.test, rows, where)
    _check_classes(labels, classes, test_idx, where)
    groups = None
    if arrays.groups is not None:
        groups, _ = _codes(_column(arrays.groups, "groups", rows, where))
    scaled, count = _scaled(features)
    source = where
    if count:
        source += (
            f"; {count} of {features.shape[1]} features mapped onto 0..1 by their minimum and "
            "maximum over all rows"
        )
    return Dataset(name, scaled, labels, classes, groups, source, test_idx)


def _features(arrays: Arrays, where: str) -> NDArray[np.float64]:
    features = arrays.features
    if features.dtype.kind not in "fiu":
        raise DataError(f"{where}: features: {features.dtype} are no real numbers")
    if features.ndim != 2 or 0 in features.shape:
        raise DataError(f"{where}: features: shape {features.shape}, not (rows, features)")
    if features.size > MOST_VALUES:
        raise DataError(
            f"{where}: features: {features.shape[0]} x {features.shape[1]} values, at most "
            f"{MOST_VALUES:,}"
        )
    with np.errstate(over="ignore"):  # a longer float that is too large becomes infinite
        numbers = features.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        row, column = wrong[0]
        place = f"column {column + 1}" if arrays.columns is None else arrays.columns[column]
        value = numbers[row, column]
        raise DataError(f"{where}: features: row {row + 1}, {place}: {value} is not finite")
    if (numbers == numbers[0]).all():
        raise DataError(f"{where}: features: every row is the same")
    return numbers


def _column(values: NDArray[Any], name: str, rows: int, where: str) -> NDArray[Any]:
    if values.dtype.kind not in "iuU":
        raise DataError(f"{where}: {name}: {values.dtype} are neither whole numbers nor strings")
    _check_length(values, name, rows, where)
    if values.dtype.kind == "U" and (values == "").any():
        raise DataError(f"{where}: {name}: row {np.flatnonzero(values == '')[0] + 1} is empty")
    return values


def _check_length(values: NDArray[Any], name: str, rows: int, where: str) -> None:
    if values.shape != (rows,):
        raise DataError(f"{where}: {name}: shape {values.shape}, but features have {rows} rows")


def _codes(values: NDArray[Any]) -> tuple[Indices, tuple[str, ...]]:
    """Return each value's number in sorted order, and the sorted values as text."""
    names, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64), tuple(str(name) for name in names)


def _test_rows(test: NDArray[Any], rows: int, where: str) -> Indices:
    if test.dtype.kind != "b":
        raise DataError(f"{where}: test: {test.dtype} are not true or false")
    _check_length(test, "test", rows, where)
    if not test.any():
        raise DataError(f"{where}: test: no row is marked; leave it out to have rows drawn")
    return np.flatnonzero(test).astype(np.int64)


def _check_classes(
    labels: Indices, classes: tuple[str, ...], test_idx: Indices | None, where: str
) -> None:
    if len(classes) == 1:
        raise DataError(f"{where}: labels: there is one class only, '{classes[0]}'")
    training = labels if test_idx is None else np.delete(labels, test_idx)
    counts = np.bincount(training, minlength=len(classes))
    if counts.min() < _ROWS_A_CLASS:
        rare = int(counts.argmin())
        which = "rows" if test_idx is None else "training rows"
        raise DataError(
            f"{where}: labels: class '{classes[rare]}' has {counts[rare]} {which}, at least "
            f"{_ROWS_A_CLASS} are needed"
        )


def _scaled(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return features in 0..1, and how many columns were mapped onto it."""
    low, high = features.min(axis=0), features.max(axis=0)
    outside = (low < 0) | (high > 1)
    scaled = features.copy()
    for column in np.flatnonzero(outside):
        scaled[:, column] = _mapped(features[:, column], low[column], high[column])
    return scaled, int(outside.sum())


def _mapped(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return values between low and high as 0 to 1; 0 where there is no range."""
    if low == high:
        return np.zeros_like(values)
    with np.errstate(over="ignore"):
        half = 1.0 if np.isfinite(high - low) else 0.5  # the range itself may be too large
    mapped: NDArray[np.float64] = (half * values - half * low) / (half * high - half * low)
    return mapped
