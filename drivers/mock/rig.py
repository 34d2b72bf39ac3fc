"""A simulated rig: the firmware of its instruments in front of one shared plant."""

import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from drivers.mock.audio import SimulatedAudio
from drivers.mock.faults import Fault
from drivers.mock.mcc import DrivenCircuit, MccFirmware
from drivers.mock.ocean import OceanFirmware
from drivers.mock.optical_rows import LightOfRows, OpticalRows
from drivers.mock.waveshaper import WaveShaperFirmware
from drivers.mock.yokogawa import AQ6370Firmware
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
    """One connection to an instrument on a byte stream."""

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the host and return the bytes sent back; may raise ConnectionDropped."""
        ...

    def close(self) -> None:
        """End the connection; idempotent."""
        ...


@runtime_checkable
class StreamFirmware(Protocol):
    """A simulated instrument on a byte stream, such as SCPI over TCP."""

    def connect(self) -> Session:
        """Open one more connection."""
        ...


class Rig:
    """Instruments by name and the plant they share.

    optical_rows: measures many rows at once without the wire, where a rig can do that.
    """

    def __init__(
        self,
        plant: Plant,
        instruments: Mapping[str, object],
        optical_rows: OpticalRows | None = None,
    ) -> None:
        """Join `plant` and the firmware by the last part of its `mock://rig/...` address."""
        self.plant = plant
        self.instruments = dict(instruments)
        self.optical_rows = optical_rows

    def announce(self, key: RowKey) -> None:
        """Tell the plant, beside the wire, which row comes next."""
        self.plant.announce(key)

    def inject(self, instrument: str, fault: Fault, on: str = "") -> None:
        """Let `fault` strike the next request to `instrument` that contains the text `on`.

        Raises ValueError for an instrument that has no faults.
        """
        firmware = self.instruments[instrument]
        if not isinstance(firmware, Faulty):
            raise ValueError(f"'{instrument}' has no faults to inject")
        firmware.inject(fault, on)


def optical_rig(
    plant: ShapedLight, *, sweep_time_s: float = 0.0, honour_times: bool = False
) -> Rig:
    """Return pulse shaper `shaper`, and `spectrometer` and `ocean`, in front of one plant.

    sweep_time_s: how long a sweep takes; honour_times: integrations take their time.
    """
    spectrometer = AQ6370Firmware(plant.spectrum, sweep_time_s=sweep_time_s)
    ocean = OceanFirmware(plant.spectrum, **({"pause": time.sleep} if honour_times else {}))
    return Rig(
        plant,
        {
            "shaper": WaveShaperFirmware(plant.set_transmission),
            "spectrometer": spectrometer,
            "ocean": ocean,
        },
        OpticalRows(plant, spectrometer) if isinstance(plant, LightOfRows) else None,
    )


def circuit_rig(plant: CircuitPhysics, *, honour_times: bool = False) -> Rig:
    """Return the board `daq` in front of a circuit; honour_times: waveforms take their time."""
    return Rig(plant, {"daq": MccFirmware(plant, honour_times=honour_times)})


def plate_rig(plant: DrivenPlate, *, honour_times: bool = False) -> Rig:
    """Return the sound interface `audio` in front of a plate.

    honour_times: shots take the time that their frames last.
    """
    return Rig(plant, {"audio": SimulatedAudio(plant.play, honour_times=honour_times)})
