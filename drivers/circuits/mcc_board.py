"""What the driver needs of Measurement Computing's library: six calls, and the board's identity.

`UldaqBoard` makes them through uldaq, which is imported only when a real board is opened: the
import fails where libuldaq is not installed. The simulated board makes them in memory.
"""

from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from drivers.spec import Array

T = TypeVar("T")

DEVICE_NOT_FOUND = 6
NOT_CONNECTED = 7
DEAD_DEVICE = 8
ALREADY_ACTIVE = 16
TIMED_OUT = 20
NO_CONNECTION = 73
LOST = frozenset({DEVICE_NOT_FOUND, NOT_CONNECTED, DEAD_DEVICE, NO_CONNECTION})


class BoardError(Exception):
    """The library's refusal: `code` is its ULError, `text` its own words."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"error {code}, {text}")
        self.code = code
        self.text = text


class Side(StrEnum):
    """Which half of the board a scan belongs to."""

    INPUT = "input"
    OUTPUT = "output"


class ScanStatus(NamedTuple):
    """Whether a scan runs, and how many samples per channel it has moved."""

    running: bool
    samples: int


class DaqBoard(Protocol):
    """One board; every call may raise BoardError."""

    @property
    def identity(self) -> str:
        """Get the board's product name and unique id."""
        ...

    def set_trigger(self, samples: int) -> None:
        """Let each rising edge at the trigger input take `samples` input samples."""
        ...

    def a_in_scan(self, channel: int, samples: int, rate_hz: float) -> Array:
        """Arm the input: `samples` in all, in bursts as set; return the buffer to be filled, V."""
        ...

    def a_out_scan(self, volts: Array, rate_hz: float) -> None:
        """Start to play `volts` (samples, channels) on output channels 0, 1, ...; copies them."""
        ...

    def scan_wait(self, side: Side, timeout_s: float) -> None:
        """Return when the scan is done; BoardError TIMED_OUT after `timeout_s`."""
        ...

    def scan_status(self, side: Side) -> ScanStatus:
        """Return how far the scan is."""
        ...

    def scan_stop(self, side: Side) -> None:
        """Stop the scan if there is one; the outputs keep their voltages."""
        ...

    def reopen(self) -> None:
        """Connect again after the connection was lost."""
        ...

    def close(self) -> None:
        """Release the board; idempotent."""
        ...


class UldaqBoard:
    """A board on USB, through uldaq; input differential, all ranges +-10 V."""

    def __init__(self, unique_id: str = "") -> None:
        """Connect to the board with this id, or to the only one.

        Raises ImportError or OSError without uldaq or its library, BoardError without a board.
        """
        import uldaq

        self._uldaq = uldaq
        self._unique_id = unique_id
        self._played: Any = None  # the library reads from it while it plays
        self._device: Any = None
        self._connect()

    def _connect(self) -> None:
        found = self._call(self._uldaq.get_daq_device_inventory, self._uldaq.InterfaceType.USB)
        wanted = [d for d in found if self._unique_id in ("", d.unique_id)]
        if len(wanted) != 1:
            there = ", ".join(f"{d.product_name} {d.unique_id}" for d in found) or "none"
            text = f"{len(wanted)} boards have the id '{self._unique_id}' (there are: {there})"
            raise BoardError(DEVICE_NOT_FOUND, text)
        self._identity = f"{wanted[0].product_name} {wanted[0].unique_id}"
        self._device = self._uldaq.DaqDevice(wanted[0])
        self._call(self._device.connect)
        self._input = self._device.get_ai_device()
        self._output = self._device.get_ao_device()

    def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return function(*arguments)
        except self._uldaq.ULException as error:
            raise BoardError(int(error.error_code), error.error_message) from error

    @property
    def identity(self) -> str:
        """Get the board's product name and unique id."""
        if not self._call(self._device.is_connected):
            raise BoardError(NOT_CONNECTED, "device not connected or connection lost")
        return self._identity

    def set_trigger(self, samples: int) -> None:
        """Let each rising edge at the trigger input take `samples` input samples."""
        edge = self._uldaq.TriggerType.POS_EDGE
        self._call(self._input.set_trigger, edge, 0, 0.0, 0.0, samples)

    def a_in_scan(self, channel: int, samples: int, rate_hz: float) -> Array:
        """Arm the input; return the buffer that the library fills, (samples,) V."""
        u = self._uldaq
        buffer = u.create_float_buffer(1, samples)
        self._call(
            self._input.a_in_scan,
            channel,
            channel,
            u.AiInputMode.DIFFERENTIAL,
            u.Range.BIP10VOLTS,
            samples,
            rate_hz,
            u.ScanOption.EXTTRIGGER | u.ScanOption.RETRIGGER,
            u.AInScanFlag.DEFAULT,
            buffer,
        )
        return np.frombuffer(buffer, dtype=np.float64)  # keeps the buffer alive

    def a_out_scan(self, volts: Array, rate_hz: float) -> None:
        """Start to play `volts` (samples, channels) on output channels 0, 1, ...; copies them."""
        u = self._uldaq
        samples, channels = volts.shape
        self._played = u.create_float_buffer(channels, samples)
        np.frombuffer(self._played, dtype=np.float64)[:] = volts.ravel()
        self._call(
            self._output.a_out_scan,
            0,
            channels - 1,
            u.Range.BIP10VOLTS,
            samples,
            rate_hz,
            u.ScanOption.DEFAULTIO,
            u.AOutScanFlag.DEFAULT,
            self._played,
        )

    def scan_wait(self, side: Side, timeout_s: float) -> None:
        """Return when the scan is done; BoardError TIMED_OUT after `timeout_s`."""
        self._call(self._half(side).scan_wait, self._uldaq.WaitType.WAIT_UNTIL_DONE, timeout_s)

    def scan_status(self, side: Side) -> ScanStatus:
        """Return how far the scan is."""
        state, transfer = self._call(self._half(side).get_scan_status)
        return ScanStatus(state == self._uldaq.ScanStatus.RUNNING, transfer.current_scan_count)

    def scan_stop(self, side: Side) -> None:
        """Stop the scan if there is one; the outputs keep their voltages."""
        self._call(self._half(side).scan_stop)

    def _half(self, side: Side) -> Any:
        return self._input if side is Side.INPUT else self._output

    def reopen(self) -> None:
        """Connect again after the connection was lost."""
        self.close()
        self._connect()

    def close(self) -> None:
        """Release the board; idempotent."""
        device, self._device = self._device, None
        if device is not None:
            with suppress(self._uldaq.ULException):  # it may be gone already
                device.disconnect()
            device.release()
