"""The WaveShaper's driver: exact bytes, limits before the first byte, faults, safe state."""

import json
import threading

import httpx
import numpy as np
import pytest

from drivers.abort import Abort
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
from drivers.shapers.waveshaper import WaveShaperA

DEVICE = {
    "model": "WaveShaper 1000A",
    "sno": "SN201204",
    "ver": "2.7.4",
    "startfreq": 191.25,
    "stopfreq": 196.275,
    "portcount": 1,
    "rc": 0,
    "rctext": "",
}
BLOCK = b'{"type":"blockall","port":1}'


class Recorder(httpx.BaseTransport):
    """Record requests; answer with what the test has put into `answers` or rc 0."""

    def __init__(self):
        self.requests = []
        self.answers = {}

    def handle_request(self, request):
        self.requests.append((request.method, request.url.path, request.read()))
        self.headers = request.headers
        answer = self.answers.get(request.url.path, b'{"rc":0,"rctext":"","sno":"SN201204"}')
        if isinstance(answer, Exception):
            raise answer
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        return httpx.Response(status, content=body)


@pytest.fixture
def wire():
    recorder = Recorder()
    recorder.answers["/waveshaper/devinfo"] = json.dumps(DEVICE).encode()
    return recorder


@pytest.fixture
def make(wire):
    clients = []

    def make(**settings):
        clients.append(httpx.Client(transport=wire, base_url="http://10.0.0.2", timeout=3))
        return WaveShaperA(clients[-1], **{"lines": 10, "settling_time_s": 0, **settings})

    yield make
    for client in clients:
        client.close()


def test_load_sends_exactly_these_bytes(wire, make):
    attenuation = np.array([0, 0.5, 1 / 3, 3.01, 60, 40, 0.00004, 0.00005, 59.99999, 10.0])
    phase = np.array([0, np.pi, -np.pi, 1, -1, 6.28, -6.28, 0, 2 * np.pi, -2 * np.pi])
    make(first_line_thz=193.1).load(attenuation, phase)
    text = (
        "193.1000\t0.0000\t0.0000\t1\n193.1010\t0.5000\t3.1416\t1\n"
        "193.1020\t0.3333\t-3.1416\t1\n193.1030\t3.0100\t1.0000\t1\n"
        "193.1040\t60.0000\t-1.0000\t1\n193.1050\t40.0000\t6.2800\t1\n"
        "193.1060\t0.0000\t-6.2800\t1\n193.1070\t0.0001\t0.0000\t1\n"
        "193.1080\t60.0000\t6.2832\t1\n193.1090\t10.0000\t-6.2832\t1\n"
    )
    body = json.dumps({"type": "wsp", "wsp": text}, separators=(",", ":")).encode()
    assert wire.requests == [("POST", "/waveshaper/loadprofile", body)]
    assert wire.headers["content-type"] == "application/json"
    assert wire.headers["content-length"] == str(len(body))
    assert wire.headers["host"] == "10.0.0.2"


def test_start_identifies_checks_and_blocks(wire, make):
    make(expect_idn=r"WaveShaper (1000|4000)A SN\d+ ver 2\.").start()
    assert wire.requests == [
        ("GET", "/waveshaper/devinfo", b""),
        ("POST", "/waveshaper/loadprofile", BLOCK),
    ]


def test_identify(make):
    assert make().identify() == "WaveShaper 1000A SN201204 ver 2.7.4"


def test_profile_reads_the_text_back(wire, make):
    wire.answers["/waveshaper/getprofile"] = b"193.1000\t1.5000\t-0.5000\t1\n"
    profile = make().profile()
    assert (profile.attenuation_db, profile.phase_rad, profile.port) == (1.5, -0.5, 1)
    assert wire.requests == [("GET", "/waveshaper/getprofile", b"")]


