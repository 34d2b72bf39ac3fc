"""Arrays over HTTP: rows in and measurements out, as JSON or as a NumPy archive (npz).

Blocking, and slow for many rows: for threads. A body is read without running any code in it and
without making an array larger than the body says it carries.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from drivers.row_key import KEY_NUMBERS, RowKey
from lab.measurement import ForwardPass, Measurement
from lab.npy import UNREADABLE, read_npy_header
from server.errors import InvalidRequest, field_errors
from server.views import PassOptions, PassRequest

JSON = "application/json"
NPZ = "application/x-npz"
_KEY_PARTS = {
    "key_stream": ("iu", KEY_NUMBERS),
    "key_index": ("iu", KEY_NUMBERS),
    "key_time_s": ("fiu", math.inf),
}
"""What a RowKey consists of, in its order: kinds of dtype, and below which number it is, from 0."""
JSON_LIMIT = 2**20  # reading JSON holds up the whole service, about 10 ms per MiB


def pass_from_json(system: str, body: bytes, client: str) -> ForwardPass:
    """Read a PassRequest; raise InvalidRequest that names the field."""
    try:
        request = PassRequest.model_validate_json(body)
    except ValidationError as error:
        errors = field_errors([{**e, "loc": ("body", *e["loc"])} for e in error.errors()])
        text = "; ".join(f"{e['pointer']}: {e['detail']}" for e in errors)
        raise InvalidRequest(text, errors) from error
    x, theta = _regular("x", request.x), _regular("theta", request.theta)
    given = {name: getattr(request, name) for name in _KEY_PARTS}
    keys = _row_keys({name: part for name, part in given.items() if part is not None})
    return _pass(system, x, theta, keys, request, client)


def _pass(
    system: str,
    x: NDArray[np.float64],
    theta: NDArray[np.float64],
    keys: list[RowKey] | None,
    options: PassOptions,
    client: str,
) -> ForwardPass:
    plain = options.model_dump(include=set(PassOptions.model_fields))
    plain["client"] = options.client or client
    return ForwardPass(system, x, theta, keys, **plain)


def _regular(name: str, rows: list[list[float]]) -> NDArray[np.float64]:
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise _unreadable(name, "its rows differ in length") from error


def pass_from_npz(
    system: str, body: bytes, options: PassOptions, client: str, max_bytes: int
) -> ForwardPass:
    """Read rows, with their keys, of an npz archive (at most `max_bytes` unpacked).

    Raises InvalidRequest.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            if sum(sizes.values()) > max_bytes:
                raise InvalidRequest(f"the archive unpacks to more than {max_bytes} bytes")
            x, theta = (_member(archive, sizes, name).astype(np.float64) for name in ("x", "theta"))
            given = [name for name in _KEY_PARTS if f"{name}.npy" in sizes]
            keys = _row_keys({name: _key_part(archive, sizes, name) for name in given})
    except UNREADABLE as error:
        raise InvalidRequest(f"the body is no npz archive ({error})") from error
    return _pass(system, x, theta, keys, options, client)


def _member(archive: zipfile.ZipFile, sizes: dict[str, int], name: str) -> NDArray[Any]:
    if f"{name}.npy" not in sizes:
        raise _unreadable(name, "the archive has no such array")
    try:
        content = archive.read(f"{name}.npy")
    except UNREADABLE as error:
        raise _unreadable(name, f"cannot be unpacked ({error})") from error
    return _array(name, content)


def _array(name: str, content: bytes) -> NDArray[Any]:
    """Read one npy file; its header is checked against its length before any memory is taken."""
    file = io.BytesIO(content)
    try:
        shape, fortran, dtype = read_npy_header(file)
    except UNREADABLE as error:
        raise _unreadable(name, f"no npy array of version 1 or 2 ({error})") from error
    data = content[file.tell() :]
    if dtype.kind not in "fiu" or math.prod(shape) * dtype.itemsize != len(data):
        raise _unreadable(name, f"shape {shape} of {dtype} does not fit {len(data)} bytes")
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _key_part(archive: zipfile.ZipFile, sizes: dict[str, int], name: str) -> list[Any]:
    """Read one part of the rows' keys, (rows,), with its own type and range."""
    array = _member(archive, sizes, name)
    if array.ndim != 1:
        raise _unreadable(name, f"shape {array.shape} is not (rows,)")
    kinds, most = _KEY_PARTS[name]
    if array.dtype.kind not in kinds:
        raise _unreadable(name, f"{array.dtype} is not {'an integer' if kinds == 'iu' else 'real'}")
    if kinds == "fiu":
        array = array.astype(np.float64)
    values: list[Any] = array.tolist()
    for value in values:
        if not 0 <= value < most:
            raise _unreadable(name, f"{value} is outside 0 to {most}")
    return values


def _row_keys(parts: Mapping[str, Sequence[Any]]) -> list[RowKey] | None:
    """Return the rows' keys of their parts; None of none."""
    if not parts:
        return None
    for name in _KEY_PARTS:
        if name not in parts:
            raise _unreadable(name, f"is needed beside {', '.join(parts)}")
    if len({len(part) for part in parts.values()}) > 1:
        lengths = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
        raise _unreadable("key_stream", f"the parts of the keys differ in length: {lengths}")
    return [RowKey(*key) for key in zip(*(parts[name] for name in _KEY_PARTS), strict=True)]


def _unreadable(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: {reason}", [{"detail": reason, "pointer": f"#/{name}"}])


_PER_ROW = ("saturated", "retried", "out_of_sync", "shots", "row_s")
_OF_ALL = ("pass_id", "system", "calibration", "submitted_s", "started_s", "finished_s")


def measurement_to_json(measurement: Measurement) -> bytes:
    """Write a MeasurementView, row by row so that other threads get their turn."""
    m = measurement
    per_row = {name: getattr(m, name).tolist() for name in _PER_ROW}
    head = json.dumps({**_head(m), **per_row}).encode()
    return b"".join([head[:-1], b', "y": [', b",".join(_json_rows(m)), b"]}"])


def _json_rows(measurement: Measurement) -> Iterator[bytes]:
    for row in measurement.y:
        yield json.dumps(row.tolist()).encode()


def measurement_to_npz(measurement: Measurement) -> bytes:
    """Write y (rows, ...), what there is per row (rows,) and, as scalars, the rest."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: getattr(measurement, name) for name in ("y", *_PER_ROW)}
    np.savez(file, allow_pickle=False, **arrays, **_head(measurement))
    return file.getvalue()


def _head(measurement: Measurement) -> dict[str, Any]:
    return {name: getattr(measurement, name) for name in _OF_ALL}
