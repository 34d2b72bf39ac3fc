"""OceanSpectrometer: its messages, settings, axis, units, dark frame, saturation, faults."""

import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import (
    Aborted,
    ConnectionLost,
    DriverError,
    IdentityError,
    InstrumentRefused,
    InstrumentTimeout,
    LimitError,
    ProtocolError,
)
from drivers.mock.faults import Fault, FaultOrder, WireFault
from drivers.mock.firmware import ocean as hdx
from drivers.spectrometers.ocean import OceanSpectrometer
from drivers.spectrometers.ocean_frames import Flag, Frame, Message, unpack
from drivers.transport import open_ocean

pytest.importorskip("seabreeze", reason="needs `pip install 'pnnlab[ocean]'`")

SPECTRUM = "GET_RAW_SPECTRUM_NOW"
FULL_W = 65_535 * 2.4e-11


@pytest.fixture
def firmware(rig):
    return rig.instruments["ocean"]


@pytest.fixture
def messages(firmware, monkeypatch):
    """Return the list of frames that the instrument receives from now on."""
    heard = []
    answer = firmware.answer
    monkeypatch.setattr(firmware, "answer", lambda f: heard.append(f) or answer(f))
    return heard


class Light:
    """What falls into the spectrometer, W over the wavelengths in m."""

    def spectrum(self, wavelengths_m):
        return np.zeros(len(wavelengths_m))


@pytest.fixture
def light(firmware):
    light = Light()
    firmware._spectrum = lambda wavelengths_m: light.spectrum(wavelengths_m)
    return light


def shine(light, power_w):
    """Let the light be as bright everywhere, W."""
    light.spectrum = lambda wavelengths_m: np.full(len(wavelengths_m), power_w)


# --- messages ---------------------------------------------------------------------------------


def test_start_and_measure_are_these_messages(make_ocean, messages):
    ocean = make_ocean(dark_frames=2)
    ocean.start()
    coefficients = [Frame(Message.GET_WAVELENGTH_COEFFICIENT, bytes([i])) for i in range(3)]
    time_us = struct.pack("<L", 10_000)
    assert messages == [
        Frame(Message.GET_SERIAL_LENGTH),
        Frame(Message.GET_SERIAL),
        Frame(Message.SET_TRIGGER_MODE, b"\0", Flag.REQUEST_ACK),
        Frame(Message.SET_INTEGRATION_TIME_US, time_us, Flag.REQUEST_ACK),
        Frame(Message.GET_WAVELENGTH_COEFFICIENT_COUNT),
        *coefficients,
        *[Frame(Message.GET_RAW_SPECTRUM_NOW)] * 3,
    ]
    messages.clear()
    ocean.measure()
    assert messages == [Frame(Message.GET_RAW_SPECTRUM_NOW)]
    ocean.shutdown()
    assert len(messages) == 1


def test_construction_and_shutdown_before_the_start_do_no_input_or_output(make_ocean, messages):
    with make_ocean() as ocean:
        ocean.shutdown()
    assert messages == []


# --- units, axis, dark frame, saturation ------------------------------------------------------


def test_it_reads_the_power_of_the_light(ocean, light):
    shine(light, 0.0)
    ocean.start()
    shine(light, 4.8e-7)
    power = ocean.measure()
    assert power.shape == ocean.wavelengths_m.shape == ocean.power.shape == (101,)
    np.testing.assert_allclose(power, 4.8e-7, atol=1.2e-11)  # half a count
    np.testing.assert_allclose(
        ocean.wavelengths_m, np.linspace(773.365e-9, 776.635e-9, 101), rtol=1e-14
    )


def test_pixels_are_interpolated_linearly_to_the_wanted_wavelengths(make_ocean, light):
    shine(light, 0.0)
    ocean = make_ocean(start_nm=774.0, stop_nm=776.0, points=7)
    ocean.start()
    light.spectrum = lambda axis_m: (axis_m * 1e9 - 773) * 2e-7
    expected = (np.linspace(774, 776, 7) - 773) * 2e-7
    np.testing.assert_allclose(ocean.measure(), expected, atol=2.4e-11)


