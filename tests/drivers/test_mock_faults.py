"""What goes wrong at the far end, as our drivers see it, in memory and on sockets."""

from collections.abc import Iterator

import numpy as np
import pytest

from drivers.errors import ConnectionLost, DriverError, IdentityError, InstrumentTimeout
from drivers.mock.faults import AnyFault, Fault, FaultOrder, PlantFault, WireFault
from drivers.mock.rig import Rig, circuit_rig, optical_rig, plate_rig
from drivers.mock.serve.admin import state_of
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from drivers.transport import open_http, open_visa
from served import SHORT_S, connected, send_for_ever, served


class Drivers:
    """The two drivers before one rig, in memory or on sockets, and how to arm its faults."""

    def __init__(self, rig: Rig, shaper: WaveShaperA, spectrometer: YokogawaAQ6370) -> None:
        self.rig, self.shaper, self.spectrometer = rig, shaper, spectrometer
        shaper.start()
        spectrometer.start()

    def arm(self, instrument: str, fault: AnyFault, on: str = "", **how: float) -> None:
        self.rig.arm(FaultOrder(instrument, fault, on, **how))

    def row(self, attenuation_db: float = 0.0) -> np.ndarray:
        self.shaper.load(np.full(20, attenuation_db), np.zeros(20))
        return self.spectrometer.measure()


@pytest.fixture(params=["memory", "sockets"])
def drivers(request) -> Iterator[Drivers]:
    rig = request.getfixturevalue("on_sockets")[1]
    at = {
        "mock://optics/shaper": "mock://optics/shaper",
        "mock://optics/spectrometer": "mock://optics/spectrometer",
    }
    if request.param == "sockets":
        at = request.getfixturevalue("on_sockets")[0].addresses
    client = open_http(at["mock://optics/shaper"], {"optics": rig}, timeout_s=SHORT_S)
    adapter = open_visa(at["mock://optics/spectrometer"], {"optics": rig}, timeout_s=SHORT_S)
    axis = {"start_nm": 773.365, "stop_nm": 776.635, "points": 101, "full_scale_w": 1.6e-6}
    with (
        WaveShaperA(client, lines=20, settling_time_s=0, expect_idn="WaveShaper") as shaper,
        YokogawaAQ6370(adapter, "osa", expect_idn="YOKOGAWA", **axis) as spectrometer,
    ):
        yield Drivers(rig, shaper, spectrometer)


WIRE = [
    ("shaper", Fault.DROP, ConnectionLost),
    ("shaper", Fault.TIMEOUT, InstrumentTimeout),
    ("shaper", Fault.GARBAGE, DriverError),
    ("shaper", Fault.TRUNCATE, DriverError),
    ("shaper", Fault.REFUSE, DriverError),
    ("shaper", WireFault.STALL, InstrumentTimeout),
    ("shaper", WireFault.DELAY, InstrumentTimeout),
    ("spectrometer", Fault.DROP, DriverError),
    ("spectrometer", Fault.TIMEOUT, InstrumentTimeout),
    ("spectrometer", Fault.GARBAGE, DriverError),
    ("spectrometer", Fault.TRUNCATE, DriverError),
    ("spectrometer", Fault.REFUSE, DriverError),
    ("spectrometer", WireFault.STALL, DriverError),
    ("spectrometer", WireFault.DELAY, InstrumentTimeout),
]


@pytest.mark.parametrize(("instrument", "fault", "error"), WIRE)
def test_each_fault_is_one_clear_error_and_start_recovers(drivers, instrument, fault, error):
    expected = drivers.row()
    drivers.arm(instrument, fault, "loadprofile" if instrument == "shaper" else "", delay_s=0.5)
    with pytest.raises(error) as caught:
        drivers.row()
    device = getattr(drivers, instrument)
    assert caught.value.instrument == device.name
    device.start()
    np.testing.assert_array_equal(drivers.row(), expected)


def test_an_answer_that_is_late_but_not_too_late_is_taken(drivers):
    expected = drivers.row()
    drivers.arm("shaper", WireFault.DELAY, delay_s=0.01)
    drivers.arm("spectrometer", WireFault.DELAY, delay_s=0.01, times=3)
    np.testing.assert_array_equal(drivers.row(), expected)


