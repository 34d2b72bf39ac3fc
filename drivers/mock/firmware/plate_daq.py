"""The simulated plate between the voltages of a board: an amplifier before it, another behind it.

1 V at the amplifier is full scale, 1 V at the board's input is the microphone's full scale. The
board's converters round: its outputs to 12 bits of +-10 V, its input to 13.
"""

from collections.abc import Callable

import numpy as np

from drivers.spec import Array

DRIVE_FULL_V = 1.0
RESPONSE_FULL_V = 1.0
OUTPUT_STEP_V = 20.0 / 2**12
INPUT_STEP_V = 20.0 / 2**13


class PlateBehindVolts:
    """A plate as a board drives and hears it."""

    def __init__(self, play: Callable[[Array], Array]) -> None:
        """Wire the board to a plate: play(drive (rows, samples)) -> what the microphone sends."""
        self._play = play

    def respond(self, drive_v: Array) -> Array:
        """Return what the input reads (rows, samples), V, for rows of drive, V, each from rest."""
        drive = np.rint(drive_v / OUTPUT_STEP_V) * OUTPUT_STEP_V / DRIVE_FULL_V
        heard_v = self._play(drive) * RESPONSE_FULL_V
        return np.asarray(np.rint(heard_v / INPUT_STEP_V) * INPUT_STEP_V)

    def forget(self) -> None:
        """Keep what was announced: the plate takes the keys that were announced last."""
