"""The far end of an SLM in a 4f line: from the grey levels it shows to the light that passes.

Its rows are few, 64 of 1920 columns of 8 bits, so that a row of the bench stays quick; real panels
have about a thousand. Column c meets the frequency 192.455 + 0.001 c THz. Behind it a slit lets
the first order of a grating of `PERIOD_ROWS` rows pass: the part of each column's field that varies
as exp(2 pi i k / PERIOD_ROWS). Nothing here knows how the driver makes its gratings.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from drivers.mock.faults import Fault, FaultQueue
from drivers.mock.firmware.bounds import Bounds
from drivers.shapers.slm_display import DisplayError
from drivers.shapers.slm_grating import Levels
from drivers.spec import Array

IDENTITY = "SimulatedPanel SLM-0193"
SHAPE = (64, 1920)
BITS = 8
PERIOD_ROWS = 8
FIRST_COLUMN_THZ = 192.455
_STEP_THZ = 0.001
_ROUNDING = np.pi / 2**BITS  # of a field by the steps of its grey levels
_DARK = 1e-9


class SLMFirmware:
    """One simulated panel, its slit and its frequencies; lights the plant.

    For tests: `patterns`, `blocked` (nothing passes the slit), `out_of_limits` (levels that the
    panel does not have, and columns that let more light through than `attenuation_db` allows, the
    hardware's unless a test narrows it).
    """

    def __init__(self, set_transmission: Callable[[Array, NDArray[np.complex128]], None]) -> None:
        """Power up, flat; `set_transmission(frequencies_thz, t)` is called with each pattern.

        Not before the first one, so that another shaper of the same rig is left alone.
        """
        self._set_transmission = set_transmission
        self._frequencies_thz: Array = FIRST_COLUMN_THZ + _STEP_THZ * np.arange(
            SHAPE[1], dtype=np.float64
        )
        level = np.arange(2**BITS)
        self._field = np.exp(-2j * np.pi * level / 2**BITS)  # a higher level is less phase
        rows = np.arange(SHAPE[0])
        self._slit = np.exp(-2j * np.pi * rows / PERIOD_ROWS) / SHAPE[0]
        self.faults = FaultQueue()
        self.attenuation_db = Bounds(0.0, 60.0)
        self.patterns = 0
        self.out_of_limits = 0
        self.blocked = True

    @property
    def safe(self) -> bool:
        """Whether no light passes the slit."""
        return self.blocked

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next call, `identity` or `show`, that contains `on`."""
        answers = (Fault.IDENTITY, Fault.GARBAGE, Fault.TRUNCATE)  # only the identity has one
        self.faults.arm(fault, on or ("identity" if fault in answers else ""))

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self.faults.clear()

    def show(self, levels: Levels) -> None:
        """Display grey levels (rows, columns); raises DisplayError for what is no image of it."""
        if levels.shape != SHAPE or levels.dtype != np.uint8:
            self.out_of_limits += levels.size
            text = f"{levels.shape} of {levels.dtype} is no image of {SHAPE} of uint8"
            raise DisplayError(text)
        field = np.einsum("r,rc->c", self._slit, self._field[levels])
        brightest = 10.0 ** (self.attenuation_db.low / -20) + _ROUNDING
        self.out_of_limits += int(np.count_nonzero(np.abs(field) > brightest))
        field[np.abs(field) < _DARK] = 0.0  # a flat column, but for the sum's rounding
        self.patterns += 1
        self.blocked = not field.any()
        self._set_transmission(self._frequencies_thz, field)


class SimulatedDisplay:
    """The in-memory end of the display's cable (`drivers.shapers.slm_display.PhaseDisplay`)."""

    shape = SHAPE
    bits = BITS

    def __init__(self, firmware: SLMFirmware) -> None:
        """Connect to `firmware`."""
        self._firmware = firmware

    def open(self) -> None:
        """Connect anew."""

    def close(self) -> None:
        """Release the connection; idempotent."""

    def identity(self) -> str:
        """Return who answers."""
        fault = self._strike("identity")
        if fault is Fault.IDENTITY:
            return "OtherPanel 9"
        if fault is Fault.GARBAGE:
            return "\ufffd\x00?!"
        return IDENTITY[: len(IDENTITY) // 2] if fault is Fault.TRUNCATE else IDENTITY

    def show(self, levels: Levels) -> None:
        """Display grey levels (rows, columns)."""
        if self._strike("show") is Fault.TIMEOUT:
            self._firmware.show(levels)
            raise TimeoutError("timed out")
        self._firmware.show(levels)

    def _strike(self, call: str) -> Fault | None:
        """Return the armed fault that this call meets; raise what the display's software would."""
        fault = self._firmware.faults.take(call.encode())
        if fault is Fault.DROP:
            raise ConnectionError("connection reset by peer")
        if fault is Fault.REFUSE:
            raise DisplayError("RuntimeError: the panel reports an error")
        if fault is Fault.TIMEOUT and call == "identity":
            raise TimeoutError("timed out")
        return fault
