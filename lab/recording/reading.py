"""Open what jobs left with xarray, labelled and with units; needs the extra `data`."""

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.storage import ZipStore

from lab.errors import DataError
from lab.recording.copying import newest_rows

_UNITS = {"seconds": "s", "time_s": "s"}


def open_rows(path: str | PathLike[str]) -> xr.Dataset:
    """Open a job's measured rows: a group of the service's data folder, or one from `Client.rows`.

    Each row is there once, the newest where it was measured again after a crash, in the order of
    measuring. x, theta and y (row, channel) in physical units; along `row` the coordinates stream,
    index, time_s (the row's key), shot, measured (UTC) and calibration (its name). Values are read
    when they are used. Raises DataError if there are no rows of a job there.
    """
    try:
        store = ZipStore(Path(path), mode="r") if Path(path).suffix == ".zip" else path
        rows: xr.Dataset = xr.open_zarr(store, consolidated=True, chunks=None)
        kept = newest_rows(rows["stream"].values, rows["index"].values)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: no measured rows of a job ({error})") from error
    if len(kept) < rows.sizes["row"]:
        rows = rows.isel(row=kept)
    codes = rows["calibration"]
    names = np.array(codes.attrs["names"], dtype=np.str_)
    named = names[codes.values] if len(names) else np.empty(0, dtype="U1")
    return rows.assign_coords(
        calibration=("row", named, {"long_name": "name of the calibration in force"})
    )


def metrics_dataset(metrics: Iterable[Mapping[str, Any]], kind: str = "epoch") -> xr.Dataset:
    """Return a job's metrics of one kind, as `Client.metrics` gives them, along their `number`.

    A number that is missing is NaN; what is neither a number nor true or false is text.
    """
    chosen = [m for m in metrics if m["metric"]["kind"] == kind]
    names = dict.fromkeys(key for m in chosen for key in m["metric"] if key != "kind")
    columns = {name: _column([m["metric"].get(name) for m in chosen]) for name in names}
    units = {name: {"units": _UNITS[name]} for name in names if name in _UNITS}
    return xr.Dataset(
        {name: ("number", values, units.get(name, {})) for name, values in columns.items()},
        coords={"number": [m["step"] for m in chosen]},
        attrs={"kind": kind},
    )


def _column(values: list[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """Return whole numbers, truth values, numbers (NaN where there is none) or text."""
    for kinds, dtype in (((bool,), np.bool_), ((int,), np.int64)):
        if all(type(value) in kinds for value in values):
            return np.array(values, dtype=dtype)
    if all(value is None or type(value) in (int, float) for value in values):
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return np.array([v if isinstance(v, str) else json.dumps(v) for v in values], dtype=np.str_)