def test_the_dark_frame_is_taken_off_and_may_leave_noise_below_zero(ocean, light):
    shine(light, 2.4e-8)  # a thousand counts, of a background that stays
    ocean.start()
    np.testing.assert_allclose(ocean.measure(), 0.0, atol=1e-20)
    shine(light, 0.0)
    np.testing.assert_allclose(ocean.measure(), -2.4e-8, atol=2e-11)


def test_a_dark_frame_with_light_in_it_is_refused(ocean, light):
    shine(light, 1e-6)
    with pytest.raises(InstrumentRefused, match="ocean: dark frame: 43167 counts are above 6554"):
        ocean.start()
    with pytest.raises(ConnectionLost, match="start it first"):
        ocean.measure()
    shine(light, 0.0)
    ocean.start()


def test_a_saturated_pixel_reads_exactly_the_upper_limit(make_ocean, light):
    shine(light, 0.0)
    ocean = make_ocean()
    ocean.start()
    assert ocean.power.high == FULL_W
    shine(light, 1.6e-6)
    assert (ocean.measure() == FULL_W).all()

    def one_bright_pixel(axis_m):
        return np.where(np.arange(len(axis_m)) == 1000, 2e-6, 1e-7)

    light.spectrum = one_bright_pixel
    power = ocean.measure()
    assert (power == FULL_W).sum() <= 1
    assert power.min() > 0
    axis_nm = _axis_nm()
    on_it = make_ocean(start_nm=axis_nm[999], stop_nm=axis_nm[1001], points=5)
    shine(light, 0.0)
    on_it.start()
    light.spectrum = one_bright_pixel
    assert (on_it.measure() == FULL_W).tolist() == [False, True, True, True, False]


class FixedLink:
    """A connection to a spectrometer of given pixels that always reads the same counts."""

    def __init__(self, pixels_nm, counts):
        self.wavelengths_nm = lambda: pixels_nm
        self.spectra = iter([np.zeros(len(counts))] * 2 + [counts])
        self.intensities = lambda: next(self.spectra)

    def identity(self):
        return "Ocean HDX 1"

    def integration_limits_us(self):
        return 1, 10**7

    def full_scale_counts(self):
        return 65_535.0

    def set_integration_time(self, time_us): ...

    def open(self, model, check): ...

    def free_run(self): ...


@given(
    steps_nm=st.lists(st.floats(0.01, 3), min_size=1, max_size=12),
    data=st.data(),
    points=st.integers(2, 9),
)
def test_the_interpolation_is_linear_whatever_the_pixels_are(steps_nm, data, points):
    pixels_nm = 700 + np.cumsum([0, *steps_nm])
    counts = st.integers(0, 65_534)
    read = data.draw(st.lists(counts, min_size=len(pixels_nm), max_size=len(pixels_nm)))
    link = FixedLink(pixels_nm, np.array(read, dtype=float))
    spectrometer = OceanSpectrometer(
        link,
        watts_per_count=1.0,
        start_nm=pixels_nm[0],
        stop_nm=pixels_nm[-1],
        points=points,
        dark_frames=1,
    )
    spectrometer.start()
    wanted_nm = np.linspace(pixels_nm[0], pixels_nm[-1], points)
    expected = np.interp(wanted_nm, pixels_nm, read)
    np.testing.assert_allclose(spectrometer.measure(), expected, atol=1e-4)


def _axis_nm():
    seen = []
    firmware = hdx.OceanFirmware(lambda axis_m: seen.append(axis_m) or np.zeros(len(axis_m)))
    firmware.connect().receive(Frame(Message.GET_RAW_SPECTRUM_NOW).pack())
    return seen[0] * 1e9


def test_the_first_spectrum_after_a_new_integration_time_is_thrown_away(make_ocean, light):
    """The simulated one, as some real ones, still has the old time."""
    shine(light, 2.4e-8)  # 1000 counts at 10 ms
    for time_ms in (10.0, 40.0, 6.0):
        ocean = make_ocean(integration_time_ms=time_ms, dark_frames=1)
        ocean.start()
        np.testing.assert_allclose(ocean.measure(), 0.0, atol=1e-20)


