"""A laser interlock's contact, read through a digital input; software is never the interlock.

    DIG:PIN:DIR IN,DIO0_P    the pin is an input
    DIG:PIN? DIO0_P          0 or 1

These are the commands of Red Pitaya's SCPI server (TCP port 5000).
"""

from typing import Protocol

from pymeasure.adapters import Adapter

from drivers.errors import ProtocolError
from drivers.wires.scpi import ScpiLink


class Interlock(Protocol):
    """A contact that says whether the bench may be driven; used by one thread at a time."""

    name: str

    def is_ok(self) -> bool:
        """Read the contact; raise DriverError if it cannot be read, which means that it is not."""
        ...

    def close(self) -> None:
        """Release the connection; idempotent."""
        ...


class ScpiInterlock:
    """A pin of a Red Pitaya; it reads `ok` (0 or 1) while the interlock is closed."""

    def __init__(
        self, adapter: Adapter, *, name: str = "interlock", input: str = "DIO0_P", ok: int = 1
    ) -> None:
        """Take the connection, closed by `close`; no I/O here."""
        self.name = name
        self._link = ScpiLink(adapter, name, None, "", "\r\n")
        self._input = input
        self._ok = str(ok)
        self._is_input = False

    def is_ok(self) -> bool:
        """Read the pin; raises InstrumentTimeout, ConnectionLost or ProtocolError."""
        if not self._is_input:
            self._link.write(f"DIG:PIN:DIR IN,{self._input}")
            self._is_input = True
        query = f"DIG:PIN? {self._input}"
        answer = self._link.ask(query)
        if answer not in ("0", "1"):
            raise ProtocolError(self.name, f"{query}: answered {answer!r}, not 0 or 1")
        return answer == self._ok

    def close(self) -> None:
        """Release the connection; idempotent."""
        self._link.close()
