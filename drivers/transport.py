"""Open the wire to an instrument by its address: the only place that tells mock from real.

    mock://<rig>/<instrument>           the firmware of a simulated rig, in memory
    replay://<file>#<instrument>        a recorded session, which answers what was answered then
    http://192.168.1.20                 HTTP instruments
    TCPIP0::192.168.1.21::10001::SOCKET VISA instruments, through pyvisa-py
    mcc://01A2B3C4                      boards of Measurement Computing, through uldaq
    ocean://192.168.1.30                Ocean spectrometers over TCP (port 57357, or :port)
    ocean-usb://FLMS00123               Ocean spectrometers on USB, by serial number
    slm://slmsuite.hardware.slms.santec.Santec?slm_number=1
                                        phase displays, by slmsuite's class
    slm-tcp://192.168.1.40/panel        the display of this name on slmsuite's server (:port)
    audio://Scarlett 2i2                a sound interface by its name, through PortAudio

What is returned is of the same type either way, so drivers cannot know the difference. Wires that
are opened with `TappedRigs` have a tap on them (`drivers.tap`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import httpx
from pymeasure.adapters import Adapter

from drivers.audio_port import DuplexPort
from drivers.audio_process import SounddeviceProcess
from drivers.errors import ConnectionLost
from drivers.import_path import imported
from drivers.mcc_board import BoardError, DaqBoard, UldaqBoard
from drivers.mock.audio import SimulatedAudio
from drivers.mock.circuit import CircuitPlant
from drivers.mock.faults import OrderQueue
from drivers.mock.http import FirmwareClient
from drivers.mock.mcc import MccFirmware
from drivers.mock.ocean import OceanFirmware, SessionWire
from drivers.mock.optics import OpticalPlant
from drivers.mock.optics_drift import DeclaredDrift
from drivers.mock.plate import OscillatingPlate
from drivers.mock.remote import TIMEOUT_S, RemoteRig
from drivers.mock.replay import ReplayedStream
from drivers.mock.replay_calls import ReplayedBoard, ReplayedDisplay, ReplayedPort
from drivers.mock.rig import (
    HttpFirmware,
    Rig,
    StreamFirmware,
    circuit_rig,
    optical_rig,
    plate_rig,
)
from drivers.mock.slm import SimulatedDisplay, SLMFirmware
from drivers.mock.visa import FirmwareAdapter
from drivers.ocean_link import ByteWire, OceanLink, TcpWire
from drivers.slm_display import PhaseDisplay, SlmsuiteDisplay, display_class, remote_display
from drivers.tap import TappedAdapter, TappedClient, TappedWire, tap_of
from drivers.tap_calls import TappedBoard, TappedDisplay, TappedPort
from drivers.visa_socket import SocketAdapter

__all__ = [
    "MOCK",
    "REPLAY",
    "Rig",
    "RigSettings",
    "SocketAdapter",
    "open_audio",
    "open_board",
    "open_http",
    "open_ocean",
    "open_rigs",
    "open_slm",
    "open_visa",
]

MOCK = "mock://"
REPLAY = "replay://"
_IN_MEMORY = (MOCK, REPLAY)
_AUDIO = "audio://"
_BOARD = "mcc://"
_OCEAN = "ocean://"
_OCEAN_PORT = 57357
_OCEAN_USB = "ocean-usb://"
_SLM = "slm://"
_SLM_TCP = "slm-tcp://"
_SLM_PORT = 5025
_PLANTS = "optics, circuit, plate"


class RigSettings(Protocol):
    """What a bench file says of one simulated rig; see `drivers.mock` for the plants."""

    @property
    def plant(self) -> str:
        """Say which physics: `optics`, `circuit`, `plate`, or what builds a rig, `module:name`."""
        ...

    @property
    def gap(self) -> float:
        """Give the departure from the textbook, 0 to 3."""
        ...

    @property
    def noise(self) -> float:
        """Give the factor on every noise source."""
        ...

    @property
    def device_seed(self) -> int:
        """Say which specimen of the device."""
        ...

    @property
    def seed(self) -> int:
        """Give the seed of the noise."""
        ...

    @property
    def honour_times(self) -> bool:
        """Say whether sweeps take their real time."""
        ...

    @property
    def drift_per_hour(self) -> float:
        """Give the share of the plant's drift ranges that goes in an hour of simulated time."""
        ...

    @property
    def drift_from_s(self) -> float:
        """Give the simulated time at which that drift begins."""
        ...

    @property
    def admin(self) -> str | None:
        """Say where `pnnlab mock` serves this rig; None for one in memory."""
        ...


