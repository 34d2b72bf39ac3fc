"""What a client sends of a data set: the bytes of a file, or arrays packed into npz."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from lab.config import UPLOAD_BYTES
from lab.datasets.arrays import ARRAY_NAMES
from lab.errors import ConfigError


def read_upload(data: Path | str | Mapping[str, ArrayLike]) -> tuple[bytes, str]:
    """Return the body of an upload and a name for it; the service checks what is in it.

    Raises ConfigError for a file that cannot be read, arrays of Python objects and data over the
    service's limit.
    """
    return _packed(data) if isinstance(data, Mapping) else _read(Path(data))


def _read(path: Path) -> tuple[bytes, str]:
    try:
        _check_size(path.stat().st_size, str(path))
        return path.read_bytes(), path.name
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def _check_size(size: int, name: str) -> None:
    if size > UPLOAD_BYTES:
        raise ConfigError(f"{name}: {size} bytes are more than the {UPLOAD_BYTES} of an upload")


def _packed(arrays: Mapping[str, ArrayLike]) -> tuple[bytes, str]:
    file = io.BytesIO()
    for name in arrays.keys() - ARRAY_NAMES:
        raise ConfigError(f"arrays: '{name}' is none of {', '.join(ARRAY_NAMES)}")
    plain = {name: np.asarray(values) for name, values in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise ConfigError(f"arrays: {name}: Python objects, not plain numbers or strings")
    np.savez_compressed(file, allow_pickle=False, **plain)
    _check_size(len(file.getvalue()), "arrays")
    return file.getvalue(), "arrays"
