"""A simulated rig: the firmware of its instruments in front of one shared plant."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

from drivers.mock.faults import AnyFault, Fault, FaultOrder, OrderQueue, PlantFault, WireFault
from drivers.mock.firmware.audio import SimulatedAudio
from drivers.mock.firmware.interlock import InterlockFirmware
from drivers.mock.firmware.mcc import DrivenCircuit, MccFirmware
from drivers.mock.firmware.ocean import OceanFirmware
from drivers.mock.firmware.plate_daq import PlateBehindVolts
from drivers.mock.firmware.redpitaya import RedPitayaFirmware
from drivers.mock.firmware.slm import SLMFirmware
from drivers.mock.firmware.waveshaper import WaveShaperFirmware
from drivers.mock.firmware.yokogawa import ZERO_TIME_S, AQ6370Firmware
from drivers.mock.physics.circuit_table import RESPONSE_FULL, RESPONSE_UNIT_V
from drivers.mock.physics.optical_rows import LightOfRows, OpticalRows
from drivers.mock.physics.optics_table import FULL_SCALE_W
from drivers.mock.readout import Readout, one_row
from drivers.row_key import RowKey
from drivers.spec import Array


class Plant(Protocol):
    """Physics that hears the key of the next row beside the wire."""

    def announce(self, key: RowKey) -> None:
        """Use `key` for the noise and drift of the next row."""
        ...


class ShapedLight(Plant, Protocol):
    """The plant of an optical rig, as its shaper and its spectrometer see it."""

    def set_transmission(self, frequencies_thz: Array, transmission: NDArray[Any]) -> None:
        """Set the complex field transmission (lines,); frequencies not covered are dark.

        The same `frequencies_thz` object is passed as long as the grid stays the same.
        """
        ...

    def spectrum(self, wavelengths_m: Array) -> Array:
        """Return the power (points,), W, that one sweep over `wavelengths_m` reads.

        The same `wavelengths_m` object is passed as long as the axis stays the same.
        """
        ...


class CircuitPhysics(DrivenCircuit, Plant, Protocol):
    """The plant of a circuit's rig."""


class DrivenPlate(Plant, Protocol):
    """The plant of a plate rig, as its sound interface sees it."""

    def play(self, drive: Array) -> Array:
        """Return what the microphone sends for rows of drive, (rows, samples) each."""
        ...


@runtime_checkable
class Faulty(Protocol):
    """A simulated instrument that can be made to fail; a user's own need not be one."""

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next request that contains the text `on`."""
        ...


@runtime_checkable
class HttpFirmware(Protocol):
    """A simulated instrument that speaks HTTP."""

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        """Answer one request with status, content type and body.

        Raises ConnectionDropped or AnswerLate where an armed fault says so.
        """
        ...


class Session(Protocol):
    """One connection to an instrument on a byte stream; nothing that it does blocks.

    One that takes its time says by a `held_back_s`, set by `receive`, for so long what that
    returned is held back.
    """

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the host and return the bytes sent back; may raise ConnectionDropped."""
        ...

    def close(self) -> None:
        """End the connection; idempotent."""
        ...


@runtime_checkable
class StreamFirmware(Protocol):
    """A simulated instrument on a byte stream, such as SCPI over TCP.

    One that is no VISA instrument says by a `network_address`, with {host} and {port}, how a bench
    file writes its address.
    """

    def connect(self) -> Session:
        """Open one more connection."""
        ...


