"""The Red Pitaya STEMlab 125-14 as a SCPI instrument with PyMeasure's conventions (TCP port 5000).

Its settings as properties, its error queue, its digital pins and its safe state: both outputs off
and the generator reset. What is measured with it is `redpitaya`'s. Commands as in the vendor's
documentation and the firmware's source, OS 2.00 or newer.
"""

import re
from typing import Any

from pymeasure.adapters import Adapter
from pymeasure.instruments import Channel, Instrument, SCPIMixin
from pymeasure.instruments.validators import strict_discrete_set, strict_range

from drivers.circuits.redpitaya_table import LENGTH
from drivers.errors import InstrumentRefused, refuse
from drivers.instrument import Closing
from drivers.wires.scpi import ScpiLink
from drivers.wires.scpi_settings import refuse_queued_errors, understood, verify

CLOCK_HZ = 125e6
DECIMATIONS = (1, 2, 4, 8, *range(16, 65_537))
TERMINATOR = "\r\n"
_PIN = re.compile(r"DIO(?:\d|10)_[PN]")


class Output(Channel):  # type: ignore[misc]  # PyMeasure is untyped
    """One output of the generator."""

    shape = Channel.control(
        "SOUR{ch}:FUNC?",
        "SOUR{ch}:FUNC %s",
        """Control the waveform (str 'SINE' or 'ARBITRARY').""",
        validator=strict_discrete_set,
        values=["SINE", "ARBITRARY"],
        cast=str,
    )

    frequency = Channel.control(
        "SOUR{ch}:FREQ:FIX?",
        "SOUR{ch}:FREQ:FIX %.9g",
        """Control how often per second the whole table is played (float, up to 50e6 Hz).""",
        validator=strict_range,
        values=[1e-6, 50e6],
    )

    offset = Channel.control(
        "SOUR{ch}:VOLT:OFFS?",
        "SOUR{ch}:VOLT:OFFS %.6g",
        """Control the offset (float from -1 to 1 V).""",
        validator=strict_range,
        values=[-1, 1],
    )

    amplitude = Channel.control(
        "SOUR{ch}:VOLT?",
        "SOUR{ch}:VOLT %.6g",
        """Control the voltage that a table's 1 stands for (float from 0 to 1 V).""",
        validator=strict_range,
        values=[0, 1],
    )

    burst_mode = Channel.control(
        "SOUR{ch}:BURS:STAT?",
        "SOUR{ch}:BURS:STAT %s",
        """Control whether the table is repeated (str 'CONTINUOUS' or 'BURST').""",
        validator=strict_discrete_set,
        values=["CONTINUOUS", "BURST"],
        cast=str,
    )

    burst_cycles = Channel.control(
        "SOUR{ch}:BURS:NCYC?",
        "SOUR{ch}:BURS:NCYC %d",
        """Control how many tables a burst has (int from 1 to 65536).""",
        validator=strict_range,
        values=[1, 65_536],
        cast=int,
    )

    burst_repetitions = Channel.control(
        "SOUR{ch}:BURS:NOR?",
        "SOUR{ch}:BURS:NOR %d",
        """Control how many bursts follow a trigger (int from 1 to 65536).""",
        validator=strict_range,
        values=[1, 65_536],
        cast=int,
    )

    output_enabled = Channel.control(
        "OUTPUT{ch}:STATE?",
        "OUTPUT{ch}:STATE %s",
        """Control whether the output is on (bool).""",
        validator=strict_discrete_set,
        values={True: "ON", False: "OFF"},
        map_values=True,
    )


class Input(Channel):  # type: ignore[misc]  # PyMeasure is untyped
    """One fast analog input."""

    gain = Channel.control(
        "ACQ:SOUR{ch}:GAIN?",
        "ACQ:SOUR{ch}:GAIN %s",
        """Control which way the input's jumpers are set (str 'LV', +-1 V, or 'HV', +-20 V).""",
        validator=strict_discrete_set,
        values=["LV", "HV"],
        cast=str,
    )


