"""Addresses, and the same drivers over real sockets on the loopback."""

import sys
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from pymeasure.adapters import VISAAdapter

from drivers.circuits.mcc import MccUsb1208HS
from drivers.errors import ConnectionLost, DriverError
from drivers.mock.faults import Fault
from drivers.mock.http import FirmwareClient
from drivers.plates.audio_process import SounddeviceProcess
from drivers.row_key import RowKey
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from drivers.transport import open_audio, open_board, open_http, open_rigs, open_visa


@dataclass
class Settings:
    plant: str = "optics"
    gap: float = 0.0
    noise: float = 0.0
    device_seed: int = 0
    seed: int = 0
    honour_times: bool = False
    drift_per_hour: float = 0.0
    drift_from_s: float = 0.0
    admin: str | None = None


# --- addresses --------------------------------------------------------------------------------


def test_the_simulated_bench_measures_a_spectrum():
    rigs = open_rigs({"optics": Settings()})
    client = open_http("mock://optics/shaper", rigs, timeout_s=5)
    adapter = open_visa("mock://optics/spectrometer", rigs, timeout_s=5)
    axis = {"start_nm": 773.365, "stop_nm": 776.635, "points": 101, "full_scale_w": 1.6e-6}
    with (
        WaveShaperA(client, settling_time_s=0) as shaper,
        YokogawaAQ6370(adapter, "osa", **axis) as spectrometer,
    ):
        shaper.start()
        spectrometer.start()
        assert spectrometer.measure().max() == 0
        rigs["optics"].announce(RowKey(0, 0, 0.0))
        shaper.load(np.zeros(1000), np.zeros(1000))
        power = spectrometer.measure()
    assert 0 < power.max() <= spectrometer.power.high


def test_row_keys_reach_the_plant_beside_the_wire(rig, plant):
    rig.announce(RowKey(3, 14, 15.0))
    assert plant.keys == [RowKey(3, 14, 15.0)]


def test_each_rig_has_its_own_instruments(make_shaper):
    rigs = open_rigs({"one": Settings(), "two": Settings()})
    with open_http("mock://one/shaper", rigs, timeout_s=5) as client:
        client.post("/waveshaper/loadprofile", json={"type": "transmit", "port": 1})
    assert not rigs["one"].instruments["shaper"].blocked
    assert rigs["two"].instruments["shaper"].blocked


def test_a_plant_that_does_not_exist():
    with pytest.raises(ValueError, match=r"rigs\.r\.plant: no plant 'sound'"):
        open_rigs({"r": Settings(plant="sound")})