class Rig:
    """Instruments by name and the plant they share.

    optical_rows: measures many rows at once without the wire, where a rig can do that.
    """

    def __init__(
        self,
        plant: Plant | None,
        instruments: Mapping[str, object],
        optical_rows: OpticalRows | None = None,
        readouts: Mapping[str, Readout] | None = None,
    ) -> None:
        """Join `plant` and the firmware by the last part of its `mock://rig/...` address.

        readouts: what instruments read the plant through, by name; with one the keys of many rows
        may be announced at once.
        """
        self.plant = plant
        self.instruments = dict(instruments)
        self.instruments.setdefault("interlock", InterlockFirmware())
        self.optical_rows = optical_rows
        self._readouts = dict(readouts or {})
        self._wires = {name: OrderQueue() for name in self.instruments}

    @property
    def hears_ahead(self) -> bool:
        """Whether the keys of more rows than those of the next reading may be announced."""
        return bool(self._readouts)

    def announce(self, key: RowKey) -> None:
        """Tell the plant, beside the wire, which row comes next."""
        if self.plant is not None:
            self.plant.announce(key)

    def announce_rows(self, keys: Sequence[RowKey], coming: Sequence[RowKey] = ()) -> None:
        """Tell which rows come next, in order; what was announced and not read is forgotten.

        coming: the whole pass that they belong to; nobody here needs to know.
        """
        if not self._readouts:
            for key in keys:
                self.announce(key)
        for readout in self._readouts.values():
            readout.announce_rows(keys)

    def close(self) -> None:
        """Release what the rig holds; one in memory holds nothing."""

    def wire(self, instrument: str) -> OrderQueue:
        """Return the faults armed for the wire to an instrument."""
        return self._wires.setdefault(instrument, OrderQueue())

    def inject(self, instrument: str, fault: AnyFault, on: str = "") -> None:
        """Let `fault` strike the next request to `instrument` that contains the text `on`.

        Raises ValueError for an instrument that has no such faults.
        """
        self.arm(FaultOrder(instrument, fault, on))

    def arm(self, order: FaultOrder) -> None:
        """Arm a fault; raise ValueError for an instrument that is not there or has none such."""
        name = order.instrument
        if name not in self.instruments:
            raise ValueError(f"no instrument '{name}' (there are: {', '.join(self.instruments)})")
        if isinstance(order.fault, PlantFault):
            if name not in self._readouts:
                raise ValueError(f"'{name}' reads nothing that could be '{order.fault}'")
            self._readouts[name].faults.arm(order)
        elif isinstance(order.fault, WireFault):
            if wire_of(self.instruments[name]) is None:
                raise ValueError(f"'{name}' has no network wire for a '{order.fault}'")
            self.wire(name).arm(order)
        else:
            firmware = self.instruments[name]
            if not isinstance(firmware, Faulty):
                raise ValueError(f"'{name}' has no faults to inject")
            for _ in range(order.times):
                firmware.inject(order.fault, order.on)

    def clear_faults(self) -> None:
        """Disarm every fault of every instrument."""
        for queue in self._wires.values():
            queue.clear()
        for readout in self._readouts.values():
            readout.faults.clear()
        for firmware in self.instruments.values():
            clear = getattr(firmware, "clear_faults", None)
            if clear is not None:
                clear()


def wire_of(firmware: object) -> Literal["http", "stream"] | None:
    """Say what an instrument speaks on a network; None for boards and sound interfaces."""
    if isinstance(firmware, MccFirmware):  # is connected to as well, but by calls
        return None
    if isinstance(firmware, HttpFirmware):
        return "http"
    return "stream" if isinstance(firmware, StreamFirmware) else None


def optical_rig(
    plant: ShapedLight, *, sweep_time_s: float = 0.0, honour_times: bool = False
) -> Rig:
    """Return pulse shapers `shaper` and `slm`, and `spectrometer` and `ocean`; one plant.

    The light is shaped by whichever of the shapers was programmed last.
    sweep_time_s: how long a sweep takes; honour_times: integrations and zeros take their time.
    """
    readouts = {name: Readout(plant, FULL_SCALE_W) for name in ("spectrometer", "ocean")}
    spectra = {name: r.watched(plant.spectrum, one_row) for name, r in readouts.items()}
    spectrometer = AQ6370Firmware(
        spectra["spectrometer"],
        sweep_time_s=sweep_time_s,
        zero_time_s=ZERO_TIME_S if honour_times else 0.0,
    )
    ocean = OceanFirmware(spectra["ocean"], honour_times=honour_times)
    return Rig(
        plant,
        {
            "shaper": WaveShaperFirmware(plant.set_transmission),
            "slm": SLMFirmware(plant.set_transmission),
            "spectrometer": spectrometer,
            "ocean": ocean,
        },
        OpticalRows(plant, spectrometer) if isinstance(plant, LightOfRows) else None,
        readouts,
    )


class _WatchedCircuit:
    """A circuit as the boards see it: read through its readout."""

    def __init__(self, plant: CircuitPhysics, readout: Readout) -> None:
        self.respond = readout.watched(plant.respond, len)
        self._plant = plant
        self._readout = readout

    def forget(self) -> None:
        """Drop what was announced of rows that will not come."""
        self._readout.announce_rows(())
        self._plant.forget()


def circuit_rig(plant: CircuitPhysics, *, honour_times: bool = False) -> Rig:
    """Return the boards `daq` and `redpitaya` in front of one circuit.

    honour_times: waveforms take their time.
    """
    full_scale_v = RESPONSE_FULL * RESPONSE_UNIT_V
    readouts = {name: Readout(plant, full_scale_v) for name in ("daq", "redpitaya")}
    circuits = {name: _WatchedCircuit(plant, readout) for name, readout in readouts.items()}
    boards = {
        "daq": MccFirmware(circuits["daq"], honour_times=honour_times),
        "redpitaya": RedPitayaFirmware(circuits["redpitaya"], honour_times=honour_times),
    }
    return Rig(plant, boards, readouts=readouts)


def plate_rig(plant: DrivenPlate, *, honour_times: bool = False) -> Rig:
    """Return the sound interface `audio` and the board `daq`, both in front of one plate.

    honour_times: shots take the time that their frames last.
    """
    readouts = {name: Readout(plant, 1.0) for name in ("audio", "daq")}
    play = {name: readout.watched(plant.play, len) for name, readout in readouts.items()}
    instruments = {
        "audio": SimulatedAudio(play["audio"], honour_times=honour_times),
        "daq": MccFirmware(PlateBehindVolts(play["daq"]), honour_times=honour_times),
    }
    return Rig(plant, instruments, readouts=readouts)