class RedPitayaBoard(Closing, SCPIMixin, Instrument):  # type: ignore[misc]  # PyMeasure is untyped
    """The board: settings, digital pins, errors, safe state."""

    aout = Instrument.MultiChannelCreator(Output, (1, 2), prefix="aout")
    ain = Instrument.MultiChannelCreator(Input, (1, 2), prefix="ain")

    def __init__(
        self, adapter: Adapter | str | int, name: str = "Red Pitaya", **kwargs: Any
    ) -> None:
        """Take the connection; no I/O here.

        Other keyword arguments reach the adapter when `adapter` is an address. Raises TypeError for
        keyword arguments that nobody would hear of.
        """
        if kwargs and not isinstance(adapter, str | int):
            raise TypeError(f"{name}: unknown settings {', '.join(kwargs)}")
        ends = {"read_termination": TERMINATOR, "write_termination": TERMINATOR}
        super().__init__(adapter, name, tcpip=ends, **kwargs)
        self._link = ScpiLink(self.adapter, name, None, "", TERMINATOR)

    # --- settings -----------------------------------------------------------------------------

    decimation = Instrument.control(
        "ACQ:DEC:F?",
        "ACQ:DEC:F %d",
        """Control by how much the inputs' 125 MHz are divided (int: 1, 2, 4, 8, 16 to 65536).""",
        validator=strict_discrete_set,
        values=DECIMATIONS,
        cast=int,
    )

    average_skipped_samples = Instrument.control(
        "ACQ:AVG?",
        "ACQ:AVG %s",
        """Control whether a sample is the mean of what decimation leaves out (bool).""",
        validator=strict_discrete_set,
        values={True: "ON", False: "OFF"},
        map_values=True,
    )

    acq_trigger_delay_samples = Instrument.control(
        "ACQ:TRIG:DLY?",
        "ACQ:TRIG:DLY %d",
        """Control how many samples after the trigger the recording's middle is (int, +-8192).""",
        validator=strict_range,
        values=[-LENGTH // 2, LENGTH // 2],
        cast=int,
    )

    acq_units = Instrument.control(
        "ACQ:DATA:UNITS?",
        "ACQ:DATA:UNITS %s",
        """Control the unit of recordings (str 'RAW' or 'VOLTS').""",
        validator=strict_discrete_set,
        values=["RAW", "VOLTS"],
        cast=str,
    )

    acq_format = Instrument.setting(
        "ACQ:DATA:FORMAT %s",
        """Set the format of recordings (str 'BIN' or 'ASCII').""",
        validator=strict_discrete_set,
        values=["BIN", "ASCII"],
    )

    # --- the wire: PyMeasure's own properties go through here as well -------------------------

    def write(self, command: str, **kwargs: Any) -> None:
        """Send one command; raises a DriverError if the instrument cannot be reached."""
        self._link.write(command)

    def read(self, **kwargs: Any) -> str:
        """Return one answer without its terminator; raises a DriverError if there is none."""
        return self._link.read()

    def ask(self, command: str, query_delay: float | None = None) -> str:
        """Send a query and return its answer; raises a DriverError if there is none."""
        return self._link.ask(command)

    # --- Instrument ---------------------------------------------------------------------------

    def identify(self) -> str:
        """Return maker, model, serial number and version, as the instrument says."""
        return self._link.ask("*IDN?")

    def shutdown(self) -> None:
        """Turn both outputs off and reset the generator; idempotent.

        Waits for another thread's shot: `abort` first ends that soon.
        """
        with self._link.transaction():
            if not self._link.closed:
                self._link.recover()
                self._enter_safe_state()
                self._check_outputs_off()
                self._refuse_queued_errors("safe state")
        super().shutdown()

    def close(self) -> None:
        """Shut down and release the connection; idempotent."""
        with self._link.transaction():  # no shot between the two
            try:
                self.shutdown()
            finally:
                self._link.close()

    def digital_input(self, pin: str) -> bool:
        """Return the level of a digital pin, `DIO0_P` to `DIO10_N`, that is an input.

        Raises LimitError for another name, InstrumentRefused for a pin that is an output, whose
        level says nothing of the outside.
        """
        if _PIN.fullmatch(pin) is None:
            refuse(self.name, "pin", f"{pin!r} is not DIO0_P to DIO10_P or DIO0_N...")
        query = f"DIG:PIN:DIR? {pin}"
        direction = self._link.ask(query)
        if direction not in ("IN", "OUT"):
            raise self._link.distrust(query, f"answered {direction!r}")
        if direction == "OUT":
            raise InstrumentRefused(self.name, f"{pin} is set as an output")
        query = f"DIG:PIN? {pin}"
        level = self._link.ask(query)
        if level not in ("0", "1"):
            raise self._link.distrust(query, f"answered {level!r}")
        return level == "1"

    # --- states and errors --------------------------------------------------------------------

    def _enter_safe_outputs(self) -> None:
        self.write("OUTPUT:STATE OFF")

    def _enter_safe_state(self) -> None:
        """Forget old errors, turn both outputs off, reset the generator, stop the recording."""
        self.write("*CLS")
        self._enter_safe_outputs()
        self.write("GEN:RST")
        self.write("ACQ:STOP")

    def _check_outputs_off(self) -> None:
        for number, channel in self.aout.items():
            with understood(self._link, f"OUTPUT{number}:STATE?"):
                if channel.output_enabled:
                    raise InstrumentRefused(self.name, f"OUTPUT{number}: is still on")

    def _refuse_queued_errors(self, asked: str) -> None:
        refuse_queued_errors(self._link, asked, "SYST:ERR:NEXT?")

    def _verify(self, owner: Any, setting: str, value: Any) -> None:
        named = setting if owner is self else f"{type(owner).__name__.lower()} {owner.id} {setting}"
        # six digits come back
        verify(self._link, named, value, lambda: getattr(owner, setting), share=1e-5)
