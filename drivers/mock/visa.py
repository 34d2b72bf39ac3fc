"""The in-memory end of a VISA wire: a PyMeasure adapter in front of simulated firmware."""

import time
from typing import Any

from pymeasure.adapters import Adapter
from pyvisa.constants import StatusCode
from pyvisa.errors import VisaIOError

from drivers.mock.faults import ConnectionDropped, FaultOrder, OrderQueue, WireFault
from drivers.mock.rig import Session, StreamFirmware
from drivers.wires.blocks import length_digits


class FirmwareAdapter(Adapter):  # type: ignore[misc]  # PyMeasure is untyped
    """Carry bytes, terminators included, and fail with the same VISA errors as a real socket.

    A missing answer is known at once here, so the timeout is not waited for.
    """

    connection: Session

    def __init__(
        self,
        firmware: StreamFirmware,
        terminator: str = "\r\n",
        *,
        timeout_s: float = 2.0,
        wire: OrderQueue | None = None,
    ) -> None:
        """Connect to `firmware`; wire: the faults armed for the way there."""
        super().__init__()
        self._firmware = firmware
        self._timeout_s = timeout_s
        self._wire = wire
        self._terminator = terminator.encode()
        self.reopen()

    def reopen(self) -> None:
        """Open a fresh connection; what was received on the old one is lost."""
        self.close()
        self.connection = self._firmware.connect()
        self._received = bytearray()
        self._late = b""
        self._behind = self._stalled = False

    def unread(self) -> bool:
        """Say whether bytes have arrived that nobody has read."""
        return bool(self._received)

    def read_head(self) -> bytes:
        """Return the header of a data block, or the first two bytes of what is none."""
        head = self._read_bytes(2)
        return head + self._read_bytes(length_digits(head))

    def read_into(self, whole: memoryview) -> None:
        """Fill `whole` with the bytes that come next."""
        whole[:] = self._read_bytes(len(whole))

    def write_parts(self, *parts: bytes | memoryview) -> None:
        """Send `parts` as one message; no terminator is added."""
        self._write_bytes(b"".join(parts))

    def _write(self, command: str, **kwargs: Any) -> None:
        self._write_bytes(command.encode("ascii") + self._terminator)

    def _write_bytes(self, content: bytes, **kwargs: Any) -> None:
        order = self._wire.take(content) if self._wire else None
        if order is not None:
            self._meet(order)
        if self._stalled:
            return  # as long as the line takes it, the host does not notice
        try:
            answer = self.connection.receive(content)
        except ConnectionDropped as dropped:
            raise VisaIOError(StatusCode.error_connection_lost) from dropped
        if held_back_s := getattr(self.connection, "held_back_s", 0.0):
            time.sleep(held_back_s)
        if self._behind and answer:
            self._late, self._behind = answer, False  # comes before the next one
            return
        self._received += self._late + answer
        self._late = b""

    def _meet(self, order: FaultOrder) -> None:
        if order.fault is WireFault.STALL:
            self._stalled = True
        elif order.delay_s > self._timeout_s:
            self._behind = True
        else:
            time.sleep(order.delay_s)

    def _read(self, **kwargs: Any) -> str:
        return self._read_line().removesuffix(self._terminator).decode("ascii")

    def _read_bytes(self, count: int, break_on_termchar: bool = False, **kwargs: Any) -> bytes:
        if count < 0:
            return self._read_line() if break_on_termchar else self._take(len(self._received))
        if len(self._received) < count:
            raise VisaIOError(StatusCode.error_timeout)
        return self._take(count)

    def _read_line(self) -> bytes:
        end = self._received.find(self._terminator[-1:])
        if end < 0:
            raise VisaIOError(StatusCode.error_timeout)
        return self._take(end + 1)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def flush_read_buffer(self) -> None:
        """Discard what has been received."""
        self._received.clear()