@pytest.mark.parametrize(
    ("attenuation", "phase", "named"),
    [
        (np.full(10, 60.001), np.zeros(10), "attenuation: 60.001 dB .* outside .* 60. dB"),
        (np.full(10, -0.001), np.zeros(10), r"attenuation: -0.001 dB .* \[0, 60\] dB"),
        (np.full(10, np.nan), np.zeros(10), "attenuation: nan dB"),
        (np.zeros(10), np.full(10, 6.3), "phase: 6.3 rad"),
        (np.zeros(10), np.full(10, -np.inf), "phase: -inf rad"),
        (np.zeros(9), np.zeros(10), "attenuation: shape"),
        (np.zeros((1, 10)), np.zeros(10), "attenuation: shape"),
        (np.zeros(10), np.zeros(10, dtype=complex), "phase: dtype complex128"),
    ],
)
def test_refused_values_send_nothing(wire, make, attenuation, phase, named):
    shaper = make(name="left shaper")
    with pytest.raises(LimitError, match=f"left shaper: {named}"):
        shaper.load(attenuation, phase)
    assert wire.requests == []


def test_limits_can_be_narrowed_and_never_widened(wire, make):
    with pytest.raises(LimitError, match=r"31 dB .* \[0, 30\] dB"):
        make(attenuation=(0, 30)).load(np.full(10, 31.0), np.zeros(10))
    with pytest.raises(LimitError, match="phase"):
        make(phase=(0, 3.2)).load(np.zeros(10), np.full(10, -0.1))
    assert wire.requests == []
    with pytest.raises(ValueError, match="wider"):
        make(attenuation=(0, 70))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"first_line_thz": 191.249}, "lines: 191.249 to"),
        ({"first_line_thz": 196.267}, r"196.276 THz is outside \[191.250, 196.275\] THz"),
        ({"first_line_thz": 193.1004}, "grid"),
        ({"lines": 9}, "fewer than 10"),
        ({"port": 0}, "port: 0"),
        ({"port": 5}, "port: 5"),
    ],
)
def test_impossible_settings_are_refused_at_once(wire, make, settings, named):
    with pytest.raises(LimitError, match=named):
        make(**settings)
    assert wire.requests == []


def test_whole_band_fits(make):
    shaper = make(first_line_thz=191.250, lines=5026)
    assert shaper.frequencies_thz[[0, -1]].tolist() == [191.25, 196.275]


@pytest.mark.parametrize(
    ("device", "settings", "error", "named"),
    [
        ({"stopfreq": 192.92}, {}, LimitError, "outside this device.s .*192.920. THz"),
        ({"startfreq": 194.0}, {}, LimitError, "outside this device's"),
        ({}, {"port": 2}, LimitError, r"port: 2 is outside this device's \[1, 1\]"),
        ({"model": "WaveShaper 500"}, {"expect_idn": "1000A"}, IdentityError, "500 SN201204"),
        ({"portcount": None}, {}, ProtocolError, "devinfo"),
        ({"rc": 3, "rctext": "not ready"}, {}, InstrumentRefused, "rc 3: not ready"),
    ],
)
def test_start_refuses_the_wrong_device_without_touching_it(
    wire, make, device, settings, error, named
):
    wire.answers["/waveshaper/devinfo"] = json.dumps({**DEVICE, **device}).encode()
    with pytest.raises(error, match=named):
        make(**settings).start()
    assert [method for method, _, _ in wire.requests] == ["GET"]


def test_an_incomplete_devinfo_is_a_protocol_error(wire, make):
    wire.answers["/waveshaper/devinfo"] = b'{"rc":0}'
    with pytest.raises(ProtocolError, match="lacks 'model'"):
        make().identify()


@pytest.mark.parametrize(
    ("answer", "error", "named"),
    [
        (httpx.ReadTimeout("late"), InstrumentTimeout, "no answer within 3 s"),
        (httpx.ConnectTimeout("late"), InstrumentTimeout, "no answer"),
        (httpx.ConnectError("refused"), ConnectionLost, "refused"),
        (httpx.RemoteProtocolError("disconnected"), ConnectionLost, "disconnected"),
        ((500, b"broken"), InstrumentRefused, "HTTP status 500: broken"),
        ((302, b""), InstrumentRefused, "HTTP status 302"),
        (b"<html>", ProtocolError, "not JSON"),
        (b"[0]", ProtocolError, "no rc"),
        (b'{"rctext":""}', ProtocolError, "no rc"),
        (b'{"rc":-1,"rctext":"bad profile"}', InstrumentRefused, "rc -1: bad profile"),
    ],
)
def test_what_the_wire_does_is_translated_once(wire, make, answer, error, named):
    wire.answers["/waveshaper/loadprofile"] = answer
    with pytest.raises(error, match=named) as caught:
        make(name="s7").load(np.zeros(10), np.zeros(10))
    assert caught.value.instrument == "s7"


