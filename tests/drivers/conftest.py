"""Plants without physics, and the drivers in front of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from drivers.circuits.mcc import MccUsb1208HS
from drivers.circuits.redpitaya import RedPitayaDAQ
from drivers.mock.firmware.mcc import MccFirmware
from drivers.mock.firmware.redpitaya import RedPitayaFirmware
from drivers.mock.rig import Rig, optical_rig, plate_rig
from drivers.mock.serve.sockets import Served
from drivers.plates.audio import AudioPlate
from drivers.plates.daq_plate import DaqPlate, open_daq_plate
from drivers.row_key import RowKey
from drivers.shapers.slm import SLMShaper
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spectrometers.ocean import OceanSpectrometer
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from drivers.transport import open_audio, open_board, open_http, open_ocean, open_slm, open_visa
from served import served


class RecordingPlant:
    """Remember what the instruments do; the power is the transmitted share of every line."""

    def __init__(self) -> None:
        self.keys: list[RowKey] = []
        self.grids: list[Any] = []
        self.transmission = np.zeros(1, dtype=complex)
        self.axes: list[Any] = []
        self.full_scale_w = 1e-6
        self.drives: list[Any] = []
        self.forgotten = 0

    def announce(self, key: RowKey) -> None:
        self.keys.append(key)

    def set_transmission(self, frequencies_thz: Any, transmission: Any) -> None:
        self.grids.append(frequencies_thz)
        self.transmission = transmission

    def spectrum(self, wavelengths_m: Any) -> Any:
        self.axes.append(wavelengths_m)
        share = np.mean(np.abs(self.transmission) ** 2)
        return self.full_scale_w * share * np.linspace(0.0, 1.0, len(wavelengths_m))

    def respond(self, drive_v: Any) -> Any:
        self.drives.append(drive_v.copy())
        return drive_v / 2 + 1

    def forget(self) -> None:
        self.forgotten += 1


@pytest.fixture
def plant() -> RecordingPlant:
    return RecordingPlant()


@pytest.fixture
def rig(plant: RecordingPlant) -> Rig:
    rig = optical_rig(plant)
    rig.instruments["daq"] = MccFirmware(plant)
    rig.instruments["redpitaya"] = RedPitayaFirmware(plant)
    return rig


@pytest.fixture
def make_shaper(rig: Rig) -> Iterator[Callable[..., WaveShaperA]]:
    opened = []

    def make(**settings: Any) -> WaveShaperA:
        client = open_http("mock://optics/shaper", {"optics": rig}, timeout_s=5)
        settings = {"lines": 20, "settling_time_s": 0.0, **settings}
        opened.append(client)
        return WaveShaperA(client, **settings)

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def shaper(make_shaper: Callable[..., WaveShaperA]) -> WaveShaperA:
    return make_shaper(expect_idn="WaveShaper (1000|4000)A")


@pytest.fixture
def make_spectrometer(rig: Rig) -> Callable[..., YokogawaAQ6370]:
    def make(**settings: Any) -> YokogawaAQ6370:
        adapter = open_visa("mock://optics/spectrometer", {"optics": rig}, timeout_s=5)
        settings = {
            "name": "spectrometer",
            "start_nm": 773.365,
            "stop_nm": 776.635,
            "points": 101,
            "full_scale_w": 1.6e-6,
            **settings,
        }
        return YokogawaAQ6370(adapter, **settings)

    return make


@pytest.fixture
def spectrometer(make_spectrometer: Callable[..., YokogawaAQ6370]) -> YokogawaAQ6370:
    return make_spectrometer(expect_idn="YOKOGAWA,AQ6370")


@pytest.fixture
def make_daq(rig: Rig) -> Callable[..., MccUsb1208HS]:
    def make(**settings: Any) -> MccUsb1208HS:
        board = open_board("mock://optics/daq", {"optics": rig})
        settings = {"samples": 8, "gap_samples": 2, "buffer_samples": 30, **settings}
        return MccUsb1208HS(board, **settings)

    return make


@pytest.fixture
def make_ocean(rig: Rig) -> Callable[..., OceanSpectrometer]:
    pytest.importorskip("seabreeze", reason="needs `pip install 'pnnlab[ocean]'`")

    def make(**settings: Any) -> OceanSpectrometer:
        link = open_ocean("mock://optics/ocean", {"optics": rig}, timeout_s=2)
        return OceanSpectrometer(link, **{"watts_per_count": 2.4e-11, "name": "ocean", **settings})

    return make


@pytest.fixture
def make_redpitaya(rig: Rig) -> Callable[..., RedPitayaDAQ]:
    def make(**settings: Any) -> RedPitayaDAQ:
        adapter = open_visa("mock://optics/redpitaya", {"optics": rig}, timeout_s=2)
        wiring = {"amplifier_gain": 10.0, "probe_attenuation": 10.0}
        return RedPitayaDAQ(adapter, **{"name": "redpitaya", **wiring, **settings})

    return make


@pytest.fixture
def ocean(make_ocean: Callable[..., OceanSpectrometer]) -> OceanSpectrometer:
    return make_ocean(expect_idn="HDX0")


@pytest.fixture
def make_slm(rig: Rig) -> Callable[..., SLMShaper]:
    def make(**settings: Any) -> SLMShaper:
        display = open_slm("mock://optics/slm", {"optics": rig}, timeout_s=2)
        settings = {"name": "slm", "lines": 20, "settling_time_s": 0.0, **settings}
        return SLMShaper(display, **settings)

    return make


@pytest.fixture
def slm(make_slm: Callable[..., SLMShaper]) -> SLMShaper:
    return make_slm(expect_idn="SLM-0193")


class EchoPlant:
    """Remember what is played; the microphone sends half of it."""

    def __init__(self) -> None:
        self.keys: list[RowKey] = []
        self.played: list[Any] = []

    def announce(self, key: RowKey) -> None:
        self.keys.append(key)

    def play(self, drive: Any) -> Any:
        self.played.append(drive)
        return drive / 2


@pytest.fixture
def echo() -> EchoPlant:
    return EchoPlant()


@pytest.fixture
def plate_rig_of_echo(echo: EchoPlant) -> Rig:
    rig = plate_rig(echo)
    rig.instruments["daq_plate"] = rig.instruments["daq"]
    return rig


@pytest.fixture
def make_audio(plate_rig_of_echo: Rig) -> Callable[..., AudioPlate]:
    def make(**settings: Any) -> AudioPlate:
        port = open_audio("mock://plate/audio", {"plate": plate_rig_of_echo}, timeout_s=5)
        settings = {"name": "audio", "rows_per_shot": 10, **settings}
        return AudioPlate(port, **settings)

    return make


@pytest.fixture
def make_daq_plate(plate_rig_of_echo: Rig) -> Callable[..., DaqPlate]:
    def make(**settings: Any) -> DaqPlate:
        board = open_board("mock://plate/daq_plate", {"plate": plate_rig_of_echo})
        return open_daq_plate(board, **settings)

    return make


@pytest.fixture
def audio(make_audio: Callable[..., AudioPlate]) -> AudioPlate:
    return make_audio(expect_idn="48000 Hz")


@pytest.fixture
def serve() -> Iterator[Callable[[object], str]]:
    """Return what serves firmware on a loopback port and returns its address: serve(firmware)."""
    with ExitStack() as stack:

        def serve(firmware: object) -> str:
            rigs = {"rig": Rig(None, {"served": firmware})}
            there = stack.enter_context(served(rigs, ["mock://rig/served"]))
            return str(there.addresses["mock://rig/served"])

        yield serve


@pytest.fixture
def on_sockets(plant: RecordingPlant) -> Iterator[tuple[Served, Rig]]:
    """Return where shaper, spectrometer and a board are served, and their rig."""
    rig = optical_rig(plant)
    rig.instruments["daq"] = MccFirmware(plant)
    addresses = [f"mock://optics/{name}" for name in ("shaper", "spectrometer", "daq")]
    with served({"optics": rig}, addresses) as there:
        yield there, rig


@pytest.fixture
def url(on_sockets: tuple[Served, Rig]) -> str:
    return str(on_sockets[0].addresses["mock://optics/shaper"])


@pytest.fixture
def visa_address(on_sockets: tuple[Served, Rig]) -> str:
    return str(on_sockets[0].addresses["mock://optics/spectrometer"])
