"""Read a user's file, npz or CSV, into arrays; no code in it is run."""

import io
import math
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.datasets.arrays import ARRAY_NAMES, MOST_VALUES, Arrays
from lab.datasets.csv_table import from_csv
from lab.errors import DataError
from lab.npy import UNREADABLE, read_npy_header

MOST_BYTES = 1_000_000_000  # of a file, and of what it unpacks to
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def read_arrays(content: bytes, where: str) -> Arrays:
    """Return the arrays of an npz archive or else of CSV text; `where` names it in errors.

    npz: `features`, `labels`, and `groups` and `test` where they are. CSV (UTF-8, commas): a
    header line; the columns `label`, and `group` and `test` where they are, all others are
    features, in order.

    Raises DataError that says where and why it cannot be read.
    """
    if not content:
        raise DataError(f"{where}: empty")
    check_size(len(content), where)
    return _from_npz(content, where) if content.startswith(_ZIP) else from_csv(content, where)


def check_size(size: int, where: str) -> None:
    """Raise DataError for more bytes than a file may have."""
    if size > MOST_BYTES:
        raise DataError(f"{where}: {size:,} bytes, at most {MOST_BYTES:,}")


def _from_npz(content: bytes, where: str) -> Arrays:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            check_size(sum(sizes.values()), f"{where}, unpacked")
            names = {name.removesuffix(".npy") for name in sizes}
            _check_names(names, where)
            return Arrays(
                features=_member(archive, "features", where),
                labels=_member(archive, "labels", where),
                groups=_member(archive, "groups", where) if "groups" in names else None,
                test=_member(archive, "test", where) if "test" in names else None,
            )
    except UNREADABLE as error:
        raise DataError(f"{where}: no whole npz archive ({error})") from error


def _check_names(names: set[str], where: str) -> None:
    for name in ("features", "labels"):
        if name not in names:
            raise DataError(f"{where}: no array '{name}'")
    for name in sorted(names - set(ARRAY_NAMES)):  # a misspelt one would be silently left out
        raise DataError(f"{where}: array '{name}' is none of {', '.join(ARRAY_NAMES)}")


def _member(archive: zipfile.ZipFile, name: str, where: str) -> NDArray[Any]:
    """Read one array; its header is checked before any memory is taken for its values."""
    where = f"{where}: {name}"
    try:
        with archive.open(f"{name}.npy") as file:
            shape, fortran, dtype = read_npy_header(file)
            _check_header(shape, dtype, where)
            size = math.prod(shape) * dtype.itemsize
            data = file.read(size + 1)
    except UNREADABLE as error:
        raise DataError(f"{where}: cannot be read ({error})") from error
    if len(data) != size:
        raise DataError(f"{where}: shape {shape} of {dtype} does not fit its bytes")
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _check_header(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    if dtype.hasobject:
        raise DataError(f"{where}: an array of Python objects, which is not unpickled")
    if dtype.itemsize == 0:
        raise DataError(f"{where}: values of no bytes")
    if math.prod(shape) > MOST_VALUES:
        raise DataError(f"{where}: shape {shape}, at most {MOST_VALUES:,} values")
