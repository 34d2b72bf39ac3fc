"""What a job's Zarr group holds: its arrays, with their dimensions, units and ranges.

Every value is kept as it was: x and theta as they were submitted, all in float64. Theta stands in
every row, although it repeats: the compressor finds that, and whoever reads needs no index.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.row_key import RowKey
from drivers.spec import ArraySpec
from lab.errors import DataError
from lab.measurement import ForwardPass, Measurement
from lab.systems.base import SystemDescription

FORMAT = 1
ROW = "row"
UNKEYED = -1
"""The stream of rows without a key; their index is their shot number."""
_CHUNK_BYTES = 2**22
_CHUNK_ROWS = 8192
_BLOCK = 4096  # bytes: of such blocks a disk hands out whole ones
_CODEC_BYTES = 64  # what compressing may add to a chunk, at most


@dataclass(frozen=True)
class Column:
    """One array of a group: (row, *shape) of dtype; attributes as xarray shows them."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    attributes: Mapping[str, Any]

    @property
    def dims(self) -> tuple[str, ...]:
        """Get the names of the dimensions; an array may not be named as one of its own."""
        if len(self.shape) == 1:
            return (ROW, f"{self.name}_channel")
        return (ROW, *(f"{self.name}_axis{i}" for i in range(len(self.shape))))

    @property
    def row_bytes(self) -> int:
        """Get the size of one row, uncompressed."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Layout:
    """The arrays of a group, what is said of all of them, and how many rows go into one file."""

    columns: tuple[Column, ...]
    attributes: Mapping[str, Any]
    chunk_rows: int

    def most_bytes(self, rows: int) -> int:
        """Return what the group may grow by, at most, on disk when so many rows are written."""
        chunk = sum(
            on_disk(self.chunk_rows * column.row_bytes + _CODEC_BYTES) for column in self.columns
        )
        metadata = sum(len(str(dict(column.attributes))) + 2 * _BLOCK for column in self.columns)
        return (rows // self.chunk_rows + 2) * chunk + 2 * on_disk(metadata)


def on_disk(size: int) -> int:
    """Return what a file of so many bytes takes of a disk."""
    return -(-size // _BLOCK) * _BLOCK


def layout_of(description: SystemDescription, job: str, bench: str) -> Layout:
    """Return the layout of a job's rows on a system; bench: the digest of its configuration."""
    specs = (("x", description.x), ("theta", description.theta), ("y", description.y))
    arrays = tuple(Column(name, spec.shape, "float64", _described(spec)) for name, spec in specs)
    columns = (*arrays, *_row_columns())
    attributes = {
        "title": "measured rows of a job",
        "format": FORMAT,
        "job": job,
        "system": description.name,
        "bench": bench,
        "row_time_s": description.row_time_s,
        "drives": description.drives,
        "coordinates": "stream index time_s shot measured calibration",
    }
    return Layout(columns, attributes, _rows_a_chunk(columns))


def _rows_a_chunk(columns: tuple[Column, ...]) -> int:
    """Return a power of 2: at most 4 MB of the largest array."""
    fit = max(1, _CHUNK_BYTES // max(1, *(column.row_bytes for column in columns)))
    return int(min(_CHUNK_ROWS, 2 ** (fit.bit_length() - 1)))


def columns_of(
    layout: Layout, forward_pass: ForwardPass, measurement: Measurement, calibration: int
) -> dict[str, NDArray[Any]]:
    """Return a pass as the layout's arrays, one entry a row; calibration: the number of its name.

    Raises DataError for a pass on another system than the layout's.
    """
    if forward_pass.system != layout.attributes["system"]:
        raise DataError(
            f"a row of system '{forward_pass.system}' among those of "
            f"'{layout.attributes['system']}'"
        )
    rows = len(measurement.y)
    keys = forward_pass.keys
    if keys is None:
        keys = [RowKey(UNKEYED, int(shot), 0.0) for shot in measurement.shots]
    return {
        "x": forward_pass.x,
        "theta": forward_pass.theta,
        "y": measurement.y,
        "stream": np.array([key.stream for key in keys], dtype=np.int64),
        "index": np.array([key.index for key in keys], dtype=np.int64),
        "time_s": np.array([key.time_s for key in keys], dtype=np.float64),
        "shot": measurement.shots,
        "measured": _nanoseconds(measurement.row_s),
        "saturated": measurement.saturated,
        "retried": measurement.retried,
        "out_of_sync": measurement.out_of_sync,
        "calibration": np.full(rows, calibration, dtype=np.int32),
    }


def _nanoseconds(times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return times, s since the epoch, in whole nanoseconds, without rounding before the end."""
    whole = np.floor(times_s)
    rest = np.rint((times_s - whole) * 1e9)
    return whole.astype(np.int64) * 10**9 + rest.astype(np.int64)


def _described(spec: ArraySpec) -> dict[str, Any]:
    return {
        "long_name": spec.name,
        "units": spec.unit,
        "valid_range": [spec.low, spec.high],
        "sent_as": spec.dtype,
    }


def _row_columns() -> tuple[Column, ...]:
    def column(name: str, dtype: str, long_name: str, **attributes: Any) -> Column:
        return Column(name, (), dtype, {"long_name": long_name, **attributes})

    return (
        column("stream", "int64", "noise stream of the row's key"),
        column("index", "int64", "number of the row within its stream"),
        column("time_s", "float64", "simulated time of the row", units="s"),
        column("shot", "int64", "shot number, never reused"),
        column(
            "measured",
            "int64",
            "when the instrument call that measured the row began",
            units="nanoseconds since 1970-01-01",
            calendar="proleptic_gregorian",
        ),
        column("saturated", "bool", "the detector reached full scale"),
        column("retried", "bool", "measured again after a fault"),
        column("out_of_sync", "bool", "the output could not be aligned with the input"),
        column("calibration", "int32", "calibration in force, as a number of `names`", names=[]),
    )
