"""The queued request for rows on one system, and its result."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drivers.row_key import RowKey
from drivers.spec import Array

OnFault = Literal["wait", "fail"]


@dataclass(frozen=True)
class ForwardPass:
    """A batch of rows for one system: x (rows, ...) and theta (rows, ...), physical units.

    priority:    higher goes first; equal priorities share the hardware fairly between clients.
    client:      whose share of the hardware it uses.
    job:         what the pass is part of, if anything; one client's jobs take turns.
    attempt:     which attempt at that job measures, for a service that fences old ones off.
    depth:       of one job's passes the deepest goes first: the layer, in a training step whose
                 micro-batches overlap.
    keys:        one RowKey a row, or None to let the simulated plant use its own counter.
    deadline_s:  when the result is of no more use, seconds since the epoch; None: never.
    timeout_s:   longest time from its first row to its last; None: as long as it takes.
    repeatable:  whether rows that an instrument's fault interrupted may be measured once more.
    persistent:  whether that may be so again and again, as long as the pass gets on: it fails only
                 if the same rows were interrupted four times. For passes of jobs.
    on_fault:    what becomes of the pass if it waits when the system faults: "wait" for the
                 recovery (and fail if that is given up), or "fail" at once.
    reservation: the number of the reservation under which it runs, if there is one.
    """

    system: str
    x: Array
    theta: Array
    keys: Sequence[RowKey] | None = None
    priority: int = 0
    client: str = "local"
    pass_id: str = field(default="")
    job: str = ""
    attempt: int = 0
    depth: int = 0
    deadline_s: float | None = None
    timeout_s: float | None = None
    repeatable: bool = True
    persistent: bool = False
    on_fault: OnFault = "wait"
    reservation: int | None = None


@dataclass(frozen=True)
class Measurement:
    """The outcome of a forward pass. Arrays have one entry a row, in the order of the pass.

    y:           (rows, *y.shape), the unit of the system's y spec.
    saturated:   true where the detector reached full scale.
    retried:     true where the row was measured again after a fault.
    out_of_sync: true where the system could not align the output with the input.
    shots:       shot numbers; they count executed rows of a system and are never reused.
    row_s:       when the instrument call that measured the row began, seconds since the epoch.
    calibration: the name of the calibration in force; empty if there is none.
    submitted_s, started_s, finished_s: wall-clock times, seconds since the epoch.
    """

    pass_id: str
    system: str
    y: Array
    saturated: NDArray[np.bool_]
    retried: NDArray[np.bool_]
    out_of_sync: NDArray[np.bool_]
    shots: NDArray[np.int64]
    row_s: NDArray[np.float64]
    calibration: str
    submitted_s: float
    started_s: float
    finished_s: float
