"""Simulated instruments on sockets, asked with no code of ours."""

import json
import urllib.request

import httpx
import numpy as np
import pytest
import pyvisa

from drivers.mock.rig import circuit_rig
from profiles import format_profile
from served import LIMIT_S, served


def test_plain_pyvisa_logs_in_identifies_and_reads_a_trace(visa_address):
    manager = pyvisa.ResourceManager("@py")
    analyser = manager.open_resource(visa_address)
    try:
        analyser.read_termination = analyser.write_termination = "\r\n"
        analyser.timeout = 1000 * LIMIT_S
        assert analyser.query('OPEN "anonymous"') == "AUTHENTICATE CRAM-MD5."
        assert analyser.query("") == "READY"
        assert analyser.query("*IDN?").split(",")[:2] == ["YOKOGAWA", "AQ6370D"]
        analyser.write(":SENS:WAV:STAR 773NM;STOP 777NM;:SENS:SWE:POIN 101;:INIT")
        assert analyser.query(":STAT:OPER:COND?") == "1"
        levels = analyser.query_ascii_values(":TRAC:Y? TRA")
        axis = analyser.query_ascii_values(":TRACE:X? TRA")
        assert len(levels) == 101
        assert max(levels) == -210.0  # dBm: nothing reaches it
        np.testing.assert_allclose(axis, np.linspace(773e-9, 777e-9, 101))
        assert analyser.query("SYST:ERR?") == '0,"No error"'
    finally:
        analyser.close()
        manager.close()


def test_plain_pyvisa_plays_and_reads_a_waveform_and_asks_the_interlock(plant):
    board, contact = "mock://circuit/redpitaya", "mock://circuit/interlock"
    with served({"circuit": circuit_rig(plant)}, [board, contact]) as there:
        manager = pyvisa.ResourceManager("@py")
        ends = {"read_termination": "\r\n", "write_termination": "\r\n", "timeout": 1000 * LIMIT_S}
        daq = manager.open_resource(there.addresses[board], **ends)
        interlock = manager.open_resource(there.addresses[contact], **ends)
        try:
            assert daq.query("*IDN?").startswith("REDPITAYA,INSTR")
            for command in (
                "GEN:RST;:ACQ:RST",
                "SOUR1:FUNC ARBITRARY;FREQ:FIX 61.03515625",
                "SOUR1:BURS:STAT BURST;NCYC 1;NOR 1",
                "SOUR1:VOLT 1",
                f"SOUR1:TRAC:DATA:DATA {','.join(['0.5'] * 16_384)}",
                "ACQ:DEC 125;:ACQ:TRIG:DLY 8192;:ACQ:DATA:FORMAT ASCII;UNITS VOLTS",
                "ACQ:START;:ACQ:TRIG AWG_PE",
                "OUTPUT1:STATE ON",
                "SOUR1:TRIG:INT",
            ):
                daq.write(command)
            assert daq.query("ACQ:TRIG:STAT?") == "TD"
            read = np.array(daq.query("ACQ:SOUR1:DATA?").strip("{}").split(","), dtype=float)
            assert daq.query("SYST:ERR?") == '0,"No error"'
            assert interlock.query("DIG:PIN? DIO0_P") == "1"
        finally:
            daq.close()
            interlock.close()
            manager.close()
    # an amplifier of 10 before the plant, which halves and adds 1 V, and a probe of 1:10 behind
    np.testing.assert_allclose(read, (0.5 * 10 / 2 + 1) / 10, atol=1e-3)


PROFILE = format_profile(193.1 + 0.001 * np.arange(20), np.full(20, 10.0), np.zeros(20), 1)


def test_plain_httpx_loads_a_profile_and_reads_it_back(url, plant):
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/waveshaper/devinfo").json()["model"] == "WaveShaper 1000A"
        request = {"type": "wsp", "wsp": PROFILE}
        assert client.post("/waveshaper/loadprofile", json=request).json()["rc"] == 0
        assert client.get("/waveshaper/getprofile").text == PROFILE
        assert client.get("/elsewhere").status_code == 404
        assert client.head("/waveshaper/devinfo").status_code == 404
        assert client.post("/waveshaper/loadprofile", content=iter([b"{", b"}"])).json()["rc"] != 0
    assert abs(plant.transmission[0]) == pytest.approx(10**-0.5)


def test_plain_urllib_blocks_the_light(url, plant):
    body = json.dumps({"type": "blockall", "port": 1}).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/waveshaper/loadprofile", body, timeout=LIMIT_S) as answer:
        assert json.load(answer)["rc"] == 0
    assert not plant.transmission.any()
