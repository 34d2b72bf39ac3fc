"""The simulated WaveShaper: what it answers, refuses, counts, and does to the light."""

import json

import numpy as np
import pytest

from drivers.mock.faults import AnswerLate, ConnectionDropped, Fault
from drivers.mock.firmware.waveshaper import WaveShaperFirmware
from profiles import format_profile


@pytest.fixture
def firmware(plant):
    return WaveShaperFirmware(plant.set_transmission)


def send(firmware, request):
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    status, kind, answer = firmware.handle("POST", "/waveshaper/loadprofile", body)
    assert (status, kind) == (200, "application/json")
    return json.loads(answer)


def wsp(attenuation, phase=None, port=1, first=193.1):
    frequencies = first + 0.001 * np.arange(len(attenuation))
    phase = np.zeros(len(attenuation)) if phase is None else phase
    return {"type": "wsp", "wsp": format_profile(frequencies, attenuation, phase, port)}


def test_it_powers_up_blocked(firmware, plant):
    assert firmware.blocked
    assert not plant.transmission.any()
    assert len(plant.grids[-1]) == 5026
    assert plant.grids[-1][[0, -1]].tolist() == [191.25, 196.275]


def test_devinfo(firmware):
    status, kind, body = firmware.handle("GET", "/waveshaper/devinfo", b"")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {
        "rc": 0,
        "rctext": "",
        "sno": "SN201204",
        "model": "WaveShaper 1000A",
        "ver": "2.7.4",
        "startfreq": 191.25,
        "stopfreq": 196.275,
        "ip": "127.0.0.1",
        "portcount": 1,
    }


def test_what_a_profile_does_to_the_light(firmware, plant):
    attenuation = np.array([0, -3, 20, 40, 40.0001, 60, 6, 6, 6, 6.0])
    phase = np.array([0, 0, 0, 0, 0, 0, 0, np.pi / 2, np.pi, -2 * np.pi])
    assert send(firmware, wsp(attenuation, phase))["rc"] == 0
    field = 10 ** (-6 / 20)
    expected = [1, 1, 0.1, 0.01, 0, 0, field, 1j * field, -field, field]
    np.testing.assert_allclose(plant.transmission, expected, atol=1e-5)
    assert plant.transmission[4] == 0
    assert (firmware.profiles_loaded, firmware.out_of_limits) == (1, 1)
    assert not firmware.blocked


def test_port_0_blocks(firmware, plant):
    open_lines = wsp(np.zeros(10))["wsp"]
    blocked = wsp(np.zeros(10), port=0, first=193.11)["wsp"]
    assert send(firmware, {"type": "wsp", "wsp": open_lines + blocked})["rc"] == 0
    assert plant.transmission.tolist() == [1] * 10 + [0] * 10


def test_block_all_and_transmit(firmware, plant):
    assert send(firmware, {"type": "transmit", "port": 1})["rc"] == 0
    assert not firmware.blocked
    assert (plant.transmission == 1).all()
    assert len(plant.transmission) == 5026
    send(firmware, wsp(np.zeros(10)))
    assert send(firmware, {"type": "blockall", "port": 1})["rc"] == 0
    assert firmware.blocked
    assert not plant.transmission.any()


def test_the_same_grid_is_passed_as_the_same_object(firmware, plant):
    send(firmware, wsp(np.zeros(10)))
    send(firmware, wsp(np.ones(10)))
    assert plant.grids[-1] is plant.grids[-2]
    send(firmware, wsp(np.ones(11)))
    assert plant.grids[-1] is not plant.grids[-2]


def test_getprofile_gives_the_text_back(firmware):
    text = wsp(np.linspace(0, 35, 12), np.linspace(-3, 3, 12))["wsp"]
    send(firmware, {"type": "wsp", "wsp": text})
    assert firmware.handle("GET", "/waveshaper/getprofile", b"") == (
        200,
        "text/plain",
        text.encode(),
    )


