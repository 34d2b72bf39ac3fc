"""What an npy file says of itself, read without running any code in it."""

import struct
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np

# what the standard library and numpy raise at bytes that are no archive, or no array
UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    OSError,
    RuntimeError,  # also for an encrypted archive, or an unknown compression
    ImportError,
    MemoryError,
)


def read_npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether in Fortran's order, and dtype; `file` then stands at the values.

    Raises one of UNREADABLE.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"npy version {version[0]}.{version[1]}, not 1.0 or 2.0")
