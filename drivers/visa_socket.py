"""VISA instruments over TCP sockets, through pyvisa-py."""

import socket
from typing import Any

from pymeasure.adapters import VISAAdapter
from pyvisa.errors import Error as VisaError

from drivers.errors import ConnectionLost


class SocketAdapter(VISAAdapter):  # type: ignore[misc]  # PyMeasure is untyped
    """A VISA adapter on pyvisa-py that can be opened again after the connection was lost."""

    def __init__(self, address: str, timeout_s: float, terminator: str) -> None:
        """Connect; raises ConnectionLost."""
        self.connection: Any
        self._options: dict[str, Any] = {
            "timeout": round(timeout_s * 1000),
            "open_timeout": round(timeout_s * 1000),
            "read_termination": terminator,
            "write_termination": terminator,
        }
        try:
            super().__init__(address, visa_library="@py", **self._options)
        except (VisaError, OSError) as error:
            raise ConnectionLost(address, f"cannot be opened: {error}") from error
        self._send_at_once()

    def reopen(self) -> None:
        """Close and connect again; raises ConnectionLost."""
        try:
            self.connection.close()
            self.connection = self.manager.open_resource(self.resource_name, **self._options)
        except (VisaError, OSError) as error:
            raise ConnectionLost(self.resource_name, f"cannot be opened: {error}") from error
        self._send_at_once()

    def _send_at_once(self) -> None:
        """Switch off Nagle's algorithm, which delays a query after a command by about 40 ms.

        pyvisa-py offers no VISA attribute for it; sessions of other kinds have no such socket.
        """
        session = self.manager.visalib.sessions.get(self.connection.session)
        line = getattr(session, "interface", None)
        if isinstance(line, socket.socket):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
