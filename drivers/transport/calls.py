"""Open instruments that are called through a library: boards, sound interfaces, displays."""

from collections.abc import Mapping

from drivers.circuits.mcc_board import BoardError, DaqBoard, UldaqBoard
from drivers.errors import ConnectionLost
from drivers.mock.firmware.audio import SimulatedAudio
from drivers.mock.firmware.mcc import MccFirmware
from drivers.mock.firmware.slm import SimulatedDisplay, SLMFirmware
from drivers.mock.replay_calls import ReplayedBoard, ReplayedDisplay, ReplayedPort
from drivers.mock.rig import Rig
from drivers.plates.audio_port import DuplexPort
from drivers.plates.audio_process import SounddeviceProcess
from drivers.shapers.slm_display import (
    PhaseDisplay,
    SlmsuiteDisplay,
    display_class,
    remote_display,
)
from drivers.transport.addresses import MOCK, REPLAY, firmware_at, host_and_port
from drivers.wires.tap import tap_of
from drivers.wires.tap_calls import TappedBoard, TappedDisplay, TappedPort

_AUDIO = "audio://"
_BOARD = "mcc://"
_SLM = "slm://"
_SLM_TCP = "slm-tcp://"
_SLM_PORT = 5025


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
    firmware = firmware_at(address, rigs)
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
    firmware = firmware_at(address, rigs)
    if not isinstance(firmware, SimulatedAudio):
        raise ValueError(f"{address}: this simulated instrument is no sound interface")
    return firmware


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
            host, port = host_and_port(address, place, _SLM_PORT)
            return SlmsuiteDisplay(remote_display(host, port, name, min(timeout_s, 2.0)))
    except ImportError as error:
        raise ValueError(f"{address}: needs `pip install 'pnnlab[slm]'` ({error})") from error
    if not address.startswith(MOCK):
        raise ValueError(f"{address}: not an slm://, slm-tcp:// or mock:// address")
    firmware = firmware_at(address, rigs)
    if not isinstance(firmware, SLMFirmware):
        raise ValueError(f"{address}: this simulated instrument is no phase display")
    return SimulatedDisplay(firmware)
