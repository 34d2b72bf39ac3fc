"""The simulated HDX on a real socket: read by seabreeze alone, and by our driver through faults."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from drivers.errors import Aborted, ConnectionLost, InstrumentTimeout, ProtocolError
from drivers.mock.faults import Fault
from drivers.mock.firmware.ocean import DARK_COUNTS, SERIAL, WATTS_PER_COUNT, OceanFirmware
from drivers.mock.physics.optics import OpticalPlant
from drivers.mock.rig import Rig, optical_rig
from drivers.row_key import RowKey
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spectrometers.ocean import OceanSpectrometer
from drivers.spectrometers.ocean_link import TcpWire
from drivers.transport import open_http, open_ocean
from served import served

pytest.importorskip("seabreeze", reason="needs `pip install 'pnnlab[ocean]'`")

SPECTRUM = "GET_RAW_SPECTRUM_NOW"


class Sky:
    """Light of an even power, W."""

    power_w = 0.0

    def announce(self, key: RowKey) -> None: ...

    def spectrum(self, wavelengths_m: np.ndarray) -> np.ndarray:
        return np.full(len(wavelengths_m), self.power_w)


@pytest.fixture
def sky() -> Sky:
    return Sky()


@pytest.fixture
def firmware(sky: Sky) -> OceanFirmware:
    return OceanFirmware(sky.spectrum)


@contextmanager
def hdx_on_a_port(firmware: OceanFirmware) -> Iterator[int]:
    """Serve one instrument; yield the port."""
    with served({"r": Rig(Sky(), {"ocean": firmware})}, ["mock://r/ocean"]) as there:
        yield int(there.addresses["mock://r/ocean"].removeprefix("ocean://127.0.0.1:"))


@pytest.fixture
def port(firmware: OceanFirmware) -> Iterator[int]:
    with hdx_on_a_port(firmware) as port:
        yield port


def opened(port: int, timeout_s: float = 0.2, **settings: object) -> OceanSpectrometer:
    link = open_ocean(f"ocean://127.0.0.1:{port}", {}, timeout_s=timeout_s)
    return OceanSpectrometer(link, name="hdx", watts_per_count=WATTS_PER_COUNT, **settings)


def test_real_seabreeze_opens_it_and_reads_spectra(port, sky, monkeypatch):
    """No code of ours on this side; `list_devices` alone is left out, for its multicast."""
    import seabreeze
    from seabreeze.pyseabreeze.transport import IPv4Transport, IPv4TransportHandle

    monkeypatch.setattr(IPv4Transport, "devices_ip_port", {})
    seabreeze.use("pyseabreeze")
    from seabreeze.pyseabreeze import SeaBreezeAPI, SeaBreezeDevice
    from seabreeze.spectrometers import Spectrometer

    SeaBreezeAPI(initialize=False).add_ipv4_device_location("HDX", "127.0.0.1", port)
    handle = IPv4TransportHandle("127.0.0.1", port)
    spectrometer = Spectrometer(SeaBreezeDevice(handle))
    try:
        assert (spectrometer.model, spectrometer.serial_number) == ("HDX", SERIAL)
        wavelengths_nm = spectrometer.wavelengths()
        assert wavelengths_nm.shape == (2068,)
        assert (wavelengths_nm[0], wavelengths_nm[-1].round(3)) == (773.0, 777.001)
        spectrometer.trigger_mode(0)
        spectrometer.integration_time_micros(10_000)
        spectrometer.intensities()
        for power_w, counts in ((0.0, 0), (4.8e-7, 20_000), (1e-5, 65_535 - DARK_COUNTS)):
            sky.power_w = power_w
            assert (spectrometer.intensities() == DARK_COUNTS + counts).all()
        assert spectrometer.max_intensity == 65_535
        nonlinearity = spectrometer.f.nonlinearity_coefficients
        assert nonlinearity.get_nonlinearity_coefficients() == [1.0]
    finally:
        handle.socket.close()  # seabreeze closes another one
        spectrometer.close()


def test_our_driver_reads_the_optical_bench_over_the_socket():
    plant = OpticalPlant(noise=0.0)
    rig = optical_rig(plant)
    with (
        hdx_on_a_port(rig.instruments["ocean"]) as port,
        WaveShaperA(open_http("mock://o/shaper", {"o": rig}, timeout_s=2)) as shaper,
        opened(port, expect_idn="Ocean HDX HDX") as spectrometer,
    ):
        shaper.settling_time_s = 0.0
        shaper.start()
        spectrometer.start()
        shaper.load(np.full(1000, 8.0), np.zeros(1000))
        power = spectrometer.measure()
        # a step of the plant's ADC and one of the counts; the grid is finer than its line
        expected = plant.spectrum(spectrometer.wavelengths_m)
        np.testing.assert_allclose(power, expected, atol=1.5 * 1.6e-6 / 4095 + WATTS_PER_COUNT)
        assert power.max() > 1e-7


@pytest.mark.parametrize(
    ("fault", "error", "what"),
    [
        (Fault.DROP, ConnectionLost, "reset by peer"),
        (Fault.TIMEOUT, InstrumentTimeout, "0 of 44 bytes came in time"),
        (Fault.TRUNCATE, InstrumentTimeout, "of 4156 bytes came in time"),
        (Fault.GARBAGE, ProtocolError, "no OBP frame"),
    ],
)
def test_each_fault_ends_with_one_error_and_the_next_session_works(
    port, firmware, sky, fault, error, what
):
    with opened(port) as spectrometer:
        spectrometer.start()
        firmware.inject(fault, on=SPECTRUM)
        sky.power_w = 1e-7
        with pytest.raises(error, match=f"hdx: spectrum: .*{what}"):
            spectrometer.measure()
        sky.power_w = 0.0
        spectrometer.start()
        sky.power_w = 2e-7
        np.testing.assert_allclose(spectrometer.measure(), 2e-7, atol=WATTS_PER_COUNT)


def test_a_port_that_nobody_listens_on():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionLost, match=r"hdx: identity: .*refused"):
        opened(port).start()


def test_a_closed_connection_is_seen_at_once():
    """With seabreeze's own transport this would spin for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = TcpWire("127.0.0.1", listener.getsockname()[1], timeout_s=2.0)
        line, _ = listener.accept()
        line.close()
        with pytest.raises(ConnectionError, match="the instrument closed the connection"):
            wire.receive(64, time.monotonic() + 3600, lambda: None)
        wire.close()


