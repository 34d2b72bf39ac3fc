"""IDX, the format of the MNIST files: a magic number, the dimensions, the values."""

import math
import struct

import numpy as np
from numpy.typing import NDArray

from lab.errors import DataError

_UNSIGNED_BYTE = 0x08


def parse_idx(content: bytes, name: str, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes with so many dimensions.

    Two zero bytes, the type, the number of dimensions, each dimension as a big-endian 32-bit
    number, then the values, last dimension first (LeCun, Cortes, Burges, "The MNIST database").

    Raises DataError that names the file and what is wrong with it.
    """
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{name}: {len(content)} bytes are no IDX header of {header} bytes")
    magic, expected = content[:4], bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if magic != expected:
        raise DataError(
            f"{name}: begins with {magic.hex()}, an IDX file of unsigned bytes in {dimensions} "
            f"dimensions with {expected.hex()}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = len(content) - header
    if math.prod(shape) != values:
        size = " x ".join(str(n) for n in shape)
        raise DataError(f"{name}: states {size} values and has {values}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