# --- limits and settings ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"start_nm": 776.0, "stop_nm": 775.0}, "wavelength"),
        ({"points": 1}, "points: 1 is outside"),
        ({"integration_time_ms": 20_000.0}, r"integration_time: 20000 is .*10000\] ms"),
        ({"integration_time_ms": float("nan")}, "integration_time"),
        ({"dark_frames": 0}, "dark_frames"),
        ({"dark_share": 1.5}, "dark_share"),
        ({"full_scale_counts": 0}, "full_scale_counts"),
        ({"watts_per_count": 0.0}, "watts_per_count"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(make_ocean, settings, named):
    with pytest.raises(LimitError, match=f"ocean: {named}"):
        make_ocean(**settings)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"integration_time_ms": 5.0}, r"integration_time: 5 ms is .* \[6, 10000\] ms"),
        ({"full_scale_counts": 4095}, "full_scale_counts: 4095 is not this device's 65535"),
        ({"start_nm": 500.0, "stop_nm": 501.0}, r"wavelength: 500 to 501 nm is .* \[773, 777"),
        ({"model": "QE9"}, "model: model 'QE9' is not one of HDX, FX"),
    ],
)
def test_what_this_instrument_cannot_do_is_refused_at_the_start(
    make_ocean, firmware, settings, named
):
    with pytest.raises(LimitError, match=f"ocean: {named}"):
        make_ocean(**settings).start()
    assert firmware.out_of_limits == 0
    assert firmware.spectra == 0


def test_the_far_end_counts_what_is_out_of_limits(firmware):
    session = firmware.connect()
    for time_us in (5_999, 10_000_000, 10_000):
        data = struct.pack("<L", time_us)
        answer = session.receive(
            Frame(Message.SET_INTEGRATION_TIME_US, data, Flag.REQUEST_ACK).pack()
        )
        assert bool(unpack(answer).flags & Flag.NACK) is (time_us != 10_000)
    session.receive(Frame(Message.SET_TRIGGER_MODE, b"\7").pack())
    assert firmware.out_of_limits == 3


# --- the simulated instrument's own manners ---------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "error"),
    [
        (Frame(0x123456).pack(), 2),
        (Frame(Message.SET_INTEGRATION_TIME_US, b"\1").pack(), 5),
        (Frame(Message.GET_WAVELENGTH_COEFFICIENT, b"\x09").pack(), 6),
        (Frame(Message.GET_SERIAL, checksum=True).pack()[:-5] + b"?" + b"\xc5\xc4\xc3\xc2", 3),
        (b"GET / HTTP/1.1\r\n" * 4, 1),
    ],
)
def test_what_it_does_not_understand_is_refused_with_its_number(firmware, request_bytes, error):
    session = firmware.connect()
    answer = unpack(session.receive(request_bytes))
    assert answer.flags & Flag.NACK
    assert answer.error == error
    assert unpack(session.receive(Frame(Message.GET_SERIAL).pack())).payload == b"HDX00714"


def test_requests_may_come_in_pieces_and_several_at_once(firmware):
    session = firmware.connect()
    ask = Frame(Message.GET_SERIAL, regarding=7, checksum=True).pack()
    assert session.receive(ask[:10]) + session.receive(ask[10:63]) == b""
    answers = session.receive(ask[63:] + ask)
    first = unpack(answers[:64])
    assert (first.payload, first.regarding, first.checksum) == (b"HDX00714", 7, True)
    assert answers[64:] == answers[:64]


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.TIMEOUT, InstrumentTimeout),
        (Fault.TRUNCATE, InstrumentTimeout),
        (Fault.GARBAGE, ProtocolError),
        (Fault.DROP, ConnectionLost),
        (Fault.REFUSE, InstrumentRefused),
    ],
)
def test_each_fault_is_one_clear_error_and_start_recovers(ocean, rig, light, fault, error):
    shine(light, 0.0)
    ocean.start()
    rig.inject("ocean", fault, on=SPECTRUM)
    shine(light, 1e-7)
    with pytest.raises(error, match="ocean: spectrum: ") as caught:
        ocean.measure()
    assert caught.value.instrument == "ocean"
    if error is InstrumentRefused:
        assert "error 7, Device not ready" in str(caught.value)
    else:
        with pytest.raises(ConnectionLost, match="start it again"):
            ocean.measure()
    ocean.shutdown()
    shine(light, 0.0)
    ocean.start()
    shine(light, 2e-7)  # an old spectrum would be told from the new one
    np.testing.assert_allclose(ocean.measure(), 2e-7, atol=1.3e-11)


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (FaultOrder("ocean", WireFault.STALL), InstrumentTimeout),
        (FaultOrder("ocean", WireFault.DELAY, delay_s=10.0), InstrumentTimeout),
        (FaultOrder("ocean", WireFault.DELAY, delay_s=1e-3), None),
    ],
)
def test_a_wire_that_stalls_or_delays(ocean, rig, light, order, error):
    shine(light, 0.0)
    ocean.start()
    rig.arm(order)
    if error is None:
        ocean.measure()
        return
    with pytest.raises(error, match="ocean: spectrum: no answer"):
        ocean.measure()
    ocean.start()
    ocean.measure()


