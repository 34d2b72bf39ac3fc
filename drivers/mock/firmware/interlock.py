"""A simulated interlock contact on the first pin of a Red Pitaya; tests open and close it."""

from drivers.mock.faults import Fault
from drivers.mock.firmware.scpi import ScpiDevice, ScpiError, ScpiSession

IDENTITY = "REDPITAYA,INSTR2025,,01-21"
PIN = "DIO0_P"


class InterlockFirmware:
    """Answer `DIG:PIN? DIO0_P` with 1 while `closed`, else 0.

    closed: set by tests, also while sessions are open. reads: how often it was asked.
    """

    out_of_limits = 0  # no value arrives here
    safe = True  # nothing leaves it

    def __init__(self) -> None:
        """Begin closed, as in a lab where all is well."""
        self.closed = True
        self.reads = 0
        self._device = ScpiDevice(
            IDENTITY,
            {":DIGital:PIN?": self._read, ":DIGital:PIN:DIRection": self._set_direction},
        )

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next message that contains the text `on`."""
        self._device.inject(fault, on)

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self._device.faults.clear()

    def connect(self) -> ScpiSession:
        """Open one more connection."""
        return ScpiSession(self._device, login=False)

    def _read(self, arguments: list[str]) -> str:
        _check_pin(arguments[-1:])
        self.reads += 1
        return str(int(self.closed))

    def _set_direction(self, arguments: list[str]) -> None:
        _check_pin(arguments[-1:])
        if arguments[0].upper() != "IN":
            raise ScpiError(-224, "Illegal parameter value")


def _check_pin(arguments: list[str]) -> None:
    if [argument.upper() for argument in arguments] != [PIN]:
        raise ScpiError(-224, "Illegal parameter value")
