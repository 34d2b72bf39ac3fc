"""MNIST, handwritten digits (LeCun, Cortes, Burges): all 70,000, with the published test rows."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lab.datasets.base import Dataset
from lab.datasets.files import DataFile, read_file
from lab.datasets.idx import parse_idx
from lab.errors import DataError

BASE_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
SOURCE = "MNIST (LeCun, Cortes, Burges)"
SIDE = 28
DIGITS = 10


def _file(name: str, size: int, sha256: str) -> DataFile:
    return DataFile(f"mnist/{name}-ubyte.gz", BASE_URL, size, sha256, gzipped=True)


# images and labels: of the training part, then of the test part; 60,000 and 10,000 digits
TRAIN = (
    _file(
        "train-images-idx3",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    _file(
        "train-labels-idx1",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
)
TEST = (
    _file(
        "t10k-images-idx3",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    _file(
        "t10k-labels-idx1",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


def load_mnist(
    folder: Path | str | None = None,
    base_url: str | None = None,
    cache: Path | str | None = None,
    *,
    halved: bool,
) -> Dataset:
    """Return the 60,000 training digits, then the 10,000 test digits, which are `test_idx`.

    halved: 196 features, each the mean of 2x2 pixels (task "mnist"); else all 784 ("mnist28").
    Features are float32, 0 (paper) to 1 (ink); files as for `lab.datasets.files.read_file`.

    Raises DataError where a file is missing, truncated, altered or cannot be downloaded.
    """
    train, test = (_read_part(part, folder, base_url, cache) for part in (TRAIN, TEST))
    images, labels = (np.concatenate(pair) for pair in zip(train, test, strict=True))
    features = halve(images) if halved else images / np.float32(255)
    return Dataset(
        "mnist" if halved else "mnist28",
        features.reshape(len(images), -1),
        labels.astype(np.int64),
        tuple(str(digit) for digit in range(DIGITS)),
        None,
        SOURCE,
        test_idx=np.arange(len(train[1]), len(labels)),
    )


def halve(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (rows, 14, 14) float32, 0 to 1: means of 2x2 pixels of (rows, 28, 28) bytes."""
    blocks = images.reshape(len(images), SIDE // 2, 2, SIDE // 2, 2)
    means: NDArray[np.float32] = blocks.sum(axis=(2, 4), dtype=np.uint16) / np.float32(4 * 255)
    return means


def _read_part(
    part: tuple[DataFile, DataFile],
    folder: Path | str | None,
    base_url: str | None,
    cache: Path | str | None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (rows, 28, 28) and labels (rows,) of the training or the test part."""
    contents = [read_file(file, folder, base_url, cache) for file in part]
    return parse_part(contents[0], contents[1], (part[0].name, part[1].name))


def parse_part(
    images: bytes, labels: bytes, names: tuple[str, str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (rows, 28, 28) and labels (rows,) of two IDX files that belong together.

    Raises DataError that names the file and what is wrong with it.
    """
    pixels, digits = parse_idx(images, names[0], 3), parse_idx(labels, names[1], 1)
    if pixels.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{names[0]}: images of {pixels.shape[1]} x {pixels.shape[2]}, not 28 x 28")
    if len(digits) != len(pixels):
        raise DataError(f"{names[1]}: {len(digits)} labels for {len(pixels)} images")
    wrong = np.flatnonzero(digits >= DIGITS)
    if len(wrong):
        raise DataError(f"{names[1]}: label {digits[wrong[0]]} of image {wrong[0]} is no digit")
    return pixels, digits
