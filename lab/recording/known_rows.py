"""Rows that a job has measured already, to be taken from its record instead of measured again.

Whoever goes on with a training that was broken off does again what came after its checkpoint. Row
by row it asks for the same keys with the same drives; what the instruments answered then counts.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lab.errors import DataError, LabError
from lab.measurement import ForwardPass, Measurement
from lab.recording.copying import newest_rows
from lab.recording.writer import read_metadata, rows_of

_MOST_BYTES = 128 * 2**20
_ASKED = ("x", "theta", "time_s")
_ANSWERED = ("y", "saturated", "retried", "out_of_sync", "shots", "row_s")  # as in Measurement
_RECORDED = ("y", "saturated", "retried", "out_of_sync", "shot", "measured")
_STRANGERS = 100  # passes in a row of which nothing is known, after which none will be

Columns = Mapping[str, NDArray[Any]]


class KnownRows:
    """The last rows of a job's record; thread-safe."""

    def __init__(self, columns: Columns | None = None) -> None:
        """Take in rows with their keys, drives and what was measured; None: there are none."""
        self._lock = threading.Lock()
        self._strangers = 0
        self._columns: Columns = {}
        self._forget()
        if columns is not None:
            self._columns = columns
            newest = newest_rows(columns["stream"], columns["index"])
            streams, indices = columns["stream"][newest], columns["index"][newest]
            order = np.lexsort((indices, streams))
            self._streams, self._indices = streams[order], indices[order]
            self._places = newest[order]

    def __len__(self) -> int:
        """Return how many rows are known."""
        return len(self._places)

    def of(self, forward_pass: ForwardPass) -> "PartlyKnown":
        """Say what is known of a pass: rows of the same key, x and theta, to the last bit.

        A pass that could not be queued may be asked for again. When no row of many passes in a row
        is known, all are forgotten. Nothing is known where the arrays do not belong together.
        """
        with self._lock:
            if not len(self) or not _belongs_together(forward_pass):
                return PartlyKnown(forward_pass)
            places = self._find(forward_pass)
            known = places >= 0
            if known.any():
                self._strangers = 0
                rows = {name: self._columns[name][places[known]] for name in _ANSWERED}
                return PartlyKnown(forward_pass, known, rows)
            self._strangers += 1
            if self._strangers == _STRANGERS:
                self._forget()
        return PartlyKnown(forward_pass)

    def _forget(self) -> None:
        self._columns = {}
        self._streams = self._indices = self._places = np.empty(0, dtype=np.int64)

    def _find(self, p: ForwardPass) -> NDArray[np.int64]:
        """Return where each row of a pass stands among the known ones, -1 if it does not."""
        keys = p.keys or ()
        places = self._with_keys(
            np.array([key.stream for key in keys], dtype=np.int64),
            np.array([key.index for key in keys], dtype=np.int64),
        )
        found = np.flatnonzero(places >= 0)
        at = places[found]
        times_s = np.array([keys[i].time_s for i in found.tolist()], dtype=np.float64)
        asked = (p.x[found], p.theta[found], times_s)
        for name, values in zip(_ASKED, asked, strict=True):
            same = _same_bits(self._columns[name][at], values)
            places[found[~same]] = -1
        return places

    def _with_keys(
        self, streams: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return where the rows with these keys stand, -1 for those that are not known."""
        places = np.full(len(streams), -1, dtype=np.int64)
        for stream in np.unique(streams):
            asked = streams == stream
            first, end = (np.searchsorted(self._streams, stream, s) for s in ("left", "right"))
            if first < end:
                at = first + np.searchsorted(self._indices[first:end], indices[asked])
                at = np.minimum(at, end - 1)
                there = self._indices[at] == indices[asked]
                places[asked] = np.where(there, self._places[at], -1)
        return places


@dataclass(frozen=True)
class PartlyKnown:
    """A pass, with the rows that are known of it: `known` (rows,), None for none; their arrays."""

    forward_pass: ForwardPass
    known: NDArray[np.bool_] | None = None
    rows: Columns | None = None

    @property
    def rest(self) -> ForwardPass:
        """Get the pass of the other rows, which are to be measured; it may have none."""
        p = self.forward_pass
        if self.known is None or p.keys is None:
            return p
        left = ~self.known
        keys = list(compress(p.keys, left))
        return replace(p, x=p.x[left], theta=p.theta[left], keys=keys)

    def measured(
        self, ended: Measurement | BaseException
    ) -> tuple[ForwardPass, Measurement] | None:
        """Return what was measured of the rest, which may have been broken off; None: nothing.

        ended: the measurement of the rest, or the error that ended it.
        """
        got = ended.measured if isinstance(ended, LabError) else ended
        if not isinstance(got, Measurement):
            return None
        p, rows = self.rest, len(got.y)
        keys = None if p.keys is None else p.keys[:rows]
        return replace(p, x=p.x[:rows], theta=p.theta[:rows], keys=keys), got

    def whole(self, measured: Measurement) -> Measurement:
        """Return the measurement of the whole pass, given that of the rest.

        Its times, and the calibration, are those of the rest.
        """
        if self.known is None or self.rows is None:
            return measured

        def joined(name: str) -> NDArray[Any]:
            new: NDArray[Any] = getattr(measured, name)
            both = np.empty((len(known), *new.shape[1:]), new.dtype)
            both[known], both[~known] = rows[name], new
            return both

        known, rows = self.known, self.rows
        arrays: dict[str, Any] = {name: joined(name) for name in _ANSWERED}
        return replace(measured, **arrays)


def _belongs_together(p: ForwardPass) -> bool:
    """Say whether a pass has a key, x and theta for each row, of the type that is recorded."""
    rows = () if p.keys is None else (len(p.keys),)
    return bool(rows) and all(
        isinstance(a, np.ndarray) and a.dtype == np.float64 and a.shape[:1] == rows
        for a in (p.x, p.theta)
    )


def _same_bits(known: NDArray[Any], asked: NDArray[Any]) -> NDArray[np.bool_]:
    """Say of each row whether two arrays, (rows, ...) of float64, are the same."""
    rows = len(known)
    if known.shape != asked.shape:
        return np.zeros(rows, dtype=bool)
    same = known.view(np.int64) == asked.view(np.int64)
    return np.asarray(same.reshape(rows, int(np.prod(same.shape[1:]))).all(axis=1))


def read_known(folder: Path, *, bench: str, since_s: float) -> KnownRows:
    """Return what a record holds of rows measured from `since_s` (seconds since the epoch) on.

    Of many rows the last, 128 MiB of them. None where the record is of another bench (its digest).
    Raises DataError where there is no record, or it cannot be read.
    """
    metadata = read_metadata(folder)
    try:
        if metadata["metadata"][".zattrs"]["bench"] != bench:
            return KnownRows()
        group: Any = zarr.open_consolidated(folder, mode="r", zarr_format=2)
        arrays = {name: group[name] for name in (*_ASKED, *_RECORDED, "stream", "index")}
        row_bytes = sum(a.dtype.itemsize * int(np.prod(a.shape[1:])) for a in arrays.values())
        end = rows_of(metadata)
        first = max(0, end - _MOST_BYTES // row_bytes)
        late = np.asarray(arrays["measured"][first:end]) >= int(since_s * 1e9)
        if not late.any():
            return KnownRows()
        first, late = first + int(late.argmax()), late[late.argmax() :]
        read = {name: np.asarray(array[first:end]) for name, array in arrays.items()}
        _refuse_missing(folder, arrays, first, end)
    except (OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{folder}: its rows cannot be read ({error})") from error
    if not late.all():
        read = {name: values[late] for name, values in read.items()}
    return KnownRows({**read, "shots": read["shot"], "row_s": read["measured"] / 1e9})


def _refuse_missing(folder: Path, arrays: Mapping[str, Any], first: int, end: int) -> None:
    """Raise DataError where a file of these rows is not there: Zarr has read zeros."""
    for name, array in arrays.items():
        size = array.chunks[0]
        for number in range(first // size, -(-end // size)):
            file = ".".join([str(number), *("0" for _ in array.shape[1:])])
            if not (folder / name / file).is_file():
                raise DataError(f"{folder}: '{name}/{file}' is missing")