def test_another_instrument_at_the_address(drivers):
    for instrument in ("shaper", "spectrometer"):
        drivers.arm(instrument, Fault.IDENTITY)
        with pytest.raises(IdentityError):
            getattr(drivers, instrument).start()


def test_a_fault_may_last(drivers):
    drivers.arm("shaper", Fault.REFUSE, "loadprofile", times=2)
    for _ in range(2):
        with pytest.raises(DriverError):
            drivers.row()
    assert drivers.row().any()
    drivers.arm("shaper", Fault.REFUSE, times=2)
    drivers.arm("spectrometer", WireFault.STALL)
    drivers.arm("spectrometer", PlantFault.SATURATION)
    drivers.rig.clear_faults()
    assert drivers.row().max() < drivers.spectrometer.power.high


def test_what_is_read_goes_wrong(drivers):
    bright = drivers.row()
    drivers.arm("spectrometer", PlantFault.STUCK, times=2)
    for _ in range(2):
        np.testing.assert_array_equal(drivers.row(20.0), bright)
    dark = drivers.row(20.0)
    assert dark.max() < bright.max()
    drivers.arm("spectrometer", PlantFault.SATURATION)
    np.testing.assert_array_equal(drivers.row(), drivers.spectrometer.power.high)
    drivers.arm("spectrometer", PlantFault.DEAD_PIXEL, pixel=50)
    np.testing.assert_array_equal(drivers.row(), np.where(np.arange(101) == 50, 0.0, bright))
    drivers.arm("spectrometer", PlantFault.DRIFT_BURST, burst=0.25)
    np.testing.assert_allclose(drivers.row(), 0.75 * bright, rtol=1e-6)
    np.testing.assert_array_equal(drivers.row(), bright)


def test_faults_that_an_instrument_cannot_have(on_sockets):
    rig = on_sockets[1]
    for order, named in (
        (FaultOrder("shaper", PlantFault.STUCK), "'shaper' reads nothing"),
        (FaultOrder("daq", WireFault.STALL), "'daq' has no network wire"),
        (FaultOrder("scope", Fault.DROP), "no instrument 'scope'"),
    ):
        with pytest.raises(ValueError, match=named):
            rig.arm(order)


class Slow:
    """Firmware whose answers are held back, by as long as it is asked for."""

    held_back_s = 0.0

    def connect(self):
        return Slow()

    def receive(self, data):
        self.held_back_s = float(data)
        return data

    def close(self):
        pass


def test_an_instrument_that_takes_its_time_keeps_nobody_else_waiting(plant):
    rig = Rig(plant, {"slow": Slow()})
    with served({"optics": rig}, ["mock://optics/slow"]) as there:
        address = there.addresses["mock://optics/slow"]
        with connected(address) as one, connected(address) as other:
            one.sendall(b"600\n")
            other.sendall(b"0.01\n")
            assert other.recv(99) == b"0.01\n"
            one.settimeout(SHORT_S)
            with pytest.raises(TimeoutError):
                one.recv(99)


def test_a_stalled_instrument_reads_no_more(on_sockets, visa_address):
    on_sockets[1].inject("spectrometer", WireFault.STALL)
    with connected(visa_address) as line:
        line.settimeout(SHORT_S)
        with pytest.raises(TimeoutError):  # when every buffer on the way is full
            send_for_ever(line)


def test_a_dropped_connection_is_reset(on_sockets, visa_address):
    on_sockets[1].inject("spectrometer", Fault.DROP, "*OPC?")
    with connected(visa_address) as line:
        line.sendall(b'OPEN "anonymous"\r\n\r\n*OPC?\r\n')
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: line.recv(99), b""))


@pytest.mark.parametrize(
    ("rig", "instrument"),
    [
        (optical_rig, "shaper"),
        (optical_rig, "slm"),
        (optical_rig, "spectrometer"),
        (optical_rig, "ocean"),
        (optical_rig, "interlock"),
        (circuit_rig, "daq"),
        (circuit_rig, "redpitaya"),
        (plate_rig, "audio"),
    ],
)
def test_every_simulated_instrument_counts_knows_its_safe_state_and_forgets_faults(
    plant, echo, rig, instrument
):
    simulated = rig(echo if rig is plate_rig else plant)
    state = state_of(simulated.instruments[instrument])
    assert (state["out_of_limits"], state["safe"]) == (0, True)
    for fault in Fault:
        simulated.inject(instrument, fault)
    simulated.instruments[instrument].clear_faults()