GOOD = wsp(np.zeros(10))["wsp"]


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (b"{", "malformed request"),
        (b"[1]", "malformed request"),
        ({}, "malformed request: 'type'"),
        ({"type": "wsp"}, "malformed request: 'wsp'"),
        ({"type": "wsp", "wsp": GOOD + "193.11\tx\t0\t1\n"}, "line 11"),
        ({"type": "wsp", "wsp": ""}, "frequencies outside"),
        ({"type": "gaussian", "center": 193.1}, "'gaussian' is not supported"),
        (wsp(np.zeros(10), first=191.249), "frequencies outside 191.250-196.275 THz"),
        (wsp(np.zeros(10), first=196.267), "frequencies outside"),
        ({"type": "wsp", "wsp": GOOD + "193.1110\t0\t0\t1\n"}, "contiguous"),
        ({"type": "wsp", "wsp": GOOD.replace("193.1050\t0.0000", "193.105\tnan")}, "finite"),
        (wsp(np.zeros(10), port=2), "port outside 0-1"),
        (wsp(np.zeros(9)), "narrower than 10 GHz"),
        ({"type": "wsp", "wsp": GOOD + "193.1100\t0\t0\t0\n"}, "narrower than 10 GHz"),
    ],
)
def test_a_refused_request_changes_nothing(firmware, plant, request_, named):
    send(firmware, wsp(np.full(10, 20.0)))
    before = plant.transmission
    answer = send(firmware, request_)
    assert answer["rc"] != 0
    assert named in answer["rctext"]
    assert plant.transmission is before
    assert firmware.profiles_loaded == 1


def test_a_compact_request_is_carried_out_and_refused_like_any_other(firmware, plant):
    def compact(request):
        return json.dumps(request, separators=(",", ":")).encode()

    attenuation = np.linspace(0, 41, 12)
    phase = np.linspace(-np.pi, np.pi, 12)
    for shift in (0.0, 1.0):  # the second time on a grid that is known
        request = wsp(attenuation + shift, phase)
        assert send(firmware, request)["rc"] == 0
        expected = plant.transmission
        assert send(firmware, compact(request))["rc"] == 0
        assert plant.transmission is not expected
        assert np.array_equal(plant.transmission, expected)
    counted = firmware.out_of_limits
    assert send(firmware, compact(wsp(np.full(12, 61.0))))["rc"] == 0
    assert firmware.out_of_limits == counted + 12
    before = plant.transmission
    for wrong, named in (
        (wsp(np.zeros(12), port=2), "port outside 0-1"),
        (wsp(np.zeros(12), first=191.2), "frequencies outside"),
        (wsp(np.zeros(9)), "narrower than 10 GHz"),
        ({"type": "wsp", "wsp": wsp(np.zeros(12))["wsp"].replace("193.105", "193.205")}, "contig"),
    ):
        assert named in send(firmware, compact(wrong))["rctext"]
    assert plant.transmission is before


def test_values_out_of_limits_are_counted(firmware):
    phase = np.array([6.3, -6.3, *np.full(8, 2 * np.pi)])
    send(firmware, wsp(np.array([-1, 61, *np.full(8, 60)]), phase))
    assert firmware.out_of_limits == 2


def test_unknown_paths_and_methods(firmware):
    assert firmware.handle("GET", "/", b"")[0] == 404
    assert firmware.handle("GET", "/waveshaper/loadprofile", b"")[0] == 404


def test_faults_strike_once_and_where_asked(firmware, plant):
    firmware.inject(Fault.DROP, on="loadprofile")
    firmware.inject(Fault.TIMEOUT, on="loadprofile")
    assert firmware.handle("GET", "/waveshaper/devinfo", b"")[0] == 200
    with pytest.raises(ConnectionDropped):
        send(firmware, wsp(np.zeros(10)))
    assert firmware.blocked
    with pytest.raises(AnswerLate):
        send(firmware, wsp(np.zeros(10)))
    assert not firmware.blocked
    firmware.inject(Fault.REFUSE)
    assert send(firmware, wsp(np.full(10, 20.0)))["rc"] == -1
    assert (plant.transmission == 1).all()
    assert send(firmware, wsp(np.full(10, 20.0)))["rc"] == 0