def test_a_peer_that_goes_away_between_two_calls(firmware):
    with hdx_on_a_port(firmware) as port:
        spectrometer = opened(port)
        spectrometer.start()
    with pytest.raises(ConnectionLost, match="hdx: spectrum"):
        spectrometer.measure()
    spectrometer.close()


def test_an_abort_ends_the_wait_for_a_long_integration(port, firmware):
    asked = threading.Event()
    caught = []
    with opened(port, timeout_s=2.0) as spectrometer:
        spectrometer.start()
        answer = firmware.answer
        firmware.answer = lambda request: asked.set() or answer(request)
        firmware.inject(Fault.TIMEOUT, on=SPECTRUM)

        def measure() -> None:
            try:
                spectrometer.measure()
            except Aborted as aborted:
                caught.append(str(aborted))

        worker = threading.Thread(target=measure)
        worker.start()
        assert asked.wait(10)
        spectrometer.abort()
        worker.join()
        assert caught == ["hdx: waiting for an answer: aborted"]
        spectrometer.start()
        spectrometer.measure()


def test_an_integration_longer_than_the_patience_is_waited_for(sky):
    with (
        hdx_on_a_port(OceanFirmware(sky.spectrum, honour_times=True)) as port,
        opened(port, timeout_s=0.15, integration_time_ms=200.0, dark_frames=1) as spectrometer,
    ):
        spectrometer.start()
        assert spectrometer.measure().shape == (101,)
        spectrometer._link._transport.integration_s = 0.0  # it is what is waited for
        with pytest.raises(InstrumentTimeout):
            spectrometer.measure()