def test_a_refused_setting_is_not_overlooked(ocean, rig):
    """seabreeze by itself ignores the refusal of a command."""
    rig.inject("ocean", Fault.REFUSE, on="SET_INTEGRATION_TIME_US")
    with pytest.raises(InstrumentRefused, match="integration time 10000 us: error 7"):
        ocean.start()


def test_another_instrument_at_the_address(ocean, rig):
    rig.inject("ocean", Fault.IDENTITY)
    with pytest.raises(IdentityError, match="Ocean HDX OTHER001"):
        ocean.start()
    ocean.start()


@pytest.mark.parametrize(
    ("message", "payload", "named"),
    [
        (Message.GET_RAW_SPECTRUM_NOW, bytes(100), "spectrum: unusable answer"),
        (Message.GET_SERIAL, b"\xff\xfe", "identity: unusable answer"),
        (Message.GET_SERIAL_LENGTH, b"", "identity: unusable answer"),
        (Message.GET_WAVELENGTH_COEFFICIENT, bytes(4), "the pixels' wavelengths do not rise"),
    ],
)
def test_answers_without_sense(ocean, firmware, monkeypatch, message, payload, named):
    carry_out = firmware._carry_out
    monkeypatch.setattr(
        firmware, "_carry_out", lambda m, p: payload if m == message else carry_out(m, p)
    )
    with pytest.raises(ProtocolError, match=f"ocean: .*{named}"):
        ocean.start()


def test_an_acknowledgement_need_not_name_its_question(ocean, firmware, light, monkeypatch):
    answer = firmware.answer

    def unnamed(request):
        reply = answer(request)
        return reply if reply.payload else replace(reply, message=0)

    monkeypatch.setattr(firmware, "answer", unnamed)
    ocean.start()


def test_another_model_has_other_pixels(make_ocean):
    with pytest.raises(ProtocolError, match="ocean: spectrum: unusable answer"):
        make_ocean(model="FX").start()


def test_an_answer_to_another_question(ocean, firmware, monkeypatch):
    answer = firmware.answer
    other = Frame(Message.GET_PRODUCT_ID)
    monkeypatch.setattr(firmware, "answer", lambda f: answer(other))
    with pytest.raises(ProtocolError, match="answers message 0xe01, not 0x101"):
        ocean.identify()


def test_an_interrupt_does_not_leave_an_answer_for_the_next_question(ocean, light, monkeypatch):
    shine(light, 0.0)
    ocean.start()
    with monkeypatch.context() as patch:
        patch.setattr(light, "spectrum", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ocean.measure()
    with pytest.raises(ConnectionLost, match="start it again"):
        ocean.measure()


def test_an_abort_ends_what_follows_until_the_next_start(ocean, light):
    shine(light, 0.0)
    ocean.start()
    ocean.abort()
    with pytest.raises(Aborted, match="ocean: spectrum: aborted"):
        ocean.measure()
    ocean.shutdown()
    ocean.start()
    ocean.measure()


# --- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("http://x", "not an ocean://, ocean-usb:// or mock:// address"),
        ("ocean://", "not a host"),
        ("ocean://x:99999", "port of 1 to 65535"),
        ("mock://optics/shaper", "no Ocean spectrometer"),
    ],
)
def test_addresses_that_name_none(rig, address, named):
    with pytest.raises(ValueError, match=named):
        open_ocean(address, {"optics": rig}, timeout_s=1)


def test_without_the_library_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "drivers.spectrometers.ocean_seabreeze", None)
    with pytest.raises(ValueError, match=r"ocean://x: needs `pip install 'pnnlab\[ocean\]'`"):
        open_ocean("ocean://x", {}, timeout_s=1)


