"""SLMShaper: what it shows, limits, geometry, safe state, faults, the light behind the slit."""

import sys

import numpy as np
import pytest

from drivers.errors import (
    Aborted,
    ConnectionLost,
    IdentityError,
    InstrumentRefused,
    InstrumentTimeout,
    LimitError,
    ProtocolError,
)
from drivers.mock.faults import Fault
from drivers.mock.firmware.bounds import Bounds
from drivers.mock.firmware.slm import SHAPE, SLMFirmware
from drivers.mock.physics.optics import OpticalPlant
from drivers.mock.rig import optical_rig
from drivers.shapers.slm import SLMShaper
from drivers.shapers.slm_display import SlmsuiteDisplay
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spectrometers.ocean_link import LONGEST_CALL_S
from drivers.transport import open_http, open_slm


class RecordingDisplay:
    """A display of 6 rows, 5 columns and 8 bits that keeps what it is told to show."""

    def __init__(self, shape=(6, 5), bits=8):
        self.shape, self.bits = shape, bits
        self.calls = []

    def open(self):
        self.calls.append("open")

    def close(self):
        self.calls.append("close")

    def identity(self):
        return "Panel 1"

    def show(self, levels):
        self.calls.append(levels)


@pytest.fixture
def display():
    return RecordingDisplay()


def shaper_on(display, **settings):
    return SLMShaper(
        display,
        **{"lines": 2, "period_rows": 3, "settling_time_s": 0.0, "first_column": 1, **settings},
    )


# --- what is shown ----------------------------------------------------------------------------


def test_a_pattern_is_these_grey_levels(display):
    """Thirds of a turn down the rows: a full blaze, one shifted by a row, an empty column."""
    shaper = shaper_on(display)
    shaper.load(np.zeros(2), np.array([0.0, 2 * np.pi / 3]))
    (_, levels) = display.calls
    assert levels.dtype == np.uint8
    assert (
        levels.tolist()
        == [
            [0, 0, 171, 0, 0],
            [0, 171, 85, 0, 0],
            [0, 85, 0, 0, 0],
        ]
        * 2
    )


def test_lines_may_have_several_columns_and_levels_more_than_eight_bits():
    display = RecordingDisplay(bits=10)
    shaper = shaper_on(display, columns_per_line=2, levels_per_turn=900)
    shaper.load(np.zeros(2), np.zeros(2))
    levels = display.calls[-1]
    assert levels.dtype == np.uint16
    assert levels[:3].tolist() == [[0] * 5, [0, 600, 600, 600, 600], [0, 300, 300, 300, 300]]


def test_above_the_floor_a_line_is_flat(display):
    shaper = shaper_on(display, floor_db=30.0)
    shaper.load(np.array([30.0, 30.01]), np.array([1.0, 1.0]))
    levels = display.calls[-1]
    assert levels[:, 1].any()
    assert not levels[:, 2].any()


def test_start_shutdown_and_close_show_nothing(display):
    shaper = shaper_on(display)
    shaper.start()
    shaper.load(np.zeros(2), np.zeros(2))
    shaper.shutdown()
    shaper.close()
    shaper.close()
    shown = [call for call in display.calls if not isinstance(call, str)]
    assert [bool(levels.any()) for levels in shown] == [False, True, False, False]
    assert [call for call in display.calls if isinstance(call, str)] == ["open", "close", "close"]


def test_construction_does_no_input_or_output(display):
    shaper_on(display)
    assert display.calls == []


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attenuation", "phase", "named"),
    [
        ([0, 60.1], [0, 0], r"attenuation: 60.1 dB at index \[1\] is outside \[0, 60\] dB"),
        ([-0.1, 0], [0, 0], "attenuation: -0.1 dB"),
        ([0, float("nan")], [0, 0], "attenuation: nan dB"),
        ([0, 0], [0, 6.3], "phase: 6.3 rad"),
        ([0], [0, 0], "attenuation: shape"),
        ([[0, 0]], [0, 0], "attenuation: shape .* is not one profile"),
    ],
)
def test_out_of_limits_is_refused_before_anything_is_shown(display, attenuation, phase, named):
    with pytest.raises(LimitError, match=f"shaper: {named}"):
        shaper_on(display).load(np.array(attenuation), np.array(phase))
    assert display.calls == []


