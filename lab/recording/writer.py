"""Append rows to a Zarr group that can be read at any moment, also after the process was killed.

A chunk's file is replaced as a whole, and holds the rows that it held before. The consolidated
metadata, written last, says how many rows there are for all arrays at once; what lies beyond is of
an append that was broken off. Zarr's format 2: consolidated metadata are part of what its readers
know, and a chunk is nothing but the compressed bytes of its array, so that they are written here,
ten times as fast as through the library.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from operator import methodcaller
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
_CODEC = Blosc("lz4", 5, Blosc.BITSHUFFLE)
_TEMPORARY = ".tmp"  # ends the names of files while they are written


class RowWriter:
    """The end of one group, where rows are appended; for one thread.

    rows: how many there are for a reader. bytes: of the disk. After an error from `append` or
    `commit` the writer is of no more use: open another one, which goes on after the last rows that
    a reader sees.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        """Open a group, or make it; raise DataError for one of other arrays, OSError."""
        self.folder = folder
        if not (folder / METADATA).is_file():
            _create(folder, layout)
        self._metadata = read_metadata(folder)
        _check_same(layout, self._metadata, folder)
        self.layout = replace(layout, chunk_rows=chunk_rows_of(self._metadata))
        self.rows = rows_of(self._metadata)
        self.bytes = tidied_size(folder)
        self._read_tail()

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
        _write_json(self.folder / METADATA, self._metadata)
        self.rows = rows

    def close(self) -> None:
        """Let each array's own metadata say what the consolidated say, for readers of those."""
        for name, content in self._metadata["metadata"].items():
            _write_json(self.folder / name, content)

    def _read_tail(self) -> None:
        """Take the rows of the last chunk, which is not full, into the buffers."""
        chunk = self.layout.chunk_rows
        self._first = self.rows - self.rows % chunk
        self._filled = self.rows - self._first
        self._buffers: dict[str, NDArray[Any]] = {}
        self._sizes: dict[str, int] = {}
        for column in self.layout.columns:
            buffer = np.zeros((chunk, *column.shape), column.dtype)
            self._buffers[column.name] = buffer
            if self._filled:
                data = self._chunk_file(column).read_bytes()
                self._sizes[column.name] = on_disk(len(data))
                kept = np.frombuffer(_CODEC.decode(data), column.dtype).reshape(buffer.shape)
                buffer[: self._filled] = kept[: self._filled]

    def _next_chunk(self) -> None:
        self._first += self.layout.chunk_rows
        self._filled = 0
        self._sizes = {}
        for buffer in self._buffers.values():
            buffer.fill(0)

    def _write_chunk(self) -> None:
        """Write the buffers' whole chunk; it is on the disk before any metadata tell of it."""
        for column in self.layout.columns:
            data = _CODEC.encode(self._buffers[column.name])
            _replace(self._chunk_file(column), data)
            size = on_disk(len(data))
            self.bytes += size - self._sizes.get(column.name, 0)
            self._sizes[column.name] = size

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


def chunk_rows_of(metadata: Mapping[str, Any]) -> int:
    """Return how many rows of each array go into one file."""
    return int(metadata["metadata"]["index/.zarray"]["chunks"][0])


def tidied_size(folder: Path) -> int:
    """Return what a group takes of the disk; delete what a killed process left half written."""
    for path in folder.rglob(f"*{_TEMPORARY}"):
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
            compressors=[_CODEC],
            fill_value=None,  # a number would be taken for "missing" by xarray
            attributes={**column.attributes, "_ARRAY_DIMENSIONS": list(column.dims)},
        )
    zarr.consolidate_metadata(group.store, zarr_format=2)


def _check_same(layout: Layout, metadata: Mapping[str, Any], folder: Path) -> None:
    for column in layout.columns:
        found = metadata["metadata"].get(f"{column.name}/.zarray")
        if found is None or tuple(found["shape"][1:]) != column.shape:
            raise DataError(f"{folder}: its rows are of another system or version: {column.name}")


def _replace(path: Path, data: bytes) -> None:
    """Replace a file by one that is on the disk; that its name is, the metadata's writing sees to.

    The later of two renamings is not there without the earlier, also after a power cut.
    """
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _write_json(path: Path, content: Any) -> None:
    write_whole(path, methodcaller("write", json.dumps(content, indent=1).encode()))
