"""The nonlinear circuit: a voltage series in, a voltage series out.

y = f_p(x, theta): x and theta are series that are added and clamped to full scale
(`lab.systems.series`), 10 V, and played at the DAQ's rate; y is the circuit's output voltage at the
same samples. The circuit starts each row at rest: it rings down in the gap before it.
"""

import numpy as np

from drivers.instrument import CircuitDAQ
from drivers.spec import Array
from lab.systems.base import Announce, Rows
from lab.systems.series import SeriesSystem, encode

FULL_SCALE_V = 10.0
RING_DOWN_SAMPLES = 700  # until the least damped circuit is below its noise


class CircuitSystem(SeriesSystem):
    """A driven circuit behind a DAQ; many rows are one waveform."""

    daq: CircuitDAQ

    def __init__(
        self,
        *,
        name: str,
        daq: CircuitDAQ,
        row_time_s: float,
        announce: Announce | None = None,
    ) -> None:
        """Take the DAQ; raise ValueError if its gap is too short for the circuit to ring down."""
        if daq.gap_samples < RING_DOWN_SAMPLES:
            raise ValueError(
                f"{name}: {daq.gap_samples} samples between rows, at least {RING_DOWN_SAMPLES} "
                "needed: a row would hear the one before"
            )
        super().__init__(
            daq, name=name, full_scale=FULL_SCALE_V, row_time_s=row_time_s, announce=announce
        )
        self.daq = daq
        self.batch_rows = daq.rows_at_once

    def _measure_batch(self, x: Array, theta: Array) -> Rows:
        y = self.daq.acquire(FULL_SCALE_V * encode(x, theta))
        d = self.description.y
        full = (y <= d.low) | (y >= d.high)
        return Rows(y, np.asarray(full.any(axis=1)))