def test_the_bench_may_narrow_the_limits_and_never_widen_them(display):
    narrow = shaper_on(display, attenuation=(3.0, 60.0), phase=(0.0, 3.2))
    with pytest.raises(LimitError, match=r"attenuation: 2\.9 dB"):
        narrow.load(np.array([3.0, 2.9]), np.zeros(2))
    with pytest.raises(ValueError, match="wider"):
        shaper_on(display, attenuation=(0.0, 80.0))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"lines": 0}, "lines: 0 lines"),
        ({"first_column": -1}, "lines: 2 lines of 1 columns from -1"),
        ({"period_rows": 2}, r"period_rows: 2 is outside \[3, 64\] rows"),
        ({"floor_db": 61.0}, r"floor: 61 is outside \[0, 60\] dB"),
    ],
)
def test_impossible_settings_are_refused_at_once(display, settings, named):
    with pytest.raises(LimitError, match=f"shaper: {named}"):
        shaper_on(display, **settings)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"lines": 5}, r"lines: columns 1 to 5 are outside this display's \[0, 4\]"),
        ({"period_rows": 4}, "period_rows: 6 rows are no multiple of 4"),
        ({"levels_per_turn": 257}, r"levels_per_turn: 257 is outside \[2, 256\] levels"),
    ],
)
def test_what_does_not_fit_this_display_is_refused_at_the_start(display, settings, named):
    with pytest.raises(LimitError, match=f"shaper: {named}"):
        shaper_on(display, **settings).start()
    assert display.calls == ["open"]


def test_a_pattern_that_does_not_fit_is_never_shown_even_without_a_start(display):
    with pytest.raises(LimitError, match="lines: columns 1 to 5"):
        shaper_on(display, lines=5).load(np.zeros(5), np.zeros(5))
    assert display.calls == ["open"]


# --- the light --------------------------------------------------------------------------------


@pytest.fixture
def firmware(rig):
    return rig.instruments["slm"]


def test_the_light_gets_the_commanded_field(make_slm, plant):
    slm = make_slm(lines=1000, first_column=460)
    slm.start()
    rng = np.random.default_rng(1)
    attenuation_db, phase_rad = rng.uniform(0, 40, 1000), rng.uniform(-6.28, 6.28, 1000)
    slm.load(attenuation_db, phase_rad)
    field = 10 ** (attenuation_db / -20) * np.exp(1j * phase_rad)
    np.testing.assert_allclose(plant.transmission[460:1460], field, rtol=0, atol=np.pi / 256)
    assert not plant.transmission[:460].any()
    assert not plant.transmission[1460:].any()
    np.testing.assert_allclose(plant.grids[-1][[460, 1459]], [192.915, 193.914])
    slm.load(attenuation_db, phase_rad)
    assert plant.grids[-1] is plant.grids[-2]


def test_the_safe_state_is_really_dark(slm, firmware, plant):
    slm.start()
    assert firmware.safe
    slm.load(np.zeros(20), np.zeros(20))
    assert not firmware.safe
    slm.shutdown()
    assert firmware.safe
    assert not plant.transmission.any()


def test_another_period_misses_the_slit(make_slm, firmware):
    slm = make_slm(period_rows=16)
    slm.start()
    slm.load(np.zeros(20), np.zeros(20))
    assert firmware.blocked


def test_the_far_end_counts_what_is_out_of_limits(make_slm, firmware):
    firmware.attenuation_db = Bounds(6.0, 60.0)
    slm = make_slm(attenuation=(6.0, 60.0))
    slm.start()
    slm.load(np.full(20, 6.0), np.linspace(-6, 6, 20))
    assert firmware.out_of_limits == 0
    make_slm().load(np.full(20, 5.0), np.zeros(20))
    assert firmware.out_of_limits == 20


def test_the_far_end_refuses_what_is_no_image():
    firmware = SLMFirmware(lambda *_: None)
    for image in (np.zeros((3, 3), dtype=np.uint8), np.zeros(SHAPE, dtype=np.uint16)):
        with pytest.raises(Exception, match="no image"):
            firmware.show(image)
    assert firmware.out_of_limits == 9 + SHAPE[0] * SHAPE[1]


