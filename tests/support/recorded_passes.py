"""Passes of jobs on a made-up system, as the hardware would have measured them."""

import numpy as np

from drivers.row_key import row_keys
from drivers.spec import ArraySpec
from lab.measurement import ForwardPass, Measurement
from lab.systems.base import SystemDescription

BEGAN_S = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def described(y_size: int = 3) -> SystemDescription:
    return SystemDescription(
        "rig",
        x=ArraySpec("drive", "V", (2,), -1.0, 1.0, dtype="float32"),
        theta=ArraySpec("bias", "V", (4,), 0.0, 5.0),
        y=ArraySpec("current", "mA", (y_size,), 0.0, 20.0),
        row_time_s=0.25,
    )


def measured(
    first: int,
    rows: int,
    *,
    job: str = "job",
    stream: int = 7,
    value: float | None = None,
    y_size: int = 3,
    calibration: str = "",
    keyed: bool = True,
) -> tuple[ForwardPass, Measurement]:
    """Return rows `first`, ... of a stream; value: what y is everywhere, else random numbers."""
    rng = np.random.default_rng(first)
    keys = row_keys(stream, first, rows, 0.25) if keyed else None
    theta = np.repeat(rng.random((1, 4)), rows, axis=0)
    forward_pass = ForwardPass("rig", rng.random((rows, 2)), theta, keys, job=job)
    y = rng.random((rows, y_size)) if value is None else np.full((rows, y_size), value)
    numbers = np.arange(first, first + rows)
    return forward_pass, Measurement(
        pass_id="",
        system="rig",
        y=y,
        saturated=numbers % 2 == 0,
        retried=numbers % 3 == 0,
        out_of_sync=numbers % 5 == 0,
        shots=1000 + numbers,
        row_s=BEGAN_S + 0.25 * numbers,
        calibration=calibration,
        submitted_s=0.0,
        started_s=0.0,
        finished_s=0.0,
    )
