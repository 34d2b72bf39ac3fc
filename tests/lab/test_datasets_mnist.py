"""MNIST from its files, and files that are not what they should be."""

import gzip
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from lab.datasets import load, split
from lab.datasets.idx import parse_idx
from lab.datasets.mnist import halve, parse_part
from lab.errors import ConfigError, DataError


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


IMAGES = idx(np.zeros((3, 28, 28)))
LABELS = idx(np.array([0, 9, 4]))
NAMES = ("images", "labels")


@pytest.fixture(scope="module")
def mnist(data_folder):
    return load("mnist", folder=data_folder)


@pytest.fixture(scope="module")
def mnist28(data_folder):
    return load("mnist28", folder=data_folder)


@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=3)))
def test_an_idx_file_is_read_as_it_was_written(array):
    np.testing.assert_array_equal(parse_idx(idx(array), "file", array.ndim), array)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "images: 0 bytes are no IDX header of 16 bytes"),
        (IMAGES[:15], "images: 15 bytes are no IDX header of 16 bytes"),
        (b"\0\0\x0d\3" + IMAGES[4:], "images: begins with 00000d03, .* with 00000803"),
        (b"\1\0\x08\3" + IMAGES[4:], "images: begins with 01000803"),
        (LABELS + bytes(9), "images: begins with 00000801"),
        (IMAGES[:-1], "images: states 3 x 28 x 28 values and has 2351"),
        (IMAGES + b"\0", "images: states 3 x 28 x 28 values and has 2353"),
        (idx(np.zeros((3, 27, 28))), "images: images of 27 x 28, not 28 x 28"),
    ],
)
def test_an_image_file_that_cannot_be_read_is_named_with_the_reason(content, reason):
    with pytest.raises(DataError, match=reason):
        parse_part(content, LABELS, NAMES)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LABELS[:-1], "labels: states 3 values and has 2"),
        (idx(np.zeros(4)), "labels: 4 labels for 3 images"),
        (idx(np.array([0, 10, 3])), "labels: label 10 of image 1 is no digit"),
    ],
)
def test_a_label_file_that_cannot_be_read_is_named_with_the_reason(content, reason):
    with pytest.raises(DataError, match=reason):
        parse_part(IMAGES, content, NAMES)


def test_halving_takes_the_mean_of_two_by_two_pixels():
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 4:6, 10:12] = [[255, 51], [0, 102]]
    image[0, 26:, 26:] = 255
    halved = halve(image)
    assert halved[0, 2, 5] == np.float32((255 + 51 + 0 + 102) / (4 * 255))
    assert halved[0, 13, 13] == 1.0
    assert np.count_nonzero(halved) == 2


def test_all_images_and_the_published_counts(mnist):
    assert (mnist.features.shape, mnist.features.dtype) == ((70_000, 196), np.float32)
    assert (mnist.features.min(), mnist.features.max()) == (0.0, 1.0)
    assert mnist.classes == tuple("0123456789")
    # the numbers of each digit, as in the publisher's files
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist.labels[:60_000]).tolist() == train
    assert np.bincount(mnist.labels[60_000:]).tolist() == test
    assert mnist.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.labels[60_000:60_005].tolist() == [7, 2, 1, 0, 4]


def test_a_feature_is_the_mean_of_its_four_pixels(mnist, mnist28):
    # the first image's bytes in rows 6 and 7, columns 8 and 9 of the published file
    pixels = np.rint(mnist28.features[0].reshape(28, 28) * 255)
    assert pixels[6:8, 8:10].tolist() == [[30, 36], [238, 253]]
    assert mnist.features[0].reshape(14, 14)[3, 4] == np.float32(557 / 1020)
    blocks = mnist28.features[:500].reshape(500, 14, 2, 14, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(mnist.features[:500], blocks.reshape(500, -1), atol=1e-6)


def test_all_pixels_are_the_task_mnist28(mnist28):
    assert (mnist28.features.shape, mnist28.features.dtype) == ((70_000, 784), np.float32)
    # published statistics of the 60,000 training images: mean 0.1307, standard deviation 0.3081
    train = mnist28.features[:60_000]
    assert round(float(train.mean(dtype=np.float64)), 4) == 0.1307
    assert round(float(train.std(dtype=np.float64)), 4) == 0.3081


def test_the_published_test_images_are_the_test_rows(mnist):
    for seed in (0, 1):
        s = split(mnist, "random", seed)
        assert np.array_equal(s.test_idx, np.arange(60_000, 70_000))
        assert np.array_equal(s.train_idx, np.arange(60_000))
        assert len(s.validation_idx) == 10_000
    few = split(mnist, "random", 0, train_samples=100, test_samples=50)
    assert few.train_idx.max() < 60_000 <= few.test_idx.min()
    with pytest.raises(ConfigError, match="split 'talker': the data set 'mnist' names no talkers"):
        split(mnist, "talker", 0)


def test_a_file_that_was_packed_again_is_the_same_and_one_that_was_altered_is_not(
    mnist, data_folder, tmp_path
):
    shutil.copytree(data_folder / "mnist", tmp_path / "mnist")
    file = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    file.chmod(0o600)
    file.write_bytes(gzip.compress(bytes(content), 1))
    np.testing.assert_array_equal(load("mnist", folder=tmp_path).labels, mnist.labels)
    content[-1] ^= 1
    file.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte[.]gz: altered, its unpacked"):
        load("mnist", folder=tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: cannot be read \(No such"):
        load("mnist", folder=tmp_path)
