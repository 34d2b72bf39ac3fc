"""The queued request for rows on one system, and its result."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivers.row_key import RowKey
from drivers.spec import Array


@dataclass(frozen=True)
class ForwardPass:
    """A batch of rows for one system: x (rows, ...) and theta (rows, ...), physical units.

    priority: higher goes first; equal priorities go first come, first served.
    client:   who asks, for the queue's listing.
    keys:     one RowKey a row, or None to let the simulated plant use its own counter.
    """

    system: str
    x: Array
    theta: Array
    keys: Sequence[RowKey] | None = None
    priority: int = 0
    client: str = "local"
    pass_id: str = field(default="")


@dataclass(frozen=True)
class Measurement:
    """The outcome of a forward pass.

    y:            (rows, *y.shape), the unit of the system's y spec.
    saturated:    (rows,) true where the detector reached full scale.
    first_shot:   shot number of the first row; shot numbers count executed rows of a system
                  and are never reused.
    submitted_s, started_s, finished_s: wall-clock times, seconds since the epoch.
    """

    pass_id: str
    system: str
    y: Array
    saturated: NDArray[np.bool_]
    first_shot: int
    submitted_s: float
    started_s: float
    finished_s: float
