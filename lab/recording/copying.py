"""Copy a job's rows, each once: of those measured again after a crash, the newest."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lab.errors import DataError
from lab.recording.layout import Column, Layout
from lab.recording.writer import RowWriter, chunk_rows_of, read_metadata, rows_of

EXPORT = ".export-"
"""How the folders of copies begin that were being packed."""
_CHUNKS_AT_ONCE = 4


def newest_rows(stream: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the rows to read, rising: the last of each (stream, index)."""
    order = np.lexsort((np.arange(len(index)), index, stream))
    s, i = stream[order], index[order]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = (s[1:] != s[:-1]) | (i[1:] != i[:-1])
    return np.sort(order[last])


def pack(source: Path, shelf: Path, notes: Sequence[str] = ()) -> Path:
    """Return a zip file of the rows of a group, each once, in a new folder on the shelf.

    The group may grow meanwhile: what is in it now is written, and notes as an attribute. The
    caller deletes the folder. Raises DataError if the group is not there, or no longer.
    """
    folder = Path(tempfile.mkdtemp(prefix=EXPORT, dir=shelf))
    try:
        copy_rows(source, folder / "rows.zarr", notes)
        read_metadata(source)  # of a group that is deleted meanwhile, chunks would read as zeros
        target = folder / "rows.zarr.zip"
        _zip(folder / "rows.zarr", target)
        shutil.rmtree(folder / "rows.zarr")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return target


def _zip(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:  # its chunks are compressed
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(folder))


def copy_rows(source: Path, target: Path, notes: Sequence[str] = ()) -> None:
    """Write the rows of a group, each once, into a new group."""
    metadata = read_metadata(source)
    layout = _layout(metadata, notes)
    writer = RowWriter(target, layout)
    for name in metadata["metadata"]["calibration/.zattrs"]["names"]:
        writer.code(name)
    for block in _blocks(source, layout, rows_of(metadata)):
        writer.append(block)
    writer.commit()
    writer.close()


def _blocks(source: Path, layout: Layout, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the newest rows, some chunks of them at a time."""
    group = zarr.open_consolidated(source, mode="r", zarr_format=2)
    arrays = {column.name: _array(group, column) for column in layout.columns}
    kept = newest_rows(_read(arrays["stream"], 0, rows), _read(arrays["index"], 0, rows))
    step = _CHUNKS_AT_ONCE * layout.chunk_rows
    for first in range(0, rows, step):
        end = min(rows, first + step)
        chosen = kept[np.searchsorted(kept, first) : np.searchsorted(kept, end)] - first
        yield {name: _read(array, first, end)[chosen] for name, array in arrays.items()}


def _array(group: zarr.Group, column: Column) -> zarr.Array[Any]:
    array = group[column.name]
    if not isinstance(array, zarr.Array):
        raise DataError(f"{group.store}: '{column.name}' is no array")
    return array


def _read(array: zarr.Array[Any], first: int, end: int) -> NDArray[Any]:
    return np.asarray(array[first:end])


def _layout(metadata: dict[str, Any], notes: Sequence[str]) -> Layout:
    """Return the layout that a group was made with."""
    parts = metadata["metadata"]
    columns = []
    for key, array in parts.items():
        if not key.endswith("/.zarray"):
            continue
        name = key.removesuffix("/.zarray")
        attributes = {k: v for k, v in parts[f"{name}/.zattrs"].items() if k[0] != "_"}
        columns.append(Column(name, tuple(array["shape"][1:]), array["dtype"], attributes))
    attributes = {**parts[".zattrs"], "notes": list(notes)}
    return Layout(tuple(columns), attributes, chunk_rows_of(metadata))
