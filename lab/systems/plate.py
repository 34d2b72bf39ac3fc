"""The oscillating plate: amplifier, speaker, plate, microphone; series in, series out.

y = f_p(x, theta): x and theta are series that are added and clamped to full scale
(`lab.systems.series`) and played at 48 kHz; y is what the microphone hears meanwhile, in parts of
its own full scale. The plate starts each row at rest: it rings down in the silence before it.
"""

from collections.abc import Callable, Mapping

import numpy as np

from drivers.instrument import SpeakerPlate
from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.systems.base import PhysicalSystem, Rows, SystemDescription
from lab.systems.series import encode, played_range, series_spec

RING_DOWN_SAMPLES = 4000  # until the least damped plate is far below the room's noise


class PlateSystem(PhysicalSystem):
    """A driven plate; one row is one series, many rows one waveform."""

    plate: SpeakerPlate

    def __init__(
        self,
        *,
        name: str,
        plate: SpeakerPlate,
        row_time_s: float,
        announce: Callable[[RowKey], None] | None = None,
    ) -> None:
        """Take the instrument; raise ValueError if its silence is too short for the plate."""
        super().__init__(announce)
        if plate.silence_samples < RING_DOWN_SAMPLES:
            raise ValueError(
                f"{name}: {plate.silence_samples} samples of silence between rows, at least "
                f"{RING_DOWN_SAMPLES} needed: a row would hear the one before"
            )
        self.plate = plate
        self.instruments = (plate,)
        self.batch_rows = plate.rows_per_shot
        samples = plate.drive.shape[0]
        response = plate.response
        self.description = SystemDescription(
            name=name,
            x=series_spec("x", samples),
            theta=series_spec("theta", samples),
            y=ArraySpec("y", "full scale", response.shape, response.low, response.high),
            row_time_s=row_time_s,
            drives="series",
        )

    def narrow(self, limits: Mapping[str, tuple[float, float]]) -> None:
        """Tighten x or theta; raise ValueError if the speaker may not play what remains allowed."""
        super().narrow(limits)
        low, high = played_range(self.description)
        drive = self.plate.drive
        if low < drive.low or high > drive.high:
            raise ValueError(
                f"x and theta need a drive of {low:.4g} to {high:.4g}, the speaker's limits are "
                f"{drive.low:g} to {drive.high:g} {drive.unit}: narrow x and theta too"
            )

    def _measure_batch(self, x: Array, theta: Array) -> Rows:
        recording = self.plate.play_and_record(encode(x, theta))
        y = recording.response
        saturated = np.asarray((np.abs(y) >= self.description.y.high).any(axis=1))
        return Rows(y, saturated, ~recording.in_sync)