def test_the_callers_arrays_are_not_touched(shaper):
    attenuation, phase = np.full(20, 60.0), np.full(20, -1.0)
    for array in (attenuation, phase):
        array.setflags(write=False)
    shaper.load(attenuation, phase)
    assert (attenuation == 60.0).all()
    assert (phase == -1.0).all()


def test_settling_time_is_waited_after_each_profile(make, monkeypatch):
    waited = []
    monkeypatch.setattr(Abort, "wait", lambda _, *wait: waited.append(wait))
    make(settling_time_s=0.5).load(np.zeros(10), np.zeros(10))
    assert waited == [("settling", 0.5)]


def test_an_abort_ends_the_settling_at_once(make):
    shaper = make(settling_time_s=60.0)
    settling, load, errors = threading.Event(), shaper.load, []

    def settle():
        try:
            settling.set()
            load(np.zeros(10), np.zeros(10))
        except Aborted as error:
            errors.append(str(error))

    thread = threading.Thread(target=settle)
    thread.start()
    settling.wait(10)
    shaper.abort()
    thread.join(10)
    assert not thread.is_alive()
    assert errors in (["shaper: settling: aborted"], ["shaper: load: aborted"])


# --- against the simulated instrument ---------------------------------------------------------


def test_light_follows_the_profile(shaper, plant):
    attenuation = np.linspace(0, 38, 20)
    shaper.load(attenuation, np.full(20, np.pi))
    expected = -(10 ** (-attenuation / 20))
    np.testing.assert_allclose(plant.transmission, expected, rtol=2e-5)
    profile = shaper.profile()
    np.testing.assert_allclose(profile.attenuation_db, attenuation, atol=5e-5)


def test_safe_state_is_seen_at_the_far_end(shaper, rig, plant):
    firmware = rig.instruments["shaper"]
    shaper.start()
    shaper.load(np.zeros(20), np.zeros(20))
    assert not firmware.blocked
    assert np.abs(plant.transmission).sum() > 0
    shaper.shutdown()
    assert firmware.blocked
    assert not plant.transmission.any()


def test_leaving_by_an_exception_blocks_the_light(make_shaper, rig, plant):
    def interrupted():
        with make_shaper() as shaper:
            shaper.start()
            shaper.load(np.zeros(20), np.zeros(20))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert rig.instruments["shaper"].profiles_loaded == 1
    assert rig.instruments["shaper"].blocked
    assert not plant.transmission.any()


def test_limits_hold_at_the_far_end(shaper, rig):
    shaper.load(np.full(20, 60.0), np.full(20, 2 * np.pi))
    with pytest.raises(LimitError):
        shaper.load(np.full(20, 61.0), np.zeros(20))
    firmware = rig.instruments["shaper"]
    assert (firmware.profiles_loaded, firmware.out_of_limits) == (1, 0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.TIMEOUT, InstrumentTimeout),
        (Fault.DROP, ConnectionLost),
        (Fault.GARBAGE, ProtocolError),
        (Fault.TRUNCATE, ProtocolError),
        (Fault.REFUSE, InstrumentRefused),
    ],
)
def test_each_fault_is_one_clear_error_and_the_next_call_works(shaper, rig, fault, error):
    shaper.start()
    rig.inject("shaper", fault)
    with pytest.raises(error, match="shaper: loadprofile") as caught:
        shaper.load(np.zeros(20), np.zeros(20))
    assert caught.value.instrument == "shaper"
    shaper.load(np.full(20, 3.0), np.zeros(20))
    assert shaper.profile().attenuation_db.tolist() == [3.0] * 20


def test_another_instrument_at_the_address(shaper, rig):
    rig.inject("shaper", Fault.IDENTITY)
    with pytest.raises(IdentityError, match="OtherShaper 9"):
        shaper.start()
    shaper.start()


def test_close_releases_the_connection_even_if_blocking_fails(shaper, rig):
    rig.inject("shaper", Fault.DROP)
    with pytest.raises(ConnectionLost):
        shaper.close()
    with pytest.raises(ConnectionLost, match="closed"):
        shaper.identify()
    shaper.close()
