"""The simulated USB-1208HS-4AO: the board's six calls in memory, in front of a plant."""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from drivers.circuits.mcc_board import (
    ALREADY_ACTIVE,
    NOT_CONNECTED,
    TIMED_OUT,
    BoardError,
    ScanStatus,
    Side,
)
from drivers.mock.faults import Fault, FaultQueue
from drivers.mock.firmware.bounds import Bounds
from drivers.spec import Array

T = TypeVar("T")

IDENTITY = "USB-1208HS-4AO 01A2B3C4"
_STRANGER = "USB-1608G 01D4C3B2"
_TRIGGER_HIGH_V = 2.0  # TTL
FULL_SCALE_V = Bounds(-10.0, 10.0)
_ANY_CALL = frozenset({Fault.DROP, Fault.REFUSE})
_INTERNAL = 35


class DrivenCircuit(Protocol):
    """The plant as the board sees it."""

    def respond(self, drive_v: Array) -> Array:
        """Return what the input reads (rows, samples), V, for rows of drive, V, each from rest."""
        ...

    def forget(self) -> None:
        """Drop what was announced of rows that will not come."""
        ...


class MccFirmware:
    """The board itself, whoever is connected: its outputs, its scans and its faults.

    waveforms: how many were played. out_of_limits: values that arrived outside `bounds` (output 0,
    V; full scale, for tests narrower) or full scale (output 1), and rows beyond one of the figures
    in `bounds`.
    """

    def __init__(self, plant: DrivenCircuit, *, honour_times: bool = False) -> None:
        """Put the board before `plant`; honour_times: a scan takes as long as it would."""
        self._plant = plant
        self._honour_times = honour_times
        self._faults = FaultQueue()
        self.outputs_v = (0.0, 0.0)
        self.bounds = FULL_SCALE_V
        self.out_of_limits = 0
        self.waveforms = 0
        self._burst = 0
        self._armed: Array | None = None
        self._spoil: Fault | None = None
        self._moved = {Side.INPUT: 0, Side.OUTPUT: 0}
        self._length_s = 0.0
        self._stuck = False

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next call whose name contains the text `on`."""
        self._faults.arm(fault, on)

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self._faults.clear()

    @property
    def safe(self) -> bool:
        """Whether both outputs are at 0 V."""
        return self.outputs_v == (0.0, 0.0)

    def connect(self) -> "SimulatedBoard":
        """Return one more connection to the board."""
        return SimulatedBoard(self)

    def strike(self, call: str, kinds: frozenset[Fault] = frozenset()) -> Fault | None:
        """Return the armed fault that this call meets; raise what the library would."""
        fault = self._faults.take(call.encode(), kinds | _ANY_CALL)
        if fault is Fault.REFUSE:
            raise BoardError(_INTERNAL, "internal error")
        if fault is Fault.DROP:
            raise BoardError(NOT_CONNECTED, "device not connected or connection lost")
        return fault

    def identity(self) -> str:
        """Return who answers."""
        fault = self.strike("identity", frozenset({Fault.IDENTITY}))
        return _STRANGER if fault is Fault.IDENTITY else IDENTITY

    def set_trigger(self, samples: int) -> None:
        """Keep the length of a burst."""
        self.strike("set_trigger")
        self._burst = samples

    def arm(self, samples: int) -> Array:
        """Wait for triggers; return the buffer."""
        fault = self.strike("a_in_scan", frozenset({Fault.GARBAGE, Fault.TRUNCATE}))
        if self._armed is not None:
            raise BoardError(ALREADY_ACTIVE, "a background process is already in progress")
        self._spoil = fault
        self._moved[Side.INPUT] = 0
        self._armed = np.zeros(samples)
        return self._armed

    def play(self, volts: Array, rate_hz: float) -> None:
        """Play both outputs to the end, and let each trigger take its burst."""
        self.strike("a_out_scan")
        self.waveforms += 1
        self._count(volts)
        self._length_s = len(volts) / rate_hz
        self._moved[Side.OUTPUT] = len(volts)
        self.outputs_v = (float(volts[-1, 0]), float(volts[-1, 1]))
        if self._armed is not None:
            self._take_bursts(volts, self._armed)

    def _count(self, volts: Array) -> None:
        """Count what should not have arrived."""
        if self.bounds is FULL_SCALE_V:
            self.out_of_limits += FULL_SCALE_V.outside(volts)
            return
        self.out_of_limits += self.bounds.outside(volts[:, 0]) + FULL_SCALE_V.outside(volts[:, 1])

    def _take_bursts(self, volts: Array, buffer: Array) -> None:
        high = volts[:, 1] > _TRIGGER_HIGH_V
        edges = np.flatnonzero(high[1:] & ~high[:-1]) + 1
        starts = np.concatenate([[0], edges]) if high[0] else edges
        starts = starts[: len(buffer) // self._burst]  # the scan ends when its buffer is full
        if not len(starts):
            return
        drive_v = np.stack([volts[start : start + self._burst, 0] for start in starts])
        self.out_of_limits += self.bounds.rows_outside(drive_v)
        taken = self._plant.respond(drive_v).ravel()
        if self._spoil is Fault.GARBAGE:
            taken[len(taken) // 2] = np.nan
        if self._spoil is Fault.TRUNCATE:
            taken = taken[: len(taken) // 2]
        buffer[: len(taken)] = taken
        self._moved[Side.INPUT] = len(taken)

    def wait(self, side: Side, sleep: Callable[[float], object] = time.sleep) -> None:
        """Let the scan end; a truncated one ends too, one without triggers does not."""
        if self.strike(f"scan_wait {side}", frozenset({Fault.TIMEOUT})) is not None:
            self._stuck = True  # until the scan is stopped
        if side is Side.OUTPUT and self._honour_times:
            sleep(self._length_s)
        no_trigger = self._armed is not None and side is Side.INPUT and not self._moved[side]
        if self._stuck or no_trigger:
            raise BoardError(TIMED_OUT, "operation timed out")
        if side is Side.INPUT:
            self._armed = None

    def status(self, side: Side) -> ScanStatus:
        """Return how far the scan is."""
        self.strike(f"scan_status {side}")
        return ScanStatus(side is Side.INPUT and self._armed is not None, self._moved[side])

    def stop(self, side: Side) -> None:
        """Stop; the outputs stay where they are."""
        self.strike(f"scan_stop {side}")
        self._stuck = False
        if side is Side.INPUT:
            self._armed = None
            self._plant.forget()


class SimulatedBoard:
    """One connection to the simulated board, as the driver holds it: a `DaqBoard`."""

    def __init__(self, firmware: MccFirmware) -> None:
        self._firmware = firmware
        self._connected = True

    def _reach(self) -> MccFirmware:
        if not self._connected:
            raise BoardError(NOT_CONNECTED, "device not connected or connection lost")
        return self._firmware

    @property
    def identity(self) -> str:
        """Get the board's product name and unique id."""
        return self._guarded(lambda board: board.identity())

    def set_trigger(self, samples: int) -> None:
        """Let each rising edge at the trigger input take `samples` input samples."""
        self._guarded(lambda board: board.set_trigger(samples))

    def a_in_scan(self, channel: int, samples: int, rate_hz: float) -> Array:
        """Arm the input; return the buffer to be filled, (samples,) V."""
        return self._guarded(lambda board: board.arm(samples))

    def a_out_scan(self, volts: Array, rate_hz: float) -> None:
        """Play `volts` (samples, channels)."""
        self._guarded(lambda board: board.play(volts, rate_hz))

    def scan_wait(self, side: Side, timeout_s: float) -> None:
        """Return when the scan is done."""
        self._guarded(lambda board: board.wait(side))

    def scan_status(self, side: Side) -> ScanStatus:
        """Return how far the scan is."""
        return self._guarded(lambda board: board.status(side))

    def scan_stop(self, side: Side) -> None:
        """Stop the scan if there is one."""
        self._guarded(lambda board: board.stop(side))

    def reopen(self) -> None:
        """Connect again."""
        self._connected = True

    def close(self) -> None:
        """Release the board; idempotent."""
        self._connected = False

    def _guarded(self, call: Callable[[MccFirmware], T]) -> T:
        try:
            return call(self._reach())
        except BoardError as error:
            if error.code == NOT_CONNECTED:
                self._connected = False
            raise