def open_rigs(
    settings: Mapping[str, RigSettings], row_times_s: Mapping[str, float] | None = None
) -> dict[str, Rig]:
    """Build the simulated rigs by name; one with `admin` is in another process, not connected yet.

    Raises ValueError for a plant that does not exist or has no drift to declare.

    A plant `module:name` is called with device_seed, gap, noise and seed and returns a `Rig`;
    raises TypeError if it does not.

    row_times_s: by address, what an instrument's part of a row takes where times are honoured.
    """
    times = row_times_s or {}
    return {name: _open_rig(name, rig, times) for name, rig in settings.items()}


def _open_rig(name: str, settings: RigSettings, row_times_s: Mapping[str, float]) -> Rig:
    if settings.admin is not None:
        return RemoteRig(name, open_http(settings.admin, {}, timeout_s=TIMEOUT_S))
    dials: dict[str, Any] = {
        "device_seed": settings.device_seed,
        "gap": settings.gap,
        "noise": settings.noise,
        "seed": settings.seed,
    }
    if settings.plant == "optics":
        sweep_time_s = row_times_s.get(f"{MOCK}{name}/spectrometer", 0.0)
        drift = DeclaredDrift(settings.drift_per_hour, settings.drift_from_s)
        return optical_rig(
            OpticalPlant(**dials, drift=drift),
            sweep_time_s=sweep_time_s if settings.honour_times else 0.0,
            honour_times=settings.honour_times,
        )
    if settings.drift_per_hour and (
        settings.plant in ("circuit", "plate") or ":" in settings.plant
    ):
        raise ValueError(
            f"rigs.{name}.drift_per_hour: {settings.drift_per_hour:g} for the plant "
            f"'{settings.plant}', which has no drift to declare (optics only)"
        )
    if settings.plant == "circuit":
        return circuit_rig(CircuitPlant(**dials), honour_times=settings.honour_times)
    if settings.plant == "plate":
        return plate_rig(OscillatingPlate(**dials), honour_times=settings.honour_times)
    if ":" in settings.plant:
        return _import_rig(f"rigs.{name}.plant", settings.plant, dials)
    raise ValueError(f"rigs.{name}.plant: no plant '{settings.plant}' (there are: {_PLANTS})")


def _import_rig(key: str, path: str, dials: Mapping[str, Any]) -> Rig:
    try:
        rig = imported(path)(**dials)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if not isinstance(rig, Rig):
        raise TypeError(f"{key}: '{path}' returns a {type(rig).__name__}, not a Rig")
    return rig


def open_http(address: str, rigs: Mapping[str, Rig], *, timeout_s: float) -> httpx.Client:
    """Open an HTTP instrument; raise ValueError for an address that names none.

    Proxies of the environment are not used: instruments stand in the lab's own network.
    """
    client, tap = _open_client(address, rigs, timeout_s), tap_of(rigs)
    return client if tap is None else TappedClient(client, tap)


def _open_client(address: str, rigs: Mapping[str, Rig], timeout_s: float) -> httpx.Client:
    if not address.startswith(_IN_MEMORY):
        if not address.startswith(("http://", "https://")):
            raise ValueError(f"{address}: not an http:// or mock:// address")
        return httpx.Client(base_url=address, timeout=timeout_s, trust_env=False)
    firmware = _firmware(address, rigs)
    if not isinstance(firmware, HttpFirmware):
        raise ValueError(f"{address}: this simulated instrument does not speak HTTP")
    return FirmwareClient(firmware, timeout_s=timeout_s, wire=_wire(address, rigs))


