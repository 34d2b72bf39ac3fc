"""Arrays over HTTP: rows in and measurements out, as JSON or as a NumPy archive (npz).

Blocking, and slow for many rows: for threads. A body is read without running any code in it and
without making an array larger than the body says it carries.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from lab.measurement import ForwardPass, Measurement
from lab.npy import UNREADABLE, read_npy_header
from server.errors import InvalidRequest, field_errors
from server.views import PassOptions, PassRequest

JSON = "application/json"
NPZ = "application/x-npz"
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
    return _pass(system, x, theta, request, client)


def _pass(
    system: str,
    x: NDArray[np.float64],
    theta: NDArray[np.float64],
    options: PassOptions,
    client: str,
) -> ForwardPass:
    plain = options.model_dump(include=set(PassOptions.model_fields))
    return ForwardPass(system, x, theta, **{**plain, "client": options.client or client})


def _regular(name: str, rows: list[list[float]]) -> NDArray[np.float64]:
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise _unreadable(name, "its rows differ in length") from error


def pass_from_npz(
    system: str, body: bytes, options: PassOptions, client: str, max_bytes: int
) -> ForwardPass:
    """Read x and theta of an npz archive (at most `max_bytes` unpacked); raise InvalidRequest."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            if sum(sizes.values()) > max_bytes:
                raise InvalidRequest(f"the archive unpacks to more than {max_bytes} bytes")
            x, theta = (_member(archive, sizes, name) for name in ("x", "theta"))
    except UNREADABLE as error:
        raise InvalidRequest(f"the body is no npz archive ({error})") from error
    return _pass(system, x, theta, options, client)


def _member(archive: zipfile.ZipFile, sizes: dict[str, int], name: str) -> NDArray[np.float64]:
    if f"{name}.npy" not in sizes:
        raise _unreadable(name, "the archive has no such array")
    try:
        content = archive.read(f"{name}.npy")
    except UNREADABLE as error:
        raise _unreadable(name, f"cannot be unpacked ({error})") from error
    return _array(name, content)


def _array(name: str, content: bytes) -> NDArray[np.float64]:
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
    return flat.reshape(shape, order="F" if fortran else "C").astype(np.float64)


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
