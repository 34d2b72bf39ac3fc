"""Handwritten digits that come with scikit-learn: a task that needs no download."""

import numpy as np
from numpy.typing import NDArray

from lab.datasets.base import Dataset

SIDE = 7
SOURCE = "UCI optical recognition of handwritten digits, test part, as in scikit-learn"


def load_digits() -> Dataset:
    """Return 1,797 digits of 49 features: 8x8 pixels of 0..16 resampled to 7x7 of 0..1.

    Each new pixel is the mean of the area it covers, so an image keeps its mean brightness.
    """
    # Imported here because scikit-learn takes a second to import and the vowels do without.
    from sklearn import datasets

    digits = datasets.load_digits()
    weights = _area_weights(digits.images.shape[1], SIDE)
    # The clip takes off the last bit that rounding adds to a wholly white area.
    images = np.clip(weights @ (digits.images / 16.0) @ weights.T, 0.0, 1.0)
    classes = tuple(str(digit) for digit in digits.target_names)
    labels = digits.target.astype(np.int64)
    return Dataset("digits", images.reshape(len(images), -1), labels, classes, None, SOURCE)


def _area_weights(old: int, new: int) -> NDArray[np.float64]:
    """Return (new, old): the share of each old pixel in each new one; every row sums to 1."""
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: NDArray[np.float64] = np.maximum(overlap, 0.0) * (new / old)
    return weights