def open_visa(
    address: str, rigs: Mapping[str, Rig], *, timeout_s: float, terminator: str = "\r\n"
) -> Adapter:
    """Open a VISA instrument whose lines end in `terminator`.

    Raises ValueError for an address that names none, ConnectionLost if it cannot be reached.
    """
    adapter, tap = _open_adapter(address, rigs, timeout_s, terminator), tap_of(rigs)
    return adapter if tap is None else TappedAdapter(adapter, tap, terminator)


def _open_adapter(
    address: str, rigs: Mapping[str, Rig], timeout_s: float, terminator: str
) -> Adapter:
    if not address.startswith(_IN_MEMORY):
        return SocketAdapter(address, timeout_s, terminator)
    firmware = _firmware(address, rigs)
    if not isinstance(firmware, StreamFirmware):
        raise ValueError(f"{address}: this simulated instrument has no VISA interface")
    return FirmwareAdapter(firmware, terminator, timeout_s=timeout_s, wire=_wire(address, rigs))


def open_board(address: str, rigs: Mapping[str, Rig]) -> DaqBoard:
    """Open a board of Measurement Computing: `mcc://<unique id>`, or `mcc://` for the only one.

    Raises ValueError for an address that names none, or where uldaq is not installed;
    ConnectionLost if the board cannot be reached.
    """
    board, tap = _open_board(address, rigs), tap_of(rigs)
    return board if tap is None else TappedBoard(board, tap)


def _open_board(address: str, rigs: Mapping[str, Rig]) -> DaqBoard:
    if address.startswith(REPLAY):
        return ReplayedBoard(address.removeprefix(REPLAY))
    if not address.startswith(MOCK):
        if not address.startswith(_BOARD):
            raise ValueError(f"{address}: not an mcc:// or mock:// address")
        try:
            return UldaqBoard(address.removeprefix(_BOARD))
        except (ImportError, OSError) as error:
            message = f"{address}: needs `pip install pnnlab[mcc]` and libuldaq ({error})"
            raise ValueError(message) from error
        except BoardError as error:
            raise ConnectionLost(address, f"cannot be opened: {error}") from error
    firmware = _firmware(address, rigs)
    if not isinstance(firmware, MccFirmware):
        raise ValueError(f"{address}: this simulated instrument is no data acquisition board")
    return firmware.connect()


def open_audio(address: str, rigs: Mapping[str, Rig], *, timeout_s: float) -> DuplexPort:
    """Open a duplex sound interface; raise ValueError for an address that names none.

    timeout_s: for so long a stream may stand still.
    """
    port, tap = _open_port(address, rigs, timeout_s), tap_of(rigs)
    return port if tap is None else TappedPort(port, tap)


def _open_port(address: str, rigs: Mapping[str, Rig], timeout_s: float) -> DuplexPort:
    if address.startswith(REPLAY):
        return ReplayedPort(address.removeprefix(REPLAY))
    if not address.startswith(MOCK):
        if not address.startswith(_AUDIO):
            raise ValueError(f"{address}: not an audio:// or mock:// address")
        return SounddeviceProcess(address.removeprefix(_AUDIO), timeout_s=timeout_s)
    firmware = _firmware(address, rigs)
    if not isinstance(firmware, SimulatedAudio):
        raise ValueError(f"{address}: this simulated instrument is no sound interface")
    return firmware


def open_ocean(address: str, rigs: Mapping[str, Rig], *, timeout_s: float) -> OceanLink:
    """Open an Ocean spectrometer: `ocean://host[:port]`, `ocean-usb://serial`, or a simulated one.

    Nothing is connected yet. Raises ValueError for an address that names none, or where seabreeze
    is not installed.
    """
    try:
        from drivers.ocean_seabreeze import NetworkLink, UsbLink
    except ImportError as error:
        raise ValueError(f"{address}: needs `pip install 'pnnlab[ocean]'` ({error})") from error
    tap = tap_of(rigs)
    if address.startswith(_OCEAN_USB):
        if tap is not None:
            raise ValueError(
                f"{address}: what goes over USB cannot be recorded, but over TCP it can"
            )
        return UsbLink(address.removeprefix(_OCEAN_USB))
    connect = _ocean_wire(address, rigs, timeout_s)
    return NetworkLink(connect if tap is None else lambda: TappedWire(connect, tap), timeout_s)


