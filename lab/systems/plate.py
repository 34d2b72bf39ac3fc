"""The oscillating plate: amplifier, speaker, plate, microphone; series in, series out.

y = f_p(x, theta): x and theta are series that are added and clamped to full scale
(`lab.systems.series`) and played at 48 kHz; y is what the microphone hears meanwhile, in parts of
its own full scale. The plate starts each row at rest: it rings down in the silence before it.
"""

import numpy as np

from drivers.instrument import SpeakerPlate
from drivers.spec import Array
from lab.systems.base import Announce, Rows
from lab.systems.series import SeriesSystem, encode

RING_DOWN_SAMPLES = 4000  # until the least damped plate is far below the room's noise


class PlateSystem(SeriesSystem):
    """A driven plate; one row is one series, many rows one waveform."""

    plate: SpeakerPlate

    def __init__(
        self,
        *,
        name: str,
        plate: SpeakerPlate,
        row_time_s: float,
        announce: Announce | None = None,
    ) -> None:
        """Take the instrument; raise ValueError if its silence is too short for the plate."""
        if plate.silence_samples < RING_DOWN_SAMPLES:
            raise ValueError(
                f"{name}: {plate.silence_samples} samples of silence between rows, at least "
                f"{RING_DOWN_SAMPLES} needed: a row would hear the one before"
            )
        super().__init__(plate, name=name, full_scale=1.0, row_time_s=row_time_s, announce=announce)
        self.plate = plate
        self.batch_rows = plate.rows_per_shot

    def _measure_batch(self, x: Array, theta: Array) -> Rows:
        recording = self.plate.play_and_record(encode(x, theta))
        y = recording.response
        saturated = np.asarray((np.abs(y) >= self.description.y.high).any(axis=1))
        return Rows(y, saturated, ~recording.in_sync)