OWN_RIG = """
from drivers.transport import Rig

class Echo:
    def __init__(self, **dials):
        self.dials, self.keys = dials, []

    def announce(self, key):
        self.keys.append(key)

    def handle(self, method, path, body):
        return 200, "text/plain", body

def echo_rig(**dials):
    echo = Echo(**dials)
    return Rig(echo, {"echo": echo})

not_a_rig = Echo
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "echo_lab.py").write_text(OWN_RIG)
    monkeypatch.syspath_prepend(tmp_path)
    yield "echo_lab"
    sys.modules.pop("echo_lab", None)


def test_a_plant_of_ones_own_by_import_path(own_module):
    rigs = open_rigs({"own": Settings(plant=f"{own_module}:echo_rig", gap=2.0, seed=7)})
    assert rigs["own"].plant.dials == {"device_seed": 0, "gap": 2.0, "noise": 0.0, "seed": 7}
    rigs["own"].announce(RowKey(3, 14, 15.0))
    assert rigs["own"].plant.keys == [RowKey(3, 14, 15.0)]
    with open_http("mock://own/echo", rigs, timeout_s=5) as client:
        assert client.post("/say", content=b"hello").content == b"hello"
    with pytest.raises(ValueError, match="'echo' has no faults"):
        rigs["own"].inject("echo", Fault.TIMEOUT)


def test_a_plant_that_cannot_be_imported(own_module):
    for path in ("no_such_lab:rig", f"{own_module}:no_such_rig", f"{own_module}:", ":rig"):
        with pytest.raises(ValueError, match=rf"rigs\.r\.plant: '{path}' cannot be imported"):
            open_rigs({"r": Settings(plant=path)})
    with pytest.raises(TypeError, match=r"rigs\.r\.plant: .* returns a Echo, not a Rig"):
        open_rigs({"r": Settings(plant=f"{own_module}:not_a_rig")})


@pytest.mark.parametrize("open_", [open_http, open_visa])
@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("mock://lab/shaper", r"no rig 'lab' \(there are: optics\)"),
        ("mock://optics/laser", r"rig 'optics' has no 'laser' \(but shaper, "),
        ("mock://optics", "has no ''"),
    ],
)
def test_addresses_that_name_nothing(rig, open_, address, named):
    with pytest.raises(ValueError, match=named):
        open_(address, {"optics": rig}, timeout_s=1)


def test_addresses_of_the_wrong_kind(rig):
    rigs = {"optics": rig}
    with pytest.raises(ValueError, match="does not speak HTTP"):
        open_http("mock://optics/spectrometer", rigs, timeout_s=1)
    with pytest.raises(ValueError, match="no VISA interface"):
        open_visa("mock://optics/shaper", rigs, timeout_s=1)
    with pytest.raises(ValueError, match="not an http:// or mock:// address"):
        open_http("TCPIP0::10.0.0.7::10001::SOCKET", rigs, timeout_s=1)


def test_a_sound_interface_is_opened_by_its_name_and_not_before_it_is_used(rig):
    port = open_audio("audio://Scarlett 2i2", {}, timeout_s=1)
    assert isinstance(port, SounddeviceProcess)
    rigs = {**open_rigs({"plate": Settings(plant="plate")}), "optics": rig}
    assert "Simulated" in open_audio("mock://plate/audio", rigs, timeout_s=1).describe()
    with pytest.raises(ValueError, match="not an audio:// or mock:// address"):
        open_audio("http://192.168.1.20", rigs, timeout_s=1)
    with pytest.raises(ValueError, match="no sound interface"):
        open_audio("mock://optics/shaper", rigs, timeout_s=1)


def test_instruments_are_not_reached_through_a_proxy(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with open_http("http://127.0.0.1:1", {}, timeout_s=2.5) as client:
        assert not client.trust_env
        assert client.timeout == httpx.Timeout(2.5)
        assert not isinstance(client, FirmwareClient)


def test_a_client_of_firmware_is_an_ordinary_client(rig):
    with open_http("mock://optics/shaper", {"optics": rig}, timeout_s=2.5) as client:
        assert client.timeout == httpx.Timeout(2.5)
        answer = client.get("/waveshaper/devinfo").raise_for_status()
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["rc"] == 0
        assert client.get("/nowhere").status_code == 404
    with pytest.raises(RuntimeError, match="closed"):
        client.get("/waveshaper/devinfo")


# --- real sockets -----------------------------------------------------------------------------


def test_the_waveshaper_over_real_http(serve, rig, plant):
    client = open_http(serve(rig.instruments["shaper"]), {}, timeout_s=5)
    with WaveShaperA(client, settling_time_s=0, expect_idn="1000A") as shaper:
        shaper.start()
        shaper.load(np.full(1000, 6.0), np.full(1000, np.pi))
        np.testing.assert_allclose(plant.transmission, -(10 ** (-6 / 20)), rtol=1e-4)
        rig.inject("shaper", Fault.DROP)
        with pytest.raises(ConnectionLost, match="shaper: loadprofile"):
            shaper.load(np.zeros(1000), np.zeros(1000))
        shaper.load(np.zeros(1000), np.zeros(1000))
        assert plant.transmission.sum() == 1000
    assert rig.instruments["shaper"].blocked


def test_nobody_listens_on_http():
    client = open_http("http://127.0.0.1:1", {}, timeout_s=1)
    shaper = WaveShaperA(client)
    with pytest.raises(ConnectionLost, match="shaper: devinfo"):
        shaper.start()
    with pytest.raises(ConnectionLost, match="shaper: blockall"):
        shaper.close()


def test_the_spectrometer_over_a_real_socket(serve, shaper, rig):
    adapter = open_visa(serve(rig.instruments["spectrometer"]), {}, timeout_s=0.3)
    assert isinstance(adapter, VISAAdapter)
    with YokogawaAQ6370(adapter, "osa", points=5001, expect_idn="AQ6370") as spectrometer:
        spectrometer.start()
        shaper.load(np.zeros(20), np.zeros(20))
        expected = np.linspace(0, 1e-6, 5001)
        np.testing.assert_allclose(spectrometer.measure(), expected, rtol=1e-6)
        rig.inject("spectrometer", Fault.TIMEOUT, on=":CONDition?")
        with pytest.raises(DriverError, match=r"osa: .*no answer within"):
            spectrometer.measure()
        np.testing.assert_allclose(spectrometer.measure(), expected, rtol=1e-6)
        rig.inject("spectrometer", Fault.DROP)
        with pytest.raises(DriverError, match=r"^osa: "):
            spectrometer.measure()
        spectrometer.start()
        np.testing.assert_allclose(spectrometer.measure(), expected, rtol=1e-6)


def test_an_address_works_in_place_of_an_adapter(serve, rig):
    address = serve(rig.instruments["spectrometer"])
    with YokogawaAQ6370(address, "osa", visa_library="@py") as spectrometer:
        assert spectrometer.identify().startswith("YOKOGAWA,AQ6370")


def test_nobody_listens_on_the_socket():
    with pytest.raises(ConnectionLost):
        YokogawaAQ6370(open_visa("TCPIP0::127.0.0.1::1::SOCKET", {}, timeout_s=0.2)).start()


def test_the_simulated_circuit_answers_by_the_keys_announced():
    rigs = open_rigs({"circuit": Settings(plant="circuit", gap=1.0, noise=1.0)})
    drive = np.random.default_rng(0).uniform(-10, 10, (3, 208))
    with MccUsb1208HS(open_board("mock://circuit/daq", rigs)) as daq:
        daq.start()
        rows = []
        for _ in range(2):
            for i in range(3):
                rigs["circuit"].announce(RowKey(1, i, 0.0))
            rows.append(daq.acquire(drive))
        others = daq.acquire(drive)
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], others)
    np.testing.assert_allclose(rows[0], others, atol=1.0)