def _ocean_wire(address: str, rigs: Mapping[str, Rig], timeout_s: float) -> Callable[[], ByteWire]:
    """Return what connects; raises ValueError for an address that names none."""
    if address.startswith(_OCEAN):
        host, port = _host_and_port(address, address.removeprefix(_OCEAN), _OCEAN_PORT)
        return lambda: TcpWire(host, port, timeout_s)
    if not address.startswith(_IN_MEMORY):
        raise ValueError(f"{address}: not an ocean://, ocean-usb:// or mock:// address")
    firmware = _firmware(address, rigs)
    if isinstance(firmware, ReplayedStream):
        return lambda: SessionWire(firmware.connect())
    if not isinstance(firmware, OceanFirmware):
        raise ValueError(f"{address}: this simulated instrument is no Ocean spectrometer")
    wire = _wire(address, rigs)
    return lambda: SessionWire(firmware.connect(), wire)


def open_slm(address: str, rigs: Mapping[str, Rig], *, timeout_s: float) -> PhaseDisplay:
    """Open a phase display: `slm://module.Class?option=value`, `slm-tcp://host[:port]/name`.

    Nothing is connected yet. Raises ValueError for an address that names none, or where slmsuite
    is not installed.
    """
    display, tap = _open_display(address, rigs, timeout_s), tap_of(rigs)
    return display if tap is None else TappedDisplay(display, tap)


def _open_display(address: str, rigs: Mapping[str, Rig], timeout_s: float) -> PhaseDisplay:
    if address.startswith(REPLAY):
        return ReplayedDisplay(address.removeprefix(REPLAY))
    try:
        if address.startswith(_SLM):
            return SlmsuiteDisplay(display_class(address.removeprefix(_SLM)))
        if address.startswith(_SLM_TCP):
            place, _, name = address.removeprefix(_SLM_TCP).partition("/")
            host, port = _host_and_port(address, place, _SLM_PORT)
            return SlmsuiteDisplay(remote_display(host, port, name, min(timeout_s, 2.0)))
    except ImportError as error:
        raise ValueError(f"{address}: needs `pip install 'pnnlab[slm]'` ({error})") from error
    if not address.startswith(MOCK):
        raise ValueError(f"{address}: not an slm://, slm-tcp:// or mock:// address")
    firmware = _firmware(address, rigs)
    if not isinstance(firmware, SLMFirmware):
        raise ValueError(f"{address}: this simulated instrument is no phase display")
    return SimulatedDisplay(firmware)


def _host_and_port(address: str, place: str, default: int) -> tuple[str, int]:
    host, colon, port = place.partition(":")
    if not host or (colon and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise ValueError(f"{address}: not a host, or host:port with a port of 1 to 65535")
    return host, int(port) if colon else default


def _wire(address: str, rigs: Mapping[str, Rig]) -> OrderQueue | None:
    if address.startswith(REPLAY):
        return None
    rig, _, instrument = address.removeprefix(MOCK).partition("/")
    return rigs[rig].wire(instrument)


def _firmware(address: str, rigs: Mapping[str, Rig]) -> object:
    if address.startswith(REPLAY):
        return ReplayedStream(address.removeprefix(REPLAY))
    rig, _, instrument = address.removeprefix(MOCK).partition("/")
    if rig not in rigs:
        raise ValueError(f"{address}: no rig '{rig}' (there are: {', '.join(rigs) or 'none'})")
    there = rigs[rig].instruments
    if isinstance(rigs[rig], RemoteRig):
        raise ValueError(f"{address}: rig '{rig}' is served on sockets; give the real address")
    if instrument not in there:
        raise ValueError(f"{address}: rig '{rig}' has no '{instrument}' (but {', '.join(there)})")
    return there[instrument]
