"""The nonlinear circuit: a voltage series in, a voltage series out.

y = f_p(x, theta): x and theta are series that are added and clamped to full scale
(`lab.systems.series`), 10 V, and played at the DAQ's rate; y is the circuit's output voltage at the
same samples. The circuit starts each row at rest: it rings down in the gap before it.
"""

from collections.abc import Callable, Mapping

import numpy as np

from drivers.instrument import CircuitDAQ
from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.systems.base import PhysicalSystem, Rows, SystemDescription
from lab.systems.series import encode, played_range, series_spec

FULL_SCALE_V = 10.0
RING_DOWN_SAMPLES = 700  # until the least damped circuit is below its noise


class CircuitSystem(PhysicalSystem):
    """A driven circuit behind a DAQ; many rows are one waveform."""

    daq: CircuitDAQ

    def __init__(
        self,
        *,
        name: str,
        daq: CircuitDAQ,
        row_time_s: float,
        announce: Callable[[RowKey], None] | None = None,
    ) -> None:
        """Take the DAQ; raise ValueError if its gap is too short for the circuit to ring down."""
        super().__init__(announce)
        if daq.gap_samples < RING_DOWN_SAMPLES:
            raise ValueError(
                f"{name}: {daq.gap_samples} samples between rows, at least {RING_DOWN_SAMPLES} "
                "needed: a row would hear the one before"
            )
        self.daq = daq
        self.instruments = (daq,)
        self.batch_rows = daq.rows_at_once
        samples = daq.drive.shape[0]
        response = daq.response
        self.description = SystemDescription(
            name=name,
            x=series_spec("x", samples),
            theta=series_spec("theta", samples),
            y=ArraySpec("y", "V", response.shape, response.low, response.high),
            row_time_s=row_time_s,
            drives="series",
        )

    def narrow(self, limits: Mapping[str, tuple[float, float]]) -> None:
        """Tighten x or theta; raise ValueError if the DAQ may not play what remains allowed."""
        super().narrow(limits)
        low, high = (FULL_SCALE_V * end for end in played_range(self.description))
        drive = self.daq.drive
        if low < drive.low or high > drive.high:
            raise ValueError(
                f"x and theta need a drive of {low:.4g} to {high:.4g} V, the DAQ's limits are "
                f"{drive.low:g} to {drive.high:g} V: narrow x and theta too"
            )

    def _measure_batch(self, x: Array, theta: Array) -> Rows:
        y = self.daq.acquire(FULL_SCALE_V * encode(x, theta))
        d = self.description.y
        full = (y <= d.low) | (y >= d.high)
        return Rows(y, np.asarray(full.any(axis=1)))
