"""Append rows to a Zarr group that can be read at any moment, also after the process was killed.

A chunk's file is replaced as a whole, and holds the rows that it held before. The consolidated
metadata, written last, says how many rows there are for all arrays at once; what lies beyond is of
an append that was broken off. Zarr's format 2, in which consolidated metadata are part of what
every reader knows.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray

from lab.errors import DataError
from lab.jobs.data_folder import write_whole
from lab.recording.layout import Column, Layout, on_disk

METADATA = ".zmetadata"
_LITTER = ("*.partial", "*.tmp")  # of files that were being written when a process was killed


class RowWriter:
    """The end of one group, where rows are appended; for one thread.

    rows: how many there are for a reader. After an error from `append` or `commit` the writer is
    of no more use: open another one, which goes on after the last rows that a reader sees.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        """Open a group, or make it; raise DataError for one of other arrays, OSError."""
        self.folder = folder
        self.layout = layout
        if not (folder / METADATA).is_file():
            _create(folder, layout)
        self._metadata = read_metadata(folder)
        _check_same(layout, self._metadata, folder)
        self.rows = rows_of(self._metadata)
        self._arrays = {column.name: _open_array(folder, column) for column in layout.columns}
        self._read_tail()
        self.bytes = tidied_size(folder)

    def code(self, calibration: str) -> int:
        """Return the number of a calibration's name in this group."""
        names: list[str] = self._metadata["metadata"]["calibration/.zattrs"]["names"]
        if calibration not in names:
            names.append(calibration)
        return names.index(calibration)

    def append(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Take in rows, one entry of each array a row; readers see them after `commit`."""
        count, done = len(columns["index"]), 0
        while done < count:
            size = min(self.layout.chunk_rows - self._filled, count - done)
            for name, buffer in self._buffers.items():
                buffer[self._filled : self._filled + size] = columns[name][done : done + size]
            self._filled += size
            done += size
            if self._filled == self.layout.chunk_rows:
                self._write_chunk()
                self._next_chunk()

    def commit(self) -> None:
        """Bring what was appended to the disk, and then let readers see it."""
        if self._filled:
            self._write_chunk()
        rows = self._first + self._filled
        for column in self.layout.columns:
            self._metadata["metadata"][f"{column.name}/.zarray"]["shape"][0] = rows
        content = json.dumps(self._metadata, indent=1).encode()
        write_whole(self.folder / METADATA, lambda file: file.write(content))
        self.rows = rows

    def close(self) -> None:
        """Let each array's own metadata say what the consolidated say, for readers of those."""
        for name, array in self._arrays.items():
            array.resize((self.rows, *array.shape[1:]))
            array.attrs.put(self._metadata["metadata"][f"{name}/.zattrs"])

    def _read_tail(self) -> None:
        """Take the rows of the last chunk, which is not full, into the buffers."""
        chunk = self.layout.chunk_rows
        self._first = self.rows - self.rows % chunk
        self._filled = self.rows - self._first
        self._buffers = {
            column.name: np.zeros((chunk, *column.shape), column.dtype)
            for column in self.layout.columns
        }
        self._sizes: dict[str, int] = {}
        if not self._filled:
            return
        for column in self.layout.columns:
            self._buffers[column.name][: self._filled] = self._arrays[column.name][
                self._first : self.rows
            ]
            self._sizes[column.name] = on_disk(self._chunk_file(column).stat().st_size)

    def _next_chunk(self) -> None:
        self._first += self.layout.chunk_rows
        self._filled = 0
        self._sizes = {}
        for buffer in self._buffers.values():
            buffer.fill(0)

    def _write_chunk(self) -> None:
        """Write the buffers' whole chunk; it is on the disk before any metadata tell of it."""
        self._make_place(self._first + self.layout.chunk_rows)
        for column in self.layout.columns:
            name = column.name
            end = self._first + self.layout.chunk_rows
            self._arrays[name][self._first : end] = self._buffers[name]
            size = on_disk(_synced(self._chunk_file(column)))
            self.bytes += size - self._sizes.get(name, 0)
            self._sizes[name] = size

    def _make_place(self, rows: int) -> None:
        """Let the arrays' own shapes reach so far; in leaps, for each is another file."""
        for array in self._arrays.values():
            if array.shape[0] < rows:
                array.resize((max(2 * array.shape[0], rows), *array.shape[1:]))

    def _chunk_file(self, column: Column) -> Path:
        number = self._first // self.layout.chunk_rows
        return self.folder / column.name / ".".join([str(number), *("0" for _ in column.shape)])


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return a group's consolidated metadata; raise DataError if they cannot be read."""
    try:
        metadata: dict[str, Any] = json.loads((folder / METADATA).read_bytes())
        rows_of(metadata)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder}: no measured rows of a job ({error})") from error
    return metadata


def rows_of(metadata: Mapping[str, Any]) -> int:
    """Return how many rows a reader sees."""
    return int(metadata["metadata"]["index/.zarray"]["shape"][0])


def tidied_size(folder: Path) -> int:
    """Return what a group takes of the disk; delete what a killed process left half written."""
    for pattern in _LITTER:
        for path in folder.rglob(pattern):
            path.unlink(missing_ok=True)
    return size_of(folder)


def size_of(folder: Path) -> int:
    """Return what a folder's files take of the disk; those that vanish meanwhile take nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += on_disk(os.stat(os.path.join(parent, name)).st_size)
            except FileNotFoundError:
                continue
    return total


def _create(folder: Path, layout: Layout) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # one that was being created
    group = zarr.open_group(folder, mode="w", zarr_format=2, attributes=dict(layout.attributes))
    for column in layout.columns:
        group.create_array(
            column.name,
            shape=(0, *column.shape),
            chunks=(layout.chunk_rows, *column.shape),
            dtype=column.dtype,
            compressors=[Blosc("zstd", 1, Blosc.SHUFFLE)],
            fill_value=None,  # a number would be taken for "missing" by xarray
            attributes={**column.attributes, "_ARRAY_DIMENSIONS": list(column.dims)},
        )
    zarr.consolidate_metadata(group.store, zarr_format=2)


def _open_array(folder: Path, column: Column) -> zarr.Array[Any]:
    array = zarr.open_array(folder / column.name, mode="r+", zarr_format=2)
    return array.with_config({"write_empty_chunks": True})  # zeros are values like others


def _check_same(layout: Layout, metadata: Mapping[str, Any], folder: Path) -> None:
    for column in layout.columns:
        found = metadata["metadata"].get(f"{column.name}/.zarray")
        if found is None or tuple(found["shape"][1:]) != column.shape:
            raise DataError(f"{folder}: its rows are of another system or version: {column.name}")


def _synced(path: Path) -> int:
    """Return a file's size once it is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        if os.name == "posix":
            os.fsync(handle)
        return os.fstat(handle).st_size
    finally:
        os.close(handle)
