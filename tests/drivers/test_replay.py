"""Recorded sessions, in memory and over sockets, replayed to the same drivers."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyvisa.errors import VisaIOError

from drivers.circuits.mcc import MccUsb1208HS
from drivers.errors import DriverError, ReplayError
from drivers.mock.faults import Fault
from drivers.mock.firmware.audio import AudioFault, SimulatedAudio
from drivers.mock.firmware.mcc import SimulatedBoard
from drivers.mock.firmware.slm import SimulatedDisplay
from drivers.mock.http import FirmwareClient
from drivers.mock.rig import Rig
from drivers.mock.visa import FirmwareAdapter
from drivers.plates.audio import AudioPlate
from drivers.plates.audio_process import SounddeviceProcess
from drivers.shapers.slm import SLMShaper
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spectrometers.ocean import OceanSpectrometer
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from drivers.transport import open_audio, open_board, open_http, open_ocean, open_slm, open_visa
from drivers.wires.recording import Recorder, load_recording
from drivers.wires.tap import TappedRigs


def open_shaper(address, rigs):
    return WaveShaperA(
        open_http(address, rigs, timeout_s=5), lines=20, settling_time_s=0, expect_idn="1000A"
    )


def open_osa(address, rigs, password="pencil"):
    axis = {"start_nm": 773.365, "stop_nm": 776.635, "points": 101, "full_scale_w": 1.6e-6}
    adapter = open_visa(address, rigs, timeout_s=0.2)
    return YokogawaAQ6370(adapter, "osa", password=password, **axis)


def open_hdx(address, rigs):
    pytest.importorskip("seabreeze")
    link = open_ocean(address, rigs, timeout_s=0.2)
    return OceanSpectrometer(link, name="hdx", watts_per_count=1.6e-6 / 65_535)


def open_panel(address, rigs):
    return SLMShaper(open_slm(address, rigs, timeout_s=1), name="panel", settling_time_s=0)


def light(panel):
    panel.load(np.linspace(0, 30, 1000), np.linspace(0, 1, 1000))


def open_daq(address, rigs):
    board = open_board(address, rigs)
    return MccUsb1208HS(board, samples=8, gap_samples=2, buffer_samples=30)


def open_plate(address, rigs):
    port = open_audio(address, rigs, timeout_s=5)
    return AudioPlate(port, name="plate", rows_per_shot=10)


def shape(shaper, attenuation_db=3.0):
    shaper.load(np.full(20, attenuation_db), np.linspace(0, 1, 20))
    return shaper.profile().attenuation_db


def sweep(spectrometer):
    return spectrometer.measure()


def drive_circuit(daq):
    return daq.acquire(np.random.default_rng(1).uniform(-10, 10, (5, 8)))


def play(plate):
    recording = plate.play_and_record(np.random.default_rng(1).uniform(-1, 1, (2, 196)))
    return np.concatenate([recording.response.ravel(), recording.in_sync])


KINDS = {
    "shaper": (open_shaper, shape),
    "spectrometer": (open_osa, sweep),
    "ocean": (open_hdx, sweep),
    "slm": (open_panel, light),
    "daq": (open_daq, drive_circuit),
    "audio": (open_plate, play),
}


def session(driver, act, times=3, on_fault=None):
    """Return all that a user sees of a session with an instrument, errors included."""
    seen = []

    def note(call):
        try:
            seen.append(call())
        except DriverError as error:
            seen.append(f"{type(error).__name__}: {error}")

    note(driver.identify)
    note(driver.start)
    for i in range(times):
        if i == 1 and on_fault is not None:
            on_fault()
        note(lambda: act(driver))
    note(driver.start)
    note(lambda: act(driver))
    note(driver.shutdown)
    note(driver.close)
    return seen


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert type(a) is type(b), (a, b)
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "session.jsonl"


@pytest.fixture
def rigs(rig, plate_rig_of_echo):
    instruments = {**rig.instruments, **plate_rig_of_echo.instruments}
    return {"lab": Rig(rig.plant, instruments)}


@pytest.fixture
def record(path, rigs):
    """Return what records a session with an instrument, by default the simulated one."""

    def record(name, address=None, on_fault=None):
        open_, act = KINDS[name]
        address = address or f"mock://lab/{name}"
        with Recorder(path, "bench") as recorder:
            driver = open_(address, TappedRigs(rigs, recorder.tap(name)))
            return session(driver, act, on_fault=on_fault)

    return record


@pytest.fixture
def replay(path):
    def replay(name):
        open_, act = KINDS[name]
        return session(open_(f"replay://{path}#{name}", {}), act)

    return replay


@pytest.mark.parametrize("name", KINDS)
def test_a_session_in_memory_is_replayed_bit_for_bit(name, record, replay):
    seen = record(name)
    assert not [what for what in seen[1:] if isinstance(what, str)]
    assert_same(replay(name), seen)


@pytest.mark.parametrize("name", KINDS)
def test_a_tap_changes_nothing(name, record, rigs):
    open_, act = KINDS[name]
    untapped = session(open_(f"mock://lab/{name}", rigs), act)
    assert_same(record(name), untapped)


def test_a_session_over_http_is_replayed_bit_for_bit(serve, rigs, record, replay):
    seen = record("shaper", serve(rigs["lab"].instruments["shaper"]))
    assert_same(replay("shaper"), seen)


@pytest.mark.parametrize("fault", [None, Fault.TIMEOUT, Fault.DROP, Fault.TRUNCATE])
def test_a_session_over_a_socket_is_replayed_bit_for_bit(fault, serve, rigs, record, replay):
    instrument = rigs["lab"].instruments["spectrometer"]
    on_fault = None if fault is None else lambda: instrument.inject(fault, on=":TRACe")
    seen = record("spectrometer", serve(instrument), on_fault)
    failed = [what for what in seen[1:] if isinstance(what, str)]
    assert bool(failed) == (fault is not None)
    again = replay("spectrometer")
    # the words for a lost connection are the operating system's
    assert_same([kind(what) for what in again], [kind(what) for what in seen])


@pytest.mark.parametrize("fault", [None, Fault.TIMEOUT, Fault.DROP])
def test_a_session_in_the_ocean_protocol_is_replayed_too(fault, serve, rigs, record, replay):
    instrument = rigs["lab"].instruments["ocean"]
    on_fault = None if fault is None else lambda: instrument.inject(fault)
    seen = record("ocean", serve(instrument), on_fault)
    assert any(isinstance(what, np.ndarray) for what in seen)
    assert_same([kind(what) for what in replay("ocean")], [kind(what) for what in seen])


def kind(what):
    return what.partition(":")[0] if isinstance(what, str) else what


def test_memory_and_socket_record_the_same_bytes(serve, rigs, record, path, tmp_path):
    record("spectrometer")
    path.rename(tmp_path / "memory.jsonl")
    record("spectrometer", serve(rigs["lab"].instruments["spectrometer"]))
    one, two = (load_recording(p)["spectrometer"] for p in (tmp_path / "memory.jsonl", path))
    assert one == two


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("fault", list(Fault))
def test_a_fault_is_replayed_too(name, fault, rigs, record, replay):
    seen, again = record(name, on_fault=lambda: rigs["lab"].inject(name, fault)), replay(name)
    if name == "ocean":  # its words say how much of an answer came, which nobody had read
        seen, again = [kind(what) for what in seen], [kind(what) for what in again]
    assert_same(again, seen)


@pytest.mark.parametrize("fault", list(AudioFault))
def test_a_fault_of_the_sound_is_replayed_too(fault, rigs, record, replay):
    seen = record("audio", on_fault=lambda: rigs["lab"].instruments["audio"].inject(fault))
    assert_same(replay("audio"), seen)


def test_bytes_too_many_are_there_in_the_replay_too(path):
    def talk(adapter):
        adapter.write("one")
        seen = [adapter.read(), adapter.unread()]
        adapter.write("two")
        return [*seen, adapter.read(), adapter.unread(), adapter.read(), adapter.unread()]

    with Recorder(path, "bench") as recorder:
        parrot = Parrot([b"1\r\n11\r\n", b"2\r\n"])
        rigs = TappedRigs({"lab": Rig(None, {"parrot": parrot})}, recorder.tap("parrot"))
        seen = talk(open_visa("mock://lab/parrot", rigs, timeout_s=1))
    assert seen == ["1", True, "11", True, "2", False]
    assert talk(open_visa(f"replay://{path}", {}, timeout_s=1)) == seen


def test_what_a_tap_hears_of_usb_is_nothing_and_so_it_is_refused():
    pytest.importorskip("seabreeze")
    with pytest.raises(ValueError, match="ocean-usb://FLMS1: what goes over USB cannot be rec"):
        open_ocean("ocean-usb://FLMS1", TappedRigs({}, print), timeout_s=1)


# --- differences ------------------------------------------------------------------------------


def test_a_changed_command_is_told_with_what_was_expected(record, path):
    record("spectrometer")
    osa = open_osa(f"replay://{path}#spectrometer", {})
    assert osa.identify().startswith("YOKOGAWA")
    expected = (
        r"spectrometer: replay of .*session\.jsonl: exchange 4, line \d+: expected \*IDN\?, "
        r"but :INITiate:IMMediate came"
    )
    with pytest.raises(ReplayError, match=expected) as first:
        osa.measure()
    # what comes after the first difference means nothing
    for call in (osa.start, osa.measure, osa.close):
        with pytest.raises(ReplayError) as later:
            call()
        assert str(later.value) == str(first.value)


def test_a_changed_value_is_told_with_where_it_differs(record, path):
    record("shaper")
    shaper = open_shaper(f"replay://{path}", {})  # the only instrument need not be named
    shaper.identify()
    shaper.start()
    with pytest.raises(ReplayError, match=r"differs from byte \d+ on, came"):
        shape(shaper, attenuation_db=4.0)


def test_changed_voltages_are_told(record, path):
    record("daq")
    daq = open_daq(f"replay://{path}", {})
    daq.identify()
    daq.start()
    with pytest.raises(ReplayError, match=r"differs from byte \d+ on, came"):
        daq.acquire(np.full((3, 8), 0.5))


def test_a_changed_pattern_is_told(record, path):
    record("slm")
    panel = open_panel(f"replay://{path}", {})
    panel.identify()
    panel.start()
    with pytest.raises(ReplayError, match=r"show 64 x 1920 of 1 bytes .*differs from byte \d+ on"):
        panel.load(np.zeros(1000), np.zeros(1000))


def test_changed_sound_is_told(record, path):
    record("audio")
    plate = open_plate(f"replay://{path}", {})
    plate.identify()
    plate.start()
    with pytest.raises(ReplayError, match=r"differs from byte \d+ on, came"):
        plate.play_and_record(np.full((2, 196), 0.5))


@pytest.mark.parametrize("name", KINDS)
def test_a_recording_has_an_end(name, rigs, path):
    open_, _ = KINDS[name]
    with Recorder(path, "bench") as recorder:
        identity = open_(f"mock://lab/{name}", TappedRigs(rigs, recorder.tap(name))).identify()
    driver = open_(f"replay://{path}", {})
    assert driver.identify() == identity
    with pytest.raises(ReplayError, match=r"the recording ends after \d exchanges, but .+ came"):
        driver.identify()
    assert open_(f"replay://{path}", {}).identify() == identity  # each opening begins anew


def test_any_password_will_do_and_none_is_in_the_file(record, path):
    record("spectrometer")
    assert "pencil" not in path.read_text()
    assert '"secret": true' in path.read_text()
    osa = open_osa(f"replay://{path}", {}, password="another one")
    assert osa.identify().startswith("YOKOGAWA")
    osa.start()


@pytest.mark.parametrize(
    "open_", [open_shaper, open_osa, open_hdx, open_panel, open_daq, open_plate]
)
def test_addresses_that_cannot_be_replayed(open_, record, path):
    record("shaper")
    with pytest.raises(ValueError, match=r"no instrument 'laser' \(there are: shaper"):
        open_(f"replay://{path}#laser", {})
    with pytest.raises(ValueError, match="cannot be read"):
        open_(f"replay://{path}.gone", {})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="cut off"):
        open_(f"replay://{path}", {})


# --- random bytes -----------------------------------------------------------------------------


class Parrot:
    """An instrument that answers what it was told to, whatever it hears."""

    def __init__(self, answers):
        self.answers = list(answers)

    def connect(self):
        return self

    def receive(self, data):
        return self.answers.pop(0)

    def close(self):
        pass


# what follows "AUTHENTICATE" is a password, of which no byte is kept
Answers = st.binary(max_size=40).filter(lambda answer: b"AUTHENTICATE" not in answer)
Talk = st.lists(st.tuples(st.binary(min_size=1, max_size=40), Answers), max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talk=Talk, data=st.data())
def test_random_bytes_are_replayed_however_they_are_cut(path, talk, data):
    path.unlink(missing_ok=True)
    parrot = Parrot(answer for _, answer in talk)
    with Recorder(path, "bench") as recorder:
        rigs = TappedRigs({"lab": Rig(None, {"parrot": parrot})}, recorder.tap("parrot"))
        adapter = open_visa("mock://lab/parrot", rigs, timeout_s=1)
        for sent, answer in talk:
            adapter.write_bytes(sent)
            assert adapter.read_bytes(len(answer)) == answer
    adapter = open_visa(f"replay://{path}", {}, timeout_s=1)
    for sent, answer in talk:
        cut = data.draw(st.integers(0, len(sent)))
        adapter.write_bytes(sent[:cut])
        adapter.write_bytes(sent[cut:])
        assert adapter.read_bytes(len(answer)) == answer
    with pytest.raises(VisaIOError):
        adapter.read_bytes(1)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.binary(min_size=1, max_size=40), data=st.data())
def test_a_flipped_bit_is_caught_anywhere(path, sent, data):
    path.unlink(missing_ok=True)
    with Recorder(path, "bench") as recorder:
        rigs = TappedRigs({"lab": Rig(None, {"parrot": Parrot([b""])})}, recorder.tap("parrot"))
        open_visa("mock://lab/parrot", rigs, timeout_s=1).write_bytes(sent)
    changed = bytearray(sent)
    changed[data.draw(st.integers(0, len(sent) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ReplayError, match="exchange 1, line 3"):
        open_visa(f"replay://{path}", {}, timeout_s=1).write_bytes(bytes(changed))


# --- no tap -----------------------------------------------------------------------------------


def test_where_nobody_listens_the_wire_is_bare(rigs):
    with open_http("mock://lab/shaper", rigs, timeout_s=1) as client:
        assert type(client) is FirmwareClient
    assert type(open_visa("mock://lab/spectrometer", rigs, timeout_s=1)) is FirmwareAdapter
    assert type(open_board("mock://lab/daq", rigs)) is SimulatedBoard
    assert type(open_audio("mock://lab/audio", rigs, timeout_s=1)) is SimulatedAudio
    assert type(open_audio("audio://Scarlett", rigs, timeout_s=1)) is SounddeviceProcess
    assert type(open_slm("mock://lab/slm", rigs, timeout_s=1)) is SimulatedDisplay