def test_the_bench_measures_nearly_the_same_with_either_shaper():
    plant = OpticalPlant(noise=0.0)
    rigs = {"o": optical_rig(plant)}
    rng = np.random.default_rng(2)
    attenuation_db = np.repeat(rng.uniform(0, 20, 100), 10)
    phase_rad = np.repeat(rng.choice([0, np.pi], 100), 10)
    axis = np.linspace(773.4e-9, 776.6e-9, 50)
    spectra = []
    for shaper in (
        WaveShaperA(open_http("mock://o/shaper", rigs, timeout_s=2), settling_time_s=0.0),
        SLMShaper(
            open_slm("mock://o/slm", rigs, timeout_s=2), first_column=460, settling_time_s=0.0
        ),
    ):
        shaper.start()
        assert plant.spectrum(axis).max() == 0
        shaper.load(attenuation_db, phase_rad)
        spectra.append(plant.spectrum(axis))
        shaper.shutdown()
    assert spectra[0].max() > 1e-8
    # grey levels: 1.2 % of the field at most, pixel by pixel, and the square of it is measured
    np.testing.assert_allclose(spectra[1], spectra[0], atol=0.05 * spectra[0].max())


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "goes_on"),
    [
        (Fault.TIMEOUT, InstrumentTimeout, False),
        (Fault.DROP, ConnectionLost, False),
        (Fault.REFUSE, InstrumentRefused, True),
    ],
)
def test_each_fault_is_one_clear_error_and_start_recovers(
    slm, rig, firmware, fault, error, goes_on
):
    slm.start()
    rig.inject("slm", fault, on="show")
    with pytest.raises(error, match="slm: load: "):
        slm.load(np.zeros(20), np.zeros(20))
    if not goes_on:
        with pytest.raises(ConnectionLost, match="start it again"):
            slm.load(np.zeros(20), np.zeros(20))
    slm.shutdown()
    assert firmware.blocked
    slm.start()
    slm.load(np.zeros(20), np.zeros(20))
    assert not firmware.blocked


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.IDENTITY, IdentityError),
        (Fault.GARBAGE, ProtocolError),
        (Fault.TRUNCATE, ProtocolError),
    ],
)
def test_another_display_or_nonsense_at_the_address(slm, rig, fault, error):
    rig.inject("slm", fault)
    with pytest.raises(error, match=r"slm: .*"):
        slm.start()
    slm.start()


def test_an_abort_before_the_pattern_shows_nothing(slm, firmware):
    slm.start()
    shown = firmware.patterns
    slm.abort()
    with pytest.raises(Aborted, match="slm: load: aborted"):
        slm.load(np.zeros(20), np.zeros(20))
    assert firmware.patterns == shown


# --- addresses and slmsuite's classes -----------------------------------------------------------


class VendorPanel:
    """What an SLM class of slmsuite looks like from outside."""

    name, shape, bitdepth = "panel", (6, 5), 8

    def __init__(self):
        self.error = None
        self.shown = []

    def set_phase(self, phase, settle):
        if self.error is not None:
            raise self.error
        assert settle is False
        self.shown.append(phase)

    def close(self):
        pass


def test_an_address_names_a_class_and_its_options():
    address = "slm://types.SimpleNamespace?name=panel&shape=(6,5)&bitdepth=8&wav_um=1.55"
    display = open_slm(address, {}, timeout_s=1)
    display.open()
    assert (display.shape, display.bits) == ((6, 5), 8)
    assert display.identity() == "SimpleNamespace panel"
    assert display._slm.wav_um == 1.55


def test_a_display_is_driven_through_slmsuites_interface():
    panel = VendorPanel()
    shaper = shaper_on(SlmsuiteDisplay(lambda: panel))
    shaper.start()
    shaper.load(np.zeros(2), np.zeros(2))
    assert shaper.identify() == "VendorPanel panel"
    assert [bool(levels.any()) for levels in panel.shown] == [False, True]


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (RuntimeError("Timeout: only 0 bytes received before 2s of silence."), InstrumentTimeout),
        (RuntimeError("Connection closed by peer after 0 bytes received."), ConnectionLost),
        (TimeoutError("An slmsuite server is not responsive"), InstrumentTimeout),
        (Exception("the vendor's own words"), InstrumentRefused),
    ],
)
def test_errors_of_slmsuite_are_the_drivers(raised, error):
    panel = VendorPanel()
    shaper = shaper_on(SlmsuiteDisplay(lambda: panel))
    shaper.start()
    panel.error = raised
    with pytest.raises(error, match=f"shaper: load: .*{str(raised)[:20]}"):
        shaper.load(np.zeros(2), np.zeros(2))


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("http://x", "not an slm://, slm-tcp:// or mock:// address"),
        ("slm://no.such.Class", "cannot be imported"),
        ("mock://optics/shaper", "no phase display"),
    ],
)
def test_addresses_that_name_none(rig, address, named):
    with pytest.raises(ValueError, match=named):
        open_slm(address, {"optics": rig}, timeout_s=1)


@pytest.mark.parametrize(
    "address", ["slm-tcp://192.168.1.40/panel", "slm://slmsuite.hardware.slms.santec.Santec"]
)
def test_without_the_library_the_error_names_what_to_install(monkeypatch, address):
    monkeypatch.setitem(sys.modules, "slmsuite", None)
    for module in [name for name in sys.modules if name.startswith("slmsuite.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ValueError, match=r"needs `pip install 'pnnlab\[slm\]'`"):
        open_slm(address, {}, timeout_s=1)


def test_no_call_may_last_longer_than_two_seconds(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "drivers.transport.calls.remote_display", lambda *a: seen.append(a) or (lambda: None)
    )
    open_slm("slm-tcp://lab:6000/panel", {}, timeout_s=5)
    assert seen == [("lab", 6000, "panel", LONGEST_CALL_S)]