# --- USB --------------------------------------------------------------------------------------


class LampFeature:
    def __init__(self) -> None:
        self.states = []

    def set_enable(self, state):
        self.states.append(state)


class UsbDevice:
    """What seabreeze's device of a Flame looks like from outside."""

    model = "FLAME-S"
    serial_number = "FLMS0042"

    def __init__(self):
        self.f = self
        self.spectrometer = self
        self.continuous_strobe = LampFeature()
        self.asked = []
        self.error = None

    def get_serial_number(self):
        return self.serial_number

    def get_integration_time_micros_limits(self):
        return 1_000, 655_350_000

    def get_maximum_intensity(self):
        return 65_535.0

    def get_wavelengths(self):
        return np.linspace(700, 800, 2048)

    def set_trigger_mode(self, mode):
        self.asked.append(("trigger", mode))

    def set_integration_time_micros(self, time_us):
        self.asked.append(("time", time_us))

    def get_intensities(self):
        if self.error is not None:
            raise self.error
        return np.full(2048, 300.0)

    def close(self):
        self.asked.append(("close",))


@pytest.fixture
def flame(monkeypatch):
    device = UsbDevice()
    monkeypatch.setattr("drivers.spectrometers.ocean_seabreeze.find_on_usb", lambda serial: device)
    return device


def usb(**settings) -> OceanSpectrometer:
    link = open_ocean("ocean-usb://FLMS0042", {}, timeout_s=1)
    return OceanSpectrometer(link, name="flame", watts_per_count=1e-12, **settings)


def test_a_usb_instrument_is_set_up_and_its_lamp_switched_off(flame):
    with usb(expect_idn="FLAME-S FLMS") as driver:
        driver.start()
        np.testing.assert_allclose(driver.measure(), 0.0, atol=1e-24)
        assert flame.asked == [("trigger", 0), ("time", 10_000)]
        driver.shutdown()
    assert flame.continuous_strobe.states == [False] * 3
    assert flame.asked[-1] == ("close",)


def test_a_lamp_is_switched_off_by_a_driver_that_never_started(flame):
    usb().close()
    assert flame.continuous_strobe.states == [False]
    assert flame.asked == [("close",)]


def test_a_lamp_is_switched_off_after_a_lost_connection(flame):
    driver = usb()
    driver.start()
    flame.error = OSError(19, "No such device")
    with pytest.raises(ConnectionLost):
        driver.measure()
    flame.continuous_strobe.states.clear()
    driver.shutdown()
    assert flame.continuous_strobe.states == [False]
    with pytest.raises(ConnectionLost, match="start it again"):
        driver.measure()
    driver.close()


def test_a_lamp_that_cannot_be_reached_is_not_said_to_be_off(monkeypatch):
    monkeypatch.setattr(
        "drivers.spectrometers.ocean_seabreeze.USBTransport.list_devices", lambda **_: iter(())
    )
    with pytest.raises(ConnectionLost, match=r"flame: lamp off: .* on USB"):
        usb().close()


def test_no_call_on_usb_may_last_two_seconds(flame):
    with usb(integration_time_ms=1_001.0) as driver, pytest.raises(LimitError, match=r"1000\] ms"):
        driver.start()


def test_errors_of_usb_are_the_drivers(flame):
    core = pytest.importorskip("usb.core")
    for raised, error in (
        (core.USBTimeoutError("timed out", errno=110), InstrumentTimeout),
        (core.USBError("No such device", errno=19), ConnectionLost),
    ):
        driver = usb()
        driver.start()
        flame.error = raised
        with pytest.raises(error, match="flame: spectrum"):
            driver.measure()
        flame.error = None
        driver.close()


def test_no_instrument_on_usb_is_a_lost_connection(monkeypatch):
    monkeypatch.setattr(
        "drivers.spectrometers.ocean_seabreeze.USBTransport.list_devices", lambda **_: iter(())
    )
    for address in ("ocean-usb://", "ocean-usb://FLMS0042"):
        driver = OceanSpectrometer(
            open_ocean(address, {}, timeout_s=1), name="flame", watts_per_count=1e-12
        )
        with pytest.raises(DriverError, match=r"flame: identity: .* on USB"):
            driver.start()
