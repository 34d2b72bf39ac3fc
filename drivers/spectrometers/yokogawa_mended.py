"""PyMeasure's class of the Yokogawa AQ6370 series, mended: its settings and its wire.

Broken in its release 0.16: it cannot be opened over TCP, `active_trace` raises TypeError, the upper
limit of `wavelength_start` is 1700 - 9 m, and the binary trace is read without a query and leaves
its terminator behind. Beyond that, wavelengths keep nine digits instead of six, and waits end.
"""

from typing import Any

from pymeasure.adapters import Adapter
from pymeasure.instruments import Instrument
from pymeasure.instruments.validators import strict_discrete_set, strict_range
from pymeasure.instruments.yokogawa.aq6370series import AQ6370Series

from drivers.instrument import Closing
from drivers.wires.scpi import ScpiLink

TERMINATOR = "\r\n"


class MendedAQ6370(Closing, AQ6370Series):  # type: ignore[misc]  # PyMeasure is untyped
    """The analyser's settings, mended or added."""

    def __init__(
        self,
        adapter: Adapter | str | int,
        name: str = "Yokogawa AQ6370",
        *,
        user: str | None = "anonymous",
        password: str = "",
        **kwargs: Any,
    ) -> None:
        """Take the connection, and user and password of its login; no I/O here.

        Other keyword arguments reach the adapter when `adapter` is an address. Raises TypeError for
        keyword arguments that nobody would hear of.
        """
        if kwargs and not isinstance(adapter, str | int):
            raise TypeError(f"{name}: unknown settings {', '.join(kwargs)}")
        ends = {"read_termination": TERMINATOR, "write_termination": TERMINATOR}
        # Past AQ6370Series: its own __init__ passes the illegal VISA attribute `port`.
        super(AQ6370Series, self).__init__(adapter, name, tcpip=ends, **kwargs)
        self._link = ScpiLink(self.adapter, name, user, password, TERMINATOR)

    wavelength_start = Instrument.control(
        ":SENSe:WAVelength:STARt?",
        ":SENSe:WAVelength:STARt %.9g",
        """Control the start wavelength of a sweep (float from 50e-9 to 1700e-9 m).""",
        validator=strict_range,
        values=[50e-9, 1700e-9],
        dynamic=True,
    )

    wavelength_stop = Instrument.control(
        ":SENSe:WAVelength:STOP?",
        ":SENSe:WAVelength:STOP %.9g",
        """Control the stop wavelength of a sweep (float from 600e-9 to 2250e-9 m).""",
        validator=strict_range,
        values=[600e-9, 2250e-9],
        dynamic=True,
    )

    active_trace = Instrument.control(
        ":TRACe:ACTive?",
        ":TRACe:ACTive %s",
        """Control the active trace (str 'TRA' to 'TRG').""",
        validator=strict_discrete_set,
        values=["TRA", "TRB", "TRC", "TRD", "TRE", "TRF", "TRG"],
        cast=str,
    )

    transfer_format = Instrument.control(
        ":FORMat:DATA?",
        ":FORMat:DATA %s",
        """Control the data transfer format (str 'ASCII', 'REAL,32' or 'REAL,64').""",
        validator=strict_discrete_set,
        values=["ASCII", "REAL,32", "REAL,64"],
        cast=str,
        maxsplit=0,
    )

    level_scale = Instrument.control(
        ":DISPlay:TRACe:Y1:SCALe:SPACing?",
        ":DISPlay:TRACe:Y1:SCALe:SPACing %d",
        """Control the level scale of the trace (str 'LOGARITHMIC' in dBm or 'LINEAR' in W).""",
        validator=strict_discrete_set,
        values={"LOGARITHMIC": 0, "LINEAR": 1},
        map_values=True,
    )

    automatic_zero = Instrument.control(
        ":CALibration:ZERO?",
        ":CALibration:ZERO %d",
        """Control the automatic offset adjustment (bool).

        When on, it interrupts the instrument for half a minute every ten minutes (remote control
        manual IM AQ6370C-17EN, "Setting the timeout time"); `zero` does it when there is time.
        """,
        validator=strict_discrete_set,
        values={False: 0, True: 1},
        map_values=True,
    )

    # --- the wire: PyMeasure's own properties go through here as well -----------------------

    def write(self, command: str, **kwargs: Any) -> None:
        """Send one command; raises a DriverError if the instrument cannot be reached."""
        self._link.write(command)

    def read(self, **kwargs: Any) -> str:
        """Return one answer without its terminator; raises a DriverError if there is none."""
        return self._link.read()

    def ask(self, command: str, query_delay: float | None = None) -> str:
        """Send a query and return its answer; raises a DriverError if there is none."""
        return self._link.ask(command)

    def identify(self) -> str:
        """Return maker, model, serial number and firmware version, as the instrument says."""
        return self._link.ask("*IDN?")

    def close(self) -> None:
        """Shut down, log out and release the connection; idempotent."""
        try:
            self.shutdown()
        finally:
            self._link.close()
